"""The functions of pixeltable_flow.py. Pixeltable keeps a function by its module and name, so they need a
module that can be imported again; it never looks at their bodies."""

from collections.abc import Iterator
from pathlib import Path
from typing import TypedDict

import cleaning
import pixeltable as pxt
from common import Embedder, split
from embedding_function import DIMENSIONS
from pixeltable.func import Batch

EMBEDDER = Embedder(None)


def log_to(log: Path | None) -> None:
    EMBEDDER.log = log


class Piece(TypedDict):
    piece: str


@pxt.udf
def clean(text: str) -> str:
    return cleaning.clean(text)


@pxt.iterator
def pieces(text: str, size: int) -> Iterator[Piece]:
    for piece in split(text, size):
        yield {"piece": piece}


@pxt.udf(batch_size=256)
def embed(texts: Batch[str]) -> Batch[pxt.Array[(DIMENSIONS,), pxt.Float]]:
    return list(EMBEDDER(texts))
