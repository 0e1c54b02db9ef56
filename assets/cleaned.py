"""cleaned: text, language and scores of every document that no rule drops."""

import dagster as dg

from stemma.assets.dataset import dataset_asset
from stemma.config import Config
from stemma.datasets import CLEANED


def cleaned(recipe: str, config: Config) -> dg.AssetsDefinition:
    """Return the asset `cleaned` under its present recipe."""
    return dataset_asset(CLEANED, recipe, config, kinds={"python"}, is_partitioned=True)
