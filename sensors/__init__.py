"""What starts runs without a person: sensors and the nightly schedule; and what a failed run tells."""

from typing import Any

import dagster as dg

from stemma.sensors.failure import run_failure
from stemma.sensors.inbox import inbox
from stemma.sensors.reconcile import reconcile
from stemma.sensors.schedules import nightly, weekly_audit


def sensors(job: Any) -> list[dg.SensorDefinition]:
    """Return the sensors of the job that takes in all days."""
    return [inbox(job), reconcile(job), run_failure()]


def schedules(by_day: Any, audit: Any) -> list[dg.ScheduleDefinition]:
    """Return the schedules of the job by day and of the audit."""
    return [nightly(by_day), weekly_audit(audit)]


__all__ = ["schedules", "sensors"]
