"""The documents of nodes, and those whose families are to be solved."""

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from stemma.hashing import UUID
from stemma.resources.engine.run import few
from stemma.resources.handing import execute_over


def documents_of(connection: duckdb.DuckDBPyConnection, nodes: list[pa.Array], columns: str) -> pa.Table:
    """Return these columns of state.dedup_documents for the documents of nodes (binary(16), in parts)."""
    wanted = pc.unique(pa.chunked_array(nodes, pa.binary(16)))
    return execute_over(
        connection,
        pa.table({"node": pa.ExtensionArray.from_storage(UUID, wanted)}),
        f"SELECT {columns} FROM state.dedup_documents WHERE node IN {few('arriving', 'node')}",
    ).to_arrow_table()


def note_pending(connection: duckdb.DuckDBPyConnection, documents: pa.ChunkedArray) -> None:
    """Add documents (uuid) to those whose families are to be solved: call it before the session ends."""
    execute_over(
        connection, pa.table({"document_id": documents}), "INSERT INTO state.dedup_pending FROM arriving"
    )
