"""What a failed run tells, and whom."""

import json
import urllib.request
from typing import Any

import dagster as dg

from stemma.config import AlertsConfig
from stemma.errors import StemmaError
from stemma.functions import let_import, load_function
from stemma.resources.pipeline import Pipeline

SECONDS = 10.0


def run_failure() -> dg.SensorDefinition:
    """Return the sensor that logs each failed run in one line and tells it to the hooks of [alerts]."""

    @dg.run_failure_sensor(
        name="run_failure",
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Logs the reason of each failed run in one line; [alerts] names a webhook or a function to tell.",
    )
    def tell(context: dg.RunFailureSensorContext, pipeline: Pipeline) -> None:
        failure = failure_facts(context)
        context.log.error(f"run {failure['run_id']} failed: {failure['message']}")
        try:
            config = pipeline.config()
            let_import(config.directory)
            send(config.alerts, failure)
        except Exception as error:
            # A hook that fails must not hide what it was to tell.
            context.log.error(f"the hook of [alerts] failed: {type(error).__name__}: {error}")

    return tell


def failure_facts(context: dg.RunFailureSensorContext) -> dict[str, Any]:
    """Return what a hook is told: run_id, job, message (one line), steps (those that failed), partition, tags."""
    run = context.dagster_run
    steps = [event for event in context.get_step_failure_events() if event.step_key]
    reasons = [
        event.step_failure_data.user_failure_data.description
        for event in steps
        if event.step_failure_data.user_failure_data and event.step_failure_data.user_failure_data.description
    ]
    return {
        "run_id": run.run_id,
        "job": run.job_name,
        "message": reasons[0] if reasons else context.failure_event.message or "the run failed",
        "steps": [event.step_key for event in steps],
        "partition": run.tags.get("dagster/partition"),
        "tags": {name: value for name, value in run.tags.items() if name.startswith("stemma/")},
    }


def send(alerts: AlertsConfig, failure: dict[str, Any]) -> None:
    """Tell a failure to the function and the webhook that are configured: as an argument, as JSON by POST.

    Raises what they raise: OSError where the webhook cannot be reached or answers with an error.
    """
    if alerts.function:
        load_function(alerts.function)(failure)
    if alerts.webhook:
        if not alerts.webhook.lower().startswith(("https://", "http://")):
            raise StemmaError("[alerts] webhook must be an http or https URL")
        request = urllib.request.Request(
            alerts.webhook, json.dumps(failure).encode(), {"Content-Type": "application/json"}, method="POST"
        )
        urllib.request.urlopen(request, timeout=SECONDS).close()
