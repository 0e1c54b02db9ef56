"""Which partition of an exchange a key belongs to: the same in every process, as Python's salted hash() is not."""

import numpy as np
import pyarrow as pa

from stemma.deduplication.mixing import mix64


def partition_numbers(keys: pa.ChunkedArray, count: int) -> np.ndarray:
    """Return the partition (int64, below `count`) of each key (of whole numbers)."""
    values = keys.to_numpy().astype(np.uint64, copy=True)
    return (mix64(values) % np.uint64(count)).astype(np.int64)
