"""The near-duplicate benchmark: Stemma, its peers and the floor on the same texts, each with its exactness.

    python benchmarks/deduplication.py [--systems stemma,gaoya] [--corpora long,short] [--runs 3]
    python benchmarks/deduplication.py --scale       # candidates of 10,000 to 1,000,000 documents

Two corpora of `make_load.py synth` in the shared folder, shuffled: 10,000 long documents and 100,000 short ones.
Every system finds the pairs of word-5-gram Jaccard similarity 0.7 or more, in a process of its own. The clock
starts when the texts are in memory (for peers as Python strings; for Stemma and daft as the Arrow column that they
take; numpy and pyarrow, which read them, are imported by then) and before the system is imported: the first run
is the cold one, the best of the later ones the warm one. Systems take turns, and the best of the rounds counts.
Slow peers get fewer documents and runs; speeds are compared by documents. Precision and recall are of pairs,
against all pairs that reach 0.7 as an exact join on
rare shingles finds them (made once, and kept in .bench/deduplication).

Peers have environments of their own; those that are absent are left out:

    for peer in deduplication datatrove text-dedup; do python3 -m venv .bench-venv/$peer; done
    .bench-venv/deduplication/bin/pip install numpy pyarrow datasketch==2.0.0 rensa==0.5.0 gaoya==0.2.2 daft==0.7.26
    .bench-venv/datatrove/bin/pip install "datatrove[io,processing]==0.10.1" spacy pyarrow
    .bench-venv/text-dedup/bin/pip install text-dedup==0.4.0 pyarrow

All are as their users would run them: gaoya, rensa and daft use as many threads as they like, the others one.
Peers with Python shingling get the same function (`shingles` in peers/dedup_common.py); gaoya and daft have
shingles of their own, datatrove and text-dedup words of their own as well. Only Stemma reads the texts again to
verify its pairs, and only Stemma also makes families; both count. The floor is one pass that only reads, tokenises
and hashes: Stemma's own words and shingle hashes for every text, added up and thrown away. No distinct shingles,
no signature, no pair.
"""

import argparse
import json
import math
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
STATE = ROOT / ".bench/deduplication"
sys.path.insert(0, str(HERE / "peers"))

from dedup_common import (  # noqa: E402
    PERMUTATIONS,
    THRESHOLD,
    measure,
    peak_megabytes,
    shingles,
    unique_pairs,
)


class Corpus(NamedTuple):
    """A corpus of make_load.py: its size, the median of words in a document, the seed."""

    documents: int
    words: int
    seed: int = 4


class System(NamedTuple):
    """A system: what it is called, its script and environment, and how many documents it gets if not all."""

    title: str
    script: str
    venv: str = "deduplication"
    most: dict[str, int] = {}  # noqa: RUF012


CORPORA = {"long": Corpus(10_000, 300), "short": Corpus(100_000, 52)}

SYSTEMS = {
    "floor": System("floor", "floor"),
    "stemma": System("**Stemma**, one thread", "stemma"),
    "stemma-2": System("**Stemma**, two processes", "stemma-2"),
    "datasketch": System("datasketch, bulk", "dedup_datasketch.py"),
    "datasketch-idiomatic": System(
        "datasketch, idiomatic", "dedup_datasketch_idiomatic.py", most={"long": 1_000, "short": 5_000}
    ),
    "rensa": System("rensa", "dedup_rensa.py"),
    "rensa-rho": System("rensa, rho (flags, no pairs)", "dedup_rensa_rho.py"),
    "gaoya": System("gaoya", "dedup_gaoya.py"),
    "daft": System("daft, join by hand", "dedup_daft.py"),
    "datatrove": System("datatrove", "dedup_datatrove.py", "datatrove", {"long": 1_000, "short": 5_000}),
    "text-dedup": System("text-dedup", "dedup_text_dedup.py", "text-dedup", {"long": 2_000, "short": 10_000}),
}

# Runs of systems that get fewer documents.
FEWER_RUNS = 2


# -- Stemma and the floor ------------------------------------------------------------------------------------------


