"""Buckets: what may be alike shares one, and only what shares one is compared."""

from typing import NamedTuple

import numpy as np


class Buckets(NamedTuple):
    """Rows of a table of signatures that are in a bucket, a row for each membership.

    keys (uint64[m]) names the bucket, rows (int64[m]) the position in the table, rank (int64[m]) the place in
    the bucket (the smaller comes first), and asks (bool[m]) whether the row is to be compared with those
    before it.
    """

    keys: np.ndarray
    rows: np.ndarray
    rank: np.ndarray
    asks: np.ndarray
