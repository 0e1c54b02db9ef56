"""Semantic duplicates: documents whose vectors point the same way, whatever their words.

The way of a corpus: `sign_semantic` each text by an embedding model; `semantic_buckets` of the signatures;
`semantic_scores` of the candidates. The scores are exact cosines, so a pair that is found is one.
"""

import re
import unicodedata
from collections.abc import Callable, Sequence
from functools import cache
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from stemma.deduplication.buckets import Buckets
from stemma.deduplication.mixing import mix64
from stemma.deduplication.tokens import UNSPACED, normal_forms, word_blocks

Embed = Callable[[pa.Table], pa.Table]

SIGNED_SEMANTIC = pa.schema([pa.field("signature", pa.binary())])

# Texts turned into Python strings at a time, so that memory does not follow the table.
TEXTS = 1024

# Characters of a piece: what models for sentences read (256 tokens) of English; and pieces of a text at most.
PIECE = 1000
PIECES = 16

# A pair exactly at the threshold is found with this probability at least, if few enough bands do.
RECALL = 0.998
MOST_BANDS = 128
MOST_BITS = 32

# Vectors and planes are rounded to multiples of 2^-20, so that float64 adds their products without error and
# no bit depends on the order in which a matrix library adds.
STEPS = 1 << 20

# Vectors multiplied by the planes at a time, and pairs compared: what stays in cache at 384 dimensions.
ROWS = 1 << 10
PAIRS = 1 << 7

MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)


def sign_semantic(table: pa.Table, *, embedder: str, model: Embed) -> pa.Table:
    """Embed the column `text` (string) as whole documents: one row out for each row in, in the same order.

    A text is taken in its normal form, the words of `stemma.deduplication.tokens` with spaces between them
    but in scripts that have none, so that case, white space and punctuation don't matter. It is cut into
    pieces of up to about 1,000 characters between words, of which at most 16, evenly spread, are embedded.

    Args:
        table: with the column `text`.
        embedder: names what `model` is; it is part of the recipe and not used otherwise.
        model: gives for a table with `text` one with `embedding` (fixed_size_list<float32>), row by row, as
            `stemma.embedding.encode` does with a loaded model, and `hash_embed`.

    Returns:
        One column, `signature` (binary): the mean of the pieces' vectors, brought to length 1, as float32,
        little-endian; null for a text without words, or where the mean is zero.

    Raises:
        ValueError: if a text is null.
    """
    if table.column("text").null_count:
        raise ValueError("a text is null: only texts can be signed")
    signatures: list[bytes | None] = []
    for batch in table.select(["text"]).to_batches(max_chunksize=TEXTS):
        signatures += _signatures(batch.column("text").to_pylist(), model)
    return pa.table({"signature": pa.array(signatures, pa.binary())}, schema=SIGNED_SEMANTIC)


def semantic_buckets(signed: pa.Table, *, threshold: float, seed: int = 1) -> Buckets:
    """Return the buckets of signed texts: pairs whose cosine reaches the threshold share one, most likely.

    Bits are the sides of random hyperplanes on which a vector lies: two vectors at an angle t agree in one
    with probability 1 - t / pi (Charikar 2002). See `hyperplane_parameters` for their numbers. The planes
    depend on the seed and the dimensions alone. All texts ask, and none comes before another.

    Raises ValueError for a threshold that is not above 0 and at most 1, or vectors of several lengths.
    """
    bands, bits = hyperplane_parameters(threshold)
    rows = np.flatnonzero(signed.column("signature").is_valid().to_numpy())
    vectors = vector_array(signed.column("signature").drop_null())
    keys = np.empty((len(vectors), bands), np.uint64)
    planes = _planes(vectors.shape[1], bands * bits, seed)
    for start in range(0, len(vectors), ROWS):
        sides = _rounded(vectors[start : start + ROWS]) @ planes >= 0
        keys[start : start + ROWS] = _keys(sides.reshape(-1, bands, bits))
    size = keys.size
    return Buckets(keys.ravel(), np.repeat(rows, bands), np.zeros(size, np.int64), np.ones(size, bool))


def hyperplane_parameters(threshold: float) -> tuple[int, int]:
    """Return (bands, bits in a band) for pairs of at least the threshold's cosine.

    As many bits as 128 bands allow when a pair at the threshold is to share one of them with a probability
    of 0.998: (120, 13) at 0.8, (115, 19) at 0.9 and (120, 28) at 0.95, where two unrelated vectors share one
    with a probability of 0.015, 0.0002 and 0.0000004. Half as many bands bring two to four times as many
    candidates from MiniLM's vectors of sentences. Models give unrelated texts of a language that they hardly
    know vectors that are not: French ones have a cosine of 0.36 in MiniLM, and ten to twenty times the candidates.

    Raises ValueError if the threshold is not above 0 and at most 1.
    """
    if not 0 < threshold <= 1:
        raise ValueError(f"a cosine must be above 0 and at most 1 to be a threshold, not {threshold}")
    # Next to 1 vectors of the same text differ in their last bits.
    agreement = 1 - np.arccos(min(threshold, 0.999)) / np.pi
    bits = int(np.log(1 - (1 - RECALL) ** (1 / MOST_BANDS)) / np.log(agreement))
    bits = min(max(bits, 1), MOST_BITS)
    return int(np.ceil(np.log(1 - RECALL) / np.log1p(-(agreement**bits)))), bits


