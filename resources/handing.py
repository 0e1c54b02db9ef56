"""Arrow tables handed to DuckDB, which keeps what was registered within a transaction until that ends."""

import contextlib
from collections.abc import Iterator
from typing import Any

import duckdb
import pyarrow as pa


class _Holder:
    """What is registered in the place of a table (Arrow's PyCapsule interface), so that the table can go before."""

    def __init__(self, table: pa.Table) -> None:
        self.table: pa.Table | None = table

    def __arrow_c_stream__(self, requested_schema: object = None) -> Any:
        assert self.table is not None
        return self.table.__arrow_c_stream__(requested_schema)


@contextlib.contextmanager
def handed(connection: duckdb.DuckDBPyConnection, name: str, table: pa.Table) -> Iterator[None]:
    """Make a table the relation `name` of a connection; its memory is free at the end, whatever DuckDB remembers."""
    holder = _Holder(table)
    connection.register(name, holder)
    try:
        yield
    finally:
        holder.table = None
    # Of a transaction that has failed nothing can be asked any more.
    connection.unregister(name)
