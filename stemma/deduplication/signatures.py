"""MinHash signatures, bit-identical to `datasketch.MinHash`, computed on whole blocks of texts."""

from collections.abc import Sequence
from functools import cache

import numpy as np
import pyarrow as pa

from stemma.deduplication.mixing import mix32
from stemma.deduplication.shingles import distinct_shingles
from stemma.deduplication.tokens import normal_forms, word_blocks
from stemma.hashing import UUID, digest, key, uuid_array

SIGNED = pa.schema(
    [
        pa.field("norm_hash", UUID, nullable=False),
        pa.field("shingles", pa.int32(), nullable=False),
        pa.field("signature", pa.binary()),
    ]
)

# Texts turned into Python strings at a time, so that memory does not follow the table.
TEXTS = 1024

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
      32 bits of the shingles' hashes (see `shingle_sets`); null for a text without words.

    Raises ValueError if a text is null.
    """
    if table.column("text").null_count:
        raise ValueError("a text is null: only texts can be signed")
    batches = table.select(["text"]).to_batches(max_chunksize=TEXTS)
    signed = [_sign(batch.column("text").to_pylist(), shingle_words, permutations, seed) for batch in batches]
    return pa.Table.from_batches(signed, schema=SIGNED)


def signature_array(signatures: pa.Array | pa.ChunkedArray, permutations: int = 128) -> np.ndarray:
    """Return a column of signatures without nulls as an array uint32[n, permutations].

    Raises ValueError if a signature is null or has another length.
    """
    values = signatures.to_pylist()
    if any(value is None or len(value) != 4 * permutations for value in values):
        raise ValueError(f"signatures must have {4 * permutations} bytes each and none may be null")
    return np.frombuffer(b"".join(values), "<u4").reshape(len(values), permutations)


def _sign(texts: Sequence[str], shingle_words: int, permutations: int, seed: int) -> pa.RecordBatch:
    hashes = [b""] * len(texts)
    shingle_counts = np.zeros(len(texts), np.int32)
    signatures: list[bytes | None] = [None] * len(texts)
    for positions, words in word_blocks(texts):
        for position, form in zip(positions.tolist(), normal_forms(words), strict=True):
            hashes[position] = digest(form) if form else key("no words", texts[position])
        shingles, sizes = distinct_shingles(words, shingle_words)
        shingle_counts[positions] = sizes
        occupied = sizes > 0
        for position, signature in zip(
            positions[occupied].tolist(),
            minhash(shingles, sizes[occupied], permutations, seed),
            strict=True,
        ):
            signatures[position] = signature.tobytes()
    columns = [uuid_array(hashes), pa.array(shingle_counts), pa.array(signatures, pa.binary())]
    return pa.record_batch(columns, schema=SIGNED)


def minhash(shingles: np.ndarray, sizes: np.ndarray, permutations: int, seed: int) -> np.ndarray:
    """Return the signatures (uint32[n, permutations]) of n sets that stand end to end in `shingles`.

    Sizes are those of the sets, none of them 0. Each permutation runs over a block of shingles at once,
    which is several times faster than all permutations over one set (DESIGN §7).
    """
    factors, offsets = _permutations(permutations, seed)
    minima = np.full((permutations, len(sizes)), LARGEST)
    stops = np.cumsum(sizes)
    starts = stops - sizes
    permuted = np.empty(min(SHINGLES, len(shingles)), np.uint32)
    for low in range(0, len(shingles), SHINGLES):
        values = mix32(shingles[low : low + SHINGLES].astype(np.uint32))
        first = int(np.searchsorted(stops, low, side="right"))
        last = int(np.searchsorted(starts, low + len(values)))
        cuts = np.maximum(starts[first:last] - low, 0)
        for row, factor, offset in zip(minima[:, first:last], factors, offsets, strict=True):
            np.multiply(values, factor, out=permuted[: len(values)])
            permuted[: len(values)] += offset
            np.minimum(row, np.minimum.reduceat(permuted[: len(values)], cuts), out=row)
    return np.ascontiguousarray(minima.T)


@cache
def _permutations(permutations: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return datasketch's own factors and offsets for its affine permutations of 32 bits."""
    from datasketch import MinHash

    factors, offsets = MinHash(num_perm=permutations, seed=seed, scheme="affine32").permutations
    return factors, offsets
