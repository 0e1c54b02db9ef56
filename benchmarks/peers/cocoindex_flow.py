"""CocoIndex: folder → clean → chunk → embed → SQLite, brought up to date once.

Its own state (memo, lineage of targets) lies in LMDB and the rows in SQLite, both below --state; it needs no
server. The flow is written as CocoIndex recommends: one memoized component a file, the embedder memoized by
text and batched, so that an edited cleaner re-embeds only texts that came out different. Cleaner and embedding
function are decorated with @coco.fn, so that it sees their edits.

CocoIndex follows only decorated functions: the cleaner's helper is an ordinary Python function, and an edit of it
leaves stale rows, without a word. `--redo helper` does what its owner then has to do: raise the cleaner's version.
"""

import functools
import os
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# CocoIndex reports its use over the network unless it is told not to before it is imported.
os.environ["COCOINDEX_DISABLE_USAGE_TRACKING"] = "1"

import cocoindex as coco
import numpy as np
from cleaning import clean
from cocoindex.connectors import localfs, sqlite
from cocoindex.resources.file import FileLike
from common import Embedder, Row, Stopwatch, parse_arguments, run_flow, split
from embedding_function import vectors_of

ROWS = coco.ContextKey[sqlite.ManagedConnection]("rows")
ARGUMENTS = parse_arguments(__doc__)
# A version replaces what CocoIndex makes of the code, so there is none until it is needed.
CLEAN = coco.fn(version=2)(clean) if ARGUMENTS.redo == "helper" else coco.fn(clean)
EMBEDDER = Embedder(ARGUMENTS.log)


@dataclass
class Chunk:
    path: str
    ordinal: int
    text: str
    embedding: bytes


@coco.lifespan
def environment(builder: coco.EnvironmentBuilder) -> Iterator[None]:
    builder.settings.db_path = ARGUMENTS.state / "lmdb"
    with sqlite.managed_connection(ARGUMENTS.state / "rows.sqlite", load_vec=False) as connection:
        # The connector's defaults wait for the disk once for every file.
        with connection.readonly() as handle:
            handle.execute("PRAGMA journal_mode = wal")
            handle.execute("PRAGMA synchronous = normal")
        builder.provide(ROWS, connection)
        yield


# It stands for the embedding function itself, decorated: by `wraps` its source is what CocoIndex watches.
@coco.fn.as_async(memo=True, batching=True, max_batch_size=256)
@functools.wraps(vectors_of, assigned=("__module__", "__name__", "__qualname__"))
def embed(texts: list[str]) -> list[bytes]:
    return [vector.tobytes() for vector in EMBEDDER(texts)]


@coco.fn(memo=True)
async def index_file(file: FileLike[Path], chunk_size: int, table: sqlite.TableTarget[Chunk]) -> None:
    text = CLEAN(await file.read_text())
    pieces = split(text, chunk_size)
    path = file.file_path.path.as_posix()
    for ordinal, (piece, vector) in enumerate(zip(pieces, await coco.map(embed, pieces), strict=True)):
        table.declare_row(row=Chunk(path, ordinal, piece, vector))


@coco.fn
async def main(folder: Path, chunk_size: int) -> None:
    schema = await sqlite.TableSchema.from_class(Chunk, primary_key=["path", "ordinal"])
    table = await sqlite.mount_table_target(ROWS, "chunks", schema)
    await coco.mount_each(index_file, localfs.walk_dir(folder, recursive=True).items(), chunk_size, table)


def update() -> dict[str, Any]:
    app = coco.App("benchmark", main, folder=ARGUMENTS.folder, chunk_size=ARGUMENTS.chunk_size)
    watch = Stopwatch()
    app.update_blocking()
    seconds = watch.seconds()
    coco.stop_blocking()
    return {"embed_calls": EMBEDDER.calls, "seconds": seconds}


def rows() -> Iterator[Row]:
    with sqlite3.connect(ARGUMENTS.state / "rows.sqlite") as connection:
        for path, text, vector in connection.execute("SELECT path, text, embedding FROM chunks"):
            yield Row(
                Path(path).relative_to(ARGUMENTS.folder).as_posix() if Path(path).is_absolute() else path,
                text,
                np.frombuffer(vector, np.float32),
            )


if __name__ == "__main__":
    run_flow(ARGUMENTS, update, rows, prepare=coco.start_blocking)
