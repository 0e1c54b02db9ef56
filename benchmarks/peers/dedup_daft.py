"""daft: texts normalised, sketched and grouped by band in its engine, on all cores; pairs of a group by hand."""

from itertools import combinations

import numpy as np
import pyarrow as pa
from dedup_common import BANDS, PERMUTATIONS, ROWS, SHINGLE_WORDS, THRESHOLD, measure, unique_pairs


def find(column: pa.ChunkedArray) -> np.ndarray:
    import daft
    from daft import col
    from daft.functions import minhash, regexp_replace

    texts = daft.from_arrow(pa.table({"number": np.arange(len(column)), "text": column}))
    normal = regexp_replace(col("text").lower(), r"[^\w]+", " ")
    signed = texts.select(
        "number",
        minhash(normal, num_hashes=PERMUTATIONS, ngram_size=SHINGLE_WORDS, hash_function="xxhash").alias(
            "signature"
        ),
    ).collect()
    table = signed.to_arrow()
    signatures = table["signature"].combine_chunks().flatten().to_numpy().reshape(-1, PERMUTATIONS)
    signatures = signatures[np.argsort(table["number"].to_numpy())]
    bands = signatures[:, : BANDS * ROWS].reshape(-1, ROWS).copy().view(f"V{4 * ROWS}").ravel()
    rows = pa.table(
        {
            "number": np.repeat(np.arange(len(column)), BANDS),
            "band": np.tile(np.arange(BANDS), len(column)),
            "key": pa.array(bands.tolist(), pa.binary()),
        }
    )
    groups = (
        daft.from_arrow(rows)
        .groupby("band", "key")
        .agg(col("number").list_agg())
        .where(col("number").list_count() > 1)
        .to_arrow()
    )
    pairs = unique_pairs(
        {pair for members in groups["number"].to_pylist() for pair in combinations(members, 2)}
    )
    equal = signatures[pairs[:, 0]] == signatures[pairs[:, 1]]
    return pairs[equal.mean(axis=1) >= THRESHOLD]


if __name__ == "__main__":
    measure(find, "daft", read=lambda column: column)
