"""deduplicated: the documents kept of each family of near-duplicates."""

import dagster as dg

from stemma.assets.dataset import dataset_asset
from stemma.config import Config
from stemma.datasets import DEDUPLICATED
from stemma.deduplication.families import families
from stemma.resources.engine.deduplicated import update_deduplicated


def deduplicated(recipe: str, config: Config) -> dg.AssetsDefinition:
    """Return the asset `deduplicated` under its present recipe."""
    return dataset_asset(
        DEDUPLICATED,
        recipe,
        config,
        kinds={"python", "numpy"},
        code=(deduplicated, update_deduplicated, families),
    )
