"""The audit: an asset check that rebuilds the corpus in a scratch place and compares; a job of its own makes it."""

import random
from collections.abc import Iterator
from typing import Any

import dagster as dg
from pydantic import Field

from stemma.assets import ASSETS
from stemma.assets.story import as_text
from stemma.commands.verify import described
from stemma.errors import StemmaError
from stemma.lineage.checks import DESCRIPTIONS
from stemma.resources.engine.audit import Audit
from stemma.resources.pipeline import Pipeline

NAME = "audit"
OP = "rebuild_and_compare"
CHECK = "equals_rebuild"
SEEDS = 2**31


class AuditConfig(dg.Config):
    """How much of the corpus is rebuilt."""

    share: float = Field(default=1.0, gt=0, le=1, description="share of the files; 1: all, families included")
    seed: int | None = Field(default=None, description="which sample; without it each run takes another")


# Optional (can_subset), for there is no outcome where it stands aside.
@dg.multi_asset_check(
    name=OP,
    specs=[dg.AssetCheckSpec(CHECK, asset=list(ASSETS)[-1], description=DESCRIPTIONS[CHECK])],
    can_subset=True,
)
def equals_rebuild(
    context: dg.AssetCheckExecutionContext, config: AuditConfig, pipeline: Pipeline
) -> Iterator[dg.AssetCheckResult]:
    """Rebuild and compare; where a row differs the check fails, and the run, so that somebody is told.

    Dagster's UI adds every check to a run that materializes. There it stands aside: it costs as much as all else
    from the beginning.
    """
    if context.run.asset_selection:
        context.log.info(f"{CHECK} is left to the job {NAME}: this run materializes")
        return
    seed = config.seed if config.seed is not None else random.SystemRandom().randrange(SEEDS)
    try:
        found = pipeline.audit(context, config.share, seed)
    except StemmaError as error:
        raise dg.Failure(description=str(error)) from error
    metadata = _metadata(found)
    yield dg.AssetCheckResult(
        passed=not found.differing and not found.damaged,
        asset_key=list(ASSETS)[-1],
        check_name=CHECK,
        metadata=metadata,
    )
    if found.differing or found.damaged:
        raise dg.Failure(description=_told(found), metadata=metadata)


def _told(found: Audit) -> str:
    if not found.differing:
        return "; ".join(found.damaged)
    told = "; ".join(f"{each.table}: {each.missing + each.extra} rows" for each in found.differing)
    why = f" (the corpus is not up to date: {'; '.join(found.stale)})" if found.stale else ""
    return f"the corpus is not what a rebuild gives: {told}{why}"


def _metadata(found: Audit) -> dict[str, Any]:
    metadata: dict[str, Any] = {
        each.table: f"{each.rows} rows, {each.missing} + {each.extra} differ" for each in found.tables
    }
    lines = [
        f"- {as_text(each.table)}: {as_text('; '.join(line.strip() for line in described(example)))}"
        for each in found.differing
        for example in each.examples
    ]
    if lines:
        metadata["differences"] = dg.MetadataValue.md("\n".join(lines))
    return metadata | {"share": found.share, "seed": found.seed}


def without_audit() -> dg.AssetSelection:
    """Return the five datasets with all their checks but the audit."""
    return dg.AssetSelection.assets(*ASSETS) - dg.AssetSelection.checks(equals_rebuild)


def audit_job() -> Any:
    """Return the job `audit`."""
    return dg.define_asset_job(
        NAME,
        selection=dg.AssetSelection.checks(equals_rebuild),
        description="Rebuild the corpus, or a sample of its files, in a scratch place, and compare every table.",
        executor_def=dg.in_process_executor,
    )
