"""What the sensors have in common: how they ask for a run, and which runs still go."""

import time

import dagster as dg

from stemma.assets.partitions import daily_partitions
from stemma.config import Config

# A file touched more recently may still be being written; it is looked at again at the next tick.
QUIET_SECONDS = 5.0
# A run that works logs its progress every few seconds; one that has been silent for so long was killed.
SILENT_SECONDS = 900.0
ACTIVE = (
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
)


def request_today(config: Config, run_key: str | None, reason: str) -> dg.RunRequest:
    """Return the request for a run of today's partition, which takes in all days unless `catch_up` is off."""
    return dg.RunRequest(
        run_key=run_key,
        partition_key=daily_partitions(config.partitions).get_last_partition_key(),
        tags={"stemma/reason": reason},
    )


def active_run(instance: dg.DagsterInstance) -> str | None:
    """Return the id of a run that waits or works, if there is one; not of one that was killed."""
    for record in instance.get_run_records(dg.RunsFilter(statuses=list(ACTIVE))):
        if silent_for(instance, record) < SILENT_SECONDS:
            return record.dagster_run.run_id
    return None


def silent_for(instance: dg.DagsterInstance, record: dg.RunRecord) -> float:
    """Return the seconds between now and a run's last event, or its creation; one to come is of another clock."""
    last = instance.get_records_for_run(record.dagster_run.run_id, limit=1, ascending=False).records
    return abs(time.time() - (last[0].timestamp if last else record.create_timestamp.timestamp()))
