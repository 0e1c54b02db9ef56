"""The health of the vector space, measured on a fixed sample of the texts whenever their vectors change."""

from typing import Any

import duckdb
import numpy as np
import pyarrow as pa

from stemma.embedding.arrays import Vectors, matrix
from stemma.embedding.health import drift, health
from stemma.errors import StemmaError
from stemma.lineage.checks import Check
from stemma.resources.engine.rowwise import segments_of
from stemma.resources.engine.run import Run, load_rows, state_of
from stemma.resources.engine.vectors import are_derived
from stemma.resources.warehouse import MEMORY_BYTES, utc_now

# Texts of the sample: those with the smallest hashes, so that an edit changes it no more than the corpus.
SAMPLED_TEXTS = 2_048
# From how many texts on repeats and directions say something.
ENOUGH_TEXTS = 64
MOST_REPEATED = 0.01
MOST_ALIKE = 0.9
LEAST_RANK = 2.0
MOST_DRIFT = 0.01

NAMES = ("vectors_sound", "vectors_distinct", "vectors_spread", "vectors_stable")


def measure_health(run: Run, connection: duckdb.DuckDBPyConnection) -> None:
    """Add a row to state.embedding_health, unless the vectors are those of the last one.

    Measured are the vectors as the model gives them, before they are smoothed or stored with fewer bits.
    """
    state = state_of(connection, "embedded")
    last = connection.execute("SELECT arg_max(state_hash, number) FROM state.embedding_health").fetchone()
    if not state.rows or last == (state.state_hash,):
        return
    connection.execute(
        f"""CREATE OR REPLACE TEMP TABLE health_sample AS SELECT input_hash, min(chunk_id) AS chunk_id
        FROM state.embedded GROUP BY input_hash ORDER BY hash(input_hash) LIMIT {SAMPLED_TEXTS}"""
    )
    store = segments_of(run, run.setup.embed)
    bodies = store.find_bodies(connection, "health_sample", "input_hash, embedding")
    load_rows(connection, "health_bodies", connection.execute(f"SELECT * FROM {bodies}").to_arrow_table())
    # The sample is of all segments, and of each a page or more is in memory now.
    run.warehouse.memo.unmap()
    now = connection.execute(
        "SELECT chunk_id, embedding FROM health_sample JOIN health_bodies USING (input_hash) ORDER BY chunk_id"
    ).to_arrow_table()
    row = {
        "run_id": run.run_id,
        "measured_at": utc_now(),
        "model": run.setup.embedder.name,
        "recipe": state.recipe,
        "state_hash": state.state_hash,
        **vars(health(matrix(now))),
        "drift": _drift(run, now),
    }
    connection.execute("DELETE FROM state.embedding_health WHERE run_id = ?", [run.run_id])
    connection.execute(
        f"""INSERT INTO state.embedding_health BY NAME SELECT {", ".join(f"${name} AS {name}" for name in row)},
        (SELECT coalesce(max(number), 0) + 1 FROM state.embedding_health) AS number""",
        row,
    )


def _drift(run: Run, now: pa.Table) -> float | None:
    """Return how far the sample's vectors are from those published; None where there are none to be compared."""
    if are_derived(run.setup):
        return None
    try:
        published = run.warehouse.read()
    except StemmaError:
        return None
    with published:
        # It would keep the vectors that it passes over, up to most of the machine's memory.
        published.execute(f"SET memory_limit = '{MEMORY_BYTES}B'")
        try:
            load_rows(published, "wanted", now.select(["chunk_id"]))
            before = published.execute(
                """SELECT chunk_id, embedding FROM main.embedded SEMI JOIN wanted USING (chunk_id)
                ORDER BY chunk_id"""
            ).to_arrow_table()
        except duckdb.Error:  # another version's, with other columns
            return None
    # A connection of its own, which gives UUIDs as text.
    known = set(map(str, before["chunk_id"].to_pylist()))
    rows = [row for row, key in enumerate(now["chunk_id"].to_pylist()) if str(key) in known]
    old, new = _matrix(before), matrix(now.take(pa.array(rows, pa.int64())))
    return drift(old, new) if len(rows) and old.shape[1] == new.shape[1] else None


def _matrix(rows: pa.Table) -> Vectors:
    return matrix(rows) if rows.num_rows else np.zeros((0, 0), dtype=np.float32)


def health_checks(connection: duckdb.DuckDBPyConnection) -> tuple[Check, ...]:
    """Return the checks on the last row of state.embedding_health; they warn and block nothing."""
    cursor = connection.execute("FROM state.embedding_health ORDER BY number DESC LIMIT 1")
    names = [column[0] for column in cursor.description]
    row = cursor.fetchone()
    if row is None:
        return tuple(Check(name, True, "no vectors yet") for name in NAMES)
    return _judged(dict(zip(names, row, strict=True)))


def _judged(row: dict[str, Any]) -> tuple[Check, ...]:
    enough = row["vectors"] >= ENOUGH_TEXTS
    alike, rank, moved = row["mean_cosine"], row["effective_rank"], row["drift"]
    return (
        Check(
            "vectors_sound",
            row["unsound"] == 0,
            f"{row['unsound']} of {row['vectors']} are zero or not finite",
        ),
        Check(
            "vectors_distinct",
            not enough or row["repeated"] <= MOST_REPEATED * row["vectors"],
            f"{row['repeated']} of {row['vectors']} texts share their vector with another"
            f" (at most {MOST_REPEATED:.0%})",
        ),
        Check(
            "vectors_spread",
            not enough
            or (alike is not None and alike <= MOST_ALIKE and rank is not None and rank >= LEAST_RANK),
            f"mean cosine {_shown(alike)} (at most {MOST_ALIKE}),"
            f" effective rank {_shown(rank)} (at least {LEAST_RANK}), IsoScore {_shown(row['isoscore'])}",
        ),
        Check(
            "vectors_stable",
            moved is None or moved <= MOST_DRIFT,
            "nothing to compare with"
            if moved is None
            else f"1 - cosine to those published before: {moved:.6f} (at most {MOST_DRIFT})",
        ),
    )


def _shown(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.3f}"
