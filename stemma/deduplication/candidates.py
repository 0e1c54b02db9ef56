"""Candidate pairs by locality-sensitive hashing: signatures that agree in a whole band."""

from functools import cache
from typing import Literal

import numpy as np
import pyarrow as pa

from stemma.deduplication.mixing import mix64
from stemma.deduplication.runs import differs, repeated

# Verification removes false candidates, so a missed pair costs a hundred times a needless comparison.
WEIGHTS = (0.001, 0.999)

# What the optimiser returns at common thresholds, known beforehand because importing it takes half a second.
OPTIMA = {(0.7, 128): (27, 4), (0.8, 128): (21, 6)}

# How many standard deviations an estimate may fall short of the threshold: one pair in 3.5 million at the
# threshold falls further.
DEVIATIONS = 5.0

# Members that each member of a large bucket is compared with, and pairs of a smaller one.
WITNESSES = 64
PAIRS_IN_BUCKET = 1 << 17

# Signatures banded, and pairs of them compared, at a time: 0.5 MB at 128 permutations.
SIGNATURES = 1 << 10
PAIRS = 1 << 10

# A pair of ranks is one number: the smaller rank shifted by these bits, and the larger one.
RANK_BITS = 32
LARGEST_RANK = (1 << RANK_BITS) - 1

MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)


@cache
def band_parameters(threshold: float, permutations: int) -> tuple[int, int]:
    """Return (bands, rows in a band) for pairs of at least the threshold's Jaccard similarity.

    datasketch's own optimiser, with weights set for recall. With 128 permutations that is (27, 4) at 0.7
    and (21, 6) at 0.8, and a pair exactly at the threshold is found with a probability of 0.996 or more,
    whatever the threshold from 0.5 to 0.95. Raises ValueError if the threshold is not between 0 and 1 or
    there are fewer than two permutations.
    """
    if (threshold, permutations) in OPTIMA:
        return OPTIMA[threshold, permutations]
    from datasketch import MinHashLSH

    try:
        index = MinHashLSH(threshold=threshold, num_perm=permutations, weights=WEIGHTS)
    except ValueError:
        if not 0 <= threshold <= 1 or permutations < 2:
            raise
        # Next to 1 a single band would be best, which datasketch refuses; two find all that one does.
        return 2, permutations // 2
    return index.b, index.r


def band_keys(signatures: np.ndarray, bands: int, rows: int) -> np.ndarray:
    """Hash each band of each signature (uint32[n, permutations]) to a key (uint64[n, bands]).

    The band's number is mixed in, so that keys of different bands never mean the same bucket. Raises
    ValueError if the signatures are shorter than bands x rows.
    """
    if signatures.shape[1] < bands * rows:
        raise ValueError(f"{bands} bands of {rows} rows need more than {signatures.shape[1]} permutations")
    keys = np.empty((len(signatures), bands), np.uint64)
    keys[:] = np.arange(bands)
    for start in range(0, len(keys), SIGNATURES):
        block = signatures[start : start + SIGNATURES, : bands * rows].reshape(-1, bands, rows)
        total = keys[start : start + SIGNATURES]
        for row in range(rows):
            total *= MULTIPLIER
            total += block[:, :, row]
        mix64(total)
    return keys


def candidate_pairs(
    keys: np.ndarray, members: np.ndarray, *, witnesses: int | None = None, asks: np.ndarray | None = None
) -> np.ndarray:
    """Return the distinct pairs (int64[m, 2], a < b, sorted) of members that share a bucket.

    Row i says that member `members[i]` (int64) is in bucket `keys[i]` (uint64). In a bucket each member is
    compared with the `witnesses` smallest members only; by default with all in buckets of up to 362 members,
    and with fewer in larger ones, 64 from 2,048 on: so the pairs grow linearly with the bucket in the end, and
    depend on nothing but the bucket. Members should be numbered in the order of priority: what is kept comes
    first then, and testifies for what comes after it.

    With `asks` (bool, one a row), a pair of a bucket is proposed only if a row of its larger member asks.
    """
    names, codes = _proposed(keys, members, witnesses, asks)
    # A timsort, which merges the runs.
    distinct = _distinct(np.concatenate([_distinct(part) for part in codes]), kind="stable")
    return names[decoded(distinct)]


