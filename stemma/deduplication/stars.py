"""Connected components by an engine that many machines make up: alternating large-star and small-star.

Kiveris, Lattanzi, Mirrokni, Rastogi and Vassilvitskii, "Connected Components in MapReduce and Beyond" (SoCC 2014).
Each step sees a node with all its neighbours, which is an exchange by node and nothing else, and hangs them below the
smallest: after about log2(nodes) rounds each component is a star around its smallest node. `components`, in one
process's memory, is much faster as long as the edges fit there.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Protocol

import numpy as np
import pyarrow as pa

from stemma.deduplication.runs import differs

# Edges in one table that is handed to the engine: 16 MB.
EDGES = 1 << 20

Function = Callable[[pa.Table], pa.Table]


class Shuffle(Protocol):
    """What an engine must do; see stemma/resources/executors."""

    def scatter(self, tables: Iterable[pa.Table]) -> Any: ...

    def map(self, rows: Any, function: Function) -> Any: ...

    def exchange(self, rows: Any, key: str, function: Function) -> Any: ...

    def gather(self, rows: Any) -> Iterator[pa.Table]: ...


def connected(nodes: int, source: np.ndarray, target: np.ndarray, shuffle: Shuffle) -> np.ndarray:
    """Return what `components` returns of the same edges, computed by an engine."""
    smallest = np.arange(nodes)
    for table in star_components(source, target, shuffle):
        smallest[table["a"].to_numpy()] = table["b"].to_numpy()
    return np.unique(smallest, return_inverse=True)[1]


def star_components(source: np.ndarray, target: np.ndarray, shuffle: Shuffle) -> Iterator[pa.Table]:
    """Yield (a: int64, a node that is not the smallest of its component; b: int64, that one), each once.

    Edge i joins source[i] and target[i] (int64).
    """
    parts = range(0, len(source), EDGES)
    rows = shuffle.scatter(
        _both_ways(source[start : start + EDGES], target[start : start + EDGES]) for start in parts
    )
    changed = len(source) > 0
    while changed:
        rows = shuffle.exchange(shuffle.exchange(rows, "a", large_star), "a", small_star)
        told = [
            table["changed"].to_numpy(zero_copy_only=False)
            for table in shuffle.gather(shuffle.map(rows, any_changed))
        ]
        changed = bool(np.concatenate([*told, np.zeros(1, bool)]).any())
    yield from shuffle.gather(shuffle.map(rows, downwards))


def large_star(rows: pa.Table) -> pa.Table:
    """Hang the larger neighbours of each node below the smallest of its neighbours and itself.

    `rows` has a and b (int64): each edge both ways, and all rows of each a. Returns a > b and changed (bool): whether
    any edge is another than before. Not every edge has a row: those of the smaller neighbours come of these.
    """
    a, b = _distinct(rows)
    low = _lowest(a, b)
    larger = b > a
    return _table(b[larger], low[larger], low[larger] != a[larger])


def small_star(rows: pa.Table) -> pa.Table:
    """Hang each node, and its smaller neighbours, below the smallest of these.

    `rows` has a > b (int64), all rows of each a, and changed. Returns each edge both ways, and changed: whether that
    is so of any row of the node, or of the node itself.
    """
    told = np.unique(rows["a"].to_numpy()[rows["changed"].to_numpy(zero_copy_only=False)])
    a, b = _distinct(rows)
    low = _lowest(a, b)
    first = differs(a)
    sizes = np.diff(np.flatnonzero(first), append=len(a))
    changed = np.isin(a, told) | (np.repeat(sizes, sizes) > 1)
    # The node itself, and of its neighbours all but the smallest.
    more = b > low
    node = np.concatenate([a[first], b[more]])
    below = np.concatenate([low[first], low[more]])
    both = np.concatenate([changed[first], changed[more]])
    return _table(np.concatenate([node, below]), np.concatenate([below, node]), np.concatenate([both, both]))


def any_changed(rows: pa.Table) -> pa.Table:
    """Return one row: whether any of these says `changed`."""
    return pa.table({"changed": [bool(rows["changed"].to_numpy(zero_copy_only=False).any())]})


def downwards(rows: pa.Table) -> pa.Table:
    """Return (a, b) of the rows with a > b."""
    a, b = rows["a"].to_numpy(), rows["b"].to_numpy()
    return pa.table({"a": a[a > b], "b": b[a > b]})


def _both_ways(source: np.ndarray, target: np.ndarray) -> pa.Table:
    apart = source != target
    a, b = source[apart], target[apart]
    return pa.table({"a": np.concatenate([a, b]), "b": np.concatenate([b, a])})


def _distinct(rows: pa.Table) -> tuple[np.ndarray, np.ndarray]:
    """Return a and b of the distinct rows, in the order of both."""
    a, b = rows["a"].to_numpy(), rows["b"].to_numpy()
    order = np.lexsort((b, a))
    a, b = a[order], b[order]
    new = differs(a) | differs(b)
    return a[new], b[new]


def _lowest(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return, for rows in order, the smallest of a and its b."""
    first = np.flatnonzero(differs(a))
    return np.repeat(np.minimum(a[first], b[first]), np.diff(first, append=len(a)))


def _table(a: np.ndarray, b: np.ndarray, changed: np.ndarray) -> pa.Table:
    return pa.table(
        {"a": pa.array(a, pa.int64()), "b": pa.array(b, pa.int64()), "changed": pa.array(changed, pa.bool_())}
    )
