"""stemma verify: rebuild from nothing in a scratch folder, and compare with what is published."""

import argparse
import sys

from stemma.commands.output import print_json, print_table, say
from stemma.config import load_config


def verify(options: argparse.Namespace) -> int:
    """Print, for each table, the rows that differ between the corpus and its rebuild; 1 when any does.

    Damaged files of the memo are told as well, and end in 1.
    """
    from stemma.resources.engine.audit import audit

    found = audit(load_config(options.config), options.share)
    if found.stale:
        say(f"the corpus is not up to date, the rebuild is: {'; '.join(found.stale)}", file=sys.stderr)
    for line in found.damaged:
        say(f"{line}; a run that needs what it held makes it anew", file=sys.stderr)
    if options.json:
        print_json(found.tables)
    else:
        print_table(
            "Corpus against rebuild" + (f" of {options.share:.0%} of the files" if options.share < 1 else ""),
            ["table", "rows", "only in the corpus", "only in the rebuild", "example"],
            [
                [row["table"], row["rows"], row["missing"], row["extra"], row["example"]]
                for row in found.tables
            ],
        )
    return 1 if found.differing or found.damaged else 0
