"""Which rows of a matrix of unit vectors make a good subset: diverse, covering, or alike to examples.

Every choice is a function of the vectors, their order and the seed.
"""

import itertools
import warnings
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Vectors = npt.NDArray[np.float32]
Rows = npt.NDArray[np.int64]

# More vectors are clustered in small batches, which takes a fraction of the time.
CLUSTERED_WHOLE = 20_000
# Similarities held in memory together: 64 MB.
SIMILARITIES = 1 << 24


class Selection(NamedTuple):
    """Rows that were chosen, the best first.

    Attributes:
        rows (int64[n]): their positions.
        scores (float64[n]): of `diverse` the cosine similarity with the centre of the cluster, of `covering` the
            cosine distance to the nearest row chosen before, of `alike` the similarity with the nearest example.
        groups (int64[n]): of `diverse` the number of the cluster, of `alike` that of the example; otherwise -1.
    """

    rows: Rows
    scores: npt.NDArray[np.float64]
    groups: Rows


def document_vectors(documents: Rows, vectors: Vectors, weights: npt.NDArray[np.float64]) -> Vectors:
    """Return a unit vector for each document: the mean of its chunks' vectors, weighted.

    `documents` (int64[n], sorted) numbers the document of each chunk from 0 without gaps, `vectors`
    (float32[n, d]) and `weights` (float64[n], such as tokens) are the chunks'. A mean of zero stays zero.
    """
    starts = np.flatnonzero(np.diff(documents, prepend=-1))
    sums = np.add.reduceat(vectors * weights[:, None], starts, axis=0) if len(starts) else vectors
    return unit(sums)


def unit(vectors: npt.NDArray[np.floating]) -> Vectors:
    """Return the rows of a matrix at length 1 (float32); zeros stay zeros."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.divide(vectors, lengths, out=np.zeros(vectors.shape), where=lengths > 0).astype(np.float32)


def diverse(vectors: Vectors, count: int, *, rounds: int = 5, seed: int = 0) -> Selection:
    """Choose rows from all over the space, however crowded its parts are.

    The vectors (float32[n, d], of length 1) are clustered by k-means into as many clusters as each round takes
    rows. In each round every cluster gives one: first what is nearest to its centre, then what is least similar
    to all that it gave before (Sorscher et al. 2022 cluster so to prune; the rounds over clusters after Yu et al.
    2024, "Diversify and Conquer"). Clusters that run out leave their turn to the others.
    """
    count = min(count, len(vectors))
    if count == 0:
        return _selection([], [], [])
    labels, centres = _clusters(vectors, max(1, -(-count // max(rounds, 1))), seed)
    closeness = np.einsum("nd,nd->n", vectors, centres[labels]).astype(np.float64)
    givers = [
        _spread(vectors, np.flatnonzero(labels == label), closeness) for label in np.unique(labels).tolist()
    ]
    rows: list[int] = []
    while len(rows) < count:
        given = [row for giver in givers for row in itertools.islice(giver, 1)]
        rows.extend(sorted(given, key=lambda row: (-closeness[row], row)))
    rows = rows[:count]
    return _selection(rows, closeness[rows], labels[rows])


def covering(vectors: Vectors, count: int) -> Selection:
    """Choose rows such that no vector is far from all of them: the greedy k-center choice.

    It starts with the row nearest to the mean and goes on with the one farthest from all chosen (Gonzalez 1985, at
    most twice the best radius; Sener & Savarese 2018 for core sets). Vectors: float32[n, d] of length 1. Takes
    `count` passes over the vectors.
    """
    count = min(count, len(vectors))
    if count == 0:
        return _selection([], [], [])
    rows = [int(np.argmax(vectors @ vectors.mean(axis=0)))]
    nearest = vectors @ vectors[rows[0]]
    scores = [0.0]
    taken = np.zeros(len(vectors), bool)
    while len(rows) < count:
        taken[rows[-1]] = True
        row = int(np.argmin(np.where(taken, np.inf, nearest)))
        scores.append(1.0 - float(nearest[row]))
        rows.append(row)
        np.maximum(nearest, vectors @ vectors[row], out=nearest)
    return _selection(rows, scores, [-1] * count)


def alike(vectors: Vectors, examples: Vectors, count: int) -> Selection:
    """Choose the rows whose vectors (float32[n, d]) are most similar to any of the examples (float32[m, d])."""
    best = np.full(len(vectors), -np.inf)
    group = np.full(len(vectors), -1, np.int64)
    step = max(1, SIMILARITIES // max(1, len(examples)))
    for start in range(0, len(vectors), step):
        similarity = vectors[start : start + step] @ examples.T
        group[start : start + step] = similarity.argmax(axis=1)
        best[start : start + step] = similarity.max(axis=1)
    rows = np.lexsort((np.arange(len(best)), -best))[:count]
    return _selection(rows, best[rows], group[rows])


def _selection(rows: npt.ArrayLike, scores: npt.ArrayLike, groups: npt.ArrayLike) -> Selection:
    return Selection(np.asarray(rows, np.int64), np.asarray(scores, np.float64), np.asarray(groups, np.int64))


def _clusters(vectors: Vectors, count: int, seed: int) -> tuple[Rows, Vectors]:
    """Return the cluster of each vector, and the centres at length 1."""
    from sklearn.cluster import KMeans, MiniBatchKMeans
    from sklearn.exceptions import ConvergenceWarning
    from threadpoolctl import threadpool_limits

    kind = KMeans if len(vectors) <= CLUSTERED_WHOLE else MiniBatchKMeans
    # On several threads sums come in another order each time, and so would the choice.
    with threadpool_limits(1), warnings.catch_warnings():
        # Equal vectors may be fewer clusters than asked for.
        warnings.simplefilter("ignore", ConvergenceWarning)
        model = kind(n_clusters=min(count, len(vectors)), n_init=3, random_state=seed).fit(vectors)
    return model.labels_.astype(np.int64), unit(model.cluster_centers_)


def _spread(vectors: Vectors, members: Rows, closeness: npt.NDArray[np.float64]) -> Iterator[int]:
    """Yield the members of a cluster in the order in which it gives them."""
    own = vectors[members]
    place = int(np.argmax(closeness[members]))
    nearest = np.full(len(members), -np.inf)
    for _ in range(len(members)):
        yield int(members[place])
        nearest = np.maximum(nearest, own @ own[place])
        # What was given is never the farthest again.
        nearest[place] = np.inf
        place = int(np.argmin(nearest))
