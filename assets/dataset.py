"""What the five assets share: how a dataset's contract and counts become Dagster metadata."""

import warnings
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import dagster as dg

from stemma.assets.partitions import daily_partitions, days_of_run, other_partitions, partition_of
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
    profiled: Callable[[dict[str, Any]], dict[str, Any]] | None = None,
    is_partitioned: bool = False,
) -> dg.AssetsDefinition:
    """Return the asset that brings a dataset up to date and reports its blocking checks.

    `profiled` makes metadata of a step's profile, where it has one. A partitioned one has a partition for each day.
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
        metadata = step_metadata(step, profiled)
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


def step_metadata(step: Step, profiled: Callable[[dict[str, Any]], dict[str, Any]] | None) -> dict[str, Any]:
    """Return what the page of an asset tells of a step."""
    return (
        count_metadata(step.counts)
        | publication_metadata(step.publication)
        | (profiled(step.profile) if profiled and step.profile else {})
        | {"preview": table(step.preview)}
    )


def mark_days(
    context: dg.AssetExecutionContext,
    dataset: Dataset,
    partitions: PartitionsConfig,
    step: Step,
    version: dg.DataVersion,
) -> None:
    """Tell Dagster of the days that a step has changed: its rows on each, and those beside the run's own."""
    rows: dict[str, int] = {}
    for day, count in step.days.items():
        key = partition_of(day, partitions)
        rows[key] = rows.get(key, 0) + count
    ours = context.partition_key_range
    for key, count in rows.items():
        if ours.start <= key <= ours.end:
            context.add_asset_metadata({"dagster/partition_row_count": count}, partition_key=key)
    for key, count in other_partitions(context, rows):
        context.log_event(
            dg.AssetMaterialization(
                dataset.name,
                partition=key,
                description="changed by a run that took in all days",
                metadata={"dagster/partition_row_count": count},
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


def count_metadata(counts: Counts) -> dict[str, Any]:
    """Return the counts of an update as metadata."""
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
    } | (
        {"warnings": dg.MetadataValue.md("\n".join(f"- {line}" for line in counts.warnings))}
        if counts.warnings
        else {}
    )


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


def table(rows: list[dict[str, Any]]) -> dg.MarkdownMetadataValue:
    """Return rows as a Markdown table; cell text is escaped, so a title of `<script>` stays text."""
    if not rows:
        return dg.MetadataValue.md("_no rows_")
    head = list(rows[0])
    lines = ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
    lines += ["| " + " | ".join(_cell(row[name]) for name in head) + " |" for row in rows]
    return dg.MetadataValue.md("\n".join(lines))


def _cell(value: Any) -> str:
    text = "" if value is None else " ".join(str(value).split())
    text = text if len(text) <= 80 else text[:79] + "…"
    for character, escape in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"), ("|", "\\|"), ("`", "&#96;")):
        text = text.replace(character, escape)
    return text
