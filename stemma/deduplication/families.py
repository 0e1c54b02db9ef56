"""Families of duplicates, and which document of each is kept.

Connected components alone remove documents that resemble nothing that is kept (A-B-C: B is like both, A and
C are unlike; 9 % of what they remove, DESIGN §7). So a family records what hangs together, and a document is
removed only for a kept witness: its exact duplicate, or a verified neighbour.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from heapq import heappop, heappush
from typing import Literal, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from stemma.deduplication.components import components
from stemma.hashing import UUID, halves, stored_keys

Keep = Literal["oldest", "newest", "longest", "best"]

# The better witness comes first where a document has several.
METHODS = ("exact", "near", "contained", "edit", "semantic")
EXACT, CONTAINED, SEMANTIC = (METHODS.index(name) for name in ("exact", "contained", "semantic"))

FAMILIES = pa.schema(
    [
        pa.field("document_id", UUID, nullable=False),
        pa.field("cluster_id", UUID, nullable=False),
        pa.field("cluster_size", pa.int64(), nullable=False),
        pa.field("kept", pa.bool_(), nullable=False),
        pa.field("kept_document_id", UUID),
        pa.field("similarity", pa.float64()),
        pa.field("method", pa.string()),
        pa.field("threshold", pa.float64()),
    ]
)

# Sorts after every date, whichever way the dates are sorted.
UNDATED = np.iinfo(np.int64).max

# Where equal documents are decided apart, each may be removed for so many of the first among them.
EQUAL_WITNESSES = 4


@dataclass(frozen=True)
class Policy:
    """What a document is removed for: the methods, each with the similarity from which it counts.

    Documents of different categories are never semantic duplicates.
    """

    thresholds: Mapping[str, float] = field(default_factory=dict)
    category: str = ""

    @property
    def collapsing(self) -> str | None:
        """The method that equal documents are removed by, if any: all but containment compare both sides."""
        return next((name for name in METHODS if name in self.thresholds and name != "contained"), None)


# Numbers the connected component of each node, as `components` does.
Connect = Callable[[int, np.ndarray, np.ndarray], np.ndarray]


class Edges(NamedTuple):
    """Verified edges between nodes: what is true of `source` and `target`, by the number of the method."""

    source: np.ndarray
    target: np.ndarray
    similarity: np.ndarray
    method: np.ndarray

    def where(self, chosen: np.ndarray) -> "Edges":
        return Edges(*(part[chosen] for part in self))


def families(
    documents: pa.Table,
    edges: pa.Table,
    *,
    policies: Sequence[Policy],
    keep: Keep = "oldest",
    connect: Connect = components,
) -> pa.Table:
    """Group documents into families and decide which are kept; the order of rows does not matter.

    Takes `documents` with document_id (uuid, unique), node (uuid; documents with the same node are exact
    duplicates), policy (int64: what it may be removed for, a place in `policies`), rank (int64: that of its
    source, 0 for the most precious), document_date (date32 or null), length (int64) and quality (float64 or
    null, the worst), and `edges` with a, b (uuid, nodes), method (string) and similarity (float64), one for
    each verified pair of nodes. An edge of the method `contained` says that a contains b; all others are
    symmetric.

    Documents have a priority: by rank; then the earliest date first (`keep="oldest"`), the latest ("newest"),
    or the greatest length or quality and then the earliest date ("longest", "best"); documents without a date
    come last, and ties go by the bytes of the id. Of two neighbours the first wins over the other, but a
    container wins over what it contains, unless that has the better rank, or another edge joins the two.
    Winners are decided before those they win over (where they wait for each other in a circle, the first by
    priority), and a document is kept unless a kept one wins over it. With symmetric edges alone that is a
    greedy maximal independent set.

    Returns a row for each document, in the same order: document_id; cluster_id (the smallest document_id of
    its family: the connected component, exact duplicates included); cluster_size; kept; and for documents
    removed kept_document_id (the witness: the kept neighbour by the first of METHODS, of the highest similarity,
    ties by priority), similarity, method and the policy's threshold for it.

    `connect` finds the connected components; another way to find them changes nothing.

    Raises ValueError if a document_id comes twice, an edge names an unknown node or method, or `keep` is none
    of these.
    """
    if not documents.num_rows:
        return FAMILIES.empty_table()
    identity = _ranks(documents.column("document_id"))[0]
    if len(np.unique(identity)) < len(identity):
        raise ValueError("a document_id comes twice")
    priority = _priority(documents, identity, keep)
    policy = documents.column("policy").to_numpy()
    node, best, links = _nodes(documents, edges, priority, policies)
    counts = _counting(links, policy[best], policies)
    testimonies = _testimonies(links, counts, documents.column("rank").to_numpy()[best])
    removed = _removed(len(best), _arcs(testimonies, len(best)))
    witness = _witnesses(removed, testimonies)
    joined = links.where(counts[0] | counts[1])
    component = connect(len(best), joined.source, joined.target)[node]

    is_removed = removed[node]
    keeper = best[np.where(removed, witness.source, np.arange(len(best)))][node]
    is_kept = keeper == np.arange(len(keeper))
    collapsed = np.array([METHODS.index(each.collapsing or "exact") for each in policies])[policy]
    is_equal = ~is_removed | (witness.method[node] == EXACT)
    method = np.where(is_equal, collapsed, witness.method[node])
    similarity = np.where(is_removed, witness.similarity[node], 1.0)
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
            pa.array(similarity, mask=is_kept),
            pa.array(np.array(METHODS, object)[method], pa.string(), mask=is_kept),
            pa.array(_thresholds(policies)[policy, method], mask=is_kept),
        ],
        schema=FAMILIES,
    )


def _ranks(*columns: pa.ChunkedArray) -> list[np.ndarray]:
    """Rank uuids by their bytes, equal ones equally, across all columns."""
    values = np.concatenate([_halves(column) for column in columns])
    order = np.lexsort((values[:, 1], values[:, 0]))
    is_new = np.any(values[order[1:]] != values[order[:-1]], axis=1)
    ranks = np.empty(len(values), np.int64)
    ranks[order] = np.concatenate(([0], np.cumsum(is_new))) if len(values) else 0
    return np.split(ranks, np.cumsum([len(column) for column in columns])[:-1])


def _halves(column: pa.ChunkedArray) -> np.ndarray:
    if column.null_count:
        raise ValueError("document_id, node, a and b must not be null")
    return halves(stored_keys(column))


def priority_of(documents: pa.Table, keep: Keep) -> np.ndarray:
    """Return each document's place (int64) in the order of priority (0 is the best), as `families` goes by it.

    Takes document_id, rank, document_date, length and quality, see there. A document that stands there twice is no
    error.
    """
    return _priority(documents, _ranks(documents.column("document_id"))[0], keep)


def _priority(documents: pa.Table, identity: np.ndarray, keep: Keep) -> np.ndarray:
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
    elif keep == "best":
        keys = (identity, oldest, -documents.column("quality").fill_null(-np.inf).to_numpy())
    else:
        raise ValueError(f"keep must be oldest, newest, longest or best, not {keep!r}")
    priority = np.empty(len(identity), np.int64)
    priority[np.lexsort((*keys, documents.column("rank").to_numpy()))] = np.arange(len(identity))
    return priority


def _thresholds(policies: Sequence[Policy]) -> np.ndarray:
    """Return the threshold of each policy (row) for each method (column): infinite where it has none."""
    infinite = float("inf")
    return np.array(
        [[policy.thresholds.get(method, infinite) for method in METHODS] for policy in policies], np.float64
    )


def _nodes(
    documents: pa.Table, edges: pa.Table, priority: np.ndarray, policies: Sequence[Policy]
) -> tuple[np.ndarray, np.ndarray, Edges]:
    """Number what is decided as one: equal documents of one policy and rank.

    A document whose policy does not remove equal ones is decided alone. Returns the number of each document,
    the best document of each number (numbers are in the order of their priority), and the edges between them.
    """
    texts, a, b = _ranks(documents.column("node"), edges.column("a"), edges.column("b"))
    parts = _parts(documents, policies)
    codes = texts * (parts.max() + 1) + parts
    by_priority = np.argsort(priority)
    _known, first, number = np.unique(codes[by_priority], return_index=True, return_inverse=True)
    order = np.argsort(first)
    best = by_priority[first[order]]
    place = np.empty(len(order), np.int64)
    place[order] = np.arange(len(order))
    node = np.empty(len(codes), np.int64)
    node[by_priority] = place[number]
    owners = texts[best]
    if not np.isin(np.concatenate((a, b)), owners).all():
        raise ValueError("an edge names a node that no document has")
    return node, best, _joined(_edges(edges, a, b), owners)


def _parts(documents: pa.Table, policies: Sequence[Policy]) -> np.ndarray:
    """Return a number (int64) for each document: equal texts with the same are decided as one."""
    policy, rank = documents.column("policy").to_numpy(), documents.column("rank").to_numpy()
    parts = policy * (rank.max() + 1) + rank
    alone = np.array([each.collapsing is None for each in policies])[policy]
    return np.where(alone, parts.max() + 1 + np.arange(len(parts)), parts)


def _edges(edges: pa.Table, a: np.ndarray, b: np.ndarray) -> Edges:
    method = pc.index_in(edges.column("method"), pa.array(METHODS))
    if method.null_count:
        raise ValueError(f"the methods are {', '.join(METHODS)}")
    links = Edges(a, b, edges.column("similarity").to_numpy(), method.to_numpy().astype(np.int64))
    return links.where(a != b)


def _joined(links: Edges, owners: np.ndarray) -> Edges:
    """Turn edges between texts into edges between the numbers whose text `owners` tells, equal texts joined."""
    order = np.argsort(owners, kind="stable")
    texts, starts, counts = np.unique(owners[order], return_index=True, return_counts=True)
    source, target = np.searchsorted(texts, links.source), np.searchsorted(texts, links.target)
    each, nth_source = _repeated(counts[source])
    again, nth_target = _repeated(counts[target[each]])
    each = each[again]
    between = Edges(
        order[starts[source[each]] + nth_source[again]],
        order[starts[target[each]] + nth_target],
        links.similarity[each],
        links.method[each],
    )
    text, nth = _repeated(counts)
    firsts, behind = _repeated(np.minimum(nth, EQUAL_WITNESSES))
    equal = Edges(
        order[starts[text[firsts]] + behind],
        order[starts[text[firsts]] + nth[firsts]],
        np.ones(len(firsts)),
        np.full(len(firsts), EXACT),
    )
    return Edges(*(np.concatenate(pair) for pair in zip(between, equal, strict=True)))


def _repeated(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return each position as often as its count says, and which time it is (from 0)."""
    position = np.repeat(np.arange(len(counts)), counts)
    return position, np.arange(len(position)) - np.repeat(np.cumsum(counts) - counts, counts)


