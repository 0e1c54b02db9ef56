"""The documents whose families are to be solved, and the nodes that these are looked up by."""

import duckdb

from stemma.resources.engine.run import few


def note_nodes(connection: duckdb.DuckDBPyConnection, pairs: str) -> None:
    """Add the nodes of the pairs (a, b) of a relation to those whose families are to be solved; see `note_pending`."""
    connection.execute(f"INSERT INTO pending_nodes SELECT unnest([a, b]) FROM {pairs}")


def forget_nodes(connection: duckdb.DuckDBPyConnection) -> None:
    """Make pending_nodes, which has none."""
    connection.execute("CREATE OR REPLACE TEMP TABLE pending_nodes (node UUID)")


def note_pending(connection: duckdb.DuckDBPyConnection) -> None:
    """Add the documents of pending_nodes to those whose families are to be solved: call it before the session ends."""
    connection.execute(
        f"""INSERT INTO state.dedup_pending SELECT document_id FROM state.dedup_documents
        WHERE node IN {few("pending_nodes", "node")}"""
    )
