"""The approximate index of the vectors (see stemma/search/approximate.py), brought up to date by the difference.

Unlike everything else that is published, the index depends on its history: what it finds is approximate, and what is
ranked is not in it. It is never changed in place: each publication whose vectors differ has a file of its own.
"""

import os
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import duckdb
import numpy as np

from stemma.config import SearchConfig
from stemma.datasets import Dataset
from stemma.errors import StemmaError
from stemma.hashing import key
from stemma.resources.copying import sync
from stemma.resources.engine.run import fetch_value
from stemma.search.approximate import (
    CONNECTIVITY,
    EXPANSION_ADD,
    LIBRARY,
    PRECISION,
    file_digest,
    has_library,
    index_path,
    load_index,
    new_index,
)

if TYPE_CHECKING:
    from usearch.index import Index

# Vectors that are put in at once.
BATCH_ROWS = 16_384
# A vector that is taken out leaves its node in the graph until another one takes the place. When so many have been
# taken out since the index was made, as a share of those in it, it is made anew.
DEAD_SHARE = 0.5

TABLES = """
CREATE TABLE IF NOT EXISTS search.vector_index (
    recipe VARCHAR, digest VARCHAR, bytes BIGINT, expansion INTEGER, removed BIGINT);
CREATE TABLE IF NOT EXISTS search.vector_rows (number UINTEGER, row_hash UBIGINT);
"""


def vector_index_recipe(settings: SearchConfig) -> str:
    """Return what tells whether a published file has the index that is configured now; empty for none."""
    if settings.index == "exact":
        return ""
    if not has_library():
        raise StemmaError('index = "usearch" needs the package of the extra: pip install "stemma[ann]"')
    return key(_made_by(), str(settings.min_chunks), str(settings.expansion)).hex()


def _made_by() -> str:
    return key(*map(str, (version(LIBRARY), PRECISION, CONNECTIVITY, EXPANSION_ADD))).hex()


def update_vector_index(
    connection: duckdb.DuckDBPyConnection, settings: SearchConfig, published: Path, embedded: Dataset
) -> None:
    """Make the index that the default database names that of main.embedded there, as `settings` have it.

    The text index must be up to date: its numbers are the keys. Files of other indexes stay (`discard_others`).
    """
    wanted = settings.index != "exact"
    if not wanted or fetch_value(connection, f"SELECT count(*) FROM {embedded.base}") < settings.min_chunks:
        for table in ("vector_index", "vector_rows"):
            connection.execute(f"DROP TABLE IF EXISTS search.{table}")
        return
    connection.execute(TABLES)
    connection.execute(
        f"""CREATE OR REPLACE TEMP TABLE vectors_now AS
        SELECT n.number, e.row_hash, chunk_id FROM {embedded.base} AS e JOIN search.numbers AS n USING (chunk_id)"""
    )
    recipe = _made_by()
    dimensions = fetch_value(connection, "SELECT any_value(array_length(embedding)) FROM main.embedded")
    index, removed = _standing(connection, recipe, published, dimensions)
    stale = connection.execute(
        "SELECT number FROM search.vector_rows ANTI JOIN vectors_now USING (number, row_hash)"
    ).fetchnumpy()["number"]
    if index is None or removed + len(stale) > DEAD_SHARE * len(index):
        connection.execute("DELETE FROM search.vector_rows")
        connection.execute("DELETE FROM search.vector_index")
        index, removed = new_index(dimensions), 0
    elif len(stale):
        index.remove(np.asarray(stale).astype(np.uint64))
        removed += len(stale)
        connection.execute(
            """DELETE FROM search.vector_rows WHERE number IN (
                SELECT number FROM search.vector_rows ANTI JOIN vectors_now USING (number, row_hash))"""
        )
    if _put_in(connection, index, dimensions) or len(stale):
        _save(connection, index, recipe, published, removed)
    connection.execute("UPDATE search.vector_index SET expansion = ?", [settings.expansion])


def _standing(
    connection: duckdb.DuckDBPyConnection, recipe: str, published: Path, dimensions: int
) -> "tuple[Index | None, int]":
    """Return the index that the last publication had and how many were taken out of it; None for one of no use."""
    row = connection.execute(
        "SELECT digest, bytes, removed FROM search.vector_index WHERE recipe = ?", [recipe]
    ).fetchone()
    if row is None:
        return None, 0
    digest, size, removed = row
    try:
        index = load_index(index_path(published, digest), digest, size, view=False)
    except (OSError, ValueError, RuntimeError):
        return None, 0
    return (index, removed) if index.ndim == dimensions else (None, 0)


def _put_in(connection: duckdb.DuckDBPyConnection, index: "Index", dimensions: int) -> int:
    """Put the vectors in that are not there yet; returns how many."""
    connection.execute(
        """CREATE OR REPLACE TEMP TABLE unindexed AS
        FROM vectors_now ANTI JOIN search.vector_rows USING (number, row_hash)"""
    )
    reader = connection.execute(
        f"""SELECT number, embedding::FLOAT[{dimensions}] AS embedding
        FROM main.embedded JOIN unindexed USING (chunk_id)"""
    ).to_arrow_reader(BATCH_ROWS)
    added = 0
    for batch in reader:
        vectors = batch["embedding"].flatten().to_numpy().reshape(-1, dimensions)
        index.add(batch["number"].to_numpy().astype(np.uint64), vectors)
        added += batch.num_rows
    connection.execute("INSERT INTO search.vector_rows SELECT number, row_hash FROM unindexed")
    return added


def _save(
    connection: duckdb.DuckDBPyConnection,
    index: "Index",
    recipe: str,
    published: Path,
    removed: int,
) -> None:
    folder = index_path(published, "").parent
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / f".{os.getpid()}.next"
    try:
        index.save(target)
        digest, size = file_digest(target), target.stat().st_size
        sync(target)
        target.chmod(0o444)
        os.replace(target, index_path(published, digest))
    finally:
        target.unlink(missing_ok=True)
    sync(folder)
    connection.execute("DELETE FROM search.vector_index")
    connection.execute(
        "INSERT INTO search.vector_index VALUES (?, ?, ?, NULL, ?)", [recipe, digest, size, removed]
    )


def published_digest(connection: duckdb.DuckDBPyConnection) -> str | None:
    """Return the SHA-256 of the index that the default database names; None for none."""
    known = "SELECT count(*) FROM duckdb_tables() WHERE database_name = current_database() AND schema_name = 'search'"
    if not fetch_value(connection, f"{known} AND table_name = 'vector_index'"):
        return None
    row = connection.execute("SELECT digest FROM search.vector_index").fetchone()
    return row[0] if row else None


def discard_others(published: Path, digest: str | None) -> None:
    """Delete all indexes but the one that a published file names; who has one open keeps it."""
    for path in index_path(published, "").parent.glob("*"):
        if digest is None or path != index_path(published, digest):
            path.unlink(missing_ok=True)
