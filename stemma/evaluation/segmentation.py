"""How near the boundaries of a segmentation are to the right ones."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt


def p_k(right: Sequence[int], found: Sequence[int], units: int) -> float:
    """Return P_k (Beeferman, Berger and Lafferty, 1999): the share of windows in which the two disagree.

    A window is two units, half a segment's mean length apart (at least 2); they disagree where one has a boundary
    between these and the other has none.

    Args:
        right, found: how many units come before each boundary, from 1 to `units` - 1.
        units: sentences, or whatever is segmented, at least 3.

    Returns:
        From 0 to 1; less is better.
    """
    wanted, given = _counts(right, found, units)
    return float(np.mean((wanted > 0) != (given > 0)))


def window_diff(right: Sequence[int], found: Sequence[int], units: int) -> float:
    """Return WindowDiff (Pevzner and Hearst, 2002): as `p_k`, but the number of boundaries must be the same."""
    wanted, given = _counts(right, found, units)
    return float(np.mean(wanted != given))


def _counts(
    right: Sequence[int], found: Sequence[int], units: int
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Return the number of boundaries in each window, of either."""
    width = min(max(2, round(units / (len(set(right)) + 1) / 2)), units - 1)
    counts = []
    for boundaries in (right, found):
        marks = np.zeros(units + 1, dtype=np.intp)
        marks[list(boundaries)] = 1
        before = np.cumsum(marks)
        counts.append(before[width:units] - before[: units - width])
    return counts[0], counts[1]
