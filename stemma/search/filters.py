"""Conditions that somebody writes: one SQL expression over the columns of one row, of search.chunks by default."""

import json
from collections.abc import Iterator
from typing import Any

import duckdb

from stemma.datasets import CHUNKS, Dataset
from stemma.errors import UsageError

# What an expression consists of that looks at one row alone: no subquery, window, star or parameter.
_ALLOWED = {"BETWEEN", "CASE", "CAST", "COLLATE", "COLUMN_REF", "COMPARISON", "CONJUNCTION", "CONSTANT"}
_ALLOWED |= {"FUNCTION", "LAMBDA", "OPERATOR"}


def checked_condition(
    connection: duckdb.DuckDBPyConnection, condition: str, dataset: Dataset = CHUNKS
) -> str:
    """Return a condition as DuckDB reads it.

    Raises UsageError for what is no true-or-false expression over the columns of one row of a dataset.
    """
    try:
        written = str(duckdb.SQLExpression(condition))
        answer = connection.execute("SELECT json_serialize_sql(?)", [f"SELECT {written}"]).fetchone()
        assert answer is not None
        (select,) = json.loads(answer[0])["statements"][0]["node"]["select_list"]
        for kind in _kinds(select):
            if kind not in _ALLOWED:
                raise UsageError(
                    f"{condition!r}: a filter is an expression over one row, without {kind.lower()}"
                )
        row = connection.execute(f"DESCRIBE SELECT ({written}) FROM {dataset.qualified}").fetchone()
    except duckdb.Error as error:
        columns = ", ".join(column.name for column in dataset.columns)
        first = str(error).strip().split("\n")[0]
        raise UsageError(f"{condition!r} is no filter: {first} (columns: {columns})") from None
    if row is None or row[1] != "BOOLEAN":
        raise UsageError(f"{condition!r} is not true or false")
    return written


def _kinds(node: Any) -> Iterator[str]:
    """Yield the classes of the expressions within a serialized one."""
    if isinstance(node, dict):
        if "class" in node:
            yield node["class"]
        node = list(node.values())
    if isinstance(node, list):
        for child in node:
            yield from _kinds(child)
