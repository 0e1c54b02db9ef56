"""Vectors in fewer bits: whole numbers and one factor for each vector."""

import numpy as np
import numpy.typing as npt

from stemma.embedding.arrays import Vectors

# The largest whole number of each kind of storage, and its type in DuckDB and numpy.
LARGEST = {"int16": 32_767, "int8": 127}
SQL_TYPES = {"int16": "SMALLINT", "int8": "TINYINT"}


def quantized(
    vectors: Vectors, storage: str
) -> tuple[npt.NDArray[np.signedinteger], npt.NDArray[np.float32]]:
    """Return whole numbers and scales such that `whole * scale` is nearest to each vector.

    A vector's largest number becomes the largest that the type holds (symmetric linear quantisation); each vector by
    itself, so that none depends on what others there are.

    Args:
        vectors: finite, one a row.
        storage: "int16" or "int8".
    """
    largest = LARGEST[storage]
    scales = (np.abs(vectors).max(axis=1, initial=0) / np.float32(largest)).astype(np.float32)
    whole = np.rint(vectors / np.where(scales > 0, scales, 1)[:, None])
    return np.clip(whole, -largest, largest).astype(storage), scales
