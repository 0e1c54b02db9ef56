"""What `deduplicated` costs in the engine: full, 1 % inserted, 1 % deleted, five times in turn, at growing sizes.

    python benchmarks/families.py [--documents 10000,100000,139000] [--words 52] [--folder DIR] [--check]

Texts are those of `make_load.py synth` in the shared folder (52 words: about 700 characters; three in ten are copies
and edits of others), shuffled by a hash of their ids. Raw and cleaned are made first and not measured. Each
update is a process of its own: `seconds` is the wall time of the one step, signing, verification, families and
bookkeeping included, `cpu` that of the process and its workers, `MB` the peak of the process. `--check` rebuilds
from nothing after the changes and compares families, kept documents and similarities.
"""

import argparse
import hashlib
import json
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

ROOT = Path(__file__).resolve().parent.parent
# Inserts and deletes, one after the other; the median counts.
ROUNDS = 5
Figures = dict[str, Any]
TOML = """[[sources]]
name = "synth"
path = "data"
text_field = "text"
id_field = "id"
date_field = "date"

[embed]
model = "hash:64"
"""


def generate(folder: Path, documents: int, words: int, shared: Path) -> None:
    """Make the texts, once: parts of 1 % each in the order of a hash of their ids."""
    if (folder / "done").exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    # More than the corpus begins with, of which the inserts are taken.
    command = [
        sys.executable,
        str(shared / "tools/make_load.py"),
        "synth",
        "--docs",
        str(documents * (100 + ROUNDS) // 100),
    ]
    made = folder / "made"
    made.mkdir(exist_ok=True)
    subprocess.run(
        [*command, "--words", str(words), "--seed", "7", "--shards", "8", "--out", str(made)], check=True
    )
    table = pq.read_table(made, columns=["id", "date", "text"])
    ranks = [hashlib.blake2b(key.encode(), digest_size=8).digest() for key in table["id"].to_pylist()]
    table = table.append_column("rank", pa.array(ranks)).sort_by("rank").drop_columns(["rank"])
    size = documents // 100
    for part in range(100 + ROUNDS):
        pq.write_table(table.slice(part * size, size), folder / f"part-{part:03}.parquet")
    (folder / "done").touch()


def step(folder: Path, *, measured: bool) -> Figures:
    """Bring raw, cleaned and deduplicated up to date in a process of its own; returns what the last one cost."""
    done = subprocess.run(
        [sys.executable, __file__, "--step", str(folder)], capture_output=True, text=True, check=True
    )
    figures: Figures = json.loads(done.stdout.splitlines()[-1])
    return figures if measured else {}


def run_step(folder: Path) -> None:
    from stemma.config import load_config
    from stemma.resources.engine import DATASETS, Run, Setup
    from stemma.resources.warehouse import Warehouse

    config = load_config(folder / "stemma.toml")
    warehouse = Warehouse(config.warehouse.path)
    run = Run(f"run-{time.time_ns()}", Setup.of(config), warehouse, allow_deletes=True, audit=False)
    for name in ("raw", "cleaned"):
        DATASETS[name](run)
    run.workers.close()
    before, started = cpu(), time.perf_counter()
    counts = DATASETS["deduplicated"](run)
    seconds = time.perf_counter() - started
    run.workers.close()
    warehouse.close()
    figures = {"seconds": seconds, "cpu": cpu() - before, "MB": peak(), "kept": counts.rows}
    figures["state MB"] = warehouse.size().state / 1e6
    print(json.dumps(figures))


def cpu() -> float:
    usage = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in usage)


def peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def families_of(folder: Path) -> set[tuple]:
    import duckdb

    with duckdb.connect(str(folder / ".stemma/corpus.work/state.duckdb"), read_only=True) as connection:
        return set(
            connection.execute(
                "SELECT document_id, cluster_id, cluster_size, kept_document_id, similarity, method FROM deduplicated"
            ).fetchall()
        )


def middle(rounds: list[Figures]) -> Figures:
    """Return the round whose time is the median, with the times of all."""
    ordered = sorted(rounds, key=lambda figures: figures["seconds"])
    return ordered[len(ordered) // 2] | {"all": [figures["seconds"] for figures in rounds]}


def measure(folder: Path, parts: Path, check: bool) -> list[tuple[str, Figures]]:
    data = folder / "data"
    data.mkdir()
    (folder / "stemma.toml").write_text(TOML)
    for part in range(100):
        (data / f"part-{part:03}.parquet").hardlink_to(parts / f"part-{part:03}.parquet")
    rows = [("full", step(folder, measured=True)), ("no-op", step(folder, measured=True))]
    inserts, deletes = [], []
    for number in range(ROUNDS):
        name = f"part-{100 + number:03}.parquet"
        (data / name).hardlink_to(parts / name)
        inserts.append(step(folder, measured=True))
        (data / f"part-{37 + number:03}.parquet").unlink()
        deletes.append(step(folder, measured=True))
    rows += [("1 % inserted", middle(inserts)), ("1 % deleted", middle(deletes))]
    if check:
        with tempfile.TemporaryDirectory(prefix="stemma-families-") as other:
            beside = Path(other)
            (beside / "stemma.toml").write_text(TOML)
            shutil.copytree(data, beside / "data")
            step(beside, measured=True)
            rows.append(("equals a rebuild", {"seconds": float(families_of(folder) == families_of(beside))}))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--documents", default="10000,100000,139000")
    parser.add_argument("--words", type=int, default=52)
    parser.add_argument("--folder", type=Path, default=ROOT / ".bench/families")
    parser.add_argument("--shared", type=Path, default=ROOT.parent / "shared")
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--step", type=Path)
    options = parser.parse_args()
    if options.step:
        run_step(options.step)
        return
    print(
        "| documents | update | seconds | of full | cpu s | documents/s | peak MB | state MB | kept | rounds |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|")
    for documents in map(int, options.documents.split(",")):
        parts = options.folder.resolve() / f"{documents}-{options.words}"
        generate(parts, documents, options.words, options.shared.resolve())
        with tempfile.TemporaryDirectory(prefix="stemma-families-", dir=options.folder) as folder:
            rows = measure(Path(folder).resolve(), parts, options.check)
        full = rows[0][1]["seconds"]
        for name, figures in rows:
            if name == "equals a rebuild":
                print(f"| {documents:,} | {name}: {bool(figures['seconds'])} | | | | | | | | |", flush=True)
                continue
            seconds = figures["seconds"]
            print(
                f"| {documents:,} | {name} | {seconds:.2f} | {seconds / full:.1%} | {figures['cpu']:.2f}"
                f" | {documents / seconds:,.0f} | {figures['MB']:.0f} | {figures['state MB']:.0f}"
                f" | {figures['kept']:,.0f} | {', '.join(f'{each:.2f}' for each in figures.get('all', []))} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
