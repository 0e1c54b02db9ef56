"""text-dedup: its MinHash script with its own settings, one process, on a dataset on disk.

It reports clusters alone, so all pairs in a cluster count as found. The dataset is written before the clock starts.
"""

import pickle
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from dedup_common import PERMUTATIONS, SHINGLE_WORDS, THRESHOLD, measure, pairs_of_clusters


def find(texts: tuple[Path, int]) -> np.ndarray:
    from text_dedup.minhash import main

    path, count = texts
    with tempfile.TemporaryDirectory() as folder:
        options = {
            "path": "parquet",
            "data_files": path,
            "split": "train",
            "cache_dir": f"{folder}/cache",
            "output": f"{folder}/output",
            "column": "text",
            "ngram": SHINGLE_WORDS,
            "min_length": 0,
            "num_perm": PERMUTATIONS,
            "threshold": THRESHOLD,
            "num_proc": 1,
        }
        arguments = [part for name, value in options.items() for part in (f"--{name}", str(value))]
        main([*arguments, "--debug"], standalone_mode=False)
        with open(f"{folder}/output/uf.pkl", "rb") as file:
            union = pickle.load(file)
    clusters = np.arange(count)
    for member in list(union.parent):
        clusters[member] = union.find(member)
    return pairs_of_clusters(clusters)


def write(column: pa.ChunkedArray) -> tuple[Path, int]:
    path = Path(tempfile.mkdtemp()) / "texts.parquet"
    pq.write_table(pa.table({"text": column}), path)
    return path, len(column)


if __name__ == "__main__":
    measure(find, "text-dedup", "datasets", read=write)
