"""The house wired together: what `workspace.yaml`, `dagster dev` and `stemma run` load."""

import dagster as dg

from stemma.assets import ASSETS
from stemma.assets.audit import audit_job, equals_rebuild, without_audit
from stemma.assets.partitions import todays_partition
from stemma.config import Config, load_config
from stemma.resources.engine import Setup, recipes
from stemma.resources.pipeline import Pipeline
from stemma.sensors import schedules, sensors

JOB = "corpus"
BY_DAY = "by_day"


def build_definitions(config: Config, config_file: str = "") -> dg.Definitions:
    """Return Stemma's definitions for a configuration; `config_file` is where each step reads it again."""
    current = recipes(Setup.of(config))
    job = dg.define_asset_job(
        JOB,
        selection=without_audit(),
        description="Bring all five datasets up to date with the sources and publish them: all days, or one.",
        executor_def=dg.in_process_executor,
        tags=todays_partition(config.partitions),
    )
    by_day = dg.define_asset_job(
        BY_DAY,
        selection=without_audit(),
        description="Take in the chosen days alone, and publish: for backfills and the nightly schedule.",
        executor_def=dg.in_process_executor,
    )
    audit = audit_job()
    return dg.Definitions(
        assets=[_source(config), *(ASSETS[name](recipe, config) for name, recipe in current.items())],
        asset_checks=[equals_rebuild],
        jobs=[job, by_day, audit],
        schedules=schedules(by_day, audit),
        sensors=sensors(job),
        resources={"pipeline": Pipeline(config_file=config_file)},
        executor=dg.in_process_executor,
    )


def _source(config: Config) -> dg.AssetSpec:
    places = "\n".join(f"- **{source.name}**: `{source.path}`" for source in config.sources)
    return dg.AssetSpec(
        "source",
        group_name="corpus",
        kinds={"file"},
        description="The files that the corpus is made of; Stemma reads them and never writes to them.\n\n"
        + places,
    )


@dg.definitions
def defs() -> dg.Definitions:
    """Return the definitions of the configuration as it stands when Dagster asks for them."""
    config = load_config()
    return build_definitions(config, str(config.file or ""))
