"""The inbox sensor: a run when files came, changed or went."""

import time
from typing import Any

import dagster as dg

from stemma.hashing import key
from stemma.resources.pipeline import Pipeline
from stemma.resources.sources import FileEntry, list_files
from stemma.resources.warehouse import Warehouse

INTERVAL_SECONDS = 30
# A file touched more recently may still be being written; it is looked at again at the next tick.
QUIET_SECONDS = 5


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
        fingerprint, newest = listing(pipeline)
        if fingerprint == context.cursor:
            return dg.SkipReason("nothing has changed in the sources")
        if time.time() - newest < QUIET_SECONDS:
            return dg.SkipReason("files are still being written")
        return dg.SensorResult(
            run_requests=[dg.RunRequest(run_key=f"{fingerprint}-{newest:.0f}")], cursor=fingerprint
        )

    return watch


def listing(pipeline: Pipeline) -> tuple[str, float]:
    """Return a hash of the sources' files (place, size, modification time) and the newest modification time."""
    facts: list[str] = []
    newest = 0
    config = pipeline.config()
    left_out = Warehouse(config.warehouse.path).own_paths
    for source in config.sources:
        for item in list_files(source, left_out):
            if isinstance(item, FileEntry):
                facts.append(f"{source.name}|{item.uri}|{item.size}|{item.mtime_ns}")
                newest = max(newest, item.mtime_ns)
            else:
                facts.append(f"{source.name}|{item.uri}|{item.error}")
    return key(*facts).hex(), newest / 1e9
