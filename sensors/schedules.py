"""Schedules."""

from typing import Any

import dagster as dg


def nightly(job: Any) -> dg.ScheduleDefinition:
    """Return the schedule that brings the corpus up to date at 02:00; off until somebody turns it on."""
    return dg.ScheduleDefinition(
        name="nightly",
        job=job,
        cron_schedule="0 2 * * *",
        execution_timezone="UTC",
        default_status=dg.DefaultScheduleStatus.STOPPED,
        description="Every night at 02:00 UTC: whatever changed in the sources.",
    )
