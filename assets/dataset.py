"""What the five assets share: how a dataset's contract and counts become Dagster metadata."""

import warnings
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import dagster as dg

from stemma.assets.partitions import daily_partitions, days_of_run, other_partitions, rows_by_partition
from stemma.assets.story import as_text, story_metadata
from stemma.config import ChecksConfig, Config, PartitionsConfig
from stemma.datasets import Dataset
from stemma.incremental.counts import Counts
from stemma.incremental.days import ALL_DAYS
from stemma.lineage.checks import DESCRIPTIONS, Check
from stemma.resources.engine import Publication
from stemma.resources.engine.step_checks import NAMES, WARNING
from stemma.resources.pipeline import Pipeline, Step

# Backfill policies are beta in Dagster 1.13; a warning for each asset, in each process, tells nobody anything.
warnings.filterwarnings("ignore", message=".*backfill_policy", category=dg.BetaWarning)

GROUP = "corpus"
OWNERS = ("team:stemma",)


def dataset_asset(
    dataset: Dataset,
    recipe: str,
    config: Config,
    *,
    kinds: set[str],
    code: tuple[Callable[..., Any], ...] = (),
    is_partitioned: bool = False,
) -> dg.AssetsDefinition:
    """Return the asset that brings a dataset up to date and reports its blocking checks.

    `code` are the functions that its page leads to, the asset's own first. A partitioned one has a partition for each
    day.
    """
    checks = NAMES[dataset.name]
    partitions = config.partitions if is_partitioned else None

    @dg.asset(
        name=dataset.name,
        deps=[dataset.upstream or "source"],
        group_name=GROUP,
        owners=list(OWNERS),
        kinds={"duckdb", *kinds},
        description=dataset.description,
        code_version=recipe,
        partitions_def=daily_partitions(partitions) if partitions else None,
        freshness_policy=freshness(config.checks),
        backfill_policy=dg.BackfillPolicy.single_run() if partitions else None,
        metadata={
            "dagster/table_name": dataset.qualified,
            "dagster/column_schema": column_schema(dataset),
            "dagster/column_lineage": column_lineage(dataset),
            **code_references(code),
        },
        check_specs=[
            dg.AssetCheckSpec(
                name, asset=dataset.name, blocking=name not in WARNING, description=DESCRIPTIONS[name]
            )
            for name in checks
        ],
    )
    def materialize(context: dg.AssetExecutionContext, pipeline: Pipeline) -> dg.MaterializeResult:
        days = days_of_run(context, partitions) if partitions else ALL_DAYS
        step = pipeline.materialize(context, dataset.name, days)
        version = dg.DataVersion(step.counts.state_hash)
        metadata = step_metadata(dataset, step)
        if partitions:
            mark_days(context, dataset, partitions, step, version)
            if context.has_partition_key_range:
                # One event for each day: the newest, which is shown first, tells all.
                context.add_asset_metadata(metadata, partition_key=context.partition_key_range.end)
                metadata = {}
        return dg.MaterializeResult(
            metadata=metadata, data_version=version, check_results=check_results(dataset, checks, step)
        )

    return materialize


def freshness(config: ChecksConfig) -> dg.FreshnessPolicy | None:
    """Return after how long without a run a dataset is overdue: a warning at two thirds of it."""
    if not config.fresh_hours:
        return None
    limit = timedelta(hours=config.fresh_hours)
    return dg.FreshnessPolicy.time_window(fail_window=limit, warn_window=limit * 2 / 3)


def step_metadata(dataset: Dataset, step: Step) -> dict[str, Any]:
    """Return what a step did as metadata."""
    return (
        count_metadata(step.counts)
        | publication_metadata(step.publication)
        | story_metadata(dataset.name, step.story)
    )


