"""How a corpus grows on disk day by day, and Dagster's history run by run.

python benchmarks/growth.py [--docs 2000] [--days 30] [--runs 5]     # needs ../shared, or the folder in STEMMA_SHARED

A corpus of synthetic documents of which each day 1 % are added, 1 % changed and 0.5 % deleted (`make_load.py churn`):
one run a day. Then --runs runs of the command line, of which the history is kept.
"""

import argparse
import gzip
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pyarrow.parquet as pq

from stemma.config import Config, load_config
from stemma.resources.engine import Run, Setup, run_all
from stemma.resources.engine.upkeep import compact
from stemma.resources.warehouse import Size, Warehouse

SHARED = Path(os.environ.get("STEMMA_SHARED", Path(__file__).resolve().parents[2] / "shared"))
MB = 1_000_000


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--docs", type=int, default=2000)
    parser.add_argument("--days", type=int, default=30)
    parser.add_argument("--runs", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="stemma-growth-") as folder:
        root = Path(folder)
        load = make_load(root, options.docs, options.days)
        config = configured(root)
        print(
            "| day | documents | text MB | chunks | published MB | dead | state MB | memo MB | memo files |"
        )
        print("|---|---|---|---|---|---|---|---|---|")
        for day, events in enumerate([None, *sorted(load.glob("day-*.jsonl.gz"))]):
            if events is not None:
                apply(root / "docs", events)
            show(day, config, update(config, f"day-{day}"))
        before, after = compacted(config)
        print(f"\n`stemma compact`: {sizes(before)} → {sizes(after)}")
        if options.runs:
            grow_history(root, options.runs)


def make_load(root: Path, docs: int, days: int) -> Path:
    """Make the documents of day 0 as files below docs/, and return the folder of the days' events."""
    load = root / "load"
    tool = [sys.executable, str(SHARED / "tools" / "make_load.py"), "churn", "--out", str(load)]
    subprocess.run([*tool, "--docs", str(docs), "--days", str(days)], check=True, stdout=subprocess.DEVNULL)
    (root / "docs").mkdir()
    for part in sorted(load.glob("*.parquet")):
        for row in pq.read_table(part, columns=["id", "text"]).to_pylist():
            (root / "docs" / f"{row['id']}.txt").write_text(row["text"])
    return load


def configured(root: Path) -> Config:
    """Return the configuration; vectors need no model, since their bytes are those of any other."""
    (root / "stemma.toml").write_text('[[sources]]\npath = "docs"\n\n[embed]\nmodel = "hash:384"\n')
    return load_config(root / "stemma.toml")


def apply(docs: Path, events: Path) -> None:
    """Bring the files to the end of a day."""
    with gzip.open(events, "rt") as lines:
        for line in lines:
            event = json.loads(line)
            path = docs / f"{event['id']}.txt"
            if event["op"] == "put":
                path.write_text(event["text"])
            else:
                path.unlink()


def update(config: Config, run_id: str) -> Size:
    """Run, and return the sizes afterwards."""
    run = Run(run_id, Setup.of(config), Warehouse(config.warehouse.path), allow_deletes=True)
    try:
        run_all(run)
        return run.warehouse.size()
    finally:
        run.warehouse.close()


def show(day: int, config: Config, size: Size) -> None:
    warehouse = Warehouse(config.warehouse.path)
    with warehouse.read() as connection:
        facts = connection.execute(
            """SELECT count(*), sum(length(text)) / 1e6, (SELECT count(*) FROM corpus.chunked),
                (SELECT free_blocks / total_blocks FROM pragma_database_size() LIMIT 1) FROM corpus.cleaned"""
        ).fetchone()
    assert facts is not None
    files = sum(1 for _path in warehouse.memo.root.rglob("*.arrow"))
    sizes_ = f"{size.published / MB:.1f} | {facts[3]:.0%} | {size.state / MB:.1f} | {size.memo / MB:.1f}"
    print(f"| {day} | {facts[0]:,} | {facts[1]:.1f} | {facts[2]:,} | {sizes_} | {files} |", flush=True)


def compacted(config: Config, keep_days: int) -> tuple[Size, Size]:
    run = Run("compact", Setup.of(config), Warehouse(config.warehouse.path))
    try:
        return compact(run, keep_days=keep_days)
    finally:
        run.warehouse.close()


def sizes(size: Size) -> str:
    return f"{size.published / MB:.1f} + {size.state / MB:.1f} + {size.memo / MB:.1f} MB"


def grow_history(root: Path, runs: int) -> None:
    """Run by the command line, and print how large Dagster's history is after each run."""
    home = root / ".dagster"
    command = "import sys; from stemma.cli import main; sys.exit(main())"
    environment = {name: value for name, value in os.environ.items() if name != "DAGSTER_HOME"}
    print("\n| run | history MB | of which the run's own events |")
    print("|---|---|---|")
    for number in range(runs):
        (root / "docs" / f"more{number}.txt").write_text(f"one more document, number {number}")
        subprocess.run(
            [sys.executable, "-c", command, "run", "--json"],
            cwd=root,
            env=environment,
            check=True,
            stdout=subprocess.DEVNULL,
        )
        files = {path: path.stat().st_size for path in home.rglob("*") if path.is_file()}
        events = max(files, key=lambda path: path.stat().st_mtime if len(path.stem) == 36 else 0)
        print(f"| {number + 1} | {sum(files.values()) / MB:.2f} | {files[events] / MB:.2f} |", flush=True)


if __name__ == "__main__":
    main()
