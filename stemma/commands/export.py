"""stemma export: the corpus as files, whole or as what has changed."""

import argparse
from functools import partial
from pathlib import Path

from stemma.commands.output import print_json, say, warn_of_source
from stemma.commands.published import SETTINGS, open_published, published_path
from stemma.config import Config, load_config
from stemma.errors import UsageError
from stemma.lineage.as_of import attached


def export(options: argparse.Namespace) -> int:
    """Write documents, chunks or vectors to a file, or their changes to a folder. Raises UsageError for a bad name."""
    from stemma.exports import export_changes, export_file, export_since

    path = Path(options.path)
    config = load_config(options.config)
    only_changes = options.changes or options.since is not None
    form = _form(options, path, only_changes)
    _check_place(config, path, form, only_changes)
    work = export_changes if only_changes else export_file
    if options.since is not None:
        work = partial(export_since, run=options.since)
        opened = attached(published_path(config), SETTINGS)
    else:
        opened = open_published(config)
    with opened as connection:
        done = work(connection, options.what, path, form)
    counts = {"added": done.added, "changed": done.changed, "removed": done.removed}
    if options.json:
        print_json({"path": None if done.path is None else str(done.path), **counts})
    elif done.path is None:
        say(f"nothing has changed since {options.since or 'the last export'}")
    elif not only_changes:
        say(f"{done.path}: {done.added:,} {options.what}")
    else:
        listed = ", ".join(f"{count:,} {name}" for name, count in counts.items() if count or name == "added")
        say(f"{done.path}: {options.what}: {listed}")
    warn_of_source(config, path)
    return 0


def _form(options: argparse.Namespace, path: Path, only_changes: bool) -> str:
    from stemma.exports import CHANGE_FORMATS, FORMATS

    form: str = options.format or ("parquet" if only_changes else path.suffix.removeprefix("."))
    if only_changes and form not in CHANGE_FORMATS:
        raise UsageError(f"changes are written as {', '.join(CHANGE_FORMATS)}, not as {form}")
    if form not in FORMATS:
        raise UsageError(
            f"{path}: end the name in {', '.join('.' + name for name in FORMATS)}, or give --format"
        )
    return form


def _check_place(config: Config, path: Path, form: str, only_changes: bool) -> None:
    if path.exists() and config.warehouse.path.exists() and path.samefile(config.warehouse.path):
        raise UsageError(f"{path}: is the published corpus itself")
    if only_changes and path.is_file():
        raise UsageError(f"{path}: --changes needs a folder, and this is a file")
    if not only_changes and form != "lance" and path.is_dir():
        raise UsageError(f"{path}: a folder; --changes exports to one")
