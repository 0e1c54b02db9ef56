"""The documents whose families are to be solved."""

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from stemma.hashing import UUID
from stemma.resources.engine.run import few
from stemma.resources.handing import execute_over


def note_pending(
    connection: duckdb.DuckDBPyConnection, nodes: list[pa.Array], documents: pa.ChunkedArray | None = None
) -> None:
    """Add the documents of nodes (binary(16)), and others (uuid), to those whose families are to be solved.

    Call it before the session ends.
    """
    wanted = pc.unique(pa.chunked_array(nodes, pa.binary(16)))
    execute_over(
        connection,
        pa.table({"node": pa.ExtensionArray.from_storage(UUID, wanted)}),
        f"""INSERT INTO state.dedup_pending SELECT document_id FROM state.dedup_documents
        WHERE node IN {few("arriving", "node")}""",
    )
    if documents is not None and len(documents):
        execute_over(
            connection, pa.table({"document_id": documents}), "INSERT INTO state.dedup_pending FROM arriving"
        )
