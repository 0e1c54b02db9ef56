"""What starts runs without a person: sensors and the nightly schedule; and what a failed run tells."""

from collections.abc import Callable
from typing import Any

import dagster as dg

from stemma.sensors.failure import run_failure
from stemma.sensors.inbox import inbox
from stemma.sensors.reconcile import reconcile
from stemma.sensors.schedules import nightly

SCHEDULES: tuple[Callable[[Any], dg.ScheduleDefinition], ...] = (nightly,)


def sensors(job: Any) -> list[dg.SensorDefinition]:
    """Return the sensors of a job."""
    return [inbox(job), reconcile(job), run_failure()]


__all__ = ["SCHEDULES", "sensors"]
