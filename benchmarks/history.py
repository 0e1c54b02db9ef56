"""What it costs to remember earlier publications: to publish, to read what is now, and on disk.

python benchmarks/history.py [--docs 2000] [--days 20]     # needs ../shared, or the folder in STEMMA_SHARED

Two corpora of the same files, of which each day 1 % are added, 1 % changed and 0.5 % deleted: one remembers 20
publications (the default), the other none. Each day both are brought up to date and read, in turn.
"""

import argparse
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from load import MB, apply, configure, make_load

from stemma.config import Config, load_config
from stemma.resources.engine import DATASETS, Run, Setup, publish
from stemma.resources.warehouse import Warehouse

REMEMBERED = (0, 20)
READS = 5
QUERIES = {
    "corpus.cleaned": "SELECT count(*), sum(length(text)) FROM corpus.cleaned",
    "corpus.chunked with its document": """SELECT count(*), max(r.uri) FROM corpus.chunked
        JOIN corpus.raw AS r USING (document_id)""",
    "nearest in corpus.embedded": """SELECT chunk_id FROM corpus.embedded
        ORDER BY array_cosine_similarity(embedding, (SELECT any_value(embedding) FROM corpus.embedded)) LIMIT 10""",
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--docs", type=int, default=2000)
    parser.add_argument("--days", type=int, default=20)
    options = parser.parse_args()
    spent: dict[tuple[str, int], list[float]] = defaultdict(list)
    with tempfile.TemporaryDirectory(prefix="stemma-history-") as folder:
        root = Path(folder)
        load = make_load(root, options.docs, options.days)
        configs = {kept: remembering(load_config(configure(root)), root, kept) for kept in REMEMBERED}
        for day, events in enumerate([None, *sorted(load.glob("day-*.jsonl.gz"))]):
            if events is not None:
                apply(root / "docs", events)
            for kept, config in configs.items():
                seconds = update(config, f"day-{day}")
                if day:
                    spent["publish", kept].append(seconds)
                for name, query in QUERIES.items():
                    spent[name, kept] += [read(config, query) for _ in range(READS)]
        sizes = {kept: config.warehouse.path.stat().st_size / MB for kept, config in configs.items()}
    print("| processor seconds, median | no history | 20 publications | ratio |")
    print("|---|---|---|---|")
    for name in ("publish", *QUERIES):
        without, with_ = (statistics.median(spent[name, kept]) for kept in REMEMBERED)
        print(f"| {name} | {without:.4f} | {with_:.4f} | {with_ / without:.2f} |")
    print(
        f"| published file, MB | {sizes[0]:.1f} | {sizes[REMEMBERED[1]]:.1f} |"
        f" {sizes[REMEMBERED[1]] / sizes[0]:.2f} |"
    )


def remembering(config: Config, root: Path, publications: int) -> Config:
    """Return a configuration with its own warehouse that remembers so many publications."""
    return replace(
        config,
        warehouse=replace(config.warehouse, path=root / f"history-{publications}" / "corpus.duckdb"),
        history=replace(config.history, publications=publications),
    )


def update(config: Config, run_id: str) -> float:
    """Run, and return the processor seconds of the publication."""
    run = Run(run_id, Setup.of(config), Warehouse(config.warehouse.path), allow_deletes=True)
    try:
        for update_dataset in DATASETS.values():
            update_dataset(run)
        return measured(lambda: publish(run))
    finally:
        run.warehouse.close()


def read(config: Config, query: str) -> float:
    """Return the processor seconds of a query on a connection of its own, its opening included."""

    def ask() -> None:
        with Warehouse(config.warehouse.path).read() as connection:
            connection.execute(query).fetchall()

    return measured(ask)


def measured(work: Callable[[], object]) -> float:
    before = time.process_time()
    work()
    return time.process_time() - before


if __name__ == "__main__":
    main()
