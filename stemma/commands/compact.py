"""stemma compact: files without dead space, a memo without what nothing uses, a history without old runs."""

import argparse
from datetime import UTC, datetime, timedelta
from pathlib import Path

from stemma.commands.output import print_json, print_table
from stemma.commands.run import open_instance, prepare_dagster_home
from stemma.config import Config, load_config
from stemma.reporting.text import human_bytes


def compact(options: argparse.Namespace) -> int:
    """Rewrite state and published file, drop unused results older than --keep-days; print sizes before and after.

    With --history-days, Dagster's history loses the finished runs that are older.
    With --forget-history nothing of earlier publications stays in the published file.
    """
    from stemma.resources.warehouse import Warehouse

    config = load_config(options.config)
    warehouse = Warehouse(config.warehouse.path, waiting=print)
    try:
        before, after = warehouse.compact(keep_days=options.keep_days, forget_history=options.forget_history)
    finally:
        warehouse.close()
    deleted = _delete_history(config, options.history_days) if options.history_days else 0
    if options.json:
        print_json({"before": vars(before), "after": vars(after), "runs_deleted": deleted})
        return 0
    names = ("published", "state", "memo")
    print_table(
        "",
        ["file", "before", "after"],
        [[name, human_bytes(getattr(before, name)), human_bytes(getattr(after, name))] for name in names],
    )
    if options.history_days:
        print(f"runs deleted from Dagster's history: {deleted}")
    return 0


def _delete_history(config: Config, days: int) -> int:
    """Delete Dagster's finished runs that are older, but for the last that succeeded; returns how many."""
    prepare_dagster_home(config)
    import dagster as dg
    from dagster._core.storage.event_log import SqliteEventLogStorage

    ended = [dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED]
    before = datetime.now(UTC) - timedelta(days=days)
    with open_instance() as instance:
        last = instance.get_run_records(dg.RunsFilter(statuses=ended[:1]), limit=1)
        kept = {record.dagster_run.run_id for record in last}
        old = instance.get_run_records(dg.RunsFilter(statuses=ended, created_before=before))
        names = [record.dagster_run.run_id for record in old if record.dagster_run.run_id not in kept]
        events = instance.event_log_storage
        for name in names:
            instance.delete_run(name)
            # Dagster empties the run's file of events and leaves it, at its full length.
            if isinstance(events, SqliteEventLogStorage):
                Path(events.path_for_shard(name)).unlink(missing_ok=True)
    return len(names)
