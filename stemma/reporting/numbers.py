"""The numbers of a corpus by SQL: over the state while a run makes it, over the published file for the report.

The queries name relations in braces; STATE and PUBLISHED say what these are in the one and the other.
"""

from collections.abc import Mapping
from typing import Any

import duckdb

Row = dict[str, Any]

# Each has at least the columns that the queries below name.
STATE = {
    "raw": "state.raw",
    "cleaned": "(SELECT * FROM state.cleaned WHERE verdicts IS NULL)",
    "rejections": """(SELECT document_id, verdict.rule AS rule
        FROM (SELECT document_id, unnest(verdicts) AS verdict FROM state.cleaned WHERE verdicts IS NOT NULL))""",
    "members": "state.deduplicated",
    "chunked": "state.chunked",
    "embedded": "state.embedded",
    "errors": "state.errors",
    "runs": "state.runs",
}
PUBLISHED = {
    "raw": "main.raw",
    "cleaned": "(SELECT *, scores.characters AS characters FROM main.cleaned)",
    "rejections": "lineage.rejections",
    "members": "lineage.members",
    "chunked": "main.chunked",
    "embedded": "main.embedded",
    "errors": "lineage.errors",
    "runs": "lineage.runs",
}

# Classes of a text's length: this many for each power of ten.
CLASSES = 5
SAMPLED_VECTORS = 1_200
# Of other formats, languages and rules only the sum is told.
MOST_ROWS = 6

FORMATS = """SELECT media_type AS name, count(*) AS documents, sum(size_bytes)::BIGINT AS bytes FROM {raw}
    GROUP BY media_type ORDER BY documents DESC, name"""
LANGUAGES = """SELECT coalesce(language, 'unknown') AS name, count(*) AS documents FROM {cleaned}
    GROUP BY ALL ORDER BY documents DESC, name"""
LENGTHS = f"""SELECT floor(log10(characters) * {CLASSES} + 1e-9)::INTEGER AS class, count(*) AS documents
    FROM {{cleaned}} WHERE characters > 0 GROUP BY ALL ORDER BY class"""
MEDIAN_LENGTH = "SELECT quantile_disc(characters, 0.5) FROM {cleaned} WHERE characters > 0"
REJECTED = """SELECT rule AS name, count(DISTINCT document_id) AS documents FROM {rejections}
    GROUP BY rule ORDER BY documents DESC, name"""
TOKENS = "SELECT tokens, count(*) AS chunks FROM {chunked} GROUP BY tokens ORDER BY tokens"
FUNNEL = """SELECT (SELECT count(*) FROM {raw}) AS raw, (SELECT count(*) FROM {cleaned}) AS cleaned,
        (SELECT count(*) FROM {members} WHERE kept) AS deduplicated,
        (SELECT count(DISTINCT document_id) FROM {chunked}) AS chunked_documents,
        (SELECT count(DISTINCT document_id) FROM {embedded}) AS embedded_documents,
        (SELECT count(*) FROM {chunked}) AS chunks, (SELECT count(*) FROM {embedded}) AS vectors,
        (SELECT count(DISTINCT document_id) FROM {rejections}) AS rejected,
        (SELECT count(*) FROM {members} WHERE NOT kept) AS duplicates"""
# What could not even be read has no id.
FUNNEL_ERRORS = """SELECT stage, count(DISTINCT coalesce(document_id::VARCHAR, concat(uri, ' ', record))) AS documents
    FROM {errors} GROUP BY stage"""

# What deduplication found: how much is repeated how often, and how old it is.
_MEMBERS = """(SELECT d.cluster_id, d.cluster_size, d.kept, d.method, c.characters, c.document_date
    FROM {members} AS d JOIN {cleaned} AS c USING (document_id))"""
DUPLICATES = f"""SELECT count(*) AS documents, count(*) FILTER (kept) AS kept,
        count(DISTINCT cluster_id) FILTER (cluster_size > 1) AS families,
        coalesce(max(cluster_size), 0) AS largest_family,
        coalesce(sum(characters) FILTER (NOT kept) / nullif(sum(characters), 0), 0)::DOUBLE AS share_repeated,
        min(document_date) AS oldest_date,
        quantile_disc(document_date, 0.5) AS median_date, max(document_date) AS newest_date
    FROM {_MEMBERS}"""
METHODS = f"SELECT method, count(*) FROM {_MEMBERS} WHERE NOT kept GROUP BY method ORDER BY method"
# By powers of two, as the weights of corpus.weights: 1, 2, 3 to 4, 5 to 8 …
SIZES = f"""SELECT up_to, count(DISTINCT cluster_id) AS families, count(*) AS documents,
        sum(characters)::BIGINT AS characters, coalesce(sum(characters) FILTER (NOT kept), 0)::BIGINT AS repeated
    FROM (SELECT *, pow(2, ceil(log2(cluster_size)))::BIGINT AS up_to FROM {_MEMBERS})
    GROUP BY up_to ORDER BY up_to"""