def _counting(links: Edges, policy: np.ndarray, policies: Sequence[Policy]) -> tuple[np.ndarray, np.ndarray]:
    """Tell of each edge whether it counts for its source, and whether for its target, by their policies."""
    thresholds = _thresholds(policies)
    thresholds[[each.collapsing is not None for each in policies], EXACT] = 1.0
    category = np.array([each.category for each in policies])[policy]
    apart = (links.method == SEMANTIC) & (category[links.source] != category[links.target])
    source = links.similarity >= thresholds[policy[links.source], links.method]
    target = links.similarity >= thresholds[policy[links.target], links.method]
    return source & ~apart & (links.method != CONTAINED), target & ~apart


def _testimonies(links: Edges, counts: tuple[np.ndarray, np.ndarray], rank: np.ndarray) -> Edges:
    """Return from every node that could testify an edge to the node that may be removed for it."""
    for_source, for_target = counts
    forth, back = links.where(for_target), links.where(for_source)
    back = back._replace(source=back.target, target=back.source)
    both = Edges(*(np.concatenate(pair) for pair in zip(forth, back, strict=True)))
    return both.where(rank[both.source] <= rank[both.target])


def _arcs(testimonies: Edges, nodes: int) -> Edges:
    """Return the edges from those that win to those that they win over."""
    pair = np.minimum(testimonies.source, testimonies.target) * nodes
    pair += np.maximum(testimonies.source, testimonies.target)
    contains = testimonies.method == CONTAINED
    wins = ~contains & (testimonies.source < testimonies.target)
    return testimonies.where(wins | (contains & ~np.isin(pair, pair[wins])))


