"""Schedules."""

from typing import Any

import dagster as dg

from stemma.assets.partitions import yesterday


def nightly(job: Any) -> dg.ScheduleDefinition:
    """Return the schedule that takes in the day before at 02:00 UTC; off until somebody turns it on."""

    @dg.schedule(
        name="nightly",
        job=job,
        cron_schedule="0 2 * * *",
        execution_timezone="UTC",
        default_status=dg.DefaultScheduleStatus.STOPPED,
        description="Every night at 02:00 UTC: yesterday's partition, and everything downstream.",
    )
    def request(context: dg.ScheduleEvaluationContext) -> dg.RunRequest:
        day = yesterday(context.scheduled_execution_time.date())
        return dg.RunRequest(run_key=day, partition_key=day)

    return request


def weekly_audit(job: Any) -> dg.ScheduleDefinition:
    """Return the schedule of the audit, on Sundays at 04:00 UTC; off until somebody turns it on."""
    return dg.ScheduleDefinition(
        name="weekly_audit",
        job=job,
        cron_schedule="0 4 * * 0",
        execution_timezone="UTC",
        default_status=dg.DefaultScheduleStatus.STOPPED,
        description="Every Sunday at 04:00 UTC: a rebuild of everything in a scratch place, compared with the corpus.",
    )
