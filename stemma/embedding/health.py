"""Whether vectors are sound and use their space: norms, repeats, anisotropy, spread, and drift."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from stemma.embedding.arrays import Vectors


@dataclass(frozen=True)
class Health:
    """Measures of the vectors of distinct texts; None where there are too few of them.

    Attributes:
        vectors: how many were looked at.
        unsound: how many are zero or not finite; they count no further.
        repeated: how many have the vector of another one.
        norm_min, norm_max: least and greatest length.
        mean_cosine: mean cosine of all pairs of two; near 1, all point the same way (Ethayarajh, "How Contextual are
            Contextualized Word Representations?", 2019).
        effective_rank: dimensions in use, from 1 to their number: the exponential of the entropy of the singular
            values (Roy & Vetterli, "The effective rank", 2007), of the centred unit vectors.
        isoscore: 0 where one dimension is used, 1 where all are used alike (Rudman et al., "IsoScore: Measuring the
            Uniformity of Embedding Space Utilization", 2022).
    """

    vectors: int
    unsound: int
    repeated: int
    norm_min: float | None = None
    norm_max: float | None = None
    mean_cosine: float | None = None
    effective_rank: float | None = None
    isoscore: float | None = None


def health(vectors: Vectors) -> Health:
    """Measure vectors of distinct texts, one a row."""
    lengths = np.sqrt(np.square(vectors, dtype=np.float64).sum(axis=1))
    is_sound = np.isfinite(lengths) & (lengths > 0)
    sound, lengths = vectors[is_sound], lengths[is_sound]
    unsound = len(vectors) - len(sound)
    if not len(sound):
        return Health(len(vectors), unsound, 0)
    _, counts = np.unique(sound, axis=0, return_counts=True)
    repeated = int(counts[counts > 1].sum())
    norms = float(lengths.min()), float(lengths.max())
    if len(sound) < 2:
        return Health(len(vectors), unsound, repeated, *norms)
    unit = sound / lengths[:, None]
    count = len(unit)
    mean_cosine = float((np.square(unit.sum(axis=0)).sum() - count) / (count * (count - 1)))
    variances = _variances(unit)
    return Health(
        len(vectors), unsound, repeated, *norms, mean_cosine, _effective_rank(variances), _isoscore(variances)
    )


def _variances(unit: Vectors) -> npt.NDArray[np.float64]:
    """Return the variances along the principal components, one for each dimension, the least first."""
    centred = unit.astype(np.float64) - unit.mean(axis=0, dtype=np.float64)
    count, dimensions = centred.shape
    # The products of rows and those of columns have the same eigenvalues but for zeros.
    products = centred @ centred.T if count < dimensions else centred.T @ centred
    variances = np.maximum(np.linalg.eigvalsh(products / (count - 1)), 0)
    return np.concatenate([np.zeros(dimensions - len(variances)), variances])


def drift(before: Vectors, now: Vectors) -> float | None:
    """Return 1 - the mean cosine between the vectors that the same texts had before and have now; None for no texts."""
    if not len(now):
        return None
    lengths = np.linalg.norm(before, axis=1) * np.linalg.norm(now, axis=1)
    cosines = (before.astype(np.float64) * now).sum(axis=1) / np.where(lengths > 0, lengths, 1)
    return float(max(0.0, 1 - cosines.mean()))


def _effective_rank(variances: npt.NDArray[np.float64]) -> float | None:
    singular = np.sqrt(variances)
    if singular.sum() == 0:
        return None
    shares = singular / singular.sum()
    shares = shares[shares > 0]
    return float(np.exp(-(shares * np.log(shares)).sum()))


def _isoscore(variances: npt.NDArray[np.float64]) -> float | None:
    """Steps 3 to 7 of the paper's algorithm: step 1 and 2 made the variances along the principal components."""
    dimensions = len(variances)
    if dimensions < 2 or variances.sum() == 0:
        return None
    scaled = np.sqrt(dimensions) * variances / np.linalg.norm(variances)
    defect = np.linalg.norm(scaled - 1) / np.sqrt(2 * (dimensions - np.sqrt(dimensions)))
    share = (dimensions - defect**2 * (dimensions - np.sqrt(dimensions))) ** 2 / dimensions**2
    return float((dimensions * share - 1) / (dimensions - 1))
