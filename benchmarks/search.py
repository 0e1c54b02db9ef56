"""What search costs over 100,000 chunks: the text index, and queries of each mode, warm and cold.

    python benchmarks/search.py [--documents 8000] [--folder DIR] [--shared DIR]

Texts are those of `make_load.py synth` in the shared folder, of about 1,800 words each; vectors are of feature hashing
into 384 dimensions, so that no time goes into a model: the model's own time for a query comes on top (MiniLM: 10 ms
once it is loaded). Queries are words of the corpus, drawn with a seed: three rare ones, three of any frequency, and the
six most frequent. *Warm* is the median in a process that has searched before, *first* the first query of a process that
has opened the file, *command* a whole `stemma search`, from the start of Python to its end.
"""

import argparse
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

import stemma
from stemma.config import load_config
from stemma.resources.engine import Run, Setup, publication, run_all
from stemma.resources.warehouse import Warehouse
from stemma.search import MODES, Searcher

ROOT = Path(__file__).resolve().parent.parent
TOML = """[[sources]]
name = "synth"
path = "data"
text_field = "text"
id_field = "id"

[embed]
model = "hash:384"
"""
REPEATS = 20


def generate(folder: Path, documents: int, shared: Path) -> None:
    """Make the texts and the configuration, once."""
    if (folder / "stemma.toml").exists():
        return
    made = folder / "made"
    made.mkdir(parents=True, exist_ok=True)
    tool = [sys.executable, str(shared / "tools/make_load.py"), "synth", "--docs", str(documents)]
    subprocess.run([*tool, "--words", "1500", "--dup", "0", "--seed", "9", "--out", str(made)], check=True)
    write(folder, pq.read_table(made, columns=["id", "text"]))
    (folder / "stemma.toml").write_text(TOML)


def write(folder: Path, table: pa.Table) -> None:
    """Write the source."""
    (folder / "data").mkdir(exist_ok=True)
    pq.write_table(table, folder / "data" / "rows.parquet")


def update(folder: Path, name: str) -> float:
    """Bring the corpus up to date in this process; returns the seconds that the text index took of it."""
    spent: list[float] = []
    original: Callable[..., None] = publication.update_index

    def timed(*arguments: Any) -> None:
        started = time.perf_counter()
        original(*arguments)
        spent.append(time.perf_counter() - started)

    config = load_config(folder / "stemma.toml")
    run = Run(name, Setup.of(config), Warehouse(config.warehouse.path))
    publication.update_index = timed
    try:
        run_all(run)
    finally:
        publication.update_index = original
        run.warehouse.close()
    return sum(spent)


def change(folder: Path) -> None:
    """Add a word in the middle of one document in a hundred."""
    table = pq.read_table(folder / "data" / "rows.parquet")
    texts = table["text"].to_pylist()
    for place in range(0, len(texts), 100):
        middle = texts[place].index(". ", len(texts[place]) // 2)
        texts[place] = f"{texts[place][:middle]} inserted{texts[place][middle:]}"
    write(folder, table.set_column(1, "text", pa.array(texts)))


def queries(path: Path) -> dict[str, list[str]]:
    """Draw queries from the words of the corpus."""
    with duckdb.connect(str(path), read_only=True) as connection:
        rows = connection.execute(
            "SELECT word, count(*) AS chunks FROM search.postings GROUP BY word ORDER BY chunks DESC, word"
        ).fetchall()
    draw = random.Random(1)
    words = [word for word, _chunks in rows]
    rare = [word for word, chunks in rows if chunks < 100]
    return {
        "three rare words": [" ".join(draw.sample(rare, 3)) for _ in range(REPEATS)],
        "three words": [" ".join(draw.sample(words, 3)) for _ in range(REPEATS)],
        "the six most frequent words": [" ".join(words[:6])] * REPEATS,
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--documents", type=int, default=8_000)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--shared", type=Path, default=ROOT.parent / "shared")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="stemma-search-") as scratch:
        folder = (options.folder or Path(scratch)).absolute()
        generate(folder, options.documents, options.shared)
        path = folder / ".stemma" / "corpus.duckdb"
        if not path.exists():
            print(f"| index, all chunks | {update(folder, 'all'):.2f} s |", flush=True)
            change(folder)
            print(f"| index, 1 % of the documents changed | {update(folder, 'changed'):.2f} s |", flush=True)
        sizes(path)
        latencies(folder, path)


def sizes(path: Path) -> None:
    """Print how many chunks there are, and the bytes of the index."""
    with duckdb.connect(str(path), read_only=True) as connection:
        (chunks,) = connection.execute("SELECT count(*) FROM corpus.chunked").fetchone() or (0,)
        blocks = [
            connection.execute(
                f"SELECT count(DISTINCT block_id) FROM pragma_storage_info('{table}')"
            ).fetchone()
            for table in ("search.posting_rows", "search.numbers")
        ]
        (postings,) = connection.execute("SELECT count(*) FROM search.posting_rows").fetchone() or (0,)
    megabytes = sum(row[0] for row in blocks if row) * 262_144 / 1e6
    print(f"| chunks | {chunks:,} |\n| postings | {postings:,} |\n| index | {megabytes:.0f} MB |")
    print(f"| published file | {path.stat().st_size / 1e6:.0f} MB |", flush=True)


def latencies(folder: Path, path: Path) -> None:
    """Print how long queries take, in milliseconds."""
    print("| mode | queries | warm, median | warm, longest | warm, filtered | first | command |")
    for mode in MODES:
        for name, texts in queries(path).items():
            searcher = Searcher(stemma.open(path))
            ask = partial(searcher.search, mode=mode)
            first = seconds(partial(ask, texts[0]))
            warm = [seconds(partial(ask, text)) for text in texts]
            filtered = [seconds(partial(ask, text, where="tokens > 50")) for text in texts]
            command = [sys.executable, "-m", "stemma.cli", "search", texts[0], "--mode", mode, "--json"]
            command += ["--config", str(folder / "stemma.toml")]
            whole = seconds(partial(subprocess.run, command, check=True, capture_output=True))
            figures = (statistics.median(warm), max(warm), statistics.median(filtered), first, whole)
            listed = " | ".join(f"{1000 * figure:.0f}" for figure in figures)
            print(f"| {mode} | {name} | {listed} |", flush=True)


def seconds(work: Callable[[], Any]) -> float:
    """Return how long something takes."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
