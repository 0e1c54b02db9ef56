"""The checks of each step: queries over the state that return the offending rows, none when all is well.

They run right after a dataset's update, so that a fault stops the run at the step that made it. The last step,
`embedded`, is checked as its readers see it: by the checks of the publication (stemma/lineage/checks.py).
"""

from collections.abc import Iterator

import duckdb

from stemma.lineage.checks import BLOCKING, Check, described, run_check
from stemma.resources.engine.chunked import CHUNK_TEXTS, chunked, cleaned_texts
from stemma.resources.engine.health import NAMES as HEALTH
from stemma.resources.engine.rowwise import segments_of
from stemma.resources.engine.run import Run, remember_checked, state_of
from stemma.resources.engine.steadiness import NAMES as STEADINESS
from stemma.resources.engine.steadiness import check_steadiness
from stemma.resources.memo import LostError

# Documents whose chunks are compared with their text, chosen by content: enough to show an offset that is off.
SAMPLED_DOCUMENTS = 20
# No more are taken once they have so many characters together.
SAMPLED_CHARACTERS = 10_000_000

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
            ANTI JOIN state.errors USING (document_id) WHERE verdicts IS NULL""",
        "every_removal_witnessed": """SELECT r.document_id, r.kept_document_id, r.similarity
            FROM state.deduplicated AS r LEFT JOIN state.deduplicated AS k ON k.document_id = r.kept_document_id
            WHERE NOT r.kept AND r.method <> 'bloom' AND (NOT coalesce(k.kept, false) OR r.similarity < r.threshold)""",
    },
    "chunked": {
        "unique_chunk_ids": "SELECT chunk_id FROM state.chunked GROUP BY ALL HAVING count(*) > 1",
    },
    "embedded": {},
}
SPANS_EXACT = "spans_exact"
# What compares a dataset with the one above holds only where it was made of that one as it is now; where it wasn't,
# nothing is published either.
BESIDE_ABOVE = ("no_document_lost",)
OVERTAKEN = "not checked: another run has brought a dataset above further"

NAMES: dict[str, tuple[str, ...]] = {
    name: (*queries, *STEADINESS.get(name, ())) for name, queries in QUERIES.items()
} | {
    "chunked": (*QUERIES["chunked"], SPANS_EXACT),
    "embedded": (*BLOCKING, *HEALTH),
}
# These warn, and block nothing.
WARNING = frozenset((*HEALTH, *(name for names in STEADINESS.values() for name in names)))


def check_step(run: Run, dataset: str) -> tuple[Check, ...]:
    """Run the checks of a dataset that has just been updated; `embedded` has none before its publication."""
    if not QUERIES[dataset]:
        return ()
    with run.warehouse.session() as connection:
        checks = [
            Check(name, True, OVERTAKEN)
            if name in BESIDE_ABOVE and _is_overtaken(connection, dataset)
            else run_check(connection, name, query)
            for name, query in QUERIES[dataset].items()
        ]
        checks += check_steadiness(run, connection, dataset)
    if dataset == "chunked":
        checks.append(_spans_exact(run))
    return tuple(checks)


def _is_overtaken(connection: duckdb.DuckDBPyConnection, dataset: str) -> bool:
    """Tell whether a run beside this one has changed what the dataset was made of, or this one left it out."""
    above = 0
    for name in QUERIES:
        state = state_of(connection, name)
        if state.upstream_version != above:
            return True
        if name == dataset:
            return False
        above = state.version
    return False


def _spans_exact(run: Run) -> Check:
    """Check that chunk texts are exactly their spans of the cleaned text, on a sample."""
    with run.warehouse.session() as connection:
        state = state_of(connection, "chunked")
        if state.checked == state.version:
            return Check(SPANS_EXACT, True, "nothing new to check")
        if _is_overtaken(connection, "chunked"):
            return Check(SPANS_EXACT, True, OVERTAKEN)
        _sample(run, connection)
    outcome = described(SPANS_EXACT, [str(place) for place in _misplaced(run)])
    if outcome.passed:
        with run.warehouse.session() as connection:
            remember_checked(connection, "chunked", state.version)
    return outcome


def _sample(run: Run, connection: duckdb.DuckDBPyConnection) -> None:
    connection.execute(
        f"""CREATE OR REPLACE TABLE sampled AS
        WITH documents AS (SELECT w.document_id, w.body_hash, c.characters,
                row_number() OVER by_content AS number, sum(c.characters) OVER by_content AS total
            FROM {chunked(run.setup).desired} AS w JOIN state.cleaned AS c USING (document_id)
            WHERE w.document_id IN (SELECT document_id FROM state.chunked)
            WINDOW by_content AS (ORDER BY hash(w.input_hash), w.document_id))
        SELECT c.document_id, c.ordinal, c.char_start, c.char_end, c.input_hash, d.body_hash
        FROM state.chunked AS c JOIN documents AS d USING (document_id)
        WHERE d.number <= {SAMPLED_DOCUMENTS} AND d.total - d.characters < {SAMPLED_CHARACTERS}"""
    )


def _misplaced(run: Run) -> Iterator[tuple[str, int, int, int]]:
    """Yield (document_id, ordinal, char_start, char_end) of sampled chunks whose text is not their span."""
    connection = run.warehouse.connection
    texts = dict(
        connection.execute(f"SELECT body_hash, text FROM {cleaned_texts(run, 'sampled')}").fetchall()
    )
    bodies = segments_of(run, run.setup.chunk).find_bodies(connection, "sampled", CHUNK_TEXTS)
    chunks = {
        (key, ordinal): text
        for key, ordinal, text in connection.execute(
            f"SELECT input_hash, ordinal, text FROM {bodies}"
        ).fetchall()
    }
    for document, ordinal, start, end, key, body in connection.execute(
        "SELECT document_id, ordinal, char_start, char_end, input_hash, body_hash FROM sampled ORDER BY ALL"
    ).fetchall():
        text = texts.get(body)
        if text is None or (key, ordinal) not in chunks:
            raise LostError("chunked: the memo has lost a text or its chunks; see docs/operations.md")
        # Sliced here: DuckDB counts characters from the beginning of the text, for each chunk anew.
        if chunks[key, ordinal] != text[start:end]:
            yield str(document), ordinal, start, end
