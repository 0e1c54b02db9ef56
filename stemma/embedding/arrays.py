"""Vectors as Arrow arrays."""

import numpy as np
import numpy.typing as npt
import pyarrow as pa

Vectors = npt.NDArray[np.float32]


def vector_table(vectors: Vectors) -> pa.Table:
    """Return the rows of a matrix as the column `embedding`, fixed_size_list<float32>[columns]."""
    values = pa.array(np.ascontiguousarray(vectors, dtype=np.float32).reshape(-1))
    return pa.table({"embedding": pa.FixedSizeListArray.from_arrays(values, vectors.shape[1])})


def matrix(table: pa.Table) -> Vectors:
    """Return the column `embedding` of a table as a matrix, a row for each of its rows."""
    column = table["embedding"].combine_chunks()
    return column.flatten().to_numpy().reshape(len(column), column.type.list_size)
