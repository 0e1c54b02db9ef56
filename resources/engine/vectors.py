"""Published vectors that differ from the memo's: smoothed by their neighbours, or stored with fewer bits."""

import dataclasses

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from stemma.datasets import EMBEDDED, Column, Dataset
from stemma.embedding.arrays import matrix, vector_table
from stemma.embedding.context import Places, smoothed
from stemma.embedding.storage import SQL_TYPES, quantized
from stemma.resources.engine.rowwise import segments_of
from stemma.resources.engine.run import Run, fetch_value
from stemma.resources.engine.setup import Setup
from stemma.resources.handing import execute_over

# Rows whose vectors, and those of their neighbours, are in memory at a time.
BATCH_ROWS = 8_192
_HASHES = ("input_hash", "before_hash", "after_hash")


def are_derived(setup: Setup) -> bool:
    """Tell whether published vectors are others than those of the memo."""
    return bool(setup.config.embed.smoothing) or setup.config.embed.storage != "float32"


def derivation(setup: Setup) -> str:
    """Name what makes published vectors of those in the memo; empty where they are the same."""
    settings = setup.config.embed
    facts = []
    if settings.smoothing:
        facts.append(f"smoothed:{settings.smoothing}:{settings.smoothing_tokens}:{setup.code(smoothed)}")
    if settings.storage != "float32":
        facts.append(f"{settings.storage}:{setup.code(quantized)}")
    return " ".join(facts)


def embedded_dataset(setup: Setup) -> Dataset:
    """Return corpus.embedded as it is stored: with fewer bits, `embedding` is worked out when it is read."""
    storage = setup.config.embed.storage
    if storage == "float32":
        return EMBEDDED
    expression = f"list_transform(vector::FLOAT[], lambda x: x * scale)::FLOAT[{setup.embedder.dimensions}]"
    columns = [
        dataclasses.replace(column, body=False, generated=expression)
        if column.name == "embedding"
        else column
        for column in EMBEDDED.columns
    ]
    columns += [
        Column("vector", f"{SQL_TYPES[storage]}[]", "the vector in whole numbers", body=True),
        Column("scale", "FLOAT", "what these are to be multiplied by", body=True),
    ]
    return dataclasses.replace(EMBEDDED, columns=tuple(columns))


def derive_rows(run: Run, fresh: str, into: str) -> None:
    """Make the temporary table `into` (chunk_id, and the bodies of `embedded_dataset`) for rows of state.embedded.

    A row of which the memo has lost a vector is left out.
    """
    connection = run.warehouse.connection
    connection.execute(
        f"""CREATE OR REPLACE TEMP TABLE deriving AS SELECT chunk_id, {", ".join(_HASHES)},
        row_number() OVER (ORDER BY document_id, chunk_id) - 1 AS number FROM {fresh}"""
    )
    dimensions, made = run.setup.embedder.dimensions, embedded_dataset(run.setup)
    bodies = [
        f"{column.name} {column.type.replace('[]', f'[{dimensions}]')}"
        for column in made.columns
        if column.body
    ]
    connection.execute(f"CREATE OR REPLACE TEMP TABLE {into} (chunk_id UUID, {', '.join(bodies)})")
    for first in range(0, fetch_value(connection, "SELECT count(*) FROM deriving"), BATCH_ROWS):
        connection.execute(
            f"""CREATE OR REPLACE TEMP TABLE deriving_part AS
            FROM deriving WHERE number >= {first} AND number < {first + BATCH_ROWS}"""
        )
        execute_over(connection, _derive_part(run, connection), f"INSERT INTO {into} BY NAME FROM arriving")


def _derive_part(run: Run, connection: duckdb.DuckDBPyConnection) -> pa.Table:
    store, settings = segments_of(run, run.setup.embed), run.config.embed
    wanted = " UNION ".join(
        f"SELECT {name} AS input_hash FROM deriving_part WHERE {name} IS NOT NULL" for name in _HASHES
    )
    bodies = store.find_bodies(connection, f"({wanted})", "input_hash, embedding")
    known = connection.execute(f"SELECT input_hash, embedding FROM {bodies}").to_arrow_table()
    part = connection.execute("FROM deriving_part ORDER BY number").to_arrow_table()
    places = [_places(part[name], known["input_hash"]) for name in _HASHES]
    is_lost = np.logical_or.reduce(
        [(place < 0) & part[name].is_valid().to_numpy() for name, place in zip(_HASHES, places, strict=True)]
    )
    kept = np.flatnonzero(~is_lost)
    rows, before, after = (place[kept] for place in places)
    vectors = smoothed(matrix(known), rows, before, after, settings.smoothing)
    columns = {"chunk_id": part["chunk_id"].take(pa.array(kept))}
    if settings.storage == "float32":
        return pa.table({**columns, "embedding": vector_table(vectors)["embedding"]})
    whole, scales = quantized(vectors, settings.storage)
    values = pa.FixedSizeListArray.from_arrays(pa.array(whole.reshape(-1)), whole.shape[1])
    return pa.table({**columns, "vector": values, "scale": scales})


def _places(hashes: pa.ChunkedArray, known: pa.ChunkedArray) -> Places:
    """Return where each hash stands among those known; -1 for null and for what is not there."""
    found = pc.index_in(hashes.combine_chunks().storage, known.combine_chunks().storage)
    return found.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64)
