"""Runs of equal values in an array."""

import numpy as np


def differs(values: np.ndarray) -> np.ndarray:
    """Mark the values that differ from the one before them; the first does."""
    marks = np.ones(len(values), bool)
    np.not_equal(values[1:], values[:-1], out=marks[1:])
    return marks


def repeated(values: np.ndarray) -> np.ndarray:
    """Mark the values (sorted) that stand there more than once."""
    borders = np.append(differs(values), True)
    return ~(borders[1:] & borders[:-1])
