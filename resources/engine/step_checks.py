"""The blocking checks of each step: queries over the state that return the offending rows, none when all is well.

They run right after a dataset's update, so that a fault stops the run at the step that made it. The last step,
`embedded`, is checked as its readers see it: by the checks of the publication (stemma/lineage/checks.py).
"""

from stemma.lineage.checks import BLOCKING, Check, run_check
from stemma.resources.engine.chunked import CHUNK_TEXTS, chunked, cleaned_bodies
from stemma.resources.engine.rowwise import segments_of
from stemma.resources.engine.run import Run
from stemma.resources.memo import joined_as_written

# Documents whose chunks are compared with their text, chosen by content: enough to show an offset that is off.
SAMPLED_DOCUMENTS = 20

QUERIES: dict[str, dict[str, str]] = {
    "raw": {
        "unique_document_ids": "SELECT document_id FROM state.raw GROUP BY ALL HAVING count(*) > 1",
    },
    "cleaned": {
        "unique_document_ids": "SELECT document_id FROM state.cleaned GROUP BY ALL HAVING count(*) > 1",
        "no_document_lost": """SELECT document_id, uri FROM state.raw ANTI JOIN state.cleaned USING (document_id)
            ANTI JOIN state.errors USING (document_id)""",
    },
    "deduplicated": {
        "unique_document_ids": "SELECT document_id FROM state.deduplicated GROUP BY ALL HAVING count(*) > 1",
        "no_document_lost": """SELECT document_id FROM state.cleaned ANTI JOIN state.deduplicated USING (document_id)
            ANTI JOIN state.errors USING (document_id) WHERE rule IS NULL""",
        "every_removal_witnessed": """SELECT r.document_id, r.kept_document_id, r.similarity
            FROM state.deduplicated AS r LEFT JOIN state.deduplicated AS k ON k.document_id = r.kept_document_id
            WHERE r.kept_document_id IS NOT NULL
                AND (k.document_id IS NULL OR k.kept_document_id IS NOT NULL OR r.similarity < r.threshold)""",
    },
    "chunked": {
        "unique_chunk_ids": "SELECT chunk_id FROM state.chunked GROUP BY ALL HAVING count(*) > 1",
    },
    "embedded": {},
}
SPANS_EXACT = "spans_exact"

NAMES: dict[str, tuple[str, ...]] = {name: tuple(queries) for name, queries in QUERIES.items()} | {
    "chunked": (*QUERIES["chunked"], SPANS_EXACT),
    "embedded": tuple(BLOCKING),
}


def check_step(run: Run, dataset: str) -> tuple[Check, ...]:
    """Run the checks of a dataset that has just been updated; `embedded` has none before its publication."""
    if not QUERIES[dataset]:
        return ()
    with run.warehouse.session() as connection:
        checks = [run_check(connection, name, query) for name, query in QUERIES[dataset].items()]
        if dataset == "chunked":
            checks.append(_spans_exact(run))
    return tuple(checks)


def _spans_exact(run: Run) -> Check:
    """Check that chunk texts are exactly their spans of the cleaned text, on a sample; within a session."""
    if not run.counts["chunked"].touched:
        return Check(SPANS_EXACT, True, "nothing new to check")
    connection = run.warehouse.connection
    connection.execute(
        f"""CREATE OR REPLACE TABLE sampled AS
        SELECT c.document_id, c.ordinal, c.char_start, c.char_end, c.input_hash, d.body_hash
        FROM state.chunked AS c JOIN (SELECT document_id, body_hash FROM {chunked(run.setup).desired}
            WHERE document_id IN (SELECT document_id FROM state.chunked) ORDER BY hash(input_hash), document_id
            LIMIT {SAMPLED_DOCUMENTS}) AS d USING (document_id)"""
    )
    texts = cleaned_bodies(run)("sampled")
    store = segments_of(run, run.setup.chunk)
    store.locate(connection, "(SELECT DISTINCT input_hash FROM sampled)", "sampled_chunks")
    query = f"""SELECT s.document_id, s.ordinal, s.char_start, s.char_end FROM sampled AS s
        LEFT JOIN {texts} AS t ON t.input_hash = s.input_hash
        LEFT JOIN {store.bodies(run.warehouse.connection, "sampled_chunks", CHUNK_TEXTS)} AS c
            ON c.input_hash = s.input_hash AND c.ordinal = s.ordinal
        WHERE t.text IS NULL
            OR c.text IS DISTINCT FROM substring(t.text, s.char_start + 1, s.char_end - s.char_start)"""
    with joined_as_written(connection):
        return run_check(connection, SPANS_EXACT, query)
