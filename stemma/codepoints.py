"""Tables over all code points that are filled in where a text first needs them."""

import sys
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

CODE_POINTS = sys.maxunicode + 1
_PAGE_BITS = 8


class Pages:
    """Tells which runs of 256 code points of a table are filled, and has the missing ones filled.

    Whole tables take 0.1 s each, which is more than a small update costs; a text uses a few pages of them.
    """

    def __init__(self, fill: Callable[[int, int], None]) -> None:
        """`fill(first, last)` makes the table right for the code points from `first` up to but not including `last`."""
        self._fill = fill
        self._filled = np.zeros(CODE_POINTS >> _PAGE_BITS, bool)

    def need(self, codes: npt.NDArray[np.uint32]) -> None:
        """Fill the pages of these code points that are not filled yet."""
        pages = codes >> _PAGE_BITS
        missing = ~self._filled[pages]
        if missing.any():
            for page in np.unique(pages[missing]).tolist():
                self._fill(page << _PAGE_BITS, (page + 1) << _PAGE_BITS)
                self._filled[page] = True
