"""chunked: spans of the kept documents."""

import dagster as dg

from stemma.assets.dataset import dataset_asset
from stemma.chunking.chunker import chunk
from stemma.config import Config
from stemma.datasets import CHUNKED
from stemma.resources.engine.chunked import chunked as engine_chunked


def chunked(recipe: str, config: Config) -> dg.AssetsDefinition:
    """Return the asset `chunked` under its present recipe."""
    return dataset_asset(CHUNKED, recipe, config, kinds={"python"}, code=(chunked, engine_chunked, chunk))
