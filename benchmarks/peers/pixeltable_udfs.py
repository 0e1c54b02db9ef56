"""The functions of pixeltable_flow.py. Pixeltable keeps a function by its module and name, so they need a
module that can be imported again; it never looks at their bodies."""

from collections.abc import Iterator
from typing import TypedDict

import pixeltable as pxt
from common import CLEANERS, DIMENSIONS, Embedder, split
from pixeltable.func import Batch

EMBEDDER = Embedder()

# Which body `clean` has in this process: an edit of its code, as Pixeltable sees (or rather doesn't see) it.
cleaner = 1


class Piece(TypedDict):
    piece: str


@pxt.udf
def clean(text: str) -> str:
    return CLEANERS[cleaner](text)


@pxt.iterator
def pieces(text: str, size: int) -> Iterator[Piece]:
    for piece in split(text, size):
        yield {"piece": piece}


@pxt.udf(batch_size=256)
def embed(texts: Batch[str]) -> Batch[pxt.Array[(DIMENSIONS,), pxt.Float]]:
    return list(EMBEDDER(texts))