def mark_days(
    context: dg.AssetExecutionContext,
    dataset: Dataset,
    partitions: PartitionsConfig,
    step: Step,
    version: dg.DataVersion,
) -> None:
    """Tell Dagster of the days that a step has changed: its rows on each, and those beside the run's own."""
    rows = rows_by_partition(step.days, partitions)
    ours = context.partition_key_range
    for key, count in rows.items():
        if ours.start <= key <= ours.end:
            context.add_asset_metadata({"dagster/partition_row_count": count}, partition_key=key)
    for key in other_partitions(context, rows):
        context.log_event(
            dg.AssetMaterialization(
                dataset.name,
                partition=key,
                description="changed by a run that took in all days",
                metadata={"dagster/partition_row_count": rows[key]},
                tags={"dagster/data_version": version.value},
            )
        )


def column_schema(dataset: Dataset) -> dg.TableSchema:
    """Return a dataset's columns as Dagster shows them."""
    return dg.TableSchema(
        columns=[dg.TableColumn(column.name, column.type, column.description) for column in dataset.columns]
    )


def column_lineage(dataset: Dataset) -> dg.TableColumnLineage:
    """Return which columns above each column derives from."""
    return dg.TableColumnLineage(
        {
            column.name: [
                dg.TableColumnDep(asset_key=above.split(".")[0], column_name=above.split(".")[1])
                for above in column.derives_from
            ]
            for column in dataset.columns
            if column.derives_from
        }
    )


def code_references(functions: tuple[Callable[..., Any], ...]) -> dict[str, Any]:
    """Return where functions stand on this machine, as the links of an asset to its code."""
    places = [(function, Path(function.__code__.co_filename)) for function in functions]
    with warnings.catch_warnings():
        # Dagster's links are beta: whoever runs Stemma can do nothing about it.
        warnings.simplefilter("ignore", dg.BetaWarning)
        references: list[Any] = [
            dg.LocalFileCodeReference(
                file_path=str(path),
                line_number=function.__code__.co_firstlineno,
                label="/".join(path.parts[-2:]),
            )
            for function, path in places
            if path.is_file()
        ]
        if not references:
            return {}
        return {"dagster/code_references": dg.CodeReferencesMetadataValue(code_references=references)}


def count_metadata(counts: Counts) -> dict[str, Any]:
    """Return the counts of an update as metadata."""
    told: dict[str, Any] = {}
    if counts.warnings:
        told["warnings"] = dg.MetadataValue.md("\n".join(f"- {as_text(line)}" for line in counts.warnings))
    if counts.engine:
        told["engine"] = dg.MetadataValue.md(f"```text\n{counts.engine}\n```")
    return {
        "dagster/row_count": counts.rows,
        "rows_in": counts.rows_in,
        "rows_added": counts.rows_added,
        "rows_changed": counts.rows_changed,
        "rows_removed": counts.rows_removed,
        "rows_reused": counts.rows_reused,
        "rows_computed": counts.rows_computed,
        "rows_waiting": counts.rows_waiting,
        "errors": counts.errors,
        "recipe": counts.recipe,
        "seconds": round(counts.seconds, 3),
        **told,
    }


def publication_metadata(publication: Publication | None) -> dict[str, Any]:
    """Return what became of the publication as metadata."""
    if publication is None:
        return {}
    return {"published": publication.published, "publication": publication.reason}


def check_results(dataset: Dataset, names: tuple[str, ...], step: Step) -> list[dg.AssetCheckResult]:
    """Return the outcome of a step's checks; a step that published nothing stands on the checks of the last."""
    outcomes = {check.name: check for check in step.checks}
    skipped = Check("", True, f"not run: {step.publication.reason}" if step.publication else "not run")
    return [
        dg.AssetCheckResult(
            asset_key=dataset.name,
            check_name=name,
            passed=outcomes.get(name, skipped).passed,
            severity=dg.AssetCheckSeverity.WARN if name in WARNING else dg.AssetCheckSeverity.ERROR,
            metadata={"detail": outcomes.get(name, skipped).detail},
        )
        for name in names
    ]
