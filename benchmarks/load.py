"""What many documents cost, and what each day of change costs from then on: time, memory, bytes on disk.

    python benchmarks/load.py [--docs 1000,10000,100000] [--days 30] [--runs 5]   # needs ../shared, or STEMMA_SHARED

Synthetic documents (`make_load.py churn`), a file each, of which each day 1 % are added, 1 % changed and 0.5 % deleted;
vectors of 384 dimensions that need no model (`hash:384`). First all of them, then a run with nothing to do, then a run
a day; the last size has all --days, those before it three. Each run is a process of its own: `seconds` is its wall time
without the start of Python, by dataset and publication, `MB` the largest sum of its memory and that of its workers
(each shared page counted once). Every week and at the end the files are compacted, with --keep-days 0, since no real
days pass. --verify compares each dataset with a rebuild at the end. The slopes say how much of a run with nothing to
do, and of a day, follows the corpus and not the change.

Then --runs runs of the command line, of which Dagster's history is kept.
"""

import argparse
import gzip
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from processes import Peak, processor_seconds

SHARED = Path(os.environ.get("STEMMA_SHARED", Path(__file__).resolve().parents[2] / "shared"))
STAGES = ("raw", "cleaned", "deduplicated", "chunked", "embedded", "publication")
MB = 1_000_000
WEEK = 7

