"""Embeddings without a model: signed feature hashing of words and pairs of words."""

from functools import cache

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from stemma.chunking.characters import SINGLE, WORD
from stemma.chunking.joined import Joined, Positions, groups, join
from stemma.embedding.arrays import Vectors, vector_table
from stemma.embedding.context import texts_in_context
from stemma.errors import UsageError

Hashes = npt.NDArray[np.uint64]

# Odd, so that it has an inverse modulo 2^64 and the hash of a word doesn't depend on where it stands.
_BASE = 0x9E3779B97F4A7C15
_BASE_INVERSE = pow(_BASE, -1, 1 << 64)
_PAIR_WEIGHT = 0.5
# A word's length stands in for its rarity, which one row can't know: longer than this counts no more.
_FULL_WEIGHT_LENGTH = 8
_SINGLE_WEIGHT = 0.5
_SIGN_BIT = np.uint64(63)
_CASED_CODES = 0x2C00  # Latin, Greek, Cyrillic, Armenian, Georgian: the scripts with cases, but for rarities


def hash_embed(table: pa.Table, *, dimensions: int) -> pa.Table:
    """Embed texts by feature hashing (Weinberger et al., 2009), the same on every machine.

    Each word, case ignored, and each pair of neighbouring words adds its weight to one dimension, with a
    sign; both come from a 64-bit hash. Good enough to search a small corpus by shared words; it knows no
    synonyms.

    Args:
        table: with the column `text` (string), and perhaps `section` (see `texts_in_context`).
        dimensions: length of the vectors, at least 1.

    Returns:
        One column, `embedding`: fixed_size_list<float32>[dimensions], of length 1 each, never null or zero.

    Raises:
        UsageError: if `dimensions` is less than 1.
    """
    if dimensions < 1:
        raise UsageError(f"an embedding needs at least one dimension, not {dimensions}")
    texts = texts_in_context(table)
    vectors = [_embed_group(group, dimensions) for group in groups(texts)]
    return vector_table(np.concatenate(vectors) if vectors else np.zeros((0, dimensions), dtype=np.float32))


def _embed_group(texts: list[str], dimensions: int) -> Vectors:
    joined = join(texts)
    starts, ends = _words(joined)
    words = _word_hashes(joined, starts, ends)
    documents = np.searchsorted(joined.starts, starts, side="right") - 1
    single = (joined.flags[starts] & SINGLE) != 0
    weights = np.minimum(ends - starts, _FULL_WEIGHT_LENGTH) / _FULL_WEIGHT_LENGTH
    weights[single] = _SINGLE_WEIGHT
    neighbours = np.flatnonzero(documents[1:] == documents[:-1])
    pairs = _mixed(words[neighbours] * np.uint64(_BASE) + words[neighbours + 1])
    pair_weights = (weights[neighbours] + weights[neighbours + 1]) / 2
    pair_weights[~(single[neighbours] & single[neighbours + 1])] *= _PAIR_WEIGHT
    features = np.concatenate((words, pairs))
    weights = np.concatenate((weights, pair_weights))
    rows = np.concatenate((documents, documents[neighbours]))
    columns = (features % np.uint64(dimensions)).astype(np.intp)
    signed = np.where(features >> _SIGN_BIT, -weights, weights)
    sums = np.bincount(rows * dimensions + columns, weights=signed, minlength=len(texts) * dimensions)
    return _normalised(sums.reshape(len(texts), dimensions).astype(np.float64, copy=False))


def _words(joined: Joined) -> tuple[Positions, Positions]:
    """Return start and end of each word; where there are no spaces each character is one."""
    in_word = (joined.flags & WORD) != 0
    edges = np.flatnonzero(in_word[1:] != in_word[:-1]) + 1
    single = np.flatnonzero(joined.flags & SINGLE)
    if not len(single):
        return edges[::2], edges[1::2]
    starts = np.concatenate((edges[::2], single))
    ends = np.concatenate((edges[1::2], single + 1))
    order = np.argsort(starts, kind="stable")
    return starts[order], ends[order]


def _word_hashes(joined: Joined, starts: Positions, ends: Positions) -> Hashes:
    """Hash each word as a polynomial of its code points: a difference of prefix sums modulo 2^64."""
    powers, inverses = _powers(1 << int(len(joined.codes) - 1).bit_length())
    codes = _lower_table()[np.minimum(joined.codes, _CASED_CODES)].astype(np.uint64)
    uncased = joined.codes >= _CASED_CODES
    codes[uncased] = joined.codes[uncased]
    sums = np.cumsum(codes * powers[: len(codes)], dtype=np.uint64)
    return _mixed((sums[ends - 1] - sums[starts - 1]) * inverses[starts])


def _mixed(hashes: Hashes) -> Hashes:
    """Spread every bit over all others (the finaliser of SplitMix64)."""
    hashes = (hashes ^ (hashes >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    hashes = (hashes ^ (hashes >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return hashes ^ (hashes >> np.uint64(31))


def _normalised(sums: npt.NDArray[np.float64]) -> Vectors:
    zero = ~sums.any(axis=1)
    sums[zero, 0] = 1.0
    return (sums / np.sqrt(np.square(sums).sum(axis=1, keepdims=True))).astype(np.float32)


@cache
def _powers(count: int) -> tuple[Hashes, Hashes]:
    def powers_of(base: int) -> Hashes:
        factors = np.full(count, base, dtype=np.uint64)
        factors[0] = 1
        return np.cumprod(factors, dtype=np.uint64)

    return powers_of(_BASE), powers_of(_BASE_INVERSE)


@cache
def _lower_table() -> npt.NDArray[np.uint32]:
    """Return the lower-case form of each code point up to `_CASED_CODES` if that is one character."""
    lowered = (chr(code).lower() for code in range(_CASED_CODES + 1))
    codes = [ord(each) if len(each) == 1 else code for code, each in enumerate(lowered)]
    return np.array(codes, dtype=np.uint32)
