"""LangChain: folder → clean → chunk → `index()` → Chroma, brought up to date once.

`index()` with an SQLRecordManager on SQLite and a persistent Chroma, as its guide has it; cleanup is "full", the one
mode that notices deleted documents. A batch is 1,000 chunks, the fastest of 100 (the default), 1,000 and 5,000 (about
what Chroma takes at once). Documents are read, cleaned and split by a generator
before `index()`, which compares the hash of each chunk (text and metadata) with the record manager's: so all are
read, cleaned and split each time, and only new chunks are embedded.

`index()` hashes the text and not its vector: an edit of the embedding function leaves stale vectors, without a
word. `--redo embedder` does what its guide says: `force_update`.

--variant incremental: cleanup is "incremental", which never removes a document that is gone.
--variant scoped_full: the same, cleaned up at the end.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ["ANONYMIZED_TELEMETRY"] = "False"

import chromadb
from chroma_clock import ChromaClock
from chromadb.config import Settings
from cleaning import clean
from common import Embedder, Row, list_files, parse_arguments, run_flow, split
from langchain_chroma import Chroma
from langchain_classic.indexes import SQLRecordManager
from langchain_core.document_loaders import BaseLoader
from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings
from langchain_core.indexing import index
from langchain_text_splitters import TextSplitter

ARGUMENTS = parse_arguments(__doc__)
BATCH = 1_000


class HashEmbeddings(Embeddings):
    """The embedding function as LangChain wants it."""

    def __init__(self, log: Path | None) -> None:
        self.embedder = Embedder(log)

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        return self.embedder(texts).tolist()

    def embed_query(self, text: str) -> list[float]:
        return self.embed_documents([text])[0]


class SentencePieces(TextSplitter):
    """`split` as LangChain wants it."""

    def split_text(self, text: str) -> list[str]:
        return split(text, self._chunk_size)


class FolderLoader(BaseLoader):
    """All files below a folder, cleaned and split, one after the other."""

    def __init__(self, folder: Path, chunk_size: int) -> None:
        self.folder = folder
        self.splitter = SentencePieces(chunk_size=chunk_size, chunk_overlap=0)

    def lazy_load(self) -> Iterator[Document]:
        for path, file in list_files(self.folder).items():
            text = clean(file.read_bytes().decode(errors="replace"))
            yield from self.splitter.create_documents([text], [{"source": path}])


def collection(embeddings: HashEmbeddings | None = None) -> Chroma:
    settings = Settings(anonymized_telemetry=False)
    client = chromadb.PersistentClient(str(ARGUMENTS.state / "chroma"), settings=settings)
    return Chroma("chunks", embeddings, client=client)


def update() -> dict[str, Any]:
    clock, embeddings = ChromaClock(), HashEmbeddings(ARGUMENTS.log)
    records = SQLRecordManager("chroma/chunks", db_url=f"sqlite:///{ARGUMENTS.state}/records.sqlite")
    records.create_schema()
    result = index(
        FolderLoader(ARGUMENTS.folder, ARGUMENTS.chunk_size),
        records,
        collection(embeddings),
        batch_size=BATCH,
        cleanup=ARGUMENTS.variant or "full",
        source_id_key="source",
        force_update=ARGUMENTS.redo == "embedder",
        key_encoder="blake2b",
    )
    return {"embed_calls": embeddings.embedder.calls, "store_seconds": clock.seconds, "result": dict(result)}


def rows() -> Iterator[Row]:
    store = collection()._collection
    for start in range(0, store.count(), BATCH):
        part = store.get(limit=BATCH, offset=start, include=["documents", "metadatas", "embeddings"])
        for text, metadata, vector in zip(
            part["documents"], part["metadatas"], part["embeddings"], strict=True
        ):
            yield Row(metadata["source"], text, vector)


if __name__ == "__main__":
    run_flow(ARGUMENTS, update, rows)