YEARS = f"""SELECT year(document_date)::INTEGER AS year, count(*) FILTER (kept) AS kept,
        count(*) FILTER (NOT kept) AS removed
    FROM {_MEMBERS} GROUP BY year ORDER BY year NULLS LAST"""

# The texts with the smallest hashes, so that the sample changes no more than the corpus does.
SAMPLE = f"""SELECT text_hash, min(chunk_id) AS chunk_id FROM {{embedded}} GROUP BY text_hash
    ORDER BY hash(text_hash), text_hash LIMIT {SAMPLED_VECTORS}"""

# What a row costs is known from the run that computed most of them, by the same recipe where one computed a good
# part of its rows: a run that computes few spends most of its time on something else.
SAVED = """WITH timed AS (SELECT *, epoch(finished_at - started_at) AS seconds FROM {runs})
    SELECT r.run_id, r.dataset, r.rows_reused, m.run_id AS measured_in, m.rows_computed AS rows_measured,
        m.seconds / m.rows_computed AS seconds_a_row,
        coalesce(r.rows_reused * m.seconds / m.rows_computed, 0)::DOUBLE AS seconds_saved
    FROM timed AS r LEFT JOIN timed AS m ON m.dataset = r.dataset AND m.rows_computed > 0
    WHERE list_contains($runs, r.run_id)
    QUALIFY row_number() OVER (PARTITION BY r.run_id, r.dataset ORDER BY
        m.recipe = r.recipe AND m.rows_computed * 10 >= m.rows_in DESC, m.rows_computed DESC, m.started_at DESC) = 1"""


def rows(
    connection: duckdb.DuckDBPyConnection,
    query: str,
    relations: Mapping[str, str],
    parameters: dict[str, Any] | None = None,
) -> list[Row]:
    """Return a query's rows as dictionaries."""
    cursor = connection.execute(query.format(**relations), parameters or {})
    names = [column[0] for column in cursor.description]
    return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]


def numbers(connection: duckdb.DuckDBPyConnection, relations: Mapping[str, str], dataset: str) -> Row:
    """Return what is told of a dataset in pictures (see stemma/reporting/pictures.py), except for its vectors.

    - raw: `formats`, rows (name, documents, bytes);
    - cleaned: `lengths`, rows (class, documents); `median_length` in characters; `languages` and `rejected`, rows
      (name, documents);
    - deduplicated: the columns of DUPLICATES; `removed`, documents by method; `sizes`, for families of up to 1, 2, 4,
      8 … documents their number, documents, characters and, of these, characters of the documents that were removed
      (repeated); `years`, for each and for None the documents kept and removed;
    - chunked: `tokens`, rows (tokens, chunks);
    - embedded: `funnel`, the columns of FUNNEL; `errors`, documents by the stage that failed for them (`raw`: what
      could not be read).
    """
    return _NUMBERS[dataset](connection, relations)


def _raw(connection: duckdb.DuckDBPyConnection, relations: Mapping[str, str]) -> Row:
    return {"formats": rows(connection, FORMATS, relations)}


def _cleaned(connection: duckdb.DuckDBPyConnection, relations: Mapping[str, str]) -> Row:
    median = connection.execute(MEDIAN_LENGTH.format(**relations)).fetchone()
    return {
        "lengths": rows(connection, LENGTHS, relations),
        "median_length": median[0] if median else None,
        "languages": rows(connection, LANGUAGES, relations),
        "rejected": rows(connection, REJECTED, relations),
    }


def _deduplicated(connection: duckdb.DuckDBPyConnection, relations: Mapping[str, str]) -> Row:
    (found,) = rows(connection, DUPLICATES, relations)
    return found | {
        "removed": dict(connection.execute(METHODS.format(**relations)).fetchall()),
        "sizes": rows(connection, SIZES, relations),
        "years": rows(connection, YEARS, relations),
    }


def _chunked(connection: duckdb.DuckDBPyConnection, relations: Mapping[str, str]) -> Row:
    return {"tokens": rows(connection, TOKENS, relations)}


def _embedded(connection: duckdb.DuckDBPyConnection, relations: Mapping[str, str]) -> Row:
    (funnel,) = rows(connection, FUNNEL, relations)
    errors = {row["stage"]: row["documents"] for row in rows(connection, FUNNEL_ERRORS, relations)}
    return {"funnel": funnel, "errors": errors}


_NUMBERS = {
    "raw": _raw,
    "cleaned": _cleaned,
    "deduplicated": _deduplicated,
    "chunked": _chunked,
    "embedded": _embedded,
}


def saved(
    connection: duckdb.DuckDBPyConnection, relations: Mapping[str, str], runs: list[str]
) -> dict[tuple[str, str], Row]:
    """Return the columns of SAVED for each (run, dataset) of these runs.

    `seconds_saved` is an estimate: rows reused × seconds a row of the run `measured_in`, which computed most; 0, and
    the others null, where no run has computed any.
    """
    found = rows(connection, SAVED, relations, {"runs": runs})
    return {(row["run_id"], row["dataset"]): row for row in found}
