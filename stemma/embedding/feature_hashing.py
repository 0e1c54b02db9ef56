"""Embeddings without a model: signed feature hashing of words and pairs of words."""

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from stemma.chunking.characters import SINGLE
from stemma.chunking.joined import groups, join
from stemma.chunking.words import HASH_BASE, find_words, mixed, word_hashes
from stemma.embedding.arrays import Vectors, vector_table
from stemma.embedding.context import texts_in_context
from stemma.errors import UsageError

_PAIR_WEIGHT = 0.5
# A word's length stands in for its rarity, which one row can't know: longer than this counts no more.
_FULL_WEIGHT_LENGTH = 8
_SINGLE_WEIGHT = 0.5
_SIGN_BIT = np.uint64(63)


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
    starts, ends = find_words(joined)
    words = word_hashes(joined, starts, ends)
    documents = np.searchsorted(joined.starts, starts, side="right") - 1
    single = (joined.flags[starts] & SINGLE) != 0
    weights = np.minimum(ends - starts, _FULL_WEIGHT_LENGTH) / _FULL_WEIGHT_LENGTH
    weights[single] = _SINGLE_WEIGHT
    neighbours = np.flatnonzero(documents[1:] == documents[:-1])
    pairs = mixed(words[neighbours] * np.uint64(HASH_BASE) + words[neighbours + 1])
    pair_weights = (weights[neighbours] + weights[neighbours + 1]) / 2
    pair_weights[~(single[neighbours] & single[neighbours + 1])] *= _PAIR_WEIGHT
    features = np.concatenate((words, pairs))
    weights = np.concatenate((weights, pair_weights))
    rows = np.concatenate((documents, documents[neighbours]))
    columns = (features % np.uint64(dimensions)).astype(np.intp)
    signed = np.where(features >> _SIGN_BIT, -weights, weights)
    sums = np.bincount(rows * dimensions + columns, weights=signed, minlength=len(texts) * dimensions)
    return _normalised(sums.reshape(len(texts), dimensions).astype(np.float64, copy=False))


def _normalised(sums: npt.NDArray[np.float64]) -> Vectors:
    zero = ~sums.any(axis=1)
    sums[zero, 0] = 1.0
    return (sums / np.sqrt(np.square(sums).sum(axis=1, keepdims=True))).astype(np.float32)
