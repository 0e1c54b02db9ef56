"""text-dedup, a batch alternative: folder → clean → MinHash duplicates out → chunk → embed → Parquet, all each time.

Its MinHash script on a Parquet file of the cleaned texts, with word 5-grams, threshold 0.7, 128 permutations and two
processes, and a plain loop around it. Each run writes a folder of its own, which takes the place of the last one when
all is done.
"""

import functools
import itertools
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from cleaning import clean
from common import Embedder, Row, expected_of_kept, list_files, parse_arguments, run_flow, split
from datasets import load_from_disk
from embedding_function import DIMENSIONS
from text_dedup.minhash import main as minhash

SCHEMA = pa.schema(
    [("path", pa.string()), ("text", pa.string()), ("embedding", pa.list_(pa.float32(), DIMENSIONS))]
)
ROWS_A_BATCH = 2_000


def deduplicate(texts: Path, run: Path) -> None:
    """Run the script on the file of texts; the documents that it keeps are in <run>/kept."""
    options = {
        "path": "parquet",
        "data_files": texts,
        "split": "train",
        "cache_dir": run / "cache",
        "output": run / "kept",
        "column": "text",
        "ngram": 5,
        "min_length": 0,
        "num_perm": 128,
        "threshold": 0.7,
        "num_proc": 2,
    }
    arguments = [part for name, value in options.items() for part in (f"--{name}", str(value))]
    minhash(arguments, standalone_mode=False)


def chunks_of(kept: Any, chunk_size: int) -> Iterator[tuple[str, str]]:
    for batch in kept.iter(batch_size=ROWS_A_BATCH):
        for path, text in zip(batch["path"], batch["text"], strict=True):
            for piece in split(text, chunk_size):
                yield path, piece


def main() -> None:
    arguments = parse_arguments(__doc__)
    run = arguments.state / "run"
    embedder = Embedder(arguments.log)

    def embed(chunks: Iterator[tuple[str, str]], out: Path) -> None:
        with pq.ParquetWriter(out, SCHEMA) as writer:
            while batch := list(itertools.islice(chunks, ROWS_A_BATCH)):
                paths, texts = [path for path, _ in batch], [text for _, text in batch]
                vectors = pa.FixedSizeListArray.from_arrays(
                    pa.concat_arrays(
                        [pa.array(embedder(texts[at : at + 256]).ravel()) for at in range(0, len(texts), 256)]
                    ),
                    DIMENSIONS,
                )
                writer.write_table(pa.table([paths, texts, vectors], schema=SCHEMA))

    def update() -> dict[str, Any]:
        shutil.rmtree(run, ignore_errors=True)
        run.mkdir()
        files = list_files(arguments.folder)
        texts = [clean(file.read_bytes().decode(errors="replace")) for file in files.values()]
        pq.write_table(pa.table({"path": list(files), "text": texts}), run / "texts.parquet")
        deduplicate(run / "texts.parquet", run)
        embed(chunks_of(load_from_disk(str(run / "kept")), arguments.chunk_size), run / "chunks.parquet")
        published = arguments.state / "published"
        shutil.rmtree(published, ignore_errors=True)
        os.rename(run, published)
        return {"embed_calls": embedder.calls}

    def rows() -> Iterator[Row]:
        for row in pq.read_table(arguments.state / "published/chunks.parquet").to_pylist():
            yield Row(row["path"], row["text"], row["embedding"])

    run_flow(arguments, update, rows, functools.partial(expected_of_kept, arguments, update, rows))


if __name__ == "__main__":
    main()
