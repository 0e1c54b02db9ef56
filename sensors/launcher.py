"""A run launcher whose runs can be watched: one that was killed with its code server is found, failed and retried."""

from collections.abc import Mapping
from typing import Any

import dagster as dg
from dagster._core.launcher import CheckRunHealthResult, DefaultRunLauncher, WorkerStatus
from dagster._serdes import ConfigurableClassData

from stemma.sensors.requests import SILENT_SECONDS, silent_for


class WatchedRunLauncher(DefaultRunLauncher):
    """Launches runs in the code server, as Dagster does by itself, and tells its run monitoring which were killed.

    Dagster's own launcher cannot: a code server notices when the process of a run dies, but nobody notices when the
    code server goes down with it, and the run is shown as started for good. No process is asked here, only the event
    log, so the runs of `stemma run` are watched as well.

    Attributes:
        silent_seconds: a run that works logs its progress every few seconds; one that has logged nothing for so long
            was killed. As long as `reconcile` waits for it.
    """

    def __init__(
        self, silent_seconds: float = SILENT_SECONDS, inst_data: ConfigurableClassData | None = None
    ) -> None:
        super().__init__(inst_data)
        self.silent_seconds = silent_seconds

    @classmethod
    def config_type(cls) -> Any:
        """Return the keys of `run_launcher.config` in dagster.yaml."""
        return {"silent_seconds": dg.Field(float, is_required=False, default_value=SILENT_SECONDS)}

    @classmethod
    def from_config_value(
        cls, inst_data: ConfigurableClassData, config_value: Mapping[str, Any]
    ) -> "WatchedRunLauncher":
        """Return the launcher that dagster.yaml names."""
        return cls(config_value["silent_seconds"], inst_data)

    @property
    def supports_check_run_worker_health(self) -> bool:
        """Tell run monitoring to ask."""
        return True

    def check_run_worker_health(self, run: dg.DagsterRun) -> CheckRunHealthResult:
        """Return FAILED for a run that has been silent for too long, RUNNING for any other."""
        record = self._instance.get_run_record_by_id(run.run_id)
        silent = silent_for(self._instance, record) if record else 0.0
        if silent < self.silent_seconds:
            return CheckRunHealthResult(WorkerStatus.RUNNING)
        return CheckRunHealthResult(
            WorkerStatus.FAILED,
            f"no sign of life for {silent:.0f} s: it was killed, or its machine went down",
        )
