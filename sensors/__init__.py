"""What starts runs without a person: the inbox sensor and the nightly schedule; and what a failed run tells."""

from collections.abc import Callable
from typing import Any

import dagster as dg

from stemma.sensors.failure import run_failure
from stemma.sensors.inbox import inbox
from stemma.sensors.schedules import nightly

SCHEDULES: tuple[Callable[[Any], dg.ScheduleDefinition], ...] = (nightly,)


def sensors(job: Any) -> list[dg.SensorDefinition]:
    """Return the sensors of a job."""
    return [inbox(job), run_failure()]


__all__ = ["SCHEDULES", "sensors"]
