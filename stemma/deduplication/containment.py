"""Documents inside others: scaled samples of shingles propose, exact containment decides.

A document posts those of its shingle hashes that lie below a fixed limit (the modulo sketch of Broder, 1997,
known as FracMinHash), however long it is: so a short document's sample is part of the sample of all that
contain it, which MinHash signatures of equal length don't give. It looks for containers with its few smallest
hashes only.
"""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from stemma.deduplication.buckets import Buckets
from stemma.deduplication.candidates import DEVIATIONS
from stemma.deduplication.shingles import distinct_shingles, overlaps, shingle_sets, sizes_of
from stemma.deduplication.signatures import TEXTS
from stemma.deduplication.tokens import word_blocks

CONTAINED = pa.schema(
    [
        pa.field("shingles", pa.int32(), nullable=False),
        pa.field("signature", pa.binary()),
    ]
)

# Hashes that the smallest document takes into its sample on average: at a containment of 0.8 all of them are
# missing in the container with a probability of exp(-0.8 * 6) = 0.008, at 0.9 of 0.0045.
SAMPLED = 6

NONE = np.empty(0, np.uint64)


def sign_contained(table: pa.Table, *, shingle_words: int = 5, min_shingles: int = 50) -> pa.Table:
    """Sample the shingles of the column `text` (string): one row out for each row in, in the same order.

    Returns the columns
    - shingles (int32): number of distinct shingles of `shingle_words` words;
    - signature (binary): the shingle hashes below 2^64 x 6 / `min_shingles`, ascending (uint64,
      little-endian): about a byte a shingle with `min_shingles` of 50, an eighth of them; null for a text
      with fewer than `min_shingles` shingles, which neither is contained nor contains what is.

    Raises ValueError if a text is null or `min_shingles` is not positive.
    """
    if min_shingles < 1:
        raise ValueError(f"min_shingles must be 1 or more, not {min_shingles}")
    if table.column("text").null_count:
        raise ValueError("a text is null: only texts can be signed")
    batches = table.select(["text"]).to_batches(max_chunksize=TEXTS)
    signed = [_sign(batch.column("text").to_pylist(), shingle_words, min_shingles) for batch in batches]
    return pa.Table.from_batches(signed, schema=CONTAINED)


def _sign(texts: Sequence[str], shingle_words: int, min_shingles: int) -> pa.RecordBatch:
    highest = np.uint64(min((SAMPLED << 64) // min_shingles, 1 << 64) - 1)
    counts = np.zeros(len(texts), np.int32)
    signatures: list[bytes | None] = [None] * len(texts)
    for positions, words in word_blocks(texts):
        shingles, sizes = distinct_shingles(words, shingle_words)
        counts[positions] = sizes
        stops = np.cumsum(sizes)
        for place, start, stop in zip(positions.tolist(), stops - sizes, stops, strict=True):
            if stop - start >= min_shingles:
                sampled = np.searchsorted(shingles[start:stop], highest, side="right")
                signatures[place] = shingles[start : start + sampled].astype("<u8").tobytes()
    return pa.record_batch([pa.array(counts), pa.array(signatures, pa.binary())], schema=CONTAINED)


def contained_buckets(signed: pa.Table, *, probes: int = 16) -> Buckets:
    """Put each text into a bucket for each hash of its sample; it asks in those of its `probes` smallest.

    In a bucket the texts with most shingles come first, so that a text is compared with the largest that
    share the shingle. Of a text contained to a share c all probes miss with a probability of (1 - c)^probes
    (7e-12 at 0.8); where the sample is smaller it limits recall, see SAMPLED.
    """
    samples = _samples(signed)
    sizes = sizes_of(samples)
    rows = np.repeat(np.arange(len(samples)), sizes)
    depths = np.arange(len(rows)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    shingles = signed.column("shingles").to_numpy().astype(np.int64)
    return Buckets(np.concatenate([*samples, NONE]), rows, -shingles[rows], depths < probes)


def plausible_contained(signed: pa.Table, pairs: np.ndarray, threshold: float) -> np.ndarray:
    """Return which pairs (int64[m, 2], rows of `signed`) may have a containment of `threshold` or more.

    Of the second's sample of n hashes the first's has n c on average, with variance n c (1 - c) at most. A
    pair is plausible (bool[m]) unless it has fewer than the threshold's by five standard deviations and the
    term that Bernstein's inequality adds for small samples: 1 pair in 270,000 at the threshold has.
    """
    samples = _samples(signed)
    sizes = sizes_of(samples)[pairs[:, 1]]
    slack = DEVIATIONS * np.sqrt(threshold * (1 - threshold) * sizes) + DEVIATIONS**2 / 6
    return overlaps(samples, pairs) >= threshold * sizes - slack


def contained_scores(texts: Sequence[str], pairs: np.ndarray, *, shingle_words: int = 5) -> np.ndarray:
    """Return for each pair (int64[m, 2], positions in `texts`) how much of the second is in the first.

    That is |A ∩ B| / |B| (float64) of the sets of word shingles (Broder, 1997); 0 where B has no word.
    """
    sets = shingle_sets(texts, shingle_words=shingle_words)
    sizes = sizes_of(sets)[pairs[:, 1]]
    return np.divide(overlaps(sets, pairs), sizes, out=np.zeros(len(pairs)), where=sizes > 0)


def _samples(signed: pa.Table) -> list[np.ndarray]:
    """Return the sample of each row; of those without a signature, an empty one."""
    return [np.frombuffer(signature or b"", "<u8") for signature in signed.column("signature").to_pylist()]
