"""What search costs over 100,000 chunks: the text index, and queries of each mode, warm and cold.

    python benchmarks/search.py [--documents 8000] [--folder DIR] [--shared DIR]
    python benchmarks/search.py --documents 3600 --index usearch [--model all-MiniLM-L6-v2] [--expansions 64,128]
    python benchmarks/search.py --vectors .bench/retrieval/vectors-bfloat16.npz   # recall with a model's vectors

Texts are those of `make_load.py synth` in the shared folder, of about 1,800 words each; vectors are of feature hashing
into 384 dimensions, so that no time goes into a model: the model's own time for a query comes on top (MiniLM: 10 ms
once it is loaded). Queries are words of the corpus, drawn with a seed: three rare ones, three of any frequency, and the
six most frequent. *Warm* is the median in a process that has searched before, *first* the first query of a process that
has opened the file, *command* a whole `stemma search`, from the start of Python to its end.

With `--index usearch` the approximate index is measured as well: its building, its update, its size, and for each
number of candidates the share of the ten nearest chunks that it finds, and latencies beside those of an exact search.
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
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

import stemma
from stemma.config import load_config
from stemma.resources.engine import Run, Setup, publication, run_all
from stemma.resources.engine.vector_index import published_digest
from stemma.resources.warehouse import Warehouse
from stemma.search import MODES, Searcher
from stemma.search.approximate import Neighbours, new_index
from stemma.search.vectors import unit

ROOT = Path(__file__).resolve().parent.parent
TOML = """[[sources]]
name = "synth"
path = "data"
text_field = "text"
id_field = "id"

[embed]
model = "{model}"

