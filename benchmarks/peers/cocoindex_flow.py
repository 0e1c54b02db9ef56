"""CocoIndex: folder → clean → chunk → embed → SQLite, brought up to date once.

    python cocoindex_flow.py --folder DIR --state DIR [--chunk-size 800] [--cleaner 1|2]

Its own state (memo, lineage of targets) lies in LMDB and the rows in SQLite, both below --state; it needs no
server. The flow is written as CocoIndex recommends: one memoized component a file, the embedder memoized by
text and batched, so that an edited cleaner re-embeds only texts that came out different.

--undeclared calls the cleaner as an ordinary Python function instead of decorating it with @coco.fn.
CocoIndex follows only decorated functions: an edit (--cleaner 2) then leaves stale rows, without a word.
"""

import os
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

# CocoIndex reports its use over the network unless it is told not to before it is imported.
os.environ["COCOINDEX_DISABLE_USAGE_TRACKING"] = "1"

import cocoindex as coco
from cocoindex.connectors import localfs, sqlite
from cocoindex.resources.file import FileLike
from common import CLEANERS, Embedder, Stopwatch, disk_megabytes, parse_arguments, report, split

ROWS = coco.ContextKey[sqlite.ManagedConnection]("rows")
ARGUMENTS = parse_arguments(__doc__)
EMBEDDER = Embedder()
CLEAN = CLEANERS[ARGUMENTS.cleaner] if ARGUMENTS.undeclared else coco.fn(CLEANERS[ARGUMENTS.cleaner])


@dataclass
class Row:
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


@coco.fn.as_async(memo=True, batching=True, max_batch_size=256)
def embed(texts: list[str]) -> list[bytes]:
    return [vector.tobytes() for vector in EMBEDDER(texts)]


@coco.fn(memo=True)
async def index_file(file: FileLike[Path], chunk_size: int, table: sqlite.TableTarget[Row]) -> None:
    text = CLEAN(await file.read_text())
    pieces = split(text, chunk_size)
    path = file.file_path.path.as_posix()
    for ordinal, (piece, vector) in enumerate(zip(pieces, await coco.map(embed, pieces), strict=True)):
        table.declare_row(row=Row(path, ordinal, piece, vector))


@coco.fn
async def main(folder: Path, chunk_size: int) -> None:
    schema = await sqlite.TableSchema.from_class(Row, primary_key=["path", "ordinal"])
    table = await sqlite.mount_table_target(ROWS, "chunks", schema)
    await coco.mount_each(index_file, localfs.walk_dir(folder, recursive=True).items(), chunk_size, table)


def run() -> None:
    app = coco.App("benchmark", main, folder=ARGUMENTS.folder, chunk_size=ARGUMENTS.chunk_size)
    startup = Stopwatch()
    coco.start_blocking()
    startup_seconds, _ = startup.elapsed()
    watch = Stopwatch()
    app.update_blocking()
    seconds, cpu_seconds = watch.elapsed()
    coco.stop_blocking()
    with sqlite3.connect(ARGUMENTS.state / "rows.sqlite") as rows:
        documents, chunks = rows.execute("SELECT count(DISTINCT path), count(*) FROM chunks").fetchone()
    report(
        peer="cocoindex",
        version=coco.__version__,
        documents=documents,
        chunks=chunks,
        embed_calls=EMBEDDER.calls,
        seconds=seconds,
        cpu_seconds=cpu_seconds,
        startup_seconds=startup_seconds,
        disk_mb=disk_megabytes(ARGUMENTS.state),
    )


if __name__ == "__main__":
    run()
