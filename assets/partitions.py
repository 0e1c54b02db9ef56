"""Daily partitions: which days a run takes in, and which it marks as done."""

from datetime import date, timedelta

import dagster as dg

from stemma.config import PartitionsConfig
from stemma.incremental.days import Days

# Dagster's storage takes some 25 ms for each partition that is marked; the state of the corpus doesn't depend on it.
MARKED_DAYS = 31
PARTITION_TAG = "dagster/partition"
DEFAULT_PARTITION_TAG = "stemma/default_partition"


def todays_partition(config: PartitionsConfig) -> dict[str, str]:
    """Return the tags of a job whose runs, if they name no partition, are of today's.

    Dagster cannot run an asset of partitions below another one without a partition. The day is that on which the
    job was defined: a code location may have been loaded long ago.
    """
    today = daily_partitions(config).get_last_partition_key() or config.start
    return {PARTITION_TAG: today, DEFAULT_PARTITION_TAG: today}


def daily_partitions(config: PartitionsConfig) -> dg.DailyPartitionsDefinition:
    """Return a partition for each day (UTC) from the first one to today, which is still open."""
    return dg.DailyPartitionsDefinition(start_date=config.start, timezone="UTC", end_offset=1)


def days_of_run(context: dg.AssetExecutionContext, config: PartitionsConfig) -> Days:
    """Return the days that a run's partitions stand for: the first has all earlier ones, today's all later ones."""
    partitions = daily_partitions(config)
    ours = context.partition_key_range
    is_first = ours.start == partitions.get_first_partition_key()
    is_last = ours.end in (partitions.get_last_partition_key(), context.run.tags.get(DEFAULT_PARTITION_TAG))
    return Days(
        None if is_first else date.fromisoformat(ours.start),
        None if is_last else date.fromisoformat(ours.end),
    )


def partition_of(day: date, config: PartitionsConfig) -> str:
    """Return the key of the partition that a day belongs to."""
    last = daily_partitions(config).get_last_partition_key() or config.start
    return _clamped(day, config.start, last)


def _clamped(day: date, first: str, last: str) -> str:
    return max(first, min(day.isoformat(), last))


def rows_by_partition(days: dict[date, int], config: PartitionsConfig) -> dict[str, int]:
    """Return the rows of days, by the partitions that these belong to, the oldest first."""
    last = daily_partitions(config).get_last_partition_key() or config.start
    rows: dict[str, int] = {}
    for day, count in sorted(days.items()):
        key = _clamped(day, config.start, last)
        rows[key] = rows.get(key, 0) + count
    return rows


def other_partitions(context: dg.AssetExecutionContext, rows: dict[str, int]) -> list[str]:
    """Return the newest partitions that a run has changed beside its own: Dagster marks only these."""
    ours = context.partition_key_range
    return sorted(key for key in rows if not ours.start <= key <= ours.end)[-MARKED_DAYS:]


def yesterday(today: date) -> str:
    """Return the key of the partition of the day before."""
    return (today - timedelta(days=1)).isoformat()
