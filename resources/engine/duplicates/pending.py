"""The documents whose families are to be solved."""

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from stemma.hashing import UUID
from stemma.resources.engine.run import few
from stemma.resources.handing import execute_over


def documents_of(connection: duckdb.DuckDBPyConnection, nodes: list[pa.Array]) -> pa.Table:
    """Return the documents of nodes (binary(16), in parts): node, document_id, text_hash and body_hash (uuid)."""
    wanted = pc.unique(pa.chunked_array(nodes, pa.binary(16)))
    return execute_over(
        connection,
        pa.table({"node": pa.ExtensionArray.from_storage(UUID, wanted)}),
        f"""SELECT node, document_id, text_hash, body_hash FROM state.dedup_documents
        WHERE node IN {few("arriving", "node")}""",
    ).to_arrow_table()


def note_pending(connection: duckdb.DuckDBPyConnection, documents: pa.ChunkedArray) -> None:
    """Add documents (uuid) to those whose families are to be solved: call it before the session ends."""
    execute_over(
        connection, pa.table({"document_id": documents}), "INSERT INTO state.dedup_pending FROM arriving"
    )