def semantic_scores(signatures: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    """Return the cosine (float64[m]) of each pair (int64[m, 2]) of rows of the signatures (float32[n, d])."""
    lengths = np.sqrt(np.einsum("ij,ij->i", signatures, signatures, dtype=np.float64))
    scores = np.empty(len(pairs))
    for start in range(0, len(pairs), PAIRS):
        a, b = pairs[start : start + PAIRS].T
        products = np.einsum("ij,ij->i", signatures[a], signatures[b], dtype=np.float64)
        scores[start : start + PAIRS] = np.minimum(products / (lengths[a] * lengths[b]), 1)
    return scores


def vector_array(signatures: pa.Array | pa.ChunkedArray) -> np.ndarray:
    """Return a column of signatures without nulls as an array float32[n, d].

    Raises ValueError if a signature is null or their lengths differ.
    """
    values = signatures.to_pylist()
    lengths = {-1 if value is None else len(value) for value in values}
    if len(lengths) > 1 or -1 in lengths:
        raise ValueError("vectors must all have the same length and none may be null")
    dimensions = max(lengths, default=0) // 4
    return np.frombuffer(b"".join(values), "<f4").reshape(len(values), dimensions)


def _signatures(texts: Sequence[str], model: Embed) -> list[bytes | None]:
    pieces: list[list[str]] = [[]] * len(texts)
    for positions, words in word_blocks(texts):
        for position, form in zip(positions.tolist(), normal_forms(words), strict=True):
            pieces[position] = text_pieces(_without_spaces(form.decode()))
    sizes = np.array([len(each) for each in pieces])
    occupied = np.flatnonzero(sizes)
    signatures: list[bytes | None] = [None] * len(texts)
    if not len(occupied):
        return signatures
    embedded = model(pa.table({"text": [piece for each in pieces for piece in each]}))
    vectors = embedded.column("embedding").combine_chunks().flatten().to_numpy().astype(np.float64)
    sums = np.add.reduceat(vectors.reshape(sizes.sum(), -1), (np.cumsum(sizes) - sizes)[occupied], axis=0)
    lengths = np.sqrt(np.square(sums).sum(axis=1))
    for position, vector, length in zip(occupied.tolist(), sums, lengths.tolist(), strict=True):
        signatures[position] = (vector / length).astype("<f4").tobytes() if length else None
    return signatures


def text_pieces(text: str) -> list[str]:
    """Cut a normal form between words into pieces of up to about 1,000 characters, 16 at most.

    A longer text is read at 16 places, from its beginning to its end.
    """
    count = min(-(-len(text) // PIECE), PIECES)
    if len(text) <= PIECE * PIECES:
        spans = [(part * len(text) // count, (part + 1) * len(text) // count) for part in range(count)]
    else:
        starts = [part * (len(text) - PIECE) // (PIECES - 1) for part in range(PIECES)]
        spans = [(start, start + PIECE) for start in starts]
    return [text[_boundary(text, start) : _boundary(text, end)].strip() for start, end in spans]


def _boundary(text: str, place: int) -> int:
    """Return the first place from `place` on where no word is torn."""
    if not place:
        return 0
    found = _patterns().boundary.search(text, place)
    return found.start() if found else len(text)


def _without_spaces(form: str) -> str:
    """Take out the spaces between neighbouring words of scripts that have none."""
    return _patterns().spaced.sub(r"\1", form)


class _Patterns(NamedTuple):
    """A space that is none, with the word before it; and where a word may start."""

    spaced: re.Pattern[str]
    boundary: re.Pattern[str]


@cache
def _patterns() -> _Patterns:
    small = (chr(code) for low, high in UNSPACED if high - low < 0x1000 for code in range(low, high + 1))
    marks = "".join(character for character in small if unicodedata.category(character).startswith("M"))
    ranges = "".join(f"{chr(low)}-{chr(high)}" for low, high in UNSPACED)
    solo = f"(?![{marks}])[{ranges}]"
    return _Patterns(re.compile(f"({solo}\\S*) (?={solo})"), re.compile(f" |{solo}"))


@cache
def _planes(dimensions: int, count: int, seed: int) -> np.ndarray:
    """Return the normals of random hyperplanes (float64[dimensions, count]), in whole steps."""
    # The stream of RandomState is frozen; those of numpy's newer generators may change.
    return _rounded(np.random.RandomState(seed).standard_normal((dimensions, count)))


def _rounded(vectors: np.ndarray) -> np.ndarray:
    return np.rint(vectors.astype(np.float64) * STEPS)


def _keys(sides: np.ndarray) -> np.ndarray:
    """Hash the sides (bool[n, bands, bits]) to keys (uint64[n, bands]), unlike for unlike bands."""
    codes = np.zeros(sides.shape[:2], np.uint64)
    for bit in range(sides.shape[2]):
        codes = codes * np.uint64(2) + sides[:, :, bit]
    return mix64(codes + np.arange(1, sides.shape[1] + 1, dtype=np.uint64) * MULTIPLIER)
