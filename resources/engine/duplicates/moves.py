"""What a change does to the pairs: which buckets propose them no more, and which do now."""

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from stemma.deduplication.families import priority_of
from stemma.deduplication.moves import flags, moved_pairs, nodes_of, pair_keys, shared_members, summed_pairs
from stemma.hashing import UUID, halves, stored_keys
from stemma.resources.engine.duplicates.change import Change
from stemma.resources.engine.duplicates.layers import Layer
from stemma.resources.engine.duplicates.pending import documents_of
from stemma.resources.engine.duplicates.priority import source_ranks
from stemma.resources.engine.run import Run, few
from stemma.resources.handing import execute_over

# Nodes that change, whose buckets are in memory at a time.
CHANGED_NODES = 1 << 16
# Members of buckets: whether each was one, whether it stays or comes, and whether its documents change.
MEMBERS = pa.schema(
    [
        pa.field("bucket", pa.uint32()),
        pa.field("node", UUID),
        pa.field("rank", pa.int64()),
        *(pa.field(name, pa.bool_()) for name in ("asks", "was", "stays", "changes")),
    ]
)


def find_moved(
    run: Run, connection: duckdb.DuckDBPyConnection, layer: Layer, change: Change, entered: pa.Table
) -> list[pa.Table]:
    """Return how many buckets more propose each pair than before: (a, b, buckets), in parts.

    `entered` are the buckets of the nodes that documents come to: (bucket, node, rank, asks, known).
    """
    buckets = entered["bucket"].to_numpy()
    left = change.left
    if left.num_rows:
        buckets = np.concatenate([buckets, _buckets_of(connection, layer, left)])
    parts = 1 + change.nodes.num_rows // CHANGED_NODES
    moved = []
    for part in range(parts):
        chosen = buckets[buckets % parts == part], entered["bucket"].to_numpy() % parts == part
        members = _members(connection, layer, change, chosen[0], entered.filter(pa.array(chosen[1])))
        shared = shared_members(members, directed=layer.directed)
        nodes, numbers = _numbered(shared["node"])
        shared = shared.append_column("member", pa.array(numbers))
        for when, places in zip(
            ("before", "after"), _places(run, connection, change, shared, nodes), strict=True
        ):
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
    values = halves(found.dictionary)
    order = np.lexsort((values[:, 1], values[:, 0]))
    number_of = np.empty(len(order), np.int64)
    number_of[order] = np.arange(len(order))
    return found.dictionary.take(pa.array(order)), number_of[found.indices.to_numpy()]


def _buckets_of(connection: duckdb.DuckDBPyConnection, layer: Layer, nodes: pa.Table) -> np.ndarray:
    found = execute_over(
        connection,
        nodes.select(["node"]),
        f"""SELECT bucket FROM state.dedup_bands
        WHERE layer = {layer.number} AND node IN {few("arriving", "node")}""",
    )
    return found.to_arrow_table()["bucket"].to_numpy()


def _members(
    connection: duckdb.DuckDBPyConnection,
    layer: Layer,
    change: Change,
    buckets: np.ndarray,
    entered: pa.Table,
) -> pa.Table:
    """Return the members of these buckets, and of those that nodes enter: see MEMBERS."""
    found = execute_over(
        connection,
        pa.table({"bucket": buckets}),
        f"""SELECT bucket, node, rank, asks FROM state.dedup_bands
        WHERE layer = {layer.number} AND bucket IN {few("arriving", "bucket")}""",
    ).to_arrow_table()
    place = pc.index_in(stored_keys(found["node"]), stored_keys(change.nodes["node"]))
    came = entered.filter(pc.invert(entered["known"]))
    yes, no = pa.array(np.ones(came.num_rows, bool)), pa.array(np.zeros(came.num_rows, bool))
    parts = [
        [
            *(found[name] for name in ("bucket", "node", "rank")),
            pa.array(flags(found, "asks")),
            pa.array(np.ones(found.num_rows, bool)),
            change.nodes["stays"].take(place).fill_null(True),
            place.is_valid(),
        ],
        [*(came[name] for name in ("bucket", "node", "rank", "asks")), no, yes, yes],
    ]
    return pa.concat_tables(pa.Table.from_arrays(part, schema=MEMBERS) for part in parts)


