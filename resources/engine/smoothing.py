"""Published vectors where small chunks are smoothed by their neighbours: derived from those of the memo."""

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from stemma.embedding.arrays import matrix, vector_table
from stemma.embedding.context import Places, smoothed
from stemma.resources.engine.rowwise import segments_of
from stemma.resources.engine.run import Run, fetch_value

# Rows whose vectors, and those of their neighbours, are in memory at a time.
BATCH_ROWS = 8_192
_HASHES = ("input_hash", "before_hash", "after_hash")


def smooth_rows(run: Run, fresh: str, into: str) -> None:
    """Make the temporary table `into` (chunk_id, embedding) for the rows of `fresh`, in the columns of state.embedded.

    A row of which the memo has lost a vector is left out.
    """
    connection = run.warehouse.connection
    connection.execute(
        f"""CREATE OR REPLACE TEMP TABLE smoothing_rows AS SELECT chunk_id, {", ".join(_HASHES)},
        row_number() OVER (ORDER BY document_id, chunk_id) - 1 AS number FROM {fresh}"""
    )
    dimensions = run.setup.embedder.dimensions
    connection.execute(f"CREATE OR REPLACE TEMP TABLE {into} (chunk_id UUID, embedding FLOAT[{dimensions}])")
    for first in range(0, fetch_value(connection, "SELECT count(*) FROM smoothing_rows"), BATCH_ROWS):
        connection.execute(
            f"""CREATE OR REPLACE TEMP TABLE smoothing_part AS
            FROM smoothing_rows WHERE number >= {first} AND number < {first + BATCH_ROWS} ORDER BY number"""
        )
        connection.register("smoothing_done", _smooth_part(run, connection))
        connection.execute(f"INSERT INTO {into} SELECT * FROM smoothing_done")
        connection.unregister("smoothing_done")


def _smooth_part(run: Run, connection: duckdb.DuckDBPyConnection) -> pa.Table:
    store = segments_of(run, run.setup.embed)
    wanted = " UNION ".join(
        f"SELECT {name} AS input_hash FROM smoothing_part WHERE {name} IS NOT NULL" for name in _HASHES
    )
    store.locate(connection, f"({wanted})", "smoothing_places", temporary=True)
    bodies = store.bodies(connection, "smoothing_places", "input_hash, embedding")
    known = connection.execute(f"SELECT input_hash, embedding FROM {bodies}").to_arrow_table()
    part = connection.execute("FROM smoothing_part ORDER BY number").to_arrow_table()
    places = [_places(part[name], known["input_hash"]) for name in _HASHES]
    is_lost = np.logical_or.reduce(
        [(place < 0) & part[name].is_valid().to_numpy() for name, place in zip(_HASHES, places, strict=True)]
    )
    kept = np.flatnonzero(~is_lost)
    rows, before, after = (place[kept] for place in places)
    done = smoothed(matrix(known), rows, before, after, run.config.embed.smoothing)
    return pa.table(
        {"chunk_id": part["chunk_id"].take(pa.array(kept)), "embedding": vector_table(done)["embedding"]}
    )


def _places(hashes: pa.ChunkedArray, known: pa.ChunkedArray) -> Places:
    """Return where each hash stands among those known; -1 for null and for what is not there."""
    found = pc.index_in(hashes.combine_chunks().storage, known.combine_chunks().storage)
    return found.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64)
