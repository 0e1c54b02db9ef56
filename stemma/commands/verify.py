"""stemma verify: rebuild from nothing in a scratch folder, and compare with what is published."""

import argparse
import dataclasses
import sys
import tempfile
import uuid
from pathlib import Path
from typing import Any

from stemma.commands.output import print_json, print_table
from stemma.config import Config, load_config
from stemma.errors import StemmaError


def verify(options: argparse.Namespace) -> int:
    """Print, for each table, the rows that differ between the corpus and its rebuild; 1 when any does."""
    config = load_config(options.config)
    if not config.warehouse.path.exists():
        raise StemmaError(f"{config.warehouse.path}: nothing published yet; 'stemma run' makes it")
    with tempfile.TemporaryDirectory(prefix="stemma-verify-") as folder:
        rebuilt = rebuild(config, Path(folder) / "corpus.duckdb")
        differences = compare(config.warehouse.path, rebuilt)
    waiting = _waiting(config)
    if waiting:
        print(
            f"{waiting} documents of other days wait; the rebuild has them ('stemma run' takes them in)",
            file=sys.stderr,
        )
    if options.json:
        print_json(differences)
    else:
        print_table(
            "Corpus against rebuild",
            ["table", "rows", "only in the corpus", "only in the rebuild", "example"],
            [
                [row["table"], row["rows"], row["missing"], row["extra"], row["example"]]
                for row in differences
            ],
        )
    return 1 if any(row["missing"] or row["extra"] for row in differences) else 0


def _waiting(config: Config) -> int:
    from stemma.commands.published import open_published, rows

    with open_published(config) as connection:
        return int(rows(connection, "SELECT count(*) AS documents FROM lineage.waiting")[0]["documents"])


def rebuild(config: Config, path: Path) -> Path:
    """Build the corpus from nothing at `path`; returns it. Raises StemmaError when that fails."""
    from stemma.resources.engine import Run, Setup, run_all
    from stemma.resources.warehouse import Warehouse

    warehouse = Warehouse(path)
    scratch = dataclasses.replace(config, warehouse=dataclasses.replace(config.warehouse, path=path))
    try:
        run_all(Run(f"verify-{uuid.uuid4()}", Setup.of(scratch), warehouse))
    finally:
        warehouse.close()
    return path


def compare(corpus: Path, rebuilt: Path) -> list[dict[str, Any]]:
    """Compare every table of two published files, but for times and run ids; one row a table."""
    from stemma.lineage.comparison import compare_files

    return compare_files(corpus, rebuilt)
