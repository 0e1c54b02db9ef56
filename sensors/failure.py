"""What a failed run tells."""

import dagster as dg


def run_failure() -> dg.SensorDefinition:
    """Return the sensor that logs each failed run in one line; the place to add mail or a webhook."""

    @dg.run_failure_sensor(
        name="run_failure",
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Logs the reason of each failed run in one line.",
    )
    def tell(context: dg.RunFailureSensorContext) -> None:
        context.log.error(f"run {context.dagster_run.run_id} failed: {context.failure_event.message}")

    return tell
