"""A map of vectors: their two principal components, found by numpy."""

import numpy as np
import numpy.typing as npt

from stemma.embedding.arrays import Vectors

# Points beyond these quantiles would press all others together; they are drawn at the edge.
EDGES = (0.005, 0.995)
DIRECTIONS = 12
ITERATIONS = 20


def projected(vectors: Vectors) -> npt.NDArray[np.float64]:
    """Return each vector's place in the unit square: its directions' two principal components, scaled.

    The same vectors give the same places: of the two ways that a component may point, the one is taken in which its
    largest number is positive. Vectors that are zero or not finite lie at the centre.
    """
    lengths = np.linalg.norm(np.where(np.isfinite(vectors), vectors, 0).astype(np.float64), axis=1)
    sound = np.isfinite(vectors).all(axis=1) & (lengths > 0)
    unit = np.where(sound[:, None], vectors, 0) / np.where(sound, lengths, 1)[:, None]
    if sound.any():
        unit[sound] -= unit[sound].mean(axis=0)
    if not unit.size:
        return np.zeros((len(unit), 2))
    axes = _components(unit)
    axes = axes * np.sign(axes[np.abs(axes).argmax(axis=0), np.arange(axes.shape[1])])
    places = unit @ axes
    places = np.pad(places, ((0, 0), (0, 2 - places.shape[1])))
    low, high = np.quantile(places, EDGES, axis=0)
    return np.clip((places - low) / np.where(high > low, high - low, 1), 0, 1)


def _components(rows: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return the two directions of most variance, one a column.

    By simultaneous iteration (Bauer 1957): two of hundreds are wanted, and numpy's eigenvalues of all cost ten times
    as much, or a second where other processes want the cores too.
    """
    random = np.random.default_rng(0)
    square = rows.T @ rows if rows.shape[1] <= rows.shape[0] else rows @ rows.T
    basis = random.normal(size=(len(square), min(DIRECTIONS, len(square))))
    for _ in range(ITERATIONS):
        basis = np.linalg.qr(square @ basis)[0]
    # Within what the iteration has found, the components themselves, the largest first.
    axes = basis @ np.linalg.eigh(basis.T @ square @ basis)[1][:, :-3:-1]
    if len(square) != rows.shape[1]:
        axes = rows.T @ axes
    return axes / np.maximum(np.linalg.norm(axes, axis=0), 1e-12)
