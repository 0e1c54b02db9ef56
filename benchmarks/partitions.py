"""Partitions: a year of days backfilled, against one run over everything; and what Dagster adds to a run.

    python benchmarks/partitions.py [--docs 3650] [--singles 20] [--folder DIR]

The corpus is `../shared/tools/make_load.py churn`: documents dated over 2024, and ten days of inserts, updates and
deletes applied to them, in a file for each month. All runs go through Dagster's job in one process, with the
embedder hash:384, each corpus with a DAGSTER_HOME of its own (SQLite). `one run` takes in all days without a
partition; `backfill` is the range of all 366 partitions in one run, as a backfill of the assets or of the job
`by_day` makes it; `singles` are runs of one day each on top of it, after every document of the day has changed.
The engine alone is `run_all`, without Dagster. A no-op is a run of all five assets when nothing has changed.
"""

import argparse
import contextlib
import gzip
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pyarrow.parquet as pq

from stemma.config import load_config
from stemma.definitions import BY_DAY, JOB, build_definitions
from stemma.lineage.comparison import compare_files
from stemma.resources.engine import Run, Setup, run_all
from stemma.resources.warehouse import Warehouse

SHARED = Path(os.environ.get("STEMMA_SHARED", Path(__file__).resolve().parents[2] / "shared"))
FIRST, LAST = "2024-01-01", "2024-12-31"
QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
DAYS_OF_CHURN = 10


def make_documents(docs: int, folder: Path) -> dict[str, dict[str, str]]:
    """Return the live documents of the churn corpus: id to its record."""
    made = folder / "churn"
    made.mkdir()
    tool = [sys.executable, str(SHARED / "tools" / "make_load.py"), "churn"]
    options = ["--docs", str(docs), "--days", str(DAYS_OF_CHURN), "--out", str(made)]
    subprocess.run([*tool, *options], check=True, stdout=subprocess.DEVNULL)
    live: dict[str, dict[str, str]] = {}
    for part in sorted(made.glob("part-*.parquet")):
        for row in pq.read_table(part, columns=["id", "date", "text"]).to_pylist():
            live[row["id"]] = {"id": row["id"], "date": row["date"].isoformat(), "text": row["text"]}
    for number, day in enumerate(sorted(made.glob("day-*.jsonl.gz"))):
        for line in gzip.decompress(day.read_bytes()).splitlines():
            event = json.loads(line)
            if event["op"] == "delete":
                live.pop(event["id"], None)
            else:
                dated = live.get(event["id"], {"date": f"2024-12-{number + 1:02}"})["date"]
                live[event["id"]] = {"id": event["id"], "date": dated, "text": event["text"]}
    return live


def write(live: dict[str, dict[str, str]], docs: Path) -> None:
    """Write the documents, a file for each month."""
    docs.mkdir(exist_ok=True)
    months: dict[str, list[str]] = {}
    for record in live.values():
        months.setdefault(record["date"][:7], []).append(json.dumps(record))
    for month, lines in months.items():
        (docs / f"{month}.jsonl").write_text("\n".join(lines))


class Side:
    """A corpus of its own over the same documents, with a Dagster instance of its own."""

    def __init__(self, folder: Path, docs: Path) -> None:
        self.folder = folder
        folder.mkdir()
        (folder / "home").mkdir()
        (folder / "home" / "dagster.yaml").write_text("telemetry:\n  enabled: false\n")
        self.file = folder / "stemma.toml"
        self.file.write_text(
            f'[[sources]]\nname = "docs"\npath = "{docs}"\n[embed]\nmodel = "hash:384"\n'
            f'[partitions]\nstart = "{FIRST}"\n'
        )
        self.path = load_config(self.file).warehouse.path

    @contextlib.contextmanager
    def instance(self) -> Iterator[dg.DagsterInstance]:
        os.environ["DAGSTER_HOME"] = str(self.folder / "home")
        with dg.DagsterInstance.get() as instance:
            yield instance

    def run(self, job: str, **of: Any) -> float:
        """Run a job in this process; returns its seconds without imports and loading of definitions."""
        definitions = build_definitions(load_config(self.file), str(self.file)).resolve_job_def(job)
        with self.instance() as instance:
            started = time.perf_counter()
            result = definitions.execute_in_process(instance=instance, run_config=QUIET, **of)
            seconds = time.perf_counter() - started
        assert result.success
        return seconds

    def engine(self) -> float:
        """Run the engine without Dagster; returns its seconds."""
        started = time.perf_counter()
        config = load_config(self.file)
        run = Run(f"bench-{started}", Setup.of(config), Warehouse(config.warehouse.path))
        run_all(run)
        run.warehouse.close()
        return time.perf_counter() - started

    def marked(self) -> int:
        with self.instance() as instance:
            return len(instance.get_materialized_partitions(dg.AssetKey("raw")))


def differing(one: Side, other: Side) -> list[str]:
    """Return the tables in which two corpora differ."""
    return [each.table for each in compare_files(one.path, other.path) if each.differs]


def whole_year(first: str = FIRST, last: str = LAST) -> dict[str, dict[str, str]]:
    return {"tags": {"dagster/asset_partition_range_start": first, "dagster/asset_partition_range_end": last}}


def main() -> None:
    """Print the table of the module's docstring."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--docs", type=int, default=3650)
    parser.add_argument("--singles", type=int, default=20)
    parser.add_argument("--folder", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="stemma-partitions-", dir=options.folder) as made:
        folder = Path(made)
        live = make_documents(options.docs, folder)
        docs = folder / "docs"
        write(live, docs)
        one, by_days, bare = (Side(folder / name, docs) for name in ("one", "days", "bare"))
        print(f"{len(live)} documents of {len({record['date'] for record in live.values()})} days\n")
        print("| | runs | seconds | |\n|---|---|---|---|")
        engine = bare.engine()
        print(f"| engine alone, everything | 1 | {engine:.1f} | |")
        print(f"| one run over everything | 1 | {one.run(JOB):.1f} | |")
        backfill = by_days.run(BY_DAY, **whole_year())
        events = by_days.marked()
        print(
            f"| backfill of {events} partitions | 1 | {backfill:.1f} | differs in {differing(one, by_days)} |"
        )
        noop = sorted(one.run(JOB) for _ in range(5))[2]
        bare_noop = sorted(bare.engine() for _ in range(5))[2]
        print(f"| no-op, all assets | 1 | {noop:.2f} | the engine alone {bare_noop:.2f} |")
        singles(by_days, live, docs, options.singles)
        one.run(JOB)
        by_days.run(BY_DAY, **whole_year())
        print(f"\nafter the single days and a last backfill the two differ in {differing(one, by_days)}")


def singles(side: Side, live: dict[str, dict[str, str]], docs: Path, count: int) -> None:
    """Change every document of some days, and run these days one by one, in any order."""
    days = random.Random(1).sample(sorted({record["date"] for record in live.values()}), count)
    for record in live.values():
        if record["date"] in days:
            record["text"] += " one more sentence, and that is all"
    write(live, docs)
    seconds = [side.run(BY_DAY, partition_key=day) for day in days]
    mean = sum(seconds) / len(seconds)
    print(f"| single days, all their documents changed | {count} | {sum(seconds):.1f} | {mean:.2f} each |")


if __name__ == "__main__":
    main()
