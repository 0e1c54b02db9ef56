"""Which rows of two lists differ, by their hashes."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from stemma.deduplication.runs import repeated


def unpaired(left: np.ndarray, right: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the places (int64, in order) in each of two lists of hashes (uint64) of those that the other has not.

    A list has each hash once. Two that are kept alike mostly have the same order: what they begin and end with alike is
    passed over, and only the rest is sorted. Of 100,000 rows that came to 1 % at the end 0.1 ms, in no order 10 ms;
    joined by DuckDB 10 to 15 ms.
    """
    length = min(len(left), len(right))
    begin = _alike(left[:length], right[:length])
    end = _alike(left[::-1][: length - begin], right[::-1][: length - begin])
    left, right = left[begin : len(left) - end], right[begin : len(right) - end]
    every = np.sort(np.concatenate([left, right]))
    alone = pa.array(every[~repeated(every)])
    places = [
        begin + np.flatnonzero(pc.is_in(pa.array(part), value_set=alone).to_numpy(zero_copy_only=False))
        for part in (left, right)
    ]
    return places[0], places[1]


def _alike(left: np.ndarray, right: np.ndarray) -> int:
    """Return how many values two lists of one length begin with alike."""
    differing = left != right
    return int(np.argmax(differing)) if differing.any() else len(left)
