"""MiniLM on a CPU: each batch on all cores, one batch a core, and one core alone, on the same chunks.

python benchmarks/streams.py [--texts 200]        # needs the corpus of `make run`
"""

import argparse
import contextlib
import time
from unittest import mock

import duckdb
import numpy as np
import pyarrow as pa
import torch

from stemma.config import load_config
from stemma.embedding import encoding
from stemma.resources.embedder import resolve_embedder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--texts", type=int, default=200)
    options = parser.parse_args()
    with duckdb.connect(str(load_config().warehouse.path), read_only=True) as corpus:
        query = "SELECT DISTINCT text FROM corpus.chunked ORDER BY text LIMIT ?"
        texts = pa.table({"text": [row[0] for row in corpus.execute(query, [options.texts]).fetchall()]})
    embedder = resolve_embedder()
    assert embedder.load is not None
    model = embedder.load(**embedder.parameters)
    cores = torch.get_num_threads()
    plain = mock.patch.object(encoding, "_streams", return_value=contextlib.nullcontext(map))
    first: np.ndarray | None = None
    for name, threads, variant in (
        ("each batch on all cores", cores, plain),
        ("one batch a core", cores, contextlib.nullcontext()),
        ("one core alone", 1, plain),
    ):
        torch.set_num_threads(threads)
        with variant:
            started = time.perf_counter()
            vectors = embedder.function(texts, model=model, **embedder.parameters)["embedding"]
            seconds = time.perf_counter() - started
        values = np.array(vectors.to_pylist(), np.float32)
        first = values if first is None else first
        print(f"| {name} | {seconds:.1f} s | same to the bit: {bool((values == first).all())} |", flush=True)


if __name__ == "__main__":
    main()
