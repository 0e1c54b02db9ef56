"""The error of `index = "bloom"`: what datasketch's filters drop, against exact near-duplicates.

    python benchmarks/bloom.py [--documents 100000] [--folder DIR]

Texts are those of benchmarks/families.py. In their order, a document is rightly dropped if one before it has a
word-5-gram Jaccard similarity of 0.7 or more; the pairs are those of MinHash LSH with exact verification, which
finds 0.999 of them. Prints precision, recall and cost for filters that are made for the documents, and too small.
"""

import argparse
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from families import ROOT, generate

from stemma.deduplication import (
    band_keys,
    band_parameters,
    candidate_pairs,
    jaccard,
    plausible_pairs,
    shingle_sets,
    sign,
    signature_array,
)
from stemma.deduplication.bloom import open_filters, seen_before


def repeated(texts: list[str], signatures: np.ndarray) -> np.ndarray:
    """Return which texts have a near-duplicate before them (bool[n])."""
    bands, rows = band_parameters(0.7, 128)
    keys = band_keys(signatures, bands, rows)
    pairs = candidate_pairs(keys.ravel(), np.repeat(np.arange(len(texts)), bands))
    pairs = pairs[plausible_pairs(signatures, pairs, 0.7)]
    used, places = np.unique(pairs, return_inverse=True)
    similarity = jaccard(shingle_sets([texts[each] for each in used.tolist()]), places.reshape(pairs.shape))
    marks = np.zeros(len(texts), bool)
    marks[pairs[similarity >= 0.7].max(axis=1)] = True
    return marks


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--documents", type=int, default=100_000)
    parser.add_argument("--folder", type=Path, default=ROOT / ".bench/families")
    parser.add_argument("--shared", type=Path, default=ROOT.parent / "shared")
    options = parser.parse_args()
    parts = options.folder.resolve() / str(options.documents)
    generate(parts, options.documents, options.shared.resolve())
    table = pq.read_table(sorted(parts.glob("part-*.parquet")), columns=["text"]).slice(0, options.documents)
    signed = sign(table)
    signatures, texts = signature_array(signed["signature"]), table["text"].to_pylist()
    truth = repeated(texts, signatures)
    print("| documents | filters for | dropped | precision | recall | seconds | bytes a document |")
    print("|---|---|---|---|---|---|---|")
    for capacity in (options.documents, options.documents // 4):
        filters = open_filters(None, threshold=0.7, permutations=128, documents=capacity)
        started = time.perf_counter()
        dropped = seen_before(filters, signatures, [False] * len(signatures))
        seconds = time.perf_counter() - started
        size = sum(table.bloom_filter.num_bits for table in filters.hashtables) / 8 / capacity
        right = np.count_nonzero(dropped & truth)
        print(
            f"| {len(texts):,} | {capacity:,} | {np.count_nonzero(dropped):,} | {right / dropped.sum():.4f}"
            f" | {right / truth.sum():.4f} | {seconds:.1f} | {size:.0f} |"
        )


if __name__ == "__main__":
    main()
