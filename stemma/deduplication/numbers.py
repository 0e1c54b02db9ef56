"""Numbers in texts: forms and templates may agree in every word, and mean different things by their numbers."""

from collections.abc import Sequence
from itertools import groupby

import numpy as np

from stemma.deduplication.tokens import normal_forms, word_blocks


def same_numbers(texts: Sequence[str], pairs: np.ndarray) -> np.ndarray:
    """Return which pairs (int64[m, 2], positions in `texts`) have the same numbers (bool[m]), in any order.

    A number is a run of words (see `tokens`) with a digit or another numeric character of any script in each:
    so 2024-01-02 is not 2024-02-01, and 二十三 not 三十二. Digits of different scripts are different.
    """
    known: dict[tuple[str, ...], int] = {}
    classes = np.zeros(len(texts), np.int64)
    for positions, words in word_blocks(texts):
        for position, form in zip(positions.tolist(), normal_forms(words), strict=True):
            numbers = tuple(sorted(_numbers(form.decode())))
            classes[position] = known.setdefault(numbers, len(known))
    return classes[pairs[:, 0]] == classes[pairs[:, 1]]


def _numbers(form: str) -> list[str]:
    runs = groupby(form.split(" "), key=lambda word: any(map(str.isnumeric, word)))
    return [" ".join(run) for is_number, run in runs if is_number]
