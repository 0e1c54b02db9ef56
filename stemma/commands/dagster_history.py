"""Dagster's history of runs: what `stemma compact` and `stemma purge` delete of it."""

import contextlib
import os
import sqlite3
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from stemma.commands.run import open_instance, prepare_dagster_home
from stemma.config import Config
from stemma.errors import StemmaError


def delete_old_runs(config: Config, days: int) -> int:
    """Delete the finished runs that are older, but for the last that succeeded; returns how many."""
    prepare_dagster_home(config)
    import dagster as dg

    before = datetime.now(UTC) - timedelta(days=days)
    with open_instance() as instance:
        last = instance.get_run_records(dg.RunsFilter(statuses=[dg.DagsterRunStatus.SUCCESS]), limit=1)
        kept = {record.dagster_run.run_id for record in last}
        old = instance.get_run_records(dg.RunsFilter(statuses=_ended(), created_before=before))
        names = [record.dagster_run.run_id for record in old if record.dagster_run.run_id not in kept]
        _delete(instance, names)
    return len(names)


def has_history(config: Config) -> bool:
    """Tell whether there is a history of Dagster's, without making one."""
    return Path(os.environ.get("DAGSTER_HOME") or config.directory / ".dagster").is_dir()


def delete_all_runs(config: Config, datasets: Iterable[str]) -> tuple[int, int]:
    """Delete all finished runs, and what the pages of the assets show; returns how many, and how many are left.

    Those are runs that have not ended, or were killed and not marked as ended. Files of SQLite are written anew, so
    that nothing of it stays in them; rows in PostgreSQL go by its own vacuum. Raises StemmaError where one is in use.
    """
    prepare_dagster_home(config)
    import dagster as dg

    with open_instance() as instance:
        ended = instance.get_run_records(dg.RunsFilter(statuses=_ended()))
        _delete(instance, [record.dagster_run.run_id for record in ended])
        instance.wipe_assets([dg.AssetKey(name) for name in datasets])
        left = instance.get_runs_count()
    _shrink(Path(os.environ["DAGSTER_HOME"]))
    return len(ended), left


def _ended() -> list[Any]:
    import dagster as dg

    return [dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED]


def _delete(instance: Any, runs: list[str]) -> None:
    from dagster._core.storage.event_log import SqliteEventLogStorage

    events = instance.event_log_storage
    for name in runs:
        instance.delete_run(name)
        # Dagster empties the run's file of events and leaves it, at its full length.
        if isinstance(events, SqliteEventLogStorage):
            Path(events.path_for_shard(name)).unlink(missing_ok=True)


def _shrink(home: Path) -> None:
    """Write SQLite's files anew: deleted rows stay in them otherwise."""
    for path in sorted(path for folder in ("history", "schedules") for path in (home / folder).rglob("*.db")):
        try:
            with contextlib.closing(sqlite3.connect(path, timeout=30.0)) as connection:
                connection.execute("VACUUM")
                connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        except sqlite3.Error as error:
            raise StemmaError(
                f"{path}: {error}: Dagster's history is in use; close the interface, and purge again"
            ) from error
