"""Families of duplicates, and which document of each is kept.

Connected components alone remove documents that resemble nothing that is kept (A-B-C: B is like both, A and
C are unlike; 9 % of what they remove, DESIGN §7). So a family records what hangs together, and a document is
removed only for a kept witness: its exact duplicate, or a verified neighbour.
"""

from typing import Literal, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from stemma.hashing import UUID

Keep = Literal["oldest", "newest", "longest"]

FAMILIES = pa.schema(
    [
        pa.field("document_id", UUID, nullable=False),
        pa.field("cluster_id", UUID, nullable=False),
        pa.field("cluster_size", pa.int64(), nullable=False),
        pa.field("kept", pa.bool_(), nullable=False),
        pa.field("kept_document_id", UUID),
        pa.field("similarity", pa.float64()),
        pa.field("method", pa.string()),
    ]
)

# Sorts after every date, whichever way the dates are sorted.
UNDATED = np.iinfo(np.int64).max


class Edges(NamedTuple):
    """Undirected edges between nodes, each in both directions."""

    source: np.ndarray
    target: np.ndarray
    similarity: np.ndarray


def families(documents: pa.Table, edges: pa.Table, *, keep: Keep = "oldest") -> pa.Table:
    """Group documents into families and decide which are kept; the order of rows does not matter.

    Takes `documents` with document_id (uuid, unique), node (uuid; documents with the same node are exact
    duplicates), document_date (date32 or null) and length (int64), and `edges` with a, b (uuid, nodes) and
    similarity (float64), one for each verified pair of near-duplicate nodes.

    Documents have a priority: the earliest date first (`keep="oldest"`), the latest ("newest"), or the
    greatest length and then the earliest date ("longest"); documents without a date come last, and ties go
    by the bytes of the id. In that order a document is kept unless a kept one is its duplicate (a greedy
    maximal independent set).

    Returns a row for each document, in the same order: document_id; cluster_id (the smallest document_id of
    its family: the connected component, exact duplicates included); cluster_size; kept; and for documents
    removed kept_document_id (the witness: the kept neighbour of highest similarity, ties by priority),
    similarity and method: "exact", or "near" where the witness is another node. A removed node's documents
    all count as near.

    Raises ValueError if a document_id comes twice, an edge names an unknown node, or `keep` is none of these.
    """
    if not documents.num_rows:
        return FAMILIES.empty_table()
    identity = _ranks(documents.column("document_id"))[0]
    if len(np.unique(identity)) < len(identity):
        raise ValueError("a document_id comes twice")
    priority = _priority(documents, identity, keep)
    node, best, links = _nodes(documents, edges, priority)
    removed = _removed(len(best), links)
    witness, similarity = _witnesses(removed, links)
    component = _components(len(best), links)[node]

    keeper = best[np.where(removed, witness, np.arange(len(best)))][node]
    is_near = removed[node]
    is_kept = keeper == np.arange(len(keeper))
    ids = documents.column("document_id").combine_chunks()
    sizes = np.bincount(component)
    smallest = np.empty(len(sizes), np.int64)
    descending = np.argsort(-identity)
    smallest[component[descending]] = descending
    return pa.Table.from_arrays(
        [
            ids,
            _taken(ids, smallest[component]),
            pa.array(sizes[component]),
            pa.array(is_kept),
            _taken(ids, keeper, mask=is_kept),
            pa.array(np.where(is_near, similarity[node], 1.0), mask=is_kept),
            pa.array(np.where(is_near, "near", "exact"), pa.string(), mask=is_kept),
        ],
        schema=FAMILIES,
    )


def _ranks(*columns: pa.ChunkedArray) -> list[np.ndarray]:
    """Rank uuids by their bytes, equal ones equally, across all columns."""
    halves = np.concatenate([_halves(column) for column in columns])
    order = np.lexsort((halves[:, 1], halves[:, 0]))
    is_new = np.any(halves[order[1:]] != halves[order[:-1]], axis=1)
    ranks = np.empty(len(halves), np.int64)
    ranks[order] = np.concatenate(([0], np.cumsum(is_new))) if len(halves) else 0
    return np.split(ranks, np.cumsum([len(column) for column in columns])[:-1])


