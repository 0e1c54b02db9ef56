"""The inbox sensor: a run when files came, changed or went."""

from typing import Any

import dagster as dg

from stemma.resources.pipeline import Pipeline
from stemma.sensors.requests import QUIET_SECONDS, request_today

INTERVAL_SECONDS = 30


def inbox(job: Any) -> dg.SensorDefinition:
    """Return the sensor that compares the listing of all sources with the one that it last started a run for."""

    @dg.sensor(
        name="inbox",
        job=job,
        minimum_interval_seconds=INTERVAL_SECONDS,
        default_status=dg.DefaultSensorStatus.STOPPED,
        description="Starts a run when files of a source came, changed or went and have been quiet for a moment.",
    )
    def watch(context: dg.SensorEvaluationContext, pipeline: Pipeline) -> dg.SensorResult | dg.SkipReason:
        seen = pipeline.look_at_sources()
        if seen.fingerprint == context.cursor:
            return dg.SkipReason("nothing has changed in the sources")
        if not seen.is_quiet(QUIET_SECONDS):
            return dg.SkipReason("files are still being written")
        return dg.SensorResult(
            run_requests=[
                request_today(
                    pipeline.config(), f"inbox-{seen.fingerprint}-{seen.newest:.0f}", "files changed"
                )
            ],
            cursor=seen.fingerprint,
        )

    return watch
