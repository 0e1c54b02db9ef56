"""chunked: spans of the kept documents."""

import dagster as dg

from stemma.assets.dataset import dataset_asset
from stemma.chunking.chunker import chunk
from stemma.datasets import CHUNKED
from stemma.resources.engine.chunked import chunked as engine_chunked


def chunked(recipe: str) -> dg.AssetsDefinition:
    """Return the asset `chunked` under its present recipe."""
    return dataset_asset(CHUNKED, recipe, kinds={"python"}, code=(chunked, engine_chunked, chunk))
