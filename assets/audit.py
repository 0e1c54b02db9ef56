"""The audit job: rebuilds the corpus, or a sample of its files, in a scratch place, and compares."""

import dagster as dg
from pydantic import Field

from stemma.errors import StemmaError
from stemma.resources.pipeline import Pipeline

NAME = "audit"


class AuditConfig(dg.Config):
    """How much of the corpus is rebuilt."""

    share: float = Field(default=1.0, gt=0, le=1, description="share of the files; 1: all, families included")


@dg.op(name="rebuild_and_compare", description="Fails where a row of the corpus is not that of the rebuild.")
def rebuild_and_compare(context: dg.OpExecutionContext, config: AuditConfig, pipeline: Pipeline) -> None:
    """Rebuild, compare, and fail with the tables that differ."""
    try:
        found = pipeline.audit(context, config.share)
    except StemmaError as error:
        raise dg.Failure(description=str(error)) from error
    metadata = {
        row["table"]: f"{row['rows']} rows, {row['missing']} + {row['extra']} differ" for row in found.tables
    }
    if found.damaged:
        raise dg.Failure(description="; ".join(found.damaged), metadata=metadata)
    if not found.differing:
        context.add_output_metadata(metadata)
        return
    told = "; ".join(f"{row['table']}: {row['missing'] + row['extra']} rows" for row in found.differing)
    why = f" (the corpus is not up to date: {'; '.join(found.stale)})" if found.stale else ""
    raise dg.Failure(description=f"the corpus is not what a rebuild gives: {told}{why}", metadata=metadata)


def audit_job() -> dg.JobDefinition:
    """Return the job `audit`."""

    @dg.job(
        name=NAME,
        description="Rebuild the corpus, or a sample of its files, in a scratch place, and compare every table.",
        executor_def=dg.in_process_executor,
    )
    def job() -> None:
        rebuild_and_compare()

    return job