def counted_pairs(
    keys: np.ndarray, members: np.ndarray, *, witnesses: int | None = None, asks: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Return the pairs that `candidate_pairs` returns, and how many buckets propose each (int64[m])."""
    names, codes = _proposed(keys, members, witnesses, asks)
    every = np.concatenate(codes)
    every.sort(kind="stable")
    firsts = np.flatnonzero(differs(every))
    return names[decoded(every[firsts])], np.diff(firsts, append=len(every))


def bucket_pairs(rows: pa.Table) -> pa.Table:
    """Return the pairs that whole buckets propose: (first, second: int64 members, buckets: int64, how many).

    `rows` has bucket (uint64 or uint32), member (int64) and asks (bool), all rows of each of its buckets. A pair that
    buckets of several calls propose is in each of them, and the counts add up: so buckets can be gone through apart.
    """
    pairs, buckets = counted_pairs(
        rows["bucket"].to_numpy(), rows["member"].to_numpy(), asks=rows["asks"].to_numpy(zero_copy_only=False)
    )
    return pa.table(
        {
            "first": pa.array(pairs[:, 0], pa.int64()),
            "second": pa.array(pairs[:, 1], pa.int64()),
            "buckets": pa.array(buckets, pa.int64()),
        }
    )


def _proposed(
    keys: np.ndarray, members: np.ndarray, witnesses: int | None, asks: np.ndarray | None
) -> tuple[np.ndarray, list[np.ndarray]]:
    """Return the distinct members, and the pairs that buckets propose, coded as numbers of two of them."""
    if np.any(members[1:] < members[:-1]):
        order = np.argsort(members, kind="stable")
        keys, members, asks = keys[order], members[order], None if asks is None else asks[order]
    is_first = differs(members)
    rows = shared_rows(keys)
    names, ranks = members[is_first], np.cumsum(is_first)[rows] - 1
    keys, asking = keys[rows], np.ones(len(rows), bool) if asks is None else asks[rows]
    firsts = np.flatnonzero(differs(keys) | differs(ranks))
    if len(firsts) < len(rows):
        keys, ranks, asking = keys[firsts], ranks[firsts], np.logical_or.reduceat(asking, firsts)
    starts = np.flatnonzero(differs(keys))
    sizes = np.diff(starts, append=len(keys))
    limits = np.repeat(limits_of(sizes) if witnesses is None else np.full(len(sizes), witnesses), sizes)
    starts = np.repeat(starts, sizes)
    depths = np.arange(len(keys)) - starts
    later, depth = np.flatnonzero(asking & (depths > 0) & (limits > 0)), 0
    codes = [np.empty(0, np.int64)]
    while len(later):
        codes.append(coded(ranks[starts[later] + depth], ranks[later]))
        depth += 1
        later = later[(depths[later] > depth) & (limits[later] > depth)]
    return names, codes


def limits_of(sizes: np.ndarray) -> np.ndarray:
    """Return with how many of its first members a bucket's members are compared, for buckets of so many."""
    return np.maximum(PAIRS_IN_BUCKET // np.maximum(sizes, 1), WITNESSES)


def coded(smaller: np.ndarray, larger: np.ndarray) -> np.ndarray:
    """Return one number (int64[m]) for each pair of numbers below 2^32."""
    return smaller << RANK_BITS | larger


def decoded(codes: np.ndarray) -> np.ndarray:
    """Return the pairs (int64[m, 2]) of such numbers."""
    return np.stack([codes >> RANK_BITS, codes & LARGEST_RANK], axis=1)


def shared_rows(keys: np.ndarray) -> np.ndarray:
    """Return the rows (int64) whose key (uint64 or uint32) another row has as well, in the order of key and row.

    Most rows are alone in their bucket. They are told by their keys' upper halves, sorted 16 bits at a time:
    these numpy sorts in linear time, which takes a third of sorting whole keys.
    """
    halves = np.ascontiguousarray(keys).view("<u4")[keys.itemsize // 4 - 1 :: keys.itemsize // 4]
    digits = np.ascontiguousarray(halves).view("<u2")
    order = digits[::2].argsort(kind="stable").astype(np.uint32)
    order = order[digits[1::2][order].argsort(kind="stable")]
    rows = order[repeated(halves[order])].astype(np.int64)
    # A timsort: only keys that differ in their lower halves alone are out of order.
    rows = rows[keys[rows].argsort(kind="stable")]
    return rows[repeated(keys[rows])]


def _distinct(codes: np.ndarray, kind: Literal["quicksort", "stable"] = "quicksort") -> np.ndarray:
    """Sort the codes in place and return each once, several times faster than np.unique, which hashes."""
    codes.sort(kind=kind)
    return codes[differs(codes)]


def plausible_pairs(signatures: np.ndarray, pairs: np.ndarray, threshold: float) -> np.ndarray:
    """Return which pairs (int64[m, 2], rows of the signatures uint32[n, permutations]) may reach the threshold.

    The share of equal hash values estimates the Jaccard similarity s with variance s (1 - s) / permutations
    (Broder, 1997). A pair is plausible (bool[m]) unless its estimate lies five standard deviations below the
    threshold; most candidates of a recall-tuned index do, and reading their texts would be in vain.

    In the place of signatures sketches may be given (uint8[n, permutations]). Of these, values that differ are
    alike in one of 256 cases: hardly more pairs are plausible, and all that are by their signatures.
    """
    permutations = signatures.shape[1]
    least = threshold - DEVIATIONS * np.sqrt(threshold * (1 - threshold) / permutations)
    plausible = np.empty(len(pairs), bool)
    for start in range(0, len(pairs), PAIRS):
        block = pairs[start : start + PAIRS]
        equal = signatures.take(block[:, 0], axis=0) == signatures.take(block[:, 1], axis=0)
        counts = equal.view(np.uint8).sum(axis=1, dtype=np.uint32)
        plausible[start : start + PAIRS] = counts / permutations >= least
    return plausible
