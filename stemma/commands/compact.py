"""stemma compact: files without dead space, a memo without what nothing uses."""

import argparse

from stemma.commands.output import human_bytes, print_json, print_table
from stemma.config import load_config


def compact(options: argparse.Namespace) -> int:
    """Rewrite state and published file, drop unused results older than --keep-days; print sizes before and after.

    With --forget-history nothing of earlier publications stays in the published file.
    """
    from stemma.resources.warehouse import Warehouse

    warehouse = Warehouse(load_config(options.config).warehouse.path, waiting=print)
    try:
        before, after = warehouse.compact(keep_days=options.keep_days, forget_history=options.forget_history)
    finally:
        warehouse.close()
    if options.json:
        print_json({"before": vars(before), "after": vars(after)})
        return 0
    names = ("published", "state", "memo")
    print_table(
        "",
        ["file", "before", "after"],
        [[name, human_bytes(getattr(before, name)), human_bytes(getattr(after, name))] for name in names],
    )
    return 0
