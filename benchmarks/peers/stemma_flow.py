"""Stemma: folder → all five datasets, brought up to date once by the engine, without Dagster.

As configured by default, but for the embedder (`hash:384`) and the size of chunks. It does more than its peers:
language, scores, near-duplicates, lineage, checks, publication. `--redo` is ignored: there is nothing to tell it.

--variant plain: the peers' job by Stemma's engine: their cleaner and splitter (stemma_plain.py), no duplicates; the
vectors stay those of `hash:384`, and lineage, checks and publication stay.
"""

import dataclasses
import os
import resource
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
from common import Row, list_files, parse_arguments, run_flow

CHARACTERS_A_TOKEN = 4
MODEL = "hash:384"


def configured(folder: Path, state: Path, chunk_size: int, model: str) -> Any:
    """The configuration of a warehouse below `state` over the folder."""
    from stemma.config import load_config, with_paths

    config = with_paths(load_config(None, environ={}, cwd=state), [str(folder)])
    return dataclasses.replace(
        config,
        chunk=dataclasses.replace(config.chunk, max_tokens=chunk_size // CHARACTERS_A_TOKEN),
        embed=dataclasses.replace(config.embed, model=model),
    )


def as_peers_do(config: Any) -> Any:
    """The configuration with the peers' cleaner and splitter instead of Stemma's, and without duplicates."""
    import stemma_plain

    from stemma.resources.engine import setup

    # By a name that worker processes find as well.
    setup.clean = stemma_plain.plain_clean
    chunk = dataclasses.replace(
        config.chunk,
        strategy="stemma_plain:plain_spans",
        max_tokens=config.chunk.max_tokens * stemma_plain.SLACK,
        target_tokens=None,
    )
    deduplicate = dataclasses.replace(config.deduplicate, layers=())
    return dataclasses.replace(config, chunk=chunk, deduplicate=deduplicate)


def import_lazily_loaded(model: str) -> None:
    """Import what the stages import on first use: start-up is reported apart, for every system."""
    import ftfy
    import pycld2

    assert ftfy
    assert pycld2
    # Where pandas is installed, pyarrow imports it with the first list that it is given (0.4 s).
    pa.array([""])
    if not model.startswith("hash"):
        import sentence_transformers

        assert sentence_transformers


def bring_up_to_date(config: Any) -> dict[str, Any]:
    """One run of all five datasets; its figures."""
    from stemma.resources import engine
    from stemma.resources.warehouse import Warehouse

    started = time.perf_counter()
    warehouse = Warehouse(config.warehouse.path)
    run = engine.Run(str(uuid.uuid4()), engine.Setup.of(config), warehouse)
    try:
        engine.run_all(run)
        warehouse.close()
        seconds = time.perf_counter() - started
    finally:
        run.workers.close()
    stages = {name: counts.seconds for name, counts in run.counts.items()}
    # Recipes and publication.
    stages["rest"] = seconds - sum(stages.values())
    return {
        "seconds": seconds,
        "worker_rss_mb": resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss // 1024,
        "embed_calls": run.counts["embedded"].rows_computed,
        "errors": sum(counts.errors for counts in run.counts.values()),
        "stages": {name: round(spent, 2) for name, spent in stages.items()},
    }


def main() -> None:
    arguments = parse_arguments(__doc__)
    model = os.environ.get("STEMMA_BENCH_MODEL", MODEL)
    config = configured(arguments.folder, arguments.state, arguments.chunk_size, model)
    if arguments.variant == "plain":
        config = as_peers_do(config)

    def published() -> duckdb.DuckDBPyConnection:
        return duckdb.connect(str(config.warehouse.path), read_only=True)

    def update() -> dict[str, Any]:
        import_lazily_loaded(model)
        if arguments.log:
            # benchmarks/peers.py has put a line into its copy of hash_embed that counts calls there.
            os.environ["STEMMA_EMBED_LOG"] = str(arguments.log)
        return bring_up_to_date(config)

    def rows() -> Iterator[Row]:
        with published() as connection:
            for uri, text, vector in connection.execute(
                """SELECT r.uri, c.text, e.embedding FROM corpus.embedded AS e JOIN corpus.chunked AS c USING (chunk_id)
                JOIN corpus.raw AS r ON r.document_id = e.document_id"""
            ).fetchall():
                yield Row(relative(uri), text, vector)

    def relative(uri: str) -> str:
        return Path(uri.removeprefix("file://")).relative_to(arguments.folder).as_posix()

    def expected() -> Iterator[Row]:
        """Which documents are kept is taken from a rebuild in `--state`; their rows are made by the functions alone."""
        from stemma.resources.engine import Setup

        bring_up_to_date(config)
        with published() as connection:
            kept = connection.execute(
                """SELECT r.uri, r.media_type FROM corpus.deduplicated AS d JOIN corpus.raw AS r USING (document_id)"""
            ).fetchall()
        files = list_files(arguments.folder)
        setup = Setup.of(config)
        contents = [files[relative(uri)].read_bytes().decode() for uri, _ in kept]
        texts = setup.clean.function(
            pa.table(
                {
                    "content": pa.array(contents, pa.string()),
                    "content_bytes": pa.nulls(len(kept), pa.binary()),
                    "media_type": [media_type for _, media_type in kept],
                }
            ),
            **setup.clean.parameters,
        )
        counter = setup.chunk.load(**setup.chunk.parameters)
        chunks = setup.chunk.function(texts.select(["text"]), **setup.chunk.parameters, model=counter)
        for (uri, _), parts in zip(kept, chunks["chunks"].to_pylist(), strict=True):
            table = pa.table(
                {
                    "text": pa.array([part["text"] for part in parts], pa.string()),
                    "section": pa.array([part["section"] for part in parts], pa.string()),
                }
            )
            vectors = setup.embed.function(table, **setup.embed.parameters)["embedding"].to_pylist()
            for part, vector in zip(parts, vectors, strict=True):
                yield Row(relative(uri), part["text"], vector)

    run_flow(arguments, update, rows, expected)


if __name__ == "__main__":
    main()
