"""datatrove, a batch alternative: folder → clean → MinHash duplicates out → chunk → embed → Parquet, all each time.

Five steps, as in its example of MinHash deduplication: read and clean; signatures; buckets; clusters; filter, chunk,
embed and write. Its own settings (English words by spaCy, 14 buckets of 8 hashes), word 5-grams. Each run writes a
folder of its own, which takes the place of the last one when all is done: with one `logging_dir` for all runs
datatrove would find every task completed and do nothing, whatever had changed.
"""

import contextlib
import functools
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from cleaning import clean
from common import Embedder, Row, calls_in, expected_of_kept, list_files, parse_arguments, run_flow, split
from datatrove.data import Document, DocumentsPipeline
from datatrove.executor import LocalPipelineExecutor
from datatrove.pipeline.base import PipelineStep
from datatrove.pipeline.dedup import MinhashConfig, MinhashDedupBuckets, MinhashDedupSignature
from datatrove.pipeline.dedup.minhash import MinhashDedupCluster, MinhashDedupFilter
from datatrove.pipeline.formatters.base import BaseFormatter
from datatrove.pipeline.readers import JsonlReader
from datatrove.pipeline.readers.base import BaseDiskReader
from datatrove.pipeline.writers import JsonlWriter, ParquetWriter
from datatrove.utils.logging import logger
from embedding_function import DIMENSIONS

# Two workers are sooner from some thousand documents on: each of the five steps starts them anew.
MANY = 2_000
SCHEMA = pa.schema(
    [("path", pa.string()), ("text", pa.string()), ("embedding", pa.list_(pa.float32(), DIMENSIONS))]
)


class FileReader(BaseDiskReader):
    """A document for each file."""

    def read_file(self, filepath: str) -> DocumentsPipeline:
        with self.data_folder.open(filepath, "rb") as file:
            data = {"text": file.read().decode(errors="replace"), "id": filepath}
            document = self.get_document_from_dict(data, filepath, 0)
            if document:
                yield document


class Cleaner(BaseFormatter):
    """The cleaner as a step."""

    def format(self, text: str) -> str:
        return clean(text)


class Chunker(PipelineStep):
    """Chunks with their vectors, a document each."""

    def __init__(self, chunk_size: int, log: Path | None) -> None:
        super().__init__()
        self.chunk_size = chunk_size
        self.log = log

    def run(self, data: DocumentsPipeline, rank: int = 0, world_size: int = 1) -> DocumentsPipeline:
        embedder, waiting = Embedder(self.log), []
        for document in data:
            for number, piece in enumerate(split(document.text, self.chunk_size)):
                waiting.append(Document(piece, f"{document.id}#{number}", metadata={"path": document.id}))
                if len(waiting) == 256:
                    yield from self.embedded(waiting, embedder)
                    waiting = []
        if waiting:
            yield from self.embedded(waiting, embedder)

    def embedded(self, chunks: list[Document], embedder: Embedder) -> Iterator[Document]:
        for chunk, vector in zip(chunks, embedder([chunk.text for chunk in chunks]), strict=True):
            chunk.metadata["embedding"] = vector
            yield chunk


def as_row(_writer: ParquetWriter, document: Document) -> dict[str, Any]:
    return {
        "path": document.metadata["path"],
        "text": document.text,
        "embedding": document.metadata["embedding"],
    }


def main() -> None:
    arguments = parse_arguments(__doc__)
    run = arguments.state / "run"
    logger.remove()

    parallel = 2 if len(list_files(arguments.folder)) > MANY else 1

    def step(name: str, *pipeline: PipelineStep, tasks: int = 2, workers: int = parallel) -> Any:
        executor = LocalPipelineExecutor(
            list(pipeline), tasks=tasks, workers=workers, logging_dir=f"{run}/logs/{name}"
        )
        with open(os.devnull, "w") as nowhere, contextlib.redirect_stderr(nowhere):
            return executor.run()

    def update() -> dict[str, Any]:
        shutil.rmtree(run, ignore_errors=True)
        config = MinhashConfig(n_grams=5)
        cleaned, signatures, buckets, removed = (
            f"{run}/{name}" for name in ("cleaned", "signatures", "buckets", "removed")
        )
        step(
            "clean",
            FileReader(str(arguments.folder), add_file_path=False),
            Cleaner(),
            JsonlWriter(cleaned, compression=None),
        )
        step(
            "signatures", JsonlReader(cleaned, add_file_path=False), MinhashDedupSignature(signatures, config)
        )
        step(
            "buckets",
            MinhashDedupBuckets(signatures, buckets, config=config),
            tasks=config.num_buckets,
            workers=1,
        )
        step("clusters", MinhashDedupCluster(buckets, removed, config=config), tasks=1, workers=1)
        log = arguments.log or run / "embedded.log"
        before = calls_in(log)
        step(
            "chunks",
            JsonlReader(cleaned, add_file_path=False),
            MinhashDedupFilter(removed),
            Chunker(arguments.chunk_size, log),
            ParquetWriter(f"{run}/chunks", adapter=as_row, schema=SCHEMA),
        )
        embed_calls = calls_in(log) - before
        published = arguments.state / "published"
        shutil.rmtree(published, ignore_errors=True)
        os.rename(run, published)
        return {"embed_calls": embed_calls}

    def rows() -> Iterator[Row]:
        for file in (arguments.state / "published/chunks").glob("*.parquet"):
            for row in pq.read_table(file).to_pylist():
                yield Row(row["path"], row["text"], row["embedding"])

    run_flow(arguments, update, rows, functools.partial(expected_of_kept, arguments, update, rows))


if __name__ == "__main__":
    main()
