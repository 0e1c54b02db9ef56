"""raw: every document as its source has it."""

import dagster as dg

from stemma.assets.dataset import dataset_asset
from stemma.config import Config
from stemma.datasets import RAW


def raw(recipe: str, config: Config) -> dg.AssetsDefinition:
    """Return the asset `raw` under its present recipe."""
    return dataset_asset(RAW, recipe, config, kinds={"file"}, is_partitioned=True)
