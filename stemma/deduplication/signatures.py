"""MinHash signatures, bit-identical to `datasketch.MinHash`, computed on whole blocks of texts."""

from collections.abc import Iterator, Sequence
from functools import cache
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from stemma.deduplication.mixing import mix32
from stemma.deduplication.shingles import distinct_shingles
from stemma.deduplication.tokens import normal_forms, word_blocks
from stemma.hashing import UUID, digest, key

SIGNED = pa.schema(
    [
        pa.field("norm_hash", UUID, nullable=False),
        pa.field("shingles", pa.int32(), nullable=False),
        pa.field("signature", pa.binary()),
        pa.field("sketch", pa.binary()),
    ]
)

# Texts, and bytes of them, turned into Python strings at a time, so that memory does not follow the table.
TEXTS = 1 << 13
TEXT_BYTES = 1 << 22

# Shingles permuted at a time: 256 kB, which stays in a second-level cache for all permutations.
SHINGLES = 1 << 16

LARGEST = np.uint32(0xFFFFFFFF)


def sign(table: pa.Table, *, shingle_words: int = 5, permutations: int = 128, seed: int = 1) -> pa.Table:
    """Sign the column `text` (string): one row out for each row in, in the same order.

    Returns the columns
    - norm_hash (uuid): hash of the words of the text after NFKC and case folding, joined by single spaces,
      so that case, white space and punctuation don't matter; a text without words gets a hash of its own;
    - shingles (int32): number of distinct shingles of `shingle_words` words, 0 for a text without words;
    - signature (binary): `permutations` uint32, little-endian, equal to the hash values of
      `datasketch.MinHash(num_perm=permutations, seed=seed, scheme="affine32")` updated with the lower
      32 bits of the shingles' hashes (see `shingle_sets`); null for a text without words;
    - sketch (binary): the lowest byte of each of these, which tell almost as well how much two texts share
      (b-bit minwise hashing, Li and König, 2010), and are found in a quarter of the memory.

    Raises ValueError if a text is null.
    """
    if table.column("text").null_count:
        raise ValueError("a text is null: only texts can be signed")
    signed = [
        _sign(batch.to_pylist(), shingle_words, permutations, seed)
        for batch in _batches(table.column("text"))
    ]
    return pa.Table.from_batches(signed, schema=SIGNED)


def signature_array(signatures: pa.Array | pa.ChunkedArray, permutations: int = 128) -> np.ndarray:
    """Return a column of signatures without nulls as an array uint32[n, permutations].

    Raises ValueError if a signature is null or has another length.
    """
    return _array_of(signatures, "<u4", permutations)


def sketch_array(sketches: pa.Array | pa.ChunkedArray, permutations: int = 128) -> np.ndarray:
    """Return a column of sketches without nulls as an array uint8[n, permutations].

    Raises ValueError if a sketch is null or has another length.
    """
    return _array_of(sketches, "u1", permutations)


def _array_of(rows: pa.Array | pa.ChunkedArray, kind: str, permutations: int) -> np.ndarray:
    # Cast first: more than 2 GB in one array need wide offsets.
    column = rows.cast(pa.large_binary())
    column = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    width = np.dtype(kind).itemsize * permutations
    if column.null_count or not pc.all(pc.equal(pc.binary_length(column), width), min_count=0).as_py():
        raise ValueError(f"signatures must have {width} bytes each and none may be null")
    if not len(column):
        return np.empty((0, permutations), kind)
    _, offsets, data = column.buffers()
    first = np.frombuffer(offsets, np.int64, 1, 8 * column.offset)[0]
    return np.frombuffer(data, kind, len(column) * permutations, first).reshape(-1, permutations)