def _halves(column: pa.ChunkedArray) -> np.ndarray:
    """View uuids as pairs of big-endian integers, which sort as their bytes do."""
    if column.null_count:
        raise ValueError("document_id, node, a and b must not be null")
    parts = []
    for chunk in column.chunks:
        storage = chunk.storage if isinstance(chunk, pa.ExtensionArray) else chunk
        data = np.frombuffer(storage.buffers()[1], ">u8", 2 * len(storage), 16 * storage.offset)
        parts.append(data.astype(np.uint64).reshape(-1, 2))
    return np.concatenate(parts) if parts else np.empty((0, 2), np.uint64)


def _priority(documents: pa.Table, identity: np.ndarray, keep: Keep) -> np.ndarray:
    """Return each document's place in the order of priority (0 is the best)."""
    dates = pc.cast(documents.column("document_date"), pa.int32())
    days = dates.fill_null(0).to_numpy().astype(np.int64)
    undated = dates.is_null().to_numpy()
    oldest = np.where(undated, UNDATED, days)
    keys: tuple[np.ndarray, ...]
    if keep == "oldest":
        keys = (identity, oldest)
    elif keep == "newest":
        keys = (identity, np.where(undated, UNDATED, -days))
    elif keep == "longest":
        keys = (identity, oldest, -documents.column("length").to_numpy())
    else:
        raise ValueError(f"keep must be oldest, newest or longest, not {keep!r}")
    priority = np.empty(len(identity), np.int64)
    priority[np.lexsort(keys)] = np.arange(len(identity))
    return priority


def _nodes(
    documents: pa.Table, edges: pa.Table, priority: np.ndarray
) -> tuple[np.ndarray, np.ndarray, Edges]:
    """Number the nodes in the order of priority of their best documents.

    Returns the node of each document, the best document of each node, and the edges between nodes.
    """
    by_priority = np.argsort(priority)
    names, a, b = _ranks(documents.column("node"), edges.column("a"), edges.column("b"))
    best = by_priority[np.sort(np.unique(names[by_priority], return_index=True)[1])]
    number = np.full(max(part.max(initial=0) for part in (names, a, b)) + 1, -1)
    number[names[best]] = np.arange(len(best))
    a, b = number[a], number[b]
    if min(a.min(initial=0), b.min(initial=0)) < 0:
        raise ValueError("an edge names a node that no document has")
    distinct = a != b
    similarity = edges.column("similarity").to_numpy()[distinct]
    source = np.concatenate((a[distinct], b[distinct]))
    target = np.concatenate((b[distinct], a[distinct]))
    links = Edges(source, target, np.concatenate((similarity, similarity)))
    return number[names], best, links


def _components(nodes: int, links: Edges) -> np.ndarray:
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    ones = np.ones(len(links.source), np.int8)
    graph = coo_array((ones, (links.source, links.target)), shape=(nodes, nodes))
    return connected_components(graph, directed=False)[1]


def _removed(nodes: int, links: Edges) -> np.ndarray:
    """Mark the nodes outside the greedy maximal independent set; nodes are numbered by priority."""
    order = np.argsort(links.source, kind="stable")
    neighbours = links.target[order]
    linked, starts = np.unique(links.source[order], return_index=True)
    removed = np.zeros(nodes, bool)
    for node, start, stop in zip(
        linked.tolist(), starts.tolist(), [*starts[1:].tolist(), len(neighbours)], strict=False
    ):
        if not removed[node]:
            removed[neighbours[start:stop]] = True
    return removed


def _witnesses(removed: np.ndarray, links: Edges) -> tuple[np.ndarray, np.ndarray]:
    """Return each removed node's most similar kept neighbour, the first by priority, and the similarity."""
    testifies = removed[links.source] & ~removed[links.target]
    source, target, similarity = (part[testifies] for part in links)
    order = np.lexsort((target, -similarity, source))
    losers, first = np.unique(source[order], return_index=True)
    witness, score = np.zeros(len(removed), np.int64), np.zeros(len(removed))
    witness[losers], score[losers] = target[order[first]], similarity[order[first]]
    return witness, score


def _taken(ids: pa.ExtensionArray, positions: np.ndarray, mask: np.ndarray | None = None) -> pa.Array:
    """Take ids by position; null where the mask is set."""
    return ids.take(pa.array(positions, mask=mask))
