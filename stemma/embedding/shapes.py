"""Batches of fixed shapes: what makes a vector the same to the last bit whatever else is computed with it."""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

Indices = npt.NDArray[np.intp]

# Padding changes the last bits of a vector: so each text is padded to the next multiple of this and no
# further, and only texts of one padded length share a batch.
_WIDTH_STEP = 8
# The number of rows changes them too: matrix libraries pick another order of summation for few rows (MKL's
# sgemm on two threads did for 70 % of texts). So every batch of a width has the same shape, as many rows as
# make this many tokens, filled up with repeats. On a CPU larger batches are no faster, and waste more.
CPU_TOKENS = 256
# On an H100, texts in the order of their lengths, 256 at a time: 2,549 a second with 8,192, 3,599 with this, 2,769 with
# four times as many.
GPU_TOKENS = 32_768


def fixed_shapes(
    lengths: npt.NDArray[np.integer], limit: int | None, tokens: int
) -> Iterator[tuple[Indices, Indices, int]]:
    """Yield batches of texts whose shape follows from the length of each text alone.

    Args:
        lengths: the texts' lengths, in tokens.
        limit: the model's limit, no shape is wider; None if it has none.
        tokens: how large a batch is, in tokens.

    Yields:
        The rows whose batch it is, the same filled up with repeats to the rows of the shape, and its width.
    """
    widths = -(-lengths // _WIDTH_STEP) * _WIDTH_STEP
    if limit is not None:
        widths = np.minimum(widths, max(limit, lengths.max(initial=0)))
    for width in np.unique(widths).tolist():
        members = np.flatnonzero(widths == width)
        size = max(1, tokens // width)
        for first in range(0, len(members), size):
            rows = members[first : first + size]
            yield rows, np.resize(rows, size), width