def _places(
    run: Run, connection: duckdb.DuckDBPyConnection, change: Change, members: pa.Table, nodes: pa.Array
) -> tuple[np.ndarray, np.ndarray]:
    """Return the place of each node in the order of priority, before and after: that of the best of its documents.

    Of those only that are `ordered` among the members, and have documents then; others are at place 0.
    """
    places = np.zeros((2, len(nodes)), np.int64)
    wanted = nodes.take(pc.unique(members["member"].filter(members["ordered"])))
    if len(wanted):
        columns = ["node", "document_id", "source", "document_date", "length", "quality"]
        stood = documents_of(connection, [wanted], ", ".join(columns))
        came = change.came.filter(pc.is_in(stored_keys(change.came["node"]), wanted)).select(columns)
        gone = pc.is_in(stored_keys(stood["document_id"]), stored_keys(change.went["document_id"]))
        documents = pa.concat_tables([stood, came])
        was = np.arange(documents.num_rows) < stood.num_rows
        stays = ~was
        stays[: stood.num_rows] = ~gone.to_numpy(zero_copy_only=False)
        ranks = source_ranks(run, documents["source"])
        order = priority_of(documents.append_column("rank", pa.array(ranks)), run.config.deduplicate.keep)
        node = pc.index_in(stored_keys(documents["node"]), nodes).to_numpy()
        for place, present in zip(places, (was, stays), strict=True):
            best = np.full(len(nodes), documents.num_rows)
            np.minimum.at(best, node[present], order[present])
            place[:] = np.where(best < documents.num_rows, best + 1, 0)
    return places[0], places[1]


def apply_moved(
    connection: duckdb.DuckDBPyConnection, layer: Layer, moved: list[pa.Table], came: pa.Table
) -> tuple[pa.Table, pa.Array]:
    """Count for each pair how many buckets propose it; a verified one that none does any more is forgotten.

    `came` are the documents that come. Returns the candidates, those pairs that are not verified: (a, b, buckets); and
    the nodes (binary(16)) of verified pairs that are no more, or count for other documents. Of a pair that was found
    to be none the count is not kept: if it is proposed anew it is measured again.
    """
    # There are candidates only where a run has ended between finding and measuring them.
    left = connection.execute(
        f"DELETE FROM state.dedup_candidates WHERE layer = {layer.number} RETURNING a, b, buckets"
    ).to_arrow_table()
    pairs = summed_pairs([*moved, left])
    known = _pairs_at(connection, layer, pairs, came)
    keys, known_keys = pair_keys(pairs), pair_keys(known)
    place = pc.index_in(known_keys, keys)
    more = pairs["buckets"].take(place).fill_null(0).to_numpy()
    buckets = known["buckets"].to_numpy() + more
    known = known.set_column(known.schema.get_field_index("buckets"), "buckets", pa.array(buckets))
    verified = f"state.dedup_pairs WHERE layer = {layer.number}"
    gone, other = known.filter(pa.array(buckets <= 0)), known.filter(pa.array((buckets > 0) & (more != 0)))
    if other.num_rows:
        execute_over(
            connection,
            other.select(["place", "buckets"]),
            """UPDATE state.dedup_pairs SET buckets = arriving.buckets FROM arriving
            WHERE dedup_pairs.rowid = arriving.place""",
        )
    if gone.num_rows:
        execute_over(
            connection,
            gone.select(["place"]),
            f"DELETE FROM {verified} AND rowid IN (SELECT place FROM arriving)",
        )
    # What an edge did not count for before, it may count for what came: sources have policies of their own.
    newer = stored_keys(came["node"])
    touched = [pc.is_in(stored_keys(known[side]), newer).to_numpy(zero_copy_only=False) for side in "ab"]
    noted = known.filter(pa.array((buckets <= 0) | touched[0] | touched[1]))
    candidates = pairs.filter(pc.and_not(pc.greater(pairs["buckets"], 0), pc.is_in(keys, known_keys)))
    return candidates, nodes_of(noted)


def _pairs_at(
    connection: duckdb.DuckDBPyConnection, layer: Layer, pairs: pa.Table, came: pa.Table
) -> pa.Table:
    """Return the verified pairs that have a node of these pairs or of what came: (place, a, b, buckets)."""
    nodes = pc.unique(pa.chunked_array([nodes_of(pairs), stored_keys(came["node"])]))
    wanted = few("arriving", "node")
    found = execute_over(
        connection,
        pa.table({"node": pa.ExtensionArray.from_storage(UUID, nodes)}),
        " UNION ALL ".join(
            f"""SELECT rowid AS place, a, b, buckets FROM state.dedup_pairs
            WHERE layer = {layer.number} AND {side} IN {wanted}"""
            for side in "ab"
        ),
    ).to_arrow_table()
    _places, firsts = np.unique(found["place"].to_numpy(), return_index=True)
    return found.take(pa.array(firsts))