[search]
index = "{index}"
"""
REPEATS = 20
# Queries that recall is measured with, and the chunks that each should find.
QUERIES, NEAREST = 500, 10


def generate(folder: Path, documents: int, shared: Path, settings: dict[str, str]) -> None:
    """Make the texts and the configuration, once."""
    if (folder / "stemma.toml").exists():
        return
    made = folder / "made"
    made.mkdir(parents=True, exist_ok=True)
    tool = [sys.executable, str(shared / "tools/make_load.py"), "synth", "--docs", str(documents)]
    subprocess.run([*tool, "--words", "1500", "--dup", "0", "--seed", "9", "--out", str(made)], check=True)
    write(folder, pq.read_table(made, columns=["id", "text"]))
    (folder / "stemma.toml").write_text(TOML.format(**settings))


def write(folder: Path, table: pa.Table) -> None:
    """Write the source."""
    (folder / "data").mkdir(exist_ok=True)
    pq.write_table(table, folder / "data" / "rows.parquet")


def update(folder: Path, name: str) -> tuple[float, float]:
    """Bring the corpus up to date in this process; returns the seconds that the index of words and that of vectors
    took of it."""
    spent = {"update_index": 0.0, "update_vector_index": 0.0}
    originals = {work: getattr(publication, work) for work in spent}

    def timed(work: str, *arguments: Any) -> None:
        started = time.perf_counter()
        originals[work](*arguments)
        spent[work] += time.perf_counter() - started

    config = load_config(folder / "stemma.toml")
    run = Run(name, Setup.of(config), Warehouse(config.warehouse.path))
    for work in spent:
        setattr(publication, work, partial(timed, work))
    try:
        run_all(run)
    finally:
        for work, original in originals.items():
            setattr(publication, work, original)
        run.warehouse.close()
    return spent["update_index"], spent["update_vector_index"]


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
    parser.add_argument("--index", choices=("exact", "usearch"), default="exact")
    parser.add_argument("--model", default="hash:384")
    parser.add_argument("--expansions", default="32,64,128,256,512")
    parser.add_argument("--vectors", type=Path, help="only recall, over the vectors in this .npz")
    parser.add_argument("--shared", type=Path, default=ROOT.parent / "shared")
    options = parser.parse_args()
    expansions = [int(number) for number in options.expansions.split(",")]
    if options.vectors:
        recall_of(options.vectors, expansions)
        return
    with tempfile.TemporaryDirectory(prefix="stemma-search-") as scratch:
        folder = (options.folder or Path(scratch)).absolute()
        settings = {"model": options.model, "index": options.index}
        generate(folder, options.documents, options.shared, settings)
        path = folder / ".stemma" / "corpus.duckdb"
        if not path.exists():
            report("all chunks", update(folder, "all"))
            change(folder)
            report("1 % of the documents changed", update(folder, "changed"))
        sizes(path)
        if options.index != "exact":
            recall(path, expansions)
        latencies(folder, path)


def report(what: str, spent: tuple[float, float]) -> None:
    """Print how long the indexes took."""
    words, vectors = spent
    print(f"| text index, {what} | {words:.2f} s |", flush=True)
    if vectors > 0.1:
        print(f"| vector index, {what} | {vectors:.2f} s |", flush=True)


def recall(path: Path, expansions: list[int]) -> None:
    """Print how many of the nearest chunks the approximate index finds, and how long a query takes in it.

    Queries are sentences of the corpus without every other word, so that they are near to chunks and equal to none.
    """
    searcher = Searcher(stemma.open(path))
    index = searcher._neighbours
    assert index is not None
    texts = searcher.connection.execute(
        "SELECT text FROM corpus.chunked ORDER BY hash(chunk_id) LIMIT ?", [QUERIES]
    ).fetchall()
    asked = [searcher._vectors.fitting(searcher._embedded(" ".join(text.split()[::2]))) for (text,) in texts]
    size = sum(file.stat().st_size for file in (path.with_suffix(".work") / "vectors").iterdir())
    print(f"| vector index | {size / 1e6:.0f} MB |\n| candidates | recall at {NEAREST} | ms a query |")
    numbers, vectors = zip(*searcher._vectors._batches(len(asked[0])), strict=True)
    compare(index, np.concatenate(numbers), np.concatenate(vectors), asked, expansions)


def recall_of(file: Path, expansions: list[int]) -> None:
    """The same with the vectors that benchmarks/retrieval.py kept: a random part asks for the rest."""
    kept = unit(np.load(file)["vectors"].astype(np.float32))
    order = np.random.default_rng(1).permutation(len(kept))
    asked, vectors = kept[order[:QUERIES]], kept[order[QUERIES:]]
    index = new_index(vectors.shape[1])
    numbers = np.arange(len(vectors))
    started = time.perf_counter()
    index.add(numbers.astype(np.uint64), vectors)
    print(f"| vectors | {len(vectors):,} |\n| vector index | {time.perf_counter() - started:.1f} s |")
    print(f"| candidates | recall at {NEAREST} | ms a query |")
    compare(Neighbours(index, 0), numbers, vectors, list(asked), expansions)


def compare(index: Neighbours, numbers: Any, vectors: Any, asked: list[Any], expansions: list[int]) -> None:
    """Print the share of the nearest that are found with each number of candidates."""
    nearest = []
    started = time.perf_counter()
    for query in asked:
        places = np.argpartition(vectors @ query, -NEAREST)[-NEAREST:]
        nearest.append(set(numbers[places].tolist()))
    print(f"| all | 1 | {1000 * (time.perf_counter() - started) / len(asked):.2f} |", flush=True)
    for expansion in expansions:
        index.expansion = expansion
        started = time.perf_counter()
        found = [index.nearest(query, NEAREST).tolist() for query in asked]
        milliseconds = 1000 * (time.perf_counter() - started) / len(asked)
        hits = statistics.mean(
            len(wanted.intersection(these)) / NEAREST for wanted, these in zip(nearest, found, strict=True)
        )
        print(f"| {expansion} | {hits:.4f} | {milliseconds:.2f} |", flush=True)


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
    with duckdb.connect(str(path), read_only=True) as connection:
        indexed = published_digest(connection) is not None
    ways = [
        (mode, exact)
        for mode in MODES
        for exact in ((False, True) if indexed and mode != "text" else (False,))
    ]
    for mode, exact in ways:
        for name, texts in queries(path).items():
            searcher = Searcher(stemma.open(path))
            ask = partial(searcher.search, mode=mode, exact=exact)
            first = seconds(partial(ask, texts[0]))
            warm = [seconds(partial(ask, text)) for text in texts]
            filtered = [seconds(partial(ask, text, where="tokens > 50")) for text in texts]
            command = [sys.executable, "-m", "stemma.cli", "search", texts[0], "--mode", mode, "--json"]
            command += ["--config", str(folder / "stemma.toml"), *(["--exact"] if exact else [])]
            whole = seconds(partial(subprocess.run, command, check=True, capture_output=True))
            figures = (statistics.median(warm), max(warm), statistics.median(filtered), first, whole)
            listed = " | ".join(f"{1000 * figure:.0f}" for figure in figures)
            print(f"| {mode}{', exact' if exact and indexed else ''} | {name} | {listed} |", flush=True)


def seconds(work: Callable[[], Any]) -> float:
    """Return how long something takes."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
