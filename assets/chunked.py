"""chunked: spans of the kept documents."""

import dagster as dg

from stemma.assets.dataset import dataset_asset
from stemma.config import Config
from stemma.datasets import CHUNKED


def chunked(recipe: str, config: Config) -> dg.AssetsDefinition:
    """Return the asset `chunked` under its present recipe."""
    return dataset_asset(CHUNKED, recipe, config, kinds={"python"})
