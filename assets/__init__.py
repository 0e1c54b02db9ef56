"""The five datasets as Dagster assets, one file each; they hold no algorithm."""

from stemma.assets.chunked import chunked
from stemma.assets.cleaned import cleaned
from stemma.assets.deduplicated import deduplicated
from stemma.assets.embedded import embedded
from stemma.assets.raw import raw

ASSETS = {
    "raw": raw,
    "cleaned": cleaned,
    "deduplicated": deduplicated,
    "chunked": chunked,
    "embedded": embedded,
}

__all__ = ["ASSETS"]
