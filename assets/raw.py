"""raw: every document as its source has it."""

import dagster as dg

from stemma.assets.dataset import dataset_asset
from stemma.config import Config
from stemma.datasets import RAW
from stemma.reading.reader import read
from stemma.resources.engine.raw import update_raw


def raw(recipe: str, config: Config) -> dg.AssetsDefinition:
    """Return the asset `raw` under its present recipe."""
    return dataset_asset(
        RAW, recipe, config, kinds={"file"}, is_partitioned=True, code=(raw, update_raw, read)
    )
