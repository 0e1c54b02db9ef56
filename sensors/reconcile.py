"""The reconcile sensor: whatever is stale is brought up to date, whoever made it so and whenever."""

import json
import time
from typing import Any

import dagster as dg

from stemma.resources.pipeline import Pipeline
from stemma.sensors.requests import QUIET_SECONDS, active_run, request_today

INTERVAL_SECONDS = 60
# After a run that left all as it was, the next one waits a minute, two, four, up to an hour.
FIRST_PAUSE_SECONDS = 60.0
LONGEST_PAUSE_SECONDS = 3600.0
# Where some file is always being written, a run waits for no quiet moment longer than this.
PATIENCE_SECONDS = 120.0


def reconcile(job: Any) -> dg.SensorDefinition:
    """Return the sensor that compares the sources and the configuration with the state, level by level.

    Dagster's declarative conditions answer to events, and one that falls between two ticks or into a run may be
    lost. This looks at what is, at each tick; so an update is found as long as it has not been taken in.
    """

    @dg.sensor(
        name="reconcile",
        job=job,
        minimum_interval_seconds=INTERVAL_SECONDS,
        default_status=dg.DefaultSensorStatus.STOPPED,
        description="Starts a run whenever sources, settings or code are not what the published corpus was made of.",
    )
    def bring_up_to_date(context: dg.SensorEvaluationContext, pipeline: Pipeline) -> dg.SensorResult:
        running = active_run(context.instance)
        if running:
            return _skip(
                f"run {running[:8]} goes on; what it leaves stale is found at the next tick", context
            )
        stale = pipeline.staleness(quiet_seconds=QUIET_SECONDS)
        asked = json.loads(context.cursor or "{}")
        if not stale.reasons and stale.unquiet:
            since = asked.get("unquiet_since", time.time())
            # A clock that was put back must not make it wait until it has caught up.
            if 0 <= time.time() - since < PATIENCE_SECONDS:
                return dg.SensorResult(
                    skip_reason=dg.SkipReason("files are still being written"),
                    cursor=json.dumps(asked | {"unquiet_since": since}),
                )
        elif not stale.reasons:
            return dg.SensorResult(skip_reason=dg.SkipReason("the corpus is up to date"), cursor="")
        tries = asked["tries"] if asked.get("signature") == stale.signature else 0
        at = asked.get("at", 0.0)
        due = at + pause(tries)
        if tries and at <= time.time() < due:
            return _skip(
                f"the last run changed nothing; the next try is in {due - time.time():.0f} s", context
            )
        reason = "; ".join(stale.reasons) or "files of the sources are written without a pause"
        return dg.SensorResult(
            run_requests=[request_today(pipeline.config(), None, reason)],
            cursor=json.dumps({"signature": stale.signature, "tries": tries + 1, "at": time.time()}),
        )

    return bring_up_to_date


def _skip(reason: str, context: dg.SensorEvaluationContext) -> dg.SensorResult:
    return dg.SensorResult(skip_reason=dg.SkipReason(reason), cursor=context.cursor)


def pause(tries: int) -> float:
    """Return for how many seconds to wait after so many runs that left all as it was."""
    return min(FIRST_PAUSE_SECONDS * 2 ** max(0, tries - 1), LONGEST_PAUSE_SECONDS)