def read_documents(column: pa.ChunkedArray) -> pa.Table:
    """The texts with ids, as a stage gets them."""
    from stemma.hashing import uuid_array

    ids = uuid_array(number.to_bytes(16, "big") for number in range(len(column)))
    return pa.table({"document_id": ids, "text": column})


def near_duplicates(
    documents: pa.Table, threshold: float = THRESHOLD, processes: int = 1
) -> tuple[np.ndarray, pa.Table]:
    """Find all pairs of documents (int64[m, 2], rows) that reach the threshold, and the documents' families.

    Texts with the same words are one node: nodes are compared, and the pairs of their documents follow.
    """
    from stemma.deduplication import (
        Policy,
        band_keys,
        band_parameters,
        candidate_pairs,
        families,
        jaccard,
        plausible_pairs,
        shingle_sets,
        signature_array,
        sketch_array,
    )

    signed = in_processes(processes, _signed, documents)
    hashes = signed["norm_hash"].combine_chunks()
    node = hashes.storage.dictionary_encode().indices.to_numpy()
    rows = np.unique(node, return_index=True)[1]
    signatures = signature_array(signed["signature"].take(rows), PERMUTATIONS)
    bands, width = band_parameters(threshold, PERMUTATIONS)
    keys = band_keys(signatures, bands, width)
    pairs = candidate_pairs(keys.ravel(), np.repeat(np.arange(len(rows)), bands))
    sketches = sketch_array(signed["sketch"].take(rows), PERMUTATIONS)
    pairs = pairs[plausible_pairs(sketches, pairs, threshold)]

    def verified(part: pa.Table) -> pa.Table:
        compared, places = np.unique([part["a"], part["b"]], return_inverse=True)
        sets = shingle_sets(documents["text"].take(rows[compared]).to_pylist())
        return part.append_column("similarity", pa.array(jaccard(sets, places.reshape(2, -1).T)))

    plausible = pa.table({"a": pairs[:, 0], "b": pairs[:, 1]})
    similarity = in_processes(processes, verified, plausible)["similarity"].to_numpy()
    pairs, similarity = pairs[similarity >= threshold], similarity[similarity >= threshold]

    a, b = (hashes.take(rows[pairs[:, side]]) for side in (0, 1))
    table = pa.table(
        {
            "document_id": documents["document_id"],
            "node": hashes,
            "document_date": pa.nulls(len(hashes), pa.date32()),
            "length": np.zeros(len(hashes), np.int64),
            "policy": np.zeros(len(hashes), np.int64),
            "rank": np.zeros(len(hashes), np.int64),
            "quality": pa.nulls(len(hashes), pa.float64()),
        }
    )
    edges = {"a": a, "b": b, "similarity": similarity, "method": pa.repeat("near", len(pairs))}
    policy = Policy({"exact": 1.0, "near": threshold})
    found = families(table, pa.table(edges), policies=[policy])
    return document_pairs(node, pairs), found


