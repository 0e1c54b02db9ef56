"""Whether texts name the same numbers: forms and records may differ in nothing else, and be no duplicates at all."""

from collections.abc import Sequence

import numpy as np

from stemma.deduplication.tokens import normal_forms, words_of


def same_numbers(texts: Sequence[str], pairs: np.ndarray) -> np.ndarray:
    """Return which pairs (int64[m, 2], positions in texts) have the same words with digits, equally often (bool[m]).

    A digit is what Unicode calls numeric, in any script; words are those of tokens.py.
    """
    numbers = [_numbers(text) for text in texts]
    return np.fromiter((numbers[a] == numbers[b] for a, b in pairs.tolist()), bool, len(pairs))


def _numbers(text: str) -> list[str]:
    (form,) = normal_forms(words_of([text]))
    return sorted(word for word in form.decode().split() if any(map(str.isnumeric, word)))
