"""stemma export: the corpus as files, whole or as what has changed."""

import argparse
from pathlib import Path

from stemma.commands.output import print_json
from stemma.commands.published import open_published
from stemma.config import load_config
from stemma.errors import UsageError


def export(options: argparse.Namespace) -> int:
    """Write documents, chunks or vectors to a file, or their changes to a folder. Raises UsageError for a bad name."""
    from stemma.exports import FORMATS, export_changes, export_file

    path = Path(options.path)
    suffix = path.suffix.removeprefix(".")
    form = options.format or (suffix if not options.changes else "parquet")
    if form not in FORMATS:
        raise UsageError(
            f"{path}: end the name in {', '.join('.' + name for name in FORMATS)}, or give --format"
        )
    work = export_changes if options.changes else export_file
    if options.changes and path.is_file():
        raise UsageError(f"{path}: --changes needs a folder, and this is a file")
    if not options.changes and path.is_dir():
        raise UsageError(f"{path}: a folder; --changes exports to one")
    with open_published(load_config(options.config)) as connection:
        done = work(connection, options.what, path, form)
    counts = {"added": done.added, "changed": done.changed, "removed": done.removed}
    if options.json:
        print_json({"path": None if done.path is None else str(done.path), **counts})
    elif done.path is None:
        print("nothing has changed since the last export")
    elif not options.changes:
        print(f"{done.path}: {done.added:,} {options.what}")
    else:
        listed = ", ".join(f"{count:,} {name}" for name, count in counts.items() if count or name == "added")
        print(f"{done.path}: {options.what}: {listed}")
    return 0