def in_processes(processes: int, function: Callable[[pa.Table], pa.Table], rows: pa.Table) -> pa.Table:
    """Apply a function to rows, in equal shares if in more than one process: this one and others forked from it.

    They are forked with the rows in memory and answer in files there, so that nothing travels through a pipe.
    """
    share = max(1, -(-len(rows) // processes))
    shares = [rows.slice(first, share) for first in range(0, len(rows), share)] or [rows]
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        files = [Path(folder) / f"{number}.arrow" for number in range(1, len(shares))]
        others = [
            get_context("fork").Process(target=_answer_in, args=(file, function, part))
            for file, part in zip(files, shares[1:], strict=True)
        ]
        for other in others:
            other.start()
        results = [function(shares[0])]
        for other, file in zip(others, files, strict=True):
            other.join()
            results.append(pa.ipc.open_file(pa.memory_map(str(file))).read_all())
    return pa.concat_tables(results)


def _answer_in(file: Path, function: Callable[[pa.Table], pa.Table], rows: pa.Table) -> None:
    result = function(rows)
    with pa.OSFile(str(file), "wb") as sink, pa.ipc.new_file(sink, result.schema) as writer:
        writer.write_table(result)


def _signed(documents: pa.Table) -> pa.Table:
    from stemma.deduplication import sign

    return sign(documents, permutations=PERMUTATIONS)


def document_pairs(node: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    """Turn pairs of nodes into the pairs of their documents, those of the same node among them."""
    order = np.argsort(node, kind="stable")
    sizes = np.bincount(node)
    starts = np.cumsum(sizes) - sizes
    repeated = np.flatnonzero(sizes > 1)
    pairs = np.concatenate([pairs, np.stack([repeated, repeated], axis=1)])
    first, second = pairs.T
    counts = sizes[first] * sizes[second]
    inside = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    first, second, width = (np.repeat(values, counts) for values in (first, second, sizes[second]))
    found = np.stack([order[starts[first] + inside // width], order[starts[second] + inside % width]], axis=1)
    return found[(first != second) | (found[:, 0] < found[:, 1])]


def floor(column: pa.ChunkedArray) -> np.uint64:
    """Read, tokenise and hash: the sum of all hashes of word 5-grams."""
    from stemma.deduplication.shingles import _shingles
    from stemma.deduplication.signatures import TEXTS
    from stemma.deduplication.tokens import word_blocks, word_hashes

    total = np.uint64(0)
    for first in range(0, len(column), TEXTS):
        for _, words in word_blocks(column[first : first + TEXTS].to_pylist()):
            total += _shingles(*word_hashes(words), 5)[0].sum()
    return total


# -- truth ---------------------------------------------------------------------------------------------------------


def exact_pairs(texts: list[str], threshold: float) -> list[tuple[int, int]]:
    """All pairs that reach the threshold, by prefix filtering (Chaudhuri 2006, Bayardo 2007).

    The shingles of a text are sorted by how rare they are. Two sets that are similar enough share a shingle
    among the rarest few of each, so only texts that do are compared. Shares no code with Stemma.
    """
    numbers: dict[str, int] = defaultdict(lambda: len(numbers))
    sets = [frozenset(numbers[shingle] for shingle in shingles(text)) for text in texts]
    same = defaultdict(list)
    for place, members in enumerate(sets):
        same[members].append(place)
    counts = np.bincount([number for members in same for number in members], minlength=len(numbers)).tolist()
    index: dict[int, list[frozenset[int]]] = defaultdict(list)
    pairs = [(a, b) for places in same.values() for a in places for b in places if a < b]
    for members in sorted(same, key=len):
        rarest = sorted(members, key=lambda number: (counts[number], number))
        prefix = rarest[: len(rarest) - math.ceil(threshold * len(rarest)) + 1]
        near = {
            other for number in prefix for other in index[number] if len(other) >= threshold * len(members)
        }
        for other in near:
            shared = len(members & other)
            if shared >= threshold * (len(members) + len(other) - shared):
                pairs.extend((a, b) for a in same[members] for b in same[other])
        for number in prefix:
            if counts[number] > 1:
                index[number].append(members)
    return pairs


def prepared(name: str, shared: Path) -> tuple[Path, Path]:
    """The corpus as one shuffled Parquet file, and its true pairs; made once.

    make_load.py puts the copies last: a prefix of the shuffled file is a fair sample.
    """
    corpus = CORPORA[name]
    texts, truth = STATE / f"{name}.parquet", STATE / f"{name}.npy"
    if not texts.exists():
        options = ["--docs", corpus.documents, "--words", corpus.words, "--seed", corpus.seed]
        command = [sys.executable, shared / "tools/make_load.py", "synth", *options, "--out", STATE / name]
        subprocess.run([str(part) for part in command], check=True, stdout=subprocess.DEVNULL)
        table = pq.read_table(STATE / name, columns=["id", "text", "cluster"])
        order = np.random.default_rng(corpus.seed).permutation(len(table))
        pq.write_table(table.take(order), texts)
    if not truth.exists():
        column = pq.read_table(texts, columns=["text"])["text"].to_pylist()
        np.save(truth, unique_pairs(exact_pairs(column, THRESHOLD)))
    return texts, truth


# -- one system on one corpus --------------------------------------------------------------------------------------


def measured(name: str, corpus: str, texts: Path, truth: Path, runs: int) -> dict[str, Any] | None:
    """What a system took and how exact it was, or None if it is not installed."""
    system = SYSTEMS[name]
    own = not system.script.endswith(".py")
    python = Path(sys.executable) if own else ROOT / f".bench-venv/{system.venv}/bin/python"
    if not python.exists():
        return None
    script = (
        [HERE / "deduplication.py", "--worker", system.script] if own else [HERE / "peers" / system.script]
    )
    documents = system.most.get(corpus, CORPORA[corpus].documents)
    runs = min(runs, FEWER_RUNS) if system.most else runs
    pairs = STATE / f"{name}-{corpus}.npy"
    pairs.unlink(missing_ok=True)
    options = ["--texts", texts, "--pairs", pairs, "--documents", documents, "--runs", runs]
    command = [str(part) for part in (python, *script, *options)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        print(f"{name} failed on {corpus}: {done.stderr[-2000:]}", file=sys.stderr)
        return None
    figures = json.loads(done.stdout.strip().splitlines()[-1])
    figures |= {"documents": documents, "megabytes": megabytes(texts, documents)}
    return figures | (scores(np.load(pairs), np.load(truth), documents) if pairs.exists() else {})


def best_of(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """The figures of two rounds, with the shorter of the times of each."""
    return other | {state: min(one[state], other[state]) for state in ("cold", "warm")}


def megabytes(texts: Path, documents: int) -> float:
    # Not above: whoever is measured has to import it in the measured time.
    import pyarrow.compute as pc

    column = pq.read_table(texts, columns=["text"])["text"][:documents]
    return pc.sum(pc.binary_length(column)).as_py() / 1e6


def scores(found: np.ndarray, truth: np.ndarray, documents: int) -> dict[str, float]:
    """Precision, recall and F1 of the pairs among the first so many documents."""
    truth = truth[np.all(truth < documents, axis=1)]
    codes = [pairs[:, 0] * documents + pairs[:, 1] for pairs in (found, truth)]
    right = len(np.intersect1d(*codes, assume_unique=True))
    precision, recall = right / max(len(found), 1), right / max(len(truth), 1)
    return {
        "precision": precision,
        "recall": recall,
        "f1": 2 * right / max(len(found) + len(truth), 1),
        "pairs": len(found),
        "true_pairs": len(truth),
    }


# -- the report ----------------------------------------------------------------------------------------------------

HEADER = (
    "| system | documents | cold s | warm s | cpu s, cold | warm | documents/s, cold | warm | MB/s, warm | "
    "Stemma is × faster, cold | warm | in two processes, cold | warm | peak MB | precision | recall | F1 |"
)


def lines(results: dict[str, dict[str, Any]]) -> list[str]:
    """The rows of a corpus's table, speeds in relation to Stemma's."""
    rows = [HEADER, "|" + " --- |" * (HEADER.count("|") - 1)]
    for name, figures in results.items():
        count, (cold, cold_cpu), (warm, warm_cpu) = figures["documents"], figures["cold"], figures["warm"]
        ratios = [
            f"{(theirs / count) / (results[ours][state][0] / results[ours]['documents']):.2f}"
            if ours in results and not name.startswith("stemma")
            else ""
            for ours in ("stemma", "stemma-2")
            for state, theirs in (("cold", cold), ("warm", warm))
        ]
        exactness = [
            f"{figures[key]:.4f}" if key in figures else "–" for key in ("precision", "recall", "f1")
        ]
        cells = [
            SYSTEMS[name].title,
            f"{count:,}",
            *(f"{seconds:.2f}" for seconds in (cold, warm, cold_cpu, warm_cpu)),
            f"{count / cold:,.0f}",
            f"{count / warm:,.0f}",
            f"{figures['megabytes'] / warm:.1f}",
            *ratios,
            f"{figures['peak_mb']:,}",
            *exactness,
        ]
        rows.append(f"| {' | '.join(cells)} |")
    return rows


def machine() -> str:
    models = [
        line.split(":")[1].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if "model name" in line
    ]
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return f"{os.cpu_count()} × {models[0]}, {memory:.0f} GiB, Python {platform.python_version()}, {platform.system()}"


def report(options: argparse.Namespace) -> None:
    STATE.mkdir(parents=True, exist_ok=True)
    print(f"{machine()}, threshold {THRESHOLD}, {PERMUTATIONS} permutations", flush=True)
    versions: dict[str, str] = {}
    for corpus in options.corpora:
        texts, truth = prepared(corpus, options.shared)
        results: dict[str, dict[str, Any]] = {}
        # In turns, because the speed of a machine varies.
        for name in options.systems * options.rounds:
            figures = measured(name, corpus, texts, truth, options.runs)
            if figures:
                versions |= figures["versions"]
                results[name] = best_of(results.get(name, figures), figures)
        size = f"{CORPORA[corpus].documents:,} documents, {megabytes(texts, 10**9):.0f} MB"
        print(f"\n### {corpus}: {size}, {len(np.load(truth)):,} true pairs\n", flush=True)
        print("\n".join(lines(results)), flush=True)
        (STATE / f"{corpus}.json").write_text(json.dumps(results, indent=1))
    print("\n" + ", ".join(f"{library} {version}" for library, version in sorted(versions.items())))


def report_scale() -> None:
    """Candidates of random signatures: 30 % of the documents share ten bands with another, 100,000 share one."""
    from stemma.deduplication import candidate_pairs

    draw = np.random.default_rng(5)
    print("| documents | band rows | seconds | pairs | input MB | peak MB |\n" + "| --- " * 6 + "|")
    for documents in (10_000, 100_000, 1_000_000):
        keys = draw.integers(0, 2**64 - 1, (documents, 27), np.uint64)
        first, second = draw.integers(0, documents, (2, documents * 3 // 10))
        bands = draw.integers(0, 27, (len(first), 10))
        keys[second[:, None], bands] = keys[first[:, None], bands]
        keys[draw.choice(documents, documents // 10, replace=False), 3] = 0
        buckets, members = keys.ravel(), np.repeat(np.arange(documents), 27)
        started = time.perf_counter()
        pairs = len(candidate_pairs(buckets, members))
        seconds = time.perf_counter() - started
        size = (buckets.nbytes + members.nbytes) / 1e6
        print(
            f"| {documents:,} | {len(buckets):,} | {seconds:.2f} | {pairs:,} | {size:.0f} | {peak_megabytes():,} |"
        )


def work(worker: str) -> None:
    """Measure Stemma or the floor in this process."""
    if worker == "floor":
        return measure(lambda column: floor(column) and None, "numpy", read=lambda column: column)
    processes = 2 if worker == "stemma-2" else 1
    return measure(
        lambda table: near_duplicates(table, processes=processes)[0], "numpy", "pyarrow", read=read_documents
    )


def names(text: str) -> list[str]:
    return text.split(",")


def main() -> None:
    if sys.argv[1:2] == ["--worker"]:
        worker = sys.argv[2]
        del sys.argv[1:3]
        return work(worker)
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--systems", type=names, default=list(SYSTEMS), help="comma-separated")
    parser.add_argument("--corpora", type=names, default=list(CORPORA), help="comma-separated")
    parser.add_argument(
        "--rounds", type=int, default=2, help="processes of each system, in turns; the best counts"
    )
    parser.add_argument("--runs", type=int, default=3, help="runs in a process, the cold one included")
    parser.add_argument(
        "--shared",
        type=Path,
        default=Path(os.environ.get("STEMMA_SHARED", ROOT.parent / "shared")),
        help="the shared folder, with tools/make_load.py",
    )
    parser.add_argument("--scale", action="store_true", help="only the candidates, of many documents")
    options = parser.parse_args()
    return report_scale() if options.scale else report(options)


if __name__ == "__main__":
    main()
