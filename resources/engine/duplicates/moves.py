"""What a change does to the pairs: which buckets propose them no more, and which do now."""

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from stemma.deduplication.moves import moved_pairs, shared_members
from stemma.hashing import UUID
from stemma.resources.engine.duplicates.layers import Layer
from stemma.resources.engine.duplicates.pending import note_nodes
from stemma.resources.engine.duplicates.priority import by_priority
from stemma.resources.engine.run import Run, few, load_rows, make_table
from stemma.resources.memo import stored_keys

# Nodes that change, whose buckets are in memory at a time.
CHANGED_NODES = 1 << 16


def find_moved(
    run: Run, connection: duckdb.DuckDBPyConnection, layer: Layer, *, changed: int, is_left: bool
) -> list[pa.Table]:
    """Return how many buckets more propose each pair than before: (a, b, buckets), in parts.

    `changed` is how many nodes change; `is_left` says that there are some that documents leave and none comes to.
    """
    members = _members(connection, layer.number, is_left=is_left)
    parts = 1 + changed // CHANGED_NODES
    if parts > 1:
        connection.execute(f"CREATE OR REPLACE TEMP TABLE bucket_members AS {members}")
        members = "FROM bucket_members"
    moved = []
    for part in range(parts):
        rows = connection.execute(
            f"FROM ({members}) WHERE bucket % {parts} = {part}" if parts > 1 else members
        )
        shared = shared_members(rows.to_arrow_table(), directed=layer.directed)
        nodes, numbers = _numbered(shared["node"])
        shared = shared.append_column("member", pa.array(numbers))
        for when, places in zip(("before", "after"), _places(run, connection, shared, nodes), strict=True):
            shared = shared.append_column(when, pa.array(places[numbers]))
        pairs = moved_pairs(shared, directed=layer.directed)
        a, b = (
            pa.ExtensionArray.from_storage(UUID, nodes.take(pairs[side].combine_chunks()))
            for side in ("first", "second")
        )
        moved.append(pa.table({"a": a, "b": b, "buckets": pairs["buckets"]}))
    return moved


def _numbered(nodes: pa.ChunkedArray) -> tuple[pa.Array, np.ndarray]:
    """Return the distinct nodes (binary(16)) in the order of UUIDs, and the number (int64) of each one given."""
    found = stored_keys(nodes).dictionary_encode()
    halves = np.frombuffer(found.dictionary.buffers()[1] or b"", ">u8")[: 2 * len(found.dictionary)]
    order = np.lexsort((halves[1::2], halves[::2]))
    number_of = np.empty(len(order), np.int64)
    number_of[order] = np.arange(len(order))
    return found.dictionary.take(pa.array(order)), number_of[found.indices.to_numpy()]


def _members(connection: duckdb.DuckDBPyConnection, number: int, *, is_left: bool) -> str:
    """Return the query of the members of all buckets that anything changes in.

    Of each member (bucket, node, rank, asks) it tells whether it was one, whether it stays or comes, and whether its
    documents change.
    """
    bands = f"state.dedup_bands WHERE layer = {number}"
    buckets = few(f"entered_{number}", "bucket")
    if is_left:
        left = "(SELECT node FROM changed_nodes ANTI JOIN came USING (node))"
        connection.execute(
            f"""CREATE OR REPLACE TEMP TABLE entered_or_left AS SELECT bucket FROM entered_{number}
            UNION SELECT bucket FROM {bands} AND node IN {few(left, "node")}"""
        )
        buckets = few("entered_or_left", "bucket")
    return f"""SELECT bucket, node, rank, asks, true AS was, coalesce(stays, true) AS stays,
            stays IS NOT NULL AS changes
        FROM (FROM {bands} AND bucket IN {buckets}) LEFT JOIN changed_nodes USING (node)
        UNION ALL SELECT bucket, node, rank, asks, false, true, true FROM entered_{number} WHERE NOT known"""


def _places(
    run: Run, connection: duckdb.DuckDBPyConnection, members: pa.Table, nodes: pa.Array
) -> tuple[np.ndarray, np.ndarray]:
    """Return the place of each node in the order of priority, before and after: that of the best of its documents.

    Of those only that are `ordered` among the members, and have documents then; others are at place 0.
    """
    before, after = np.zeros(len(nodes), np.int64), np.zeros(len(nodes), np.int64)
    wanted = pc.unique(members["member"].filter(members["ordered"]))
    if len(wanted):
        load_rows(
            connection,
            "ordered",
            pa.table({"node": pa.ExtensionArray.from_storage(UUID, nodes.take(wanted))}),
        )
        found = connection.execute(
            f"""SELECT node, min(place) FILTER (was) AS before, min(place) FILTER (stays) AS after
            FROM (SELECT node, was, stays, row_number() OVER (ORDER BY {by_priority(run)}) AS place
                FROM (SELECT *, true AS was, NOT document_id IN (SELECT document_id FROM went) AS stays
                        FROM state.dedup_documents WHERE node IN {few("ordered", "node")}
                    UNION ALL SELECT * EXCLUDE (place), false, true FROM came SEMI JOIN ordered USING (node)))
            GROUP BY node"""
        ).to_arrow_table()
        rows = pc.index_in(stored_keys(found["node"]), nodes).to_numpy()
        for places, when in ((before, "before"), (after, "after")):
            places[rows] = found[when].fill_null(0).to_numpy()
    return before, after


def apply_moved(connection: duckdb.DuckDBPyConnection, layer: Layer, moved: list[pa.Table]) -> pa.Table:
    """Count for each pair how many buckets propose it; a verified one that none does any more is forgotten.

    Returns the candidates, those that are not verified: (a, b, buckets). Of a pair that was found to be none
    the count is not kept: if it is proposed anew it is measured again.
    """
    number = layer.number
    known = f"state.dedup_pairs WHERE layer = {number}"
    # There are some only where a run has ended between finding and measuring them.
    left = connection.execute(f"SELECT a, b, buckets FROM state.dedup_candidates WHERE layer = {number}")
    parts = [part for part in (*moved, left.to_arrow_table()) if part.num_rows]
    pairs = sum(part.num_rows for part in parts)
    load_rows(connection, "moved_pairs", pa.concat_tables(parts or moved))
    if len(parts) > 1:
        pairs = make_table(
            connection,
            "moved_pairs",
            """SELECT a, b, sum(buckets)::BIGINT AS buckets FROM moved_pairs
            GROUP BY a, b HAVING sum(buckets) <> 0""",
        )
    if pairs:
        connection.execute(
            f"""UPDATE state.dedup_pairs SET buckets = dedup_pairs.buckets + moved_pairs.buckets FROM moved_pairs
            WHERE layer = {number} AND dedup_pairs.a = moved_pairs.a AND dedup_pairs.b = moved_pairs.b"""
        )
    # What an edge did not count for before, it may count for what came: sources have policies of their own.
    came = few("came", "node")
    note_nodes(connection, f"(FROM {known} AND (buckets <= 0 OR a IN {came} OR b IN {came}))")
    candidates = connection.execute(
        f"SELECT a, b, buckets FROM moved_pairs ANTI JOIN (FROM {known}) USING (a, b) WHERE buckets > 0"
    ).to_arrow_table()
    if pairs:
        connection.execute(f"DELETE FROM {known} AND buckets <= 0")
    return candidates
