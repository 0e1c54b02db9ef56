"""The incremental benchmark: the floor, Stemma and its peers on the same folder, scenario after scenario.

    python benchmarks/incremental.py [--docs 10000] [--folder DIR] [--systems floor,stemma,cocoindex,pixeltable]
    python benchmarks/incremental.py --minilm        # full run with MiniLM against the pure model time

Every update is a process of its own; `seconds` is the wall time inside it without imports, so Dagster's and
Python's start-up are not in it (they are reported apart). The floor does only what no incremental pipeline can
leave out: read and hash every file, clean and chunk what changed (with Stemma's own functions), embed texts never
seen, append the results to Parquet. Peers do less than Stemma: no language, no scores, no near-duplicates.
"""

import argparse
import importlib
import json
import os
import pickle
import platform
import resource
import shutil
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent

SYSTEMS = ("floor", "stemma", "cocoindex", "pixeltable")
PEERS = {
    "cocoindex": (ROOT / ".bench-venv/cocoindex/bin/python", HERE / "peers/cocoindex_flow.py"),
    "pixeltable": (ROOT / ".bench-venv/pixeltable/bin/python", HERE / "peers/pixeltable_flow.py"),
}
# (name, what happens to the folder, cleaner version, chunk size in the peers' characters)
SCENARIOS = (
    ("full", None, 1, 800),
    ("no-op", None, 1, 800),
    ("1 % changed", "changed", 1, 800),
    ("1 % added", "added", 1, 800),
    ("1 % deleted", "deleted", 1, 800),
    ("1 % renamed", "renamed", 1, 800),
    ("cleaner edit", None, 2, 800),
    ("chunk size 800 → 1000", None, 2, 1000),
)
CHARACTERS_A_TOKEN = 4


def clean_edited(table: Any, **parameters: Any) -> Any:
    """Clean as Stemma does, and replace one rare word: an edit that changes about 1 % of the texts."""
    from stemma.cleaning.clean import clean
    from stemma.hashing import hash_texts

    cleaned = clean(table, **parameters)
    texts = [text.replace("especially", "particularly") for text in cleaned["text"].to_pylist()]
    cleaned = cleaned.set_column(cleaned.schema.get_field_index("text"), "text", [texts])
    return cleaned.set_column(cleaned.schema.get_field_index("text_hash"), "text_hash", hash_texts(texts))


# -- workers: one update each, in a process of their own ---------------------------------------------------------


