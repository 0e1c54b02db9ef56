"""stemma verify: rebuild from nothing in a scratch folder, and compare with what is published."""

import argparse
import dataclasses
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING

from stemma.commands.output import print_json, print_table, say
from stemma.config import load_config
from stemma.lineage.comparison import Difference

if TYPE_CHECKING:
    from stemma.resources.engine.audit import Audit


def verify(options: argparse.Namespace) -> int:
    """Print, for each table, the rows that differ between the corpus and its rebuild; 1 when any does.

    Damaged files of the memo are told as well, and end in 1.
    """
    from stemma.resources.engine.audit import audit

    config = load_config(options.config)
    found = audit(config, options.share, seed=options.seed, scratch=options.scratch)
    if found.stale:
        say(f"the corpus is not up to date, the rebuild is: {'; '.join(found.stale)}", file=sys.stderr)
    for line in found.damaged:
        say(f"{line}; a run that needs what it held makes it anew", file=sys.stderr)
    if options.json:
        print_json([dataclasses.asdict(each) for each in found.tables])
    else:
        _print(found)
    return 1 if found.differing or found.damaged else 0


def _print(found: "Audit") -> None:
    sampled = f" of {found.share:.0%} of the files (seed {found.seed})" if found.share < 1 else ""
    print_table(
        f"Corpus against rebuild{sampled}",
        ["table", "rows", "only in the corpus", "only in the rebuild"],
        [[each.table, each.rows, each.missing, each.extra] for each in found.tables],
    )
    if not found.differing:
        say("No row differs.")
    for each in found.differing:
        say(f"\n{each.table}: rows that differ: {each.missing} of the corpus, {each.extra} of the rebuild")
        for example in each.examples:
            for line in described(example):
                say(f"  {line}")


def described(example: Difference) -> list[str]:
    """Return a row that differs in words: which it is, where it comes from, what differs."""
    place = ", ".join(filter(None, (example.record and f"record {example.record}", example.place)))
    lines = [f"{_named(example.key)}: {example.kind}"]
    if example.uri or example.document_id:
        where = example.uri or f"document {example.document_id}"
        lines.append(f"  of {where}{f', {place}' if place else ''}")
    if example.first and example.first != example.table:
        lines.append(f"  that document differs first in {example.first}")
    lines += [
        f"  {name}: {ours!r} in the corpus, {other!r} in the rebuild"
        for name, (ours, other) in example.columns.items()
    ]
    return lines


def _named(key: Mapping[str, str | None]) -> str:
    return ", ".join(f"{name} {value}" for name, value in key.items() if value is not None)
