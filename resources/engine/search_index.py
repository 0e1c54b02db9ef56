"""The text index in the published file: postings of the words of every chunk, brought up to date by the difference.

A chunk's id names its text, so the index follows from the ids alone. Chunks have numbers in it, given in turn and
never twice, because 16 random bytes a posting would make it five times as large.

Postings are only ever added, in runs that are sorted by word, so that a query reads a few row groups of each. Those of
a chunk that has gone stay and count for nothing: to delete them would touch nearly every row group. When they and
the runs have doubled the table, it is written anew in order.
"""

import unicodedata
from collections.abc import Callable
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa

from stemma.hashing import key
from stemma.resources.engine.run import fetch_value
from stemma.resources.handing import execute_over
from stemma.search.words import postings

# Chunks whose postings are sorted at once: 20 MB of text.
BATCH_CHUNKS = 16_384
# Below this many added postings the table is left as it is.
FEW_POSTINGS = 1 << 20

TABLES = """
CREATE SCHEMA IF NOT EXISTS search;
CREATE TABLE IF NOT EXISTS search.index (recipe VARCHAR, next_number BIGINT, postings BIGINT);
CREATE TABLE IF NOT EXISTS search.numbers (chunk_id UUID, number UINTEGER, words INTEGER);
CREATE TABLE IF NOT EXISTS search.posting_rows (word VARCHAR, number UINTEGER, frequency USMALLINT);
"""


def index_recipe(code: Callable[[Callable[..., Any]], str]) -> str:
    """Return the recipe of the text index; `code` gives the hash of a function's code (Setup.code)."""
    return key(code(postings), unicodedata.unidata_version).hex()


def is_made_by(connection: duckdb.DuckDBPyConnection, recipe: str) -> bool:
    """Tell whether the index in the connection's default database, if there is one, is of a recipe."""
    return bool(fetch_value(connection, "SELECT count(*) FROM search.index WHERE recipe = ?", [recipe]))


def update_index(connection: duckdb.DuckDBPyConnection, recipe: str, kept: str | None = None) -> None:
    """Make the index in the connection's default database that of main.chunked there.

    It costs the difference, unless another recipe made it: then all. `kept` names a table of numbers of chunks that
    have gone and whose postings are to stay.
    """
    connection.execute(TABLES)
    if not is_made_by(connection, recipe):
        for table in ("index", "numbers", "posting_rows"):
            connection.execute(f"DELETE FROM search.{table}")
        connection.execute("INSERT INTO search.index VALUES (?, 0, 0)", [recipe])
    connection.execute(
        """DELETE FROM search.numbers
        WHERE chunk_id IN (SELECT chunk_id FROM search.numbers ANTI JOIN main.chunked USING (chunk_id))"""
    )
    _put_in(connection)
    _tidy(
        connection,
        f"(SELECT number FROM search.numbers{f' UNION SELECT number FROM {kept}' if kept else ''})",
    )


def _put_in(connection: duckdb.DuckDBPyConnection) -> None:
    connection.execute(
        """CREATE OR REPLACE TEMP TABLE unindexed AS
        SELECT rowid AS place FROM main.chunked ANTI JOIN search.numbers USING (chunk_id)"""
    )
    batches = connection.execute(
        """SELECT min(place), max(place) FROM (
            SELECT place, (row_number() OVER (ORDER BY place) - 1) // ? AS batch FROM unindexed)
        GROUP BY batch ORDER BY batch""",
        [BATCH_CHUNKS],
    ).fetchall()
    first = fetch_value(connection, "SELECT next_number FROM search.index")
    for lowest, highest in batches:
        chunks = connection.execute(
            """SELECT chunk_id, text FROM main.chunked
            WHERE rowid IN (SELECT place FROM unindexed WHERE place BETWEEN ? AND ?)""",
            [lowest, highest],
        ).to_arrow_table()
        _append(connection, chunks, first)
        first += chunks.num_rows
    connection.execute("UPDATE search.index SET next_number = ?", [first])


def _append(connection: duckdb.DuckDBPyConnection, chunks: pa.Table, first: int) -> None:
    found, lengths = postings(chunks["text"].to_pylist())
    numbers = np.arange(first, first + len(lengths), dtype=np.uint32)
    new = pa.table([chunks["chunk_id"], numbers, lengths], ["chunk_id", "number", "words"])
    rows = pa.table(
        [found["word"], found["text"].to_numpy() + np.uint32(first), found["frequency"]],
        ["word", "number", "frequency"],
    )
    for table, arrived in (("numbers", new), ("posting_rows", rows)):
        execute_over(connection, arrived, f"INSERT INTO search.{table} FROM arriving")


def _tidy(connection: duckdb.DuckDBPyConnection, numbers: str) -> None:
    """Write the postings anew, in order and without those of other numbers than these, when they have doubled."""
    total = fetch_value(connection, "SELECT count(*) FROM search.posting_rows")
    written = fetch_value(connection, "SELECT postings FROM search.index")
    if written and total > max(2 * written, written + FEW_POSTINGS):
        connection.execute(
            f"""CREATE TABLE search.postings_in_order AS
            FROM search.posting_rows SEMI JOIN {numbers} USING (number) ORDER BY word, number"""
        )
        connection.execute("DROP TABLE search.posting_rows")
        connection.execute("ALTER TABLE search.postings_in_order RENAME TO posting_rows")
        total = fetch_value(connection, "SELECT count(*) FROM search.posting_rows")
        written = 0
    if not written:
        connection.execute("UPDATE search.index SET postings = ?", [total])