def work_stemma(folder: Path, state: Path, cleaner: int, chunk_size: int, model: str) -> dict[str, Any]:
    """One run of all five datasets without Dagster."""
    import dataclasses

    from stemma.config import load_config, with_paths
    from stemma.resources import engine
    from stemma.resources.engine import setup
    from stemma.resources.warehouse import Warehouse

    if cleaner == 2:
        # By a name that worker processes find as well.
        os.environ["PYTHONPATH"] = str(Path(__file__).parent)
        sys.path.insert(0, os.environ["PYTHONPATH"])
        setup.clean = importlib.import_module(Path(__file__).stem).clean_edited
    _import_lazily_loaded(model)
    started, cpu = time.perf_counter(), time.process_time()
    config = with_paths(load_config(None, environ={}, cwd=state), [str(folder)])
    config = dataclasses.replace(
        config, chunk=dataclasses.replace(config.chunk, max_tokens=chunk_size // CHARACTERS_A_TOKEN)
    )
    warehouse = Warehouse(config.warehouse.path)
    config = dataclasses.replace(config, embed=dataclasses.replace(config.embed, model=model))
    run = engine.Run(str(uuid.uuid4()), engine.Setup.of(config), warehouse, allow_deletes=True)
    engine.run_all(run)
    warehouse.close()
    seconds = time.perf_counter() - started
    run.workers.close()
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    stages = {name: counts.seconds for name, counts in run.counts.items()}
    # Recipes and publication.
    stages["rest"] = seconds - sum(stages.values())
    return {
        "seconds": seconds,
        "cpu_seconds": time.process_time() - cpu + children.ru_utime + children.ru_stime,
        "worker_rss_mb": children.ru_maxrss // 1024,
        "embed_calls": run.counts["embedded"].rows_computed,
        "documents": run.counts["raw"].rows,
        "chunks": run.counts["embedded"].rows,
        "stages": {name: round(spent, 2) for name, spent in stages.items()},
    }


def _import_lazily_loaded(model: str) -> None:
    """Import what the stages import on first use: start-up is reported apart, for every system."""
    if not model.startswith("hash"):
        import sentence_transformers

        assert sentence_transformers
    import ftfy
    import pycld2

    assert ftfy
    assert pycld2


def work_floor(folder: Path, state: Path, cleaner: int, chunk_size: int, model: str) -> dict[str, Any]:
    """Only what cannot be left out, with the same functions, on plain dictionaries."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from stemma.chunking.chunker import chunk
    from stemma.chunking.tokens import load_tokenizer
    from stemma.cleaning.clean import clean
    from stemma.hashing import digest
    from stemma.resources.embedder import resolve_embedder

    embedder = resolve_embedder(model)
    clean_now: Callable[..., Any] = clean_edited if cleaner == 2 else clean
    store = state / "floor.pickle"
    known = (
        pickle.loads(store.read_bytes()) if store.exists() else {"files": {}, "texts": {}, "chunks": set()}
    )
    if known.get("settings") != (cleaner, chunk_size):
        # Another cleaner cleans everything again, another size chunks everything again.
        known["files" if known.get("settings", (0,))[0] != cleaner else "chunked"] = {}
    tokenizer = load_tokenizer(embedder.tokenizer_file)
    loaded = embedder.load(**embedder.parameters) if embedder.load else None
    _import_lazily_loaded(model)
    started, cpu = time.perf_counter(), time.process_time()
    bodies: dict[str, bytes] = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            data = path.read_bytes()
            name = digest(data).hex()
            if name not in known["files"]:
                bodies[name] = data
    chunked = known.setdefault("chunked", {})
    names, calls, vectors = list(bodies), 0, []
    for start in range(0, len(names), 512):
        part = names[start : start + 512]
        texts = [bodies[name].decode("utf-8", "replace") for name in part]
        table = pa.table(
            {
                "content": texts,
                "content_bytes": pa.nulls(len(texts), pa.binary()),
                "media_type": ["text/plain"] * len(texts),
            }
        )
        cleaned = clean_now(table, repair=True)
        for name, text in zip(part, cleaned["text"].to_pylist(), strict=True):
            known["files"][name] = text
    todo = [(name, text) for name, text in known["files"].items() if digest(text.encode()) not in chunked]
    for start in range(0, len(todo), 512):
        texts = [text for _name, text in todo[start : start + 512]]
        chunks = chunk(
            pa.table({"text": texts}),
            strategy="structure",
            max_tokens=min(chunk_size // CHARACTERS_A_TOKEN, embedder.max_tokens or chunk_size),
            overlap=0,
            tokenizer="estimate",
            model=tokenizer,
        )["chunks"].to_pylist()
        for text, parts in zip(texts, chunks, strict=True):
            chunked[digest(text.encode())] = True
            unseen = {p["text_hash"]: p["text"] for p in parts if p["text_hash"] not in known["chunks"]}
            known["chunks"].update(unseen)
            vectors += list(unseen.values())
    arguments = dict(embedder.parameters) | ({"model": loaded} if loaded is not None else {})
    for start in range(0, len(vectors), 512):
        part_table = pa.table({"text": vectors[start : start + 512]})
        embedded = embedder.function(part_table, **arguments)
        calls += part_table.num_rows
        pq.write_table(
            part_table.append_column("embedding", embedded["embedding"]),
            state / f"{uuid.uuid4().hex}.parquet",
            compression="lz4",
        )
    result = {
        "seconds": time.perf_counter() - started,
        "cpu_seconds": time.process_time() - cpu,
        "embed_calls": calls,
        "chunks": len(known["chunks"]),
    }
    known["settings"] = (cleaner, chunk_size)
    store.write_bytes(pickle.dumps(known))
    return result


def work(options: argparse.Namespace) -> None:
    """Run one worker and print its figures as a line of JSON."""
    options.state.mkdir(parents=True, exist_ok=True)
    function = {"stemma": work_stemma, "floor": work_floor}[options.worker]
    figures = function(options.folder, options.state, options.cleaner, options.chunk_size, options.model)
    figures["peak_rss_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps(figures))


# -- the driver --------------------------------------------------------------------------------------------------


def measure(
    system: str, folder: Path, state: Path, cleaner: int, chunk_size: int, model: str
) -> dict[str, Any] | None:
    """Run one update of one system; None where the system isn't installed."""
    arguments = [
        "--folder",
        str(folder),
        "--state",
        str(state / system),
        "--cleaner",
        str(cleaner),
        "--chunk-size",
        str(chunk_size),
    ]
    if system in PEERS:
        python, script = PEERS[system]
        if not python.exists():
            return None
        command = [str(python), str(script), *arguments]
    else:
        command = [sys.executable, __file__, "--worker", system, *arguments, "--model", model]
    environment = os.environ | {"PYTHONDONTWRITEBYTECODE": "1"}
    answer = subprocess.run(command, capture_output=True, text=True, env=environment, check=False, cwd=ROOT)
    if answer.returncode != 0:
        print(f"{system} failed: {answer.stderr.strip().splitlines()[-1:]}", file=sys.stderr)
        return None
    return json.loads(answer.stdout.strip().splitlines()[-1])


def compare(options: argparse.Namespace) -> None:
    """Run all scenarios on all systems and print a table in Markdown."""
    with tempfile.TemporaryDirectory(prefix="stemma-bench-") as scratch:
        # Pixeltable's Postgres runs as another user where this runs as root.
        os.chmod(scratch, 0o755)
        folder, state = Path(scratch) / "corpus", Path(scratch) / "state"
        state.mkdir(mode=0o755)
        if options.folder:
            shutil.copytree(options.folder, folder)
        else:
            print(corpus_script("--out", str(folder), "--docs", str(options.docs)))
        print(f"\n{machine()}\n")
        print("| scenario | system | seconds | × floor | CPU s | peak RSS MB | embed calls |")
        print("|---|---|---|---|---|---|---|")
        for number, (name, mutation, cleaner, chunk_size) in enumerate(SCENARIOS):
            if mutation:
                corpus_script("--out", str(folder), "--mutate", mutation, "--seed", str(number))
            floor = None
            for system in options.systems.split(","):
                figures = measure(system, folder, state, cleaner, chunk_size, options.model)
                if figures is None:
                    print(f"| {name} | {system} | not measured | | | | |", flush=True)
                    continue
                floor = figures["seconds"] if system == "floor" else floor
                ratio = f"{figures['seconds'] / floor:.2f}" if floor else ""
                print(
                    f"| {name} | {system} | {figures['seconds']:.2f} | {ratio} | {figures['cpu_seconds']:.2f} |"
                    f" {figures['peak_rss_mb']:.0f} | {figures['embed_calls']:,} |",
                    flush=True,
                )
                if "stages" in figures and options.stages:
                    print(f"| | stages | {figures['stages']} | | | | |", flush=True)


def corpus_script(*arguments: str) -> str:
    """Run corpus.py in a process of its own: a child's peak RSS counts from what its parent holds."""
    command = [sys.executable, str(HERE / "corpus.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def minilm(options: argparse.Namespace) -> None:
    """A full run with MiniLM against the pure time of the model on the same texts, in one process each."""
    with tempfile.TemporaryDirectory(prefix="stemma-bench-") as scratch:
        folder = options.folder or ROOT / "sample" / "corpus"
        figures = measure("stemma", folder, Path(scratch), 1, 800, "all-MiniLM-L6-v2")
        assert figures is not None
        pure = _pure_model_seconds(Path(scratch) / "stemma" / ".stemma" / "corpus.duckdb")
    print(f"{machine()}\n")
    print("| full run, MiniLM | pure model | ratio | vectors |\n|---|---|---|---|")
    print(
        f"| {figures['seconds']:.1f} s | {pure:.1f} s | {figures['seconds'] / pure:.3f} | {figures['embed_calls']:,} |"
    )
    print(f"\nstages: {figures['stages']}")


def _pure_model_seconds(published: Path) -> float:
    import duckdb
    import pyarrow as pa

    from stemma.resources.embedder import resolve_embedder

    with duckdb.connect(str(published), read_only=True) as connection:
        rows = connection.execute("SELECT DISTINCT text FROM corpus.chunked").fetchall()
    texts = pa.table({"text": [row[0] for row in rows]})
    embedder = resolve_embedder("all-MiniLM-L6-v2")
    assert embedder.load is not None
    model = embedder.load(**embedder.parameters)
    embedder.function(texts.slice(0, 64), model=model, **embedder.parameters)
    started = time.perf_counter()
    embedder.function(texts, model=model, **embedder.parameters)
    return time.perf_counter() - started


def machine() -> str:
    """Return the machine and the versions, for RESULTS.md."""
    from importlib.metadata import version

    names = ("duckdb", "pyarrow", "dagster", "torch", "sentence-transformers")
    versions = ", ".join(f"{name} {version(name)}" for name in names)
    with open("/proc/cpuinfo") as file:
        model = next(
            (line.split(":")[1].strip() for line in file if line.startswith("model name")),
            platform.processor(),
        )
    return f"{os.cpu_count()} × {model}, Python {platform.python_version()}, {versions}"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--docs", type=int, default=10_000)
    parser.add_argument(
        "--folder", type=Path, help="measure on a copy of this folder instead of building one"
    )
    parser.add_argument("--systems", default=",".join(SYSTEMS))
    parser.add_argument("--stages", action="store_true", help="also print Stemma's seconds by stage")
    parser.add_argument("--minilm", action="store_true")
    parser.add_argument("--model", default="hash:384")
    parser.add_argument("--worker", choices=("stemma", "floor"), help=argparse.SUPPRESS)
    parser.add_argument("--state", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--cleaner", type=int, default=1, help=argparse.SUPPRESS)
    parser.add_argument("--chunk-size", type=int, default=800, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        work(options)
    elif options.minilm:
        minilm(options)
    else:
        compare(options)


if __name__ == "__main__":
    main()
