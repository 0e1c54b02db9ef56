"""Buckets: what a layer hands to the engine so that it need not compare every text with every other."""

from typing import NamedTuple

import numpy as np


class Buckets(NamedTuple):
    """Which texts are in which buckets; m rows in any order.

    In a bucket the members stand by ascending `rank` (ties: by the engine's own order), and each member that
    `asks` is to be compared with the first few members before it: linear in the size of the bucket, and a
    pure function of its members.
    """

    keys: np.ndarray  # uint64[m]: the bucket
    rows: np.ndarray  # int64[m]: the member's row in the signed table
    rank: np.ndarray  # int64[m]
    asks: np.ndarray  # bool[m]
