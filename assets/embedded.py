"""embedded: a vector for each chunk; with it all five datasets are checked and published."""

import dagster as dg

from stemma.assets.dataset import dataset_asset
from stemma.config import Config
from stemma.datasets import EMBEDDED


def embedded(recipe: str, config: Config) -> dg.AssetsDefinition:
    """Return the asset `embedded` under its present recipe, with the blocking checks of the publication."""
    return dataset_asset(EMBEDDED, recipe, config, kinds={"pytorch"})
