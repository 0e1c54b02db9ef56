"""stemma compact: files without dead space, a memo without what nothing uses, a history without old runs."""

import argparse
from uuid import uuid4

from stemma.commands.dagster_history import delete_old_runs
from stemma.commands.output import print_json, print_table, say_aside
from stemma.config import load_config
from stemma.reporting.text import human_bytes


def compact(options: argparse.Namespace) -> int:
    """Rewrite state and published file, drop old results that nothing uses; print sizes before and after.

    With --history-days, Dagster's history loses the finished runs that are older.
    With --forget-history nothing of earlier publications stays in the published file.
    """
    from stemma.resources.engine import Run, Setup, upkeep
    from stemma.resources.warehouse import Warehouse

    config = load_config(options.config)
    warehouse = Warehouse(config.warehouse.path, waiting=say_aside)
    run = Run(f"compact-{uuid4()}", Setup.of(config), warehouse)
    try:
        before, after = upkeep.compact(
            run, keep_days=options.keep_days, forget_history=options.forget_history
        )
    finally:
        warehouse.close()
    deleted = delete_old_runs(config, options.history_days) if options.history_days else 0
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