def _removed(nodes: int, arcs: Edges) -> np.ndarray:
    """Mark the nodes that a kept one wins over."""
    place = _decision_order(nodes, arcs)
    arcs = arcs.where(place[arcs.source] < place[arcs.target])
    order = np.argsort(place[arcs.source], kind="stable")
    losers = arcs.target[order]
    winners, starts = np.unique(place[arcs.source][order], return_index=True)
    winners = arcs.source[order][starts]
    removed = np.zeros(nodes, bool)
    for node, start, stop in zip(
        winners.tolist(), starts.tolist(), [*starts[1:].tolist(), len(losers)], strict=False
    ):
        if not removed[node]:
            removed[losers[start:stop]] = True
    return removed


def _decision_order(nodes: int, arcs: Edges) -> np.ndarray:
    """Return each node's place: by priority (its number), but winners before those that they win over."""
    if np.all(arcs.source < arcs.target):
        return np.arange(nodes)
    order = np.argsort(arcs.source, kind="stable")
    losers = np.split(arcs.target[order], np.searchsorted(arcs.source[order], np.arange(1, nodes)))
    waiting = np.bincount(arcs.target, minlength=nodes)
    ready = np.flatnonzero(waiting == 0).tolist()
    place = np.full(nodes, -1)
    in_a_circle = iter(range(nodes))
    for turn in range(nodes):
        # All that is left waits for itself: the first by priority goes ahead.
        node = heappop(ready) if ready else next(each for each in in_a_circle if place[each] < 0)
        place[node] = turn
        for loser in losers[node].tolist():
            waiting[loser] -= 1
            if waiting[loser] == 0 and place[loser] < 0:
                heappush(ready, loser)
    return place


def _witnesses(removed: np.ndarray, testimonies: Edges) -> Edges:
    """Return of each removed node the edge from its witness, zeros for the others."""
    testimonies = testimonies.where(removed[testimonies.target] & ~removed[testimonies.source])
    order = np.lexsort((testimonies.source, -testimonies.similarity, testimonies.method, testimonies.target))
    losers, first = np.unique(testimonies.target[order], return_index=True)
    found = Edges(*(np.zeros(len(removed), part.dtype) for part in testimonies))
    for whole, part in zip(found, testimonies.where(order[first]), strict=True):
        whole[losers] = part
    return found


def _taken(ids: pa.ExtensionArray, positions: np.ndarray, mask: np.ndarray | None = None) -> pa.Array:
    """Take ids by position; null where the mask is set."""
    return ids.take(pa.array(positions, mask=mask))