def _batches(texts: pa.ChunkedArray) -> Iterator[pa.ChunkedArray]:
    """Cut the column into runs of bounded size, of one text at least."""
    sizes = pc.cast(pc.binary_length(texts), pa.int64()).to_numpy()
    block = (np.cumsum(sizes) - sizes) // TEXT_BYTES
    cuts = np.flatnonzero(np.diff(block)) + 1
    cuts = np.union1d(cuts, np.arange(0, len(texts), TEXTS))
    for start, stop in pairwise([*cuts.tolist(), len(texts)]):
        yield texts[start:stop]


def _sign(texts: Sequence[str], shingle_words: int, permutations: int, seed: int) -> pa.RecordBatch:
    hashes = [b""] * len(texts)
    shingle_counts = np.zeros(len(texts), np.int32)
    signatures = np.empty((len(texts), permutations), "<u4")
    for positions, words in word_blocks(texts):
        for position, form in zip(positions.tolist(), normal_forms(words), strict=True):
            hashes[position] = digest(form) if form else key("no words", texts[position])
        shingles, sizes = distinct_shingles(words, shingle_words)
        shingle_counts[positions] = sizes
        occupied = sizes > 0
        signatures[positions[occupied]] = minhash(shingles, sizes[occupied], permutations, seed)
    ids = pa.Array.from_buffers(pa.binary(16), len(texts), [None, pa.py_buffer(b"".join(hashes))])
    columns = [
        pa.ExtensionArray.from_storage(UUID, ids),
        pa.array(shingle_counts),
        _binary_array(signatures, shingle_counts > 0),
        _binary_array(signatures.astype(np.uint8), shingle_counts > 0),
    ]
    return pa.record_batch(columns, schema=SIGNED)


def _binary_array(rows: np.ndarray, valid: np.ndarray) -> pa.Array:
    """Return the bytes of each row as a binary array, null where the row is not valid."""
    offsets = np.zeros(len(rows) + 1, np.int32)
    np.cumsum(valid * np.int32(rows.itemsize * rows.shape[1]), out=offsets[1:])
    values = rows if valid.all() else rows[valid]
    buffers = [np.packbits(valid, bitorder="little"), offsets, values]
    return pa.Array.from_buffers(pa.binary(), len(rows), [pa.py_buffer(buffer) for buffer in buffers])


def minhash(shingles: np.ndarray, sizes: np.ndarray, permutations: int, seed: int) -> np.ndarray:
    """Return the signatures (uint32[n, permutations]) of n sets that stand end to end in `shingles`.

    Sizes are those of the sets, none of them 0. Each permutation runs over a block of shingles at once,
    which is several times faster than all permutations over one set (DESIGN §7).
    """
    factors, offsets = _permutations(permutations, seed)
    minima = np.full((permutations, len(sizes)), LARGEST)
    stops = np.cumsum(sizes)
    starts = stops - sizes
    buffer = np.empty(min(SHINGLES, len(shingles)), np.uint32)
    for low in range(0, len(shingles), SHINGLES):
        values = mix32(shingles[low : low + SHINGLES].astype(np.uint32))
        permuted = buffer[: len(values)]
        first = int(np.searchsorted(stops, low, side="right"))
        last = int(np.searchsorted(starts, low + len(values)))
        cuts = np.maximum(starts[first:last] - low, 0)
        # The first set may have begun in the block before.
        begun = minima[:, first].copy()
        for row, factor, offset in zip(minima[:, first:last], factors, offsets, strict=True):
            np.multiply(values, factor, out=permuted)
            np.add(permuted, offset, out=permuted)
            np.minimum.reduceat(permuted, cuts, out=row)
        np.minimum(minima[:, first], begun, out=minima[:, first])
    return np.ascontiguousarray(minima.T)


@cache
def _permutations(permutations: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the factors (odd) and offsets of datasketch's affine permutations of 32 bits.

    The same draws as datasketch's: importing it for them takes as long as signing 30 MB of text.
    """
    draw = np.random.RandomState(seed).randint
    factors = draw(0, 1 << 31, permutations, np.uint32) * np.uint32(2) + np.uint32(1)
    return factors, draw(0, 1 << 32, permutations, np.uint32)
