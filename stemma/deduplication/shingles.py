"""Sets of word shingles as sorted 64-bit hashes, and their exact Jaccard similarity.

Two different shingles share a 64-bit hash with probability 5e-20, so similarities computed on the hashes
are exact for practical purposes: even a text of ten million shingles expects 3e-6 collisions.
"""

from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np

from stemma.deduplication.mixing import mix64
from stemma.deduplication.tokens import Words, word_blocks, word_hashes

MULTIPLIER = np.uint64(0xD6E8FEB86659FD93)

# Hashes merged in one go while pairs are compared: 2 MB, which stays in cache.
COMPARED_HASHES = 1 << 18


def shingle_sets(texts: Sequence[str], *, shingle_words: int = 5) -> list[np.ndarray]:
    """Return for each text the sorted distinct hashes (uint64) of its shingles.

    A shingle is `shingle_words` consecutive words (Broder 1997); a text with fewer words has one shingle of
    them all, and a text without words none. Raises UnicodeEncodeError on lone surrogates.
    """
    sets: list[np.ndarray] = [np.empty(0, np.uint64)] * len(texts)
    for positions, words in word_blocks(texts):
        shingles, sizes = distinct_shingles(words, shingle_words)
        stops = np.cumsum(sizes)
        for position, start, stop in zip(positions.tolist(), stops - sizes, stops, strict=True):
            sets[position] = shingles[start:stop].copy()
    return sets


def distinct_shingles(words: Words, shingle_words: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the sorted distinct shingle hashes of each text, end to end, and how many each text has."""
    hashes, bounds = word_hashes(words)
    shingles, counts = _shingles(hashes, bounds, shingle_words)
    stops = np.cumsum(counts)
    for start, stop in pairwise([0, *stops.tolist()]):
        shingles[start:stop].sort()
    is_first = np.ones(len(shingles), bool)
    is_first[1:] = shingles[1:] != shingles[:-1]
    occupied = counts > 0
    starts = (stops - counts)[occupied]
    is_first[starts] = True
    sizes = np.zeros(len(counts), np.int64)
    if len(starts):
        sizes[occupied] = np.add.reduceat(is_first, starts, dtype=np.int64)
    return shingles[is_first], sizes


def _shingles(hashes: np.ndarray, bounds: np.ndarray, shingle_words: int) -> tuple[np.ndarray, np.ndarray]:
    """Hash every run of `shingle_words` words within a text; returns the hashes and the texts' counts."""
    starts, lengths = bounds[:-1], np.diff(bounds)
    shingles = _windows(hashes, shingle_words)
    keep = np.ones(len(hashes), bool)
    for back in range(1, shingle_words):
        keep[bounds[1:][lengths >= back] - back] = False
        short = starts[lengths == back]
        shingles[short] = _folded([hashes[short + offset] for offset in range(back)])
    keep[starts[(lengths > 0) & (lengths < shingle_words)]] = True
    counts = np.where(lengths > 0, np.maximum(lengths - shingle_words + 1, 1), 0)
    return mix64(shingles[keep]), counts


def _windows(hashes: np.ndarray, size: int) -> np.ndarray:
    """Fold each run of `size` hashes into one; the last `size - 1` places, which start none, stay zero."""
    windows = np.zeros(len(hashes), np.uint64)
    count = len(hashes) - size + 1
    if count > 0:
        windows[:count] = _folded([hashes[offset : offset + count] for offset in range(size)])
    return windows


def _folded(columns: Sequence[np.ndarray]) -> np.ndarray:
    """Fold columns of hashes into one by Horner's rule; their number enters the result."""
    total = columns[0] + np.uint64(len(columns))
    for column in columns[1:]:
        total *= MULTIPLIER
        total += column
    return total


def jaccard(sets: Sequence[np.ndarray], pairs: np.ndarray) -> np.ndarray:
    """Return the Jaccard similarity (float64) of each pair of sets.

    `sets` are sorted distinct hashes as `shingle_sets` returns them, `pairs` an integer array of shape
    (m, 2) with positions in `sets`. Two empty sets have similarity 0: there is nothing that they share.
    """
    shared = overlaps(sets, pairs)
    unions = sizes_of(sets)[pairs].sum(axis=1) - shared
    return np.divide(shared, unions, out=np.zeros(len(pairs)), where=unions > 0)


def overlaps(sets: Sequence[np.ndarray], pairs: np.ndarray) -> np.ndarray:
    """Return how many hashes both sets of each pair have (int64[m]); arguments as those of `jaccard`."""
    totals = sizes_of(sets)[pairs].sum(axis=1)
    shared = np.zeros(len(pairs), np.int64)
    for start, stop in _pair_blocks(totals):
        shared[start:stop] = _shared(sets, pairs[start:stop], totals[start:stop])
    return shared


def sizes_of(sets: Sequence[np.ndarray]) -> np.ndarray:
    """Return the sizes of sets (int64[n])."""
    return np.fromiter((len(members) for members in sets), np.int64, len(sets))


def _pair_blocks(totals: np.ndarray) -> Iterator[tuple[int, int]]:
    """Cut the pairs into runs with about COMPARED_HASHES hashes in all."""
    block = np.cumsum(totals) // COMPARED_HASHES
    yield from pairwise([0, *(np.flatnonzero(np.diff(block)) + 1).tolist(), len(totals)])


def _shared(sets: Sequence[np.ndarray], pairs: np.ndarray, totals: np.ndarray) -> np.ndarray:
    """Count the hashes that both sets of each pair have: they stand twice when the two are sorted as one."""
    counts = np.zeros(len(pairs), np.int64)
    occupied = totals > 0
    if not occupied.any():
        return counts
    merged = np.concatenate([sets[position] for pair in pairs.tolist() for position in pair])
    stops = np.cumsum(totals)
    for start, stop in pairwise([0, *stops.tolist()]):
        # The stable sort finds the two sorted runs and merges them.
        merged[start:stop].sort(kind="stable")
    repeats = np.zeros(len(merged), bool)
    np.equal(merged[1:], merged[:-1], out=repeats[1:])
    starts = (stops - totals)[occupied]
    repeats[starts] = False
    counts[occupied] = np.add.reduceat(repeats, starts, dtype=np.int64)
    return counts
