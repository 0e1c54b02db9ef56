"""Arrow tables handed to DuckDB."""

from typing import Any

import duckdb
import pyarrow as pa


class _Stream:
    """What is scanned in the place of a table (Arrow's PyCapsule interface): of a table DuckDB imports all of Arrow."""

    def __init__(self, table: pa.Table) -> None:
        self._table = table

    def __arrow_c_stream__(self, requested_schema: object = None) -> Any:
        return self._table.__arrow_c_stream__(requested_schema)


def execute_over(
    connection: duckdb.DuckDBPyConnection, table: pa.Table, statement: str
) -> duckdb.DuckDBPyConnection:
    """Execute a statement in which the relation `arriving` is a table; its memory is free at the end.

    DuckDB finds it among the variables here, which takes half of the time of making it a view and dropping that, and
    keeps nothing of it, where it would keep what was registered until the transaction ends.
    """
    arriving = _Stream(table)
    try:
        return connection.execute(statement)
    finally:
        del arriving
