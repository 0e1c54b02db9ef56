"""deduplicated: the documents kept of each family of near-duplicates."""

import dagster as dg

from stemma.assets.dataset import dataset_asset
from stemma.assets.plots import profile_metadata
from stemma.config import Config
from stemma.datasets import DEDUPLICATED


def deduplicated(recipe: str, config: Config) -> dg.AssetsDefinition:
    """Return the asset `deduplicated` under its present recipe, with the profile of the corpus where it changed."""
    return dataset_asset(DEDUPLICATED, recipe, config, kinds={"python", "numpy"}, profiled=profile_metadata)
