"""What every layer hands to the engine: which rows share a bucket, in what order, and who asks."""

from typing import NamedTuple

import numpy as np


class Buckets(NamedTuple):
    """Memberships of rows in buckets, one an entry.

    `keys` (uint64[m]) are the buckets and `rows` (int64[m]) their members. In a bucket each member with
    `asks` (bool[m]) is compared with the first members by `rank` (int64[m], the lowest first).
    """

    keys: np.ndarray
    rows: np.ndarray
    rank: np.ndarray
    asks: np.ndarray
