"""How similar a text is on both sides of a place: lexical cohesion, without a model."""

import numpy as np
import numpy.typing as npt

from stemma.chunking.characters import SINGLE
from stemma.chunking.joined import Joined, Positions
from stemma.chunking.words import find_words, word_hashes

# Words share a dimension now and then; four times as many move no measure by more than noise, and take twice the time.
_DIMENSIONS = 256
# A word's length stands in for its rarity, which one document cannot know: of longer ones all count the same.
_FULL_WEIGHT_LENGTH = 8
# Words that begin alike are taken as one: the crudest of stemmers, for any language that bends its ends.
_STEM_CHARACTERS = 5


def cohesion(joined: Joined, starts: Positions, width: int) -> npt.NDArray[np.float64]:
    """Compare the `width` units before each unit's start with as many from there on, as TextTiling does (Hearst, 1997).

    A block's vector counts its words by hashed dimension, weighted by their length. The sums are whole numbers, so
    that the result is the same on every machine, whatever else was joined.

    Args:
        joined: the texts.
        starts: where each unit (a sentence, a line) starts, in order; each lasts to the next or the text's end.
        width: units in a block at most; fewer at the ends of a text.

    Returns:
        A number for each unit, 0 to 1: the cosine of the two vectors, and 0 at the first unit of a text.
    """
    counts = _word_counts(joined, starts)
    before = np.concatenate((np.zeros((1, _DIMENSIONS)), np.cumsum(counts, axis=0)))
    documents = np.searchsorted(joined.starts, starts, side="right") - 1
    units = np.arange(len(starts))
    first = np.searchsorted(documents, documents)
    last = np.searchsorted(documents, documents, side="right")
    left = before[units] - before[np.maximum(units - width, first)]
    right = before[np.minimum(units + width, last)] - before[units]
    dots, squares = (left * right).sum(axis=1), (left * left).sum(axis=1) * (right * right).sum(axis=1)
    return dots / np.sqrt(np.maximum(squares, 1))


def _word_counts(joined: Joined, starts: Positions) -> npt.NDArray[np.float64]:
    """Return the weights of each unit's words by dimension: whole numbers, exact as floats."""
    word_starts, word_ends = find_words(joined)
    units = np.searchsorted(starts, word_starts, side="right") - 1
    weights = np.minimum(word_ends - word_starts, _FULL_WEIGHT_LENGTH) ** 2
    weights[(joined.flags[word_starts] & SINGLE) != 0] = _FULL_WEIGHT_LENGTH
    stems = word_hashes(joined, word_starts, np.minimum(word_ends, word_starts + _STEM_CHARACTERS))
    columns = (stems % np.uint64(_DIMENSIONS)).astype(np.intp)
    inside = units >= 0
    cells = units[inside] * _DIMENSIONS + columns[inside]
    sums = np.bincount(cells, weights=weights[inside], minlength=len(starts) * _DIMENSIONS)
    return sums.reshape(len(starts), _DIMENSIONS).astype(np.float64, copy=False)
