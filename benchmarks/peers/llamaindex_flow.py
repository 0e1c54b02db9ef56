"""LlamaIndex: folder → clean → chunk → embed → Chroma, an `IngestionPipeline` brought up to date once.

With a docstore whose strategy is UPSERTS_AND_DELETE, so that changed and deleted documents are seen, and a persistent
Chroma, the store of its guide to storing. The cleaner is a transformation of the pipeline, as in its guide to
transformations, but gives back new documents: the guide's own changes them in place, and the docstore then keeps
the hash of the cleaned text, compares it with that of the file, and does everything again each time.

The pipeline is run once, on all documents: UPSERTS_AND_DELETE deletes what a run was not given. Its cache has one entry
for each transformation of *all* documents of a run, hit only where all are the same as in an earlier run; it is a JSON
file of all vectors, read and written as a whole. It never helped here and costs much, so it is off (`disable_cache`).
Docstore and nothing else then has to be persisted. Its store adds 41,665 chunks at once, which Chroma refuses where
SQLite takes fewer variables; here it adds as many as Chroma says.

Edited code and settings are not seen: documents whose hash is known are skipped before any transformation.
`--redo` does what its owner has to do: drop docstore and collection, and ingest everything again.

--variant cache: with the cache, persisted as in its guide.
--variant clean-first: the cleaner runs before the pipeline, so that the docstore sees the cleaned text.
--variant workers: num_workers=2.
"""

import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

os.environ["ANONYMIZED_TELEMETRY"] = "False"

import chromadb
from chroma_clock import ChromaClock
from chromadb.config import Settings
from cleaning import clean
from common import Embedder, Row, list_files, parse_arguments, run_flow, split
from llama_index.core.embeddings import BaseEmbedding
from llama_index.core.ingestion import DocstoreStrategy, IngestionPipeline
from llama_index.core.node_parser import TextSplitter
from llama_index.core.schema import BaseNode, Document, TransformComponent
from llama_index.core.storage.docstore import SimpleDocumentStore
from llama_index.vector_stores.chroma import ChromaVectorStore
from llama_index.vector_stores.chroma import base as chroma_store

BATCH = 5_000


class Cleaner(TransformComponent):
    """The cleaner as a transformation."""

    def __call__(self, nodes: Sequence[BaseNode], **_: Any) -> Sequence[BaseNode]:
        return [
            Document(text=clean(node.get_content()), id_=node.id_, metadata=node.metadata) for node in nodes
        ]


class SentencePieces(TextSplitter):
    """`split` as LlamaIndex wants it."""

    chunk_size: int

    def split_text(self, text: str) -> list[str]:
        return split(text, self.chunk_size)


class HashEmbedding(BaseEmbedding):
    """The embedding function as LlamaIndex wants it."""

    log: Path | None = None
    calls: int = 0

    def _get_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        self.calls += len(texts)
        return Embedder(self.log)(texts).tolist()

    def _get_text_embedding(self, text: str) -> list[float]:
        return self._get_text_embeddings([text])[0]

    def _get_query_embedding(self, query: str) -> list[float]:
        return self._get_text_embedding(query)

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return self._get_text_embedding(query)


def main() -> None:
    arguments = parse_arguments(__doc__)
    storage = arguments.state / "pipeline"

    def collection() -> Any:
        settings = Settings(anonymized_telemetry=False)
        client = chromadb.PersistentClient(str(arguments.state / "chroma"), settings=settings)
        if arguments.redo and arguments.task == "update":
            client.delete_collection("chunks")
        chroma_store.MAX_CHUNK_SIZE = client.get_max_batch_size()
        return client.get_or_create_collection("chunks")

    def update() -> dict[str, Any]:
        if arguments.redo:
            shutil.rmtree(storage)
        clock = ChromaClock()
        embedding = HashEmbedding(embed_batch_size=256, log=arguments.log)
        splitter = SentencePieces(chunk_size=arguments.chunk_size, include_prev_next_rel=False)
        clean_first = arguments.variant == "clean-first"
        pipeline = IngestionPipeline(
            transformations=[*([] if clean_first else [Cleaner()]), splitter, embedding],
            docstore=SimpleDocumentStore(),
            docstore_strategy=DocstoreStrategy.UPSERTS_AND_DELETE,
            vector_store=ChromaVectorStore(chroma_collection=collection()),
            disable_cache=arguments.variant != "cache",
        )
        if storage.exists():
            pipeline.load(str(storage))
        documents = []
        for path, file in list_files(arguments.folder).items():
            text = file.read_bytes().decode(errors="replace")
            documents.append(Document(text=clean(text) if clean_first else text, id_=path))
        pipeline.run(
            documents=documents,
            num_workers=2 if arguments.variant == "workers" else None,
        )
        pipeline.persist(str(storage))
        return {"embed_calls": embedding.calls, "store_seconds": clock.seconds}

    def rows() -> Iterator[Row]:
        store = collection()
        for start in range(0, store.count(), BATCH):
            part = store.get(limit=BATCH, offset=start, include=["documents", "metadatas", "embeddings"])
            for text, metadata, vector in zip(
                part["documents"], part["metadatas"], part["embeddings"], strict=True
            ):
                yield Row(metadata["ref_doc_id"], text, vector)

    run_flow(arguments, update, rows)


if __name__ == "__main__":
    main()
