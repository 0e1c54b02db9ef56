"""What stands around a chunk, in its vector: the headings above it, and its neighbours in the document."""

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from stemma.embedding.arrays import Vectors

# A path of headings is cut to its innermost this many characters, so that it leaves room for the chunk.
MAX_SECTION = 160

Places = npt.NDArray[np.int64]


def texts_in_context(table: pa.Table) -> list[str]:
    """Return what is embedded: `text`, below its heading path where the table has a column `section`.

    The path takes a line of its own and at most 160 characters, of which the innermost headings are the last.
    """
    texts = ["" if text is None else text for text in table["text"].to_pylist()]
    if "section" not in table.column_names:
        return texts
    sections = table["section"].to_pylist()
    return [
        f"{section[-MAX_SECTION:]}\n{text}" if section else text
        for section, text in zip(sections, texts, strict=True)
    ]


def smoothed(vectors: Vectors, rows: Places, before: Places, after: Places, weight: float) -> Vectors:
    """Smooth vectors by those of their neighbours: normalise(v + weight (v₋ + v₊)).

    Args:
        vectors: a matrix.
        rows, before, after: rows of it: which to smooth, and by which neighbours; -1 for none.
        weight: of each neighbour.

    Returns:
        A vector for each of `rows`, of length 1; one without neighbours, and one that sums to 0, as it is.
    """
    # In float64, row by row: the same to the bit whatever else is smoothed with it.
    result = vectors[rows].astype(np.float64)
    for places in (before, after):
        there = places >= 0
        result[there] += weight * vectors[places[there]].astype(np.float64)
    lengths = np.sqrt(np.square(result).sum(axis=1))
    is_kept = ((before < 0) & (after < 0)) | (lengths == 0)
    result /= np.where(is_kept, 1.0, lengths)[:, None]
    result[is_kept] = vectors[rows[is_kept]]
    return result.astype(np.float32)
