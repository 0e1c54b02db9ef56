"""What the near-duplicate peers have in common: how they cut texts, how they are timed, and what they report.

Each peer lives in an environment of its own, without Stemma, and is a script that finds the pairs of
near-duplicates in a Parquet file's column `text` and prints one JSON line. The clock starts when the texts are
Python strings in memory, before the peer's library is imported: the first run is the cold one, later ones are
warm.
"""

import argparse
import importlib.metadata
import json
import re
import resource
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

THRESHOLD = 0.7
PERMUTATIONS = 128
SHINGLE_WORDS = 5

# datasketch's optimum at 0.7 with 128 permutations; peers that have an optimiser of their own come to the same.
BANDS, ROWS = 14, 9

WORD = re.compile(r"\w+")

Find = Callable[[list[str]], Iterable[tuple[int, int]] | np.ndarray | None]


def shingles(text: str) -> set[str]:
    """The word 5-grams of a text, as users of these libraries write it."""
    words = WORD.findall(text.lower())
    return {
        " ".join(words[start : start + SHINGLE_WORDS])
        for start in range(max(len(words) - SHINGLE_WORDS + 1, 1))
    }


def unique_pairs(pairs: Any) -> np.ndarray:
    """Pairs as an array int64[m, 2], the smaller first, sorted and each once."""
    array = pairs if isinstance(pairs, np.ndarray) else np.array(list(pairs), np.int64)
    array = np.sort(array.astype(np.int64).reshape(-1, 2), axis=1)
    return np.unique(array[array[:, 0] < array[:, 1]], axis=0)


def pairs_of_clusters(clusters: np.ndarray) -> np.ndarray:
    """All pairs of documents with the same cluster number, for peers that report nothing finer."""
    order = np.argsort(clusters, kind="stable")
    starts = np.flatnonzero(np.diff(clusters[order], prepend=-1))
    found = [np.empty((0, 2), np.int64)]
    for members in np.split(order, starts[1:]):
        if len(members) > 1:
            first, second = np.triu_indices(len(members), 1)
            found.append(np.stack([members[first], members[second]], axis=1))
    return np.concatenate(found)


def measure(find: Find, *libraries: str, read: Callable[[Any], Any] | None = None) -> None:
    """Run `find` as the arguments say, save its pairs and print what it took."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--texts", type=Path, required=True, help="Parquet file with a column text")
    parser.add_argument("--pairs", type=Path, required=True, help="file to save the pairs in (npy)")
    parser.add_argument("--documents", type=int, required=True, help="take the first so many")
    parser.add_argument("--runs", type=int, default=3, help="runs in this process, the cold one included")
    arguments = parser.parse_args()
    column = pq.read_table(arguments.texts, columns=["text"])["text"][: arguments.documents]
    texts = read(column) if read else column.to_pylist()
    loaded, peak = peak_megabytes(), 0
    runs = []
    for _ in range(arguments.runs):
        wall, cpu = time.perf_counter(), _cpu_seconds()
        pairs = find(texts)
        runs.append((time.perf_counter() - wall, _cpu_seconds() - cpu))
        # Of the cold run: later ones start with what it left.
        peak = peak or peak_megabytes()
    if pairs is not None:
        np.save(arguments.pairs, unique_pairs(pairs))
    warm = min(runs[1:], default=runs[0])
    print(
        json.dumps(
            {
                "cold": runs[0],
                "warm": warm,
                "runs": runs,
                "loaded_mb": loaded,
                "peak_mb": peak,
                "versions": {library: importlib.metadata.version(library) for library in libraries},
            }
        ),
        flush=True,
    )


def _cpu_seconds() -> float:
    """Processor time of this process and of its children that have ended."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


def peak_megabytes() -> int:
    """Peak of resident memory; `ru_maxrss` would count that of the parent before it started this process."""
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) // 1024 for line in status if line.startswith("VmHWM:"))