Figures = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--docs", default="1000,10000,100000")
    parser.add_argument("--days", type=int, default=30)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--verify", action="store_true", help="compare with a rebuild at the end")
    parser.add_argument("--step", nargs=2, metavar=("FOLDER", "WHAT"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.step:
        print(json.dumps(STEPS[options.step[1]](Path(options.step[0]))))
        return
    sizes = [int(size) for size in options.docs.split(",")]
    measured: dict[int, dict[str, Figures]] = {}
    for size in sizes:
        days = options.days if size == sizes[-1] else min(3, options.days)
        with tempfile.TemporaryDirectory(prefix="stemma-load-") as folder:
            measured[size] = measure(Path(folder), size, days, verify=options.verify)
            if size == sizes[-1] and options.runs:
                grow_history(Path(folder), options.runs)
    print_costs(measured)


def measure(root: Path, size: int, days: int, *, verify: bool) -> dict[str, Figures]:
    """Print a row for each run over so many documents; returns the figures of the runs, by name."""
    load = make_load(root, size, max(days, 1))
    configure(root)
    print(f"\n### {size:,} documents\n")
    names = ("run", "documents", "text MB", "chunks", "seconds", "cpu s", "MB", "published MB", "dead")
    print(f"| {' | '.join(names)} | state MB | memo MB | files |\n{'|---' * 12}|")
    found = {"full": show("full", step(root, "run")), "no-op": show("no-op", step(root, "run"))}
    for day, events in enumerate(sorted(load.glob("day-*.jsonl.gz"))[:days], start=1):
        apply(root / "docs", events)
        found[f"day {day}"] = show(f"day {day}", step(root, "run"))
        if day % WEEK == 0 or day == days:
            found[f"compacted {day}"] = show(f"compacted {day}", step(root, "compact"))
    found["no-op at the end"] = show("no-op", step(root, "run"))
    if verify:
        print(f"\ndifferences from a rebuild: {step(root, 'verify')['differences']}", flush=True)
    return found


def make_load(root: Path, docs: int, days: int) -> Path:
    """Make the documents of day 0 as files below docs/, and return the folder of the days' events."""
    load = root / "load"
    tool = [sys.executable, str(SHARED / "tools" / "make_load.py"), "churn", "--out", str(load)]
    subprocess.run([*tool, "--docs", str(docs), "--days", str(days)], check=True, stdout=subprocess.DEVNULL)
    for part in sorted(load.glob("*.parquet")):
        for row in pq.read_table(part, columns=["id", "text"]).to_pylist():
            path = place(root / "docs", row["id"])
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(row["text"])
    return load


def configure(root: Path) -> Path:
    """Write the configuration; vectors need no model, since their bytes are those of any other."""
    path = root / "stemma.toml"
    path.write_text('[[sources]]\npath = "docs"\n\n[embed]\nmodel = "hash:384"\n')
    return path


def place(docs: Path, name: str) -> Path:
    return docs / name[-2:] / f"{name}.txt"


def apply(docs: Path, events: Path) -> None:
    """Bring the files to the end of a day."""
    with gzip.open(events, "rt") as lines:
        for line in lines:
            event = json.loads(line)
            path = place(docs, event["id"])
            if event["op"] == "put":
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(event["text"])
            else:
                path.unlink()


def step(root: Path, what: str) -> Figures:
    """Do something to the corpus in a process of its own; returns its figures."""
    command = [sys.executable, __file__, "--step", str(root), what]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    figures: Figures = json.loads(done.stdout.splitlines()[-1])
    return figures


def open_run(root: Path) -> Any:
    from stemma.config import load_config
    from stemma.resources.engine import Run, Setup
    from stemma.resources.warehouse import Warehouse

    config = load_config(root / "stemma.toml")
    return Run(f"run-{time.time_ns()}", Setup.of(config), Warehouse(config.warehouse.path))


def run_step(root: Path) -> Figures:
    """Bring the corpus up to date."""
    from stemma.resources.engine import DATASETS, publish

    run = open_run(root)
    began = time.perf_counter()
    seconds, peaks = {}, {}
    for stage in STAGES:
        peak, started = Peak(), time.perf_counter()
        _ = publish(run) if stage == "publication" else DATASETS[stage](run)
        seconds[stage], peaks[stage] = time.perf_counter() - started, peak.end()
    return {
        "seconds": time.perf_counter() - began,
        "stages": seconds,
        "peaks": peaks,
        "peak": max(peaks.values()),
        **facts(run),
    }


def compact_step(root: Path) -> Figures:
    """Rewrite the files without what nothing uses."""
    from stemma.resources.engine.upkeep import compact

    run = open_run(root)
    peak, began = Peak(), time.perf_counter()
    compact(run, keep_days=0)
    return {"seconds": time.perf_counter() - began, "peak": peak.end(), **facts(run)}


def verify_step(root: Path) -> Figures:
    """Compare the corpus with a rebuild."""
    from stemma.config import load_config
    from stemma.resources.engine.audit import audit

    return {"differences": len(audit(load_config(root / "stemma.toml")).differing)}


STEPS = {"run": run_step, "compact": compact_step, "verify": verify_step}


def facts(run: Any) -> Figures:
    """Return what the corpus is and how large its files are, and close it."""
    run.workers.close()
    size = run.warehouse.size()
    with run.warehouse.read() as connection:
        documents, text, chunks, dead = connection.execute(
            """SELECT count(*), sum(length(text)) / 1e6, (SELECT count(*) FROM corpus.chunked),
                (SELECT free_blocks / total_blocks FROM pragma_database_size() LIMIT 1) FROM corpus.cleaned"""
        ).fetchone()
    files = sum(1 for _path in run.warehouse.memo.root.rglob("*.arrow"))
    run.warehouse.close()
    return {
        "cpu": processor_seconds(os.getpid()),
        **{"documents": documents, "text": text, "chunks": chunks, "dead": dead, "files": files},
        **vars(size),
    }


def show(name: str, each: Figures) -> Figures:
    print(
        f"| {name} | {each['documents']:,} | {each['text']:.1f} | {each['chunks']:,} | {each['seconds']:.2f}"
        f" | {each['cpu']:.1f} | {each['peak'] / MB:,.0f} | {each['published'] / MB:,.1f} | {each['dead']:.0%}"
        f" | {each['state'] / MB:,.1f} | {each['memo'] / MB:,.1f} | {each['files']} |",
        flush=True,
    )
    return each


def print_costs(measured: dict[int, dict[str, Figures]]) -> None:
    """Print what a run costs at each size, by dataset, and how that grows from the smallest to the largest."""
    print("\n### Seconds, and memory at most, by size\n")
    print(f"| documents | run | {' | '.join(STAGES)} | total |\n{'|---' * (len(STAGES) + 3)}|")
    low, high = min(measured), max(measured)
    for name in ("full", "no-op", "day 1"):
        for size, found in measured.items():
            if name in found:
                print_row(f"{size:,} | {name}", found[name])
        if low < high and name in measured[low] and name in measured[high]:
            ends = [measured[size][name] for size in (low, high)]
            slopes = {
                stage: (ends[1]["stages"][stage] - ends[0]["stages"][stage]) / (high - low)
                for stage in STAGES
            }
            cells = " | ".join(f"{slope * 1e6:.1f}" for slope in slopes.values())
            print(f"| µs a document more | {name} | {cells} | {sum(slopes.values()) * 1e6:.1f} |")


def print_row(start: str, each: Figures) -> None:
    cells = " | ".join(
        f"{each['stages'][stage]:.2f} ({each['peaks'][stage] / MB:,.0f} MB)" for stage in STAGES
    )
    print(f"| {start} | {cells} | {each['seconds']:.2f} |")


def grow_history(root: Path, runs: int) -> None:
    """Run by the command line, and print how large Dagster's history is after each run."""
    home = root / ".dagster"
    command = "import sys; from stemma.cli import main; sys.exit(main())"
    environment = {name: value for name, value in os.environ.items() if name != "DAGSTER_HOME"}
    print("\n### Dagster's history\n\n| run | history MB | of which the run's own events |\n|---|---|---|")
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
