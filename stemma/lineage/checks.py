"""The blocking checks: queries over the published tables that return the offending rows, none when all is well."""

from dataclasses import dataclass

import duckdb

EXAMPLES = 3

BLOCKING = {
    "every_document_in_one_place": """
        SELECT r.document_id, r.uri, (k.document_id IS NOT NULL)::INT + (d.document_id IS NOT NULL)::INT
            + (e.document_id IS NOT NULL)::INT AS places
        FROM main.raw AS r
        LEFT JOIN (SELECT DISTINCT document_id FROM main.embedded) AS k USING (document_id)
        LEFT JOIN (SELECT DISTINCT document_id FROM lineage.decisions) AS d USING (document_id)
        LEFT JOIN (SELECT DISTINCT document_id FROM lineage.errors) AS e USING (document_id)
        WHERE places <> 1""",
    "one_decision_each": """
        SELECT document_id, min(stage) AS stage, min(rule) AS rule FROM lineage.decisions GROUP BY document_id
        HAVING count(DISTINCT stage) > 1 OR count(*) > count(DISTINCT rule)""",
    "unique_document_ids": """
        SELECT 'raw' AS dataset, document_id FROM main.raw GROUP BY ALL HAVING count(*) > 1
        UNION ALL SELECT 'cleaned', document_id FROM main.cleaned GROUP BY ALL HAVING count(*) > 1
        UNION ALL SELECT 'deduplicated', document_id FROM main.deduplicated GROUP BY ALL HAVING count(*) > 1""",
    "unique_chunk_ids": """
        SELECT 'chunked' AS dataset, chunk_id FROM main.chunked GROUP BY ALL HAVING count(*) > 1
        UNION ALL SELECT 'embedded', chunk_id FROM main.embedded GROUP BY ALL HAVING count(*) > 1""",
    "no_orphans": """
        SELECT 'cleaned' AS dataset, document_id FROM main.cleaned ANTI JOIN main.raw USING (document_id)
        UNION ALL SELECT 'chunked', document_id FROM main.chunked ANTI JOIN main.cleaned USING (document_id)
        UNION ALL SELECT 'embedded', document_id FROM main.embedded ANTI JOIN main.chunked USING (chunk_id)
        UNION ALL SELECT 'duplicates', document_id FROM (FROM lineage.duplicates WHERE method <> 'bloom') AS x
            ANTI JOIN (SELECT document_id AS kept_document_id FROM lineage.members WHERE kept)
            USING (kept_document_id)""",
    "every_chunk_embedded": """
        SELECT chunk_id, document_id FROM main.chunked ANTI JOIN main.embedded USING (chunk_id)
        WHERE document_id NOT IN (SELECT document_id FROM lineage.errors WHERE document_id IS NOT NULL)""",
}

DESCRIPTIONS = {
    "equals_rebuild": "The corpus is, row for row, what a rebuild from nothing gives; made by the job audit.",
    "every_document_in_one_place": "Each document of raw is kept to the end, in decisions, or in errors: one of them.",
    "one_decision_each": "No document was removed by two stages, nor twice by one rule.",
    "unique_document_ids": "No document stands in the dataset twice.",
    "unique_chunk_ids": "No chunk stands in the dataset twice.",
    "no_orphans": "Every row has the row above that it was made of; every duplicate a kept document.",
    "every_chunk_embedded": "Every chunk has its vector.",
    "vectors_sound": "No vector is zero or holds what is no number, looked at in a sample.",
    "vectors_distinct": "Hardly any two texts have one vector, looked at in a sample.",
    "vectors_spread": "The vectors do not all point one way, nor lie in a plane, looked at in a sample.",
    "vectors_stable": "The vectors of the same texts are those of the last publication, looked at in a sample.",
    "no_document_lost": "Every document of the dataset above is here or in lineage.errors.",
    "every_removal_witnessed": "Every document removed is at least as similar as the threshold to one that was kept.",
    "drop_ratio_steady": "The share of documents that cleaning drops is about that of the runs before.",
    "lengths_steady": "The median length of the documents is about that of the runs before.",
    "languages_steady": "The languages of the documents are about those of the runs before.",
    "duplicate_ratio_steady": "The share of duplicates is about that of the runs before.",
    "spans_exact": "A chunk's text is exactly cleaned.text[char_start:char_end], looked at in a sample.",
}


@dataclass(frozen=True)
class Check:
    """The outcome of one check: how many rows offend, and the first of them."""

    name: str
    passed: bool
    detail: str


def run_check(connection: duckdb.DuckDBPyConnection, name: str, query: str) -> Check:
    """Run a check on the connection's default database."""
    rows = connection.execute(query).fetchmany(EXAMPLES + 1)
    return described(name, [str(tuple(str(value) for value in row)) for row in rows])


def described(name: str, offending: list[str]) -> Check:
    """Return the outcome of a check that found these rows, the first of them named."""
    if not offending:
        return Check(name, True, "no offending row")
    return Check(name, False, ", ".join(offending[:EXAMPLES]) + (", …" if len(offending) > EXAMPLES else ""))
