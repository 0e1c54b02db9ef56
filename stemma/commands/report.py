"""stemma report: what there is to see of the published corpus, as one HTML file."""

import argparse
import os
from datetime import UTC, datetime
from pathlib import Path

from stemma import __version__
from stemma.commands.output import print_json
from stemma.commands.published import open_published
from stemma.config import load_config
from stemma.errors import StemmaError, UsageError
from stemma.reporting.text import human_bytes


def report(options: argparse.Namespace) -> int:
    """Write the report. Raises StemmaError when nothing has been published, UsageError for a bad name."""
    from stemma.reporting.ledger import collect
    from stemma.reporting.page import page
    from stemma.resources.warehouse import Warehouse

    config = load_config(options.config)
    target = options.output or Warehouse(config.warehouse.path).report_path
    if target.suffix.lower() not in (".html", ".htm"):
        raise UsageError(f"{target}: end the name in .html")
    with open_published(config) as connection:
        found = collect(connection, config.warehouse.path)
    written = page(found, __version__, datetime.now(UTC))
    _write(target, written)
    if options.json:
        print_json({"path": str(target), "bytes": len(written.encode())})
    else:
        print(f"{target} ({human_bytes(len(written.encode()))}): open it in any browser")
    return 0


def _write(target: Path, text: str) -> None:
    """Put a file in place at once: a reader sees the old one or the new one."""
    beside = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        beside.write_text(text, encoding="utf-8")
        os.replace(beside, target)
    except OSError as error:
        beside.unlink(missing_ok=True)
        raise StemmaError(f"{target}: cannot be written: {error.strerror or error}") from error
