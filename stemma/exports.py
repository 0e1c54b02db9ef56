"""Exports of the published corpus to files, whole or as what has changed since the last one."""

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from stemma.errors import StemmaError, UsageError

FORMATS = ("parquet", "arrow", "jsonl")
BATCH_ROWS = 2_048
# What a folder of exports knows of its rows, so that the next one tells what has changed.
KEYS = "keys.parquet"
_KEYS_SCHEMA = pa.schema([("key", pa.string()), ("row_hash", pa.uint64())])


@dataclass(frozen=True)
class Relation:
    """What can be exported: rows with their lineage, by a key. Ids and JSON are text, which every reader knows."""

    key: str
    query: str


_DOCUMENT = """r.source, r.uri, r.record, r.byte_start, r.byte_end, r.content_hash::VARCHAR AS content_hash, d.title,
    d.language, d.document_date, r.labels::VARCHAR AS labels, r.metadata::VARCHAR AS metadata"""
_CHUNK = f"""c.chunk_id::VARCHAR AS chunk_id, c.document_id::VARCHAR AS document_id, c.ordinal, c.char_start,
    c.char_end, c.section, c.tokens, {_DOCUMENT}, c.text_hash::VARCHAR AS text_hash, c.text"""
_OF_CHUNKS = """FROM corpus.chunked AS c JOIN corpus.deduplicated AS d USING (document_id)
    JOIN corpus.raw AS r USING (document_id)"""
RELATIONS = {
    "documents": Relation(
        "document_id",
        f"""SELECT d.document_id::VARCHAR AS document_id, d.cluster_id::VARCHAR AS cluster_id, d.cluster_size,
            {_DOCUMENT}, d.words, d.text_hash::VARCHAR AS text_hash, d.text
        FROM corpus.deduplicated AS d JOIN corpus.raw AS r USING (document_id)""",
    ),
    "chunks": Relation("chunk_id", f"SELECT {_CHUNK} {_OF_CHUNKS}"),
    "vectors": Relation(
        "chunk_id",
        f"""SELECT {_CHUNK}, e.model, e.embedding {_OF_CHUNKS}
        JOIN (SELECT chunk_id, model, embedding FROM corpus.embedded) AS e USING (chunk_id)""",
    ),
}


@dataclass(frozen=True)
class Exported:
    """What an export wrote: the file (None where nothing had changed), and rows by what happened to them."""

    path: Path | None
    added: int = 0
    changed: int = 0
    removed: int = 0


def export_file(connection: duckdb.DuckDBPyConnection, what: str, path: Path, form: str) -> Exported:
    """Write all rows of a relation to a file, in the order of their keys; a file that was there is replaced.

    Args:
        connection: to a published file.
        what: a name in RELATIONS.
        path: the file.
        form: one of FORMATS; JSON Lines have one object a row.
    """
    relation = RELATIONS[what]
    reader = connection.execute(f"{relation.query} ORDER BY {relation.key}").to_arrow_reader(BATCH_ROWS)
    return Exported(path, added=write_rows(path, reader, form))


def export_changes(connection: duckdb.DuckDBPyConnection, what: str, folder: Path, form: str) -> Exported:
    """Write to a folder what has changed since the last export to it: at first everything.

    Each export is a file `<number>-<run_id>.<form>`, the run being the one that published. Its rows have a column
    `change`: "added", "changed", or "removed" with all but the key null. For each key, the last file that has it
    tells what it is now. Nothing is written where nothing has changed.

    Raises UsageError for a folder that holds exports of another relation or form.
    """
    relation = RELATIONS[what]
    folder.mkdir(parents=True, exist_ok=True)
    parts = _parts(folder, what, form)
    _compare(connection, relation, folder)
    counts = dict(connection.execute("SELECT change, count(*) FROM changes GROUP BY change").fetchall())
    if not counts and parts:
        return Exported(None)
    run = connection.execute(
        "SELECT run_id FROM lineage.runs ORDER BY finished_at DESC, run_id LIMIT 1"
    ).fetchone()
    path = folder / f"{len(parts) + 1:05}-{run[0] if run else 'none'}.{form}"
    reader = connection.execute(
        f"""SELECT x.change, x.key AS {relation.key}, e.* EXCLUDE ({relation.key})
        FROM changes AS x LEFT JOIN ({relation.query}) AS e ON e.{relation.key} = x.key AND x.change <> 'removed'
        ORDER BY x.key"""
    ).to_arrow_reader(BATCH_ROWS)
    write_rows(path, reader, form, metadata={"relation": what})
    keys = connection.execute("SELECT key, row_hash FROM present ORDER BY key").to_arrow_reader(BATCH_ROWS)
    write_rows(folder / KEYS, keys, "parquet", metadata={"relation": what, "form": form})
    return Exported(path, **counts)


def _parts(folder: Path, what: str, form: str) -> list[Path]:
    """Return the exports in a folder. Raises UsageError where they are others than what is asked for."""
    parts = sorted(path for path in folder.iterdir() if path.name[:5].isdigit() and path.name[5:6] == "-")
    if (folder / KEYS).exists():
        made = pq.read_schema(folder / KEYS).metadata or {}
        before = (made.get(b"relation", b"").decode(), made.get(b"form", b"").decode())
        if before != (what, form):
            raise UsageError(f"{folder}: holds exports of {before[0]} as {before[1]}; take another folder")
    elif parts:
        raise StemmaError(
            f"{folder}: {KEYS} is gone, so that nobody knows what has changed; take another folder"
        )
    return parts


def _compare(connection: duckdb.DuckDBPyConnection, relation: Relation, folder: Path) -> None:
    """Make the temporary tables present (key, row_hash) and changes (key, change)."""
    keys = pq.read_table(folder / KEYS) if (folder / KEYS).exists() else _KEYS_SCHEMA.empty_table()
    connection.register("keys_before", keys)
    connection.execute(
        f"""CREATE OR REPLACE TEMP TABLE present AS
        SELECT {relation.key} AS key, hash(*COLUMNS(*)) AS row_hash FROM ({relation.query})"""
    )
    connection.execute(
        """CREATE OR REPLACE TEMP TABLE changes AS
        SELECT coalesce(p.key, b.key) AS key, CASE WHEN b.key IS NULL THEN 'added' WHEN p.key IS NULL THEN 'removed'
            ELSE 'changed' END AS change
        FROM present AS p FULL JOIN keys_before AS b ON p.key = b.key
        WHERE p.row_hash IS DISTINCT FROM b.row_hash"""
    )
    connection.unregister("keys_before")


def write_rows(
    path: Path, reader: pa.RecordBatchReader, form: str, metadata: dict[str, str] | None = None
) -> int:
    """Write rows as one of FORMATS; returns how many.

    They are written beside and moved into place: whoever reads meanwhile sees the old file or the new one, whole.
    """
    target = path.with_name(f".{path.name}.{os.getpid()}.next")
    try:
        rows = _WRITERS[form](target, reader, reader.schema.with_metadata(metadata))
        os.replace(target, path)
    finally:
        target.unlink(missing_ok=True)
    return rows


def _write_parquet(target: Path, reader: pa.RecordBatchReader, schema: pa.Schema) -> int:
    with pq.ParquetWriter(target, schema, compression="zstd") as writer:
        return _write_batches(writer, reader, schema)


def _write_arrow(target: Path, reader: pa.RecordBatchReader, schema: pa.Schema) -> int:
    with pa.OSFile(str(target), "wb") as file, pa.ipc.new_file(file, schema) as writer:
        return _write_batches(writer, reader, schema)


def _write_batches(writer: Any, reader: pa.RecordBatchReader, schema: pa.Schema) -> int:
    rows = 0
    for batch in reader:
        writer.write_batch(batch.cast(schema))
        rows += batch.num_rows
    return rows


def _write_jsonl(target: Path, reader: pa.RecordBatchReader, schema: pa.Schema) -> int:
    rows = 0
    with target.open("w", encoding="utf-8") as file:
        for row in _objects(reader):
            json.dump(row, file, ensure_ascii=False, default=str)
            file.write("\n")
            rows += 1
    return rows


def _objects(reader: pa.RecordBatchReader) -> Iterator[dict[str, Any]]:
    for batch in reader:
        for row in batch.to_pylist():
            for name in ("labels", "metadata"):
                if row.get(name) is not None:
                    row[name] = json.loads(row[name])
            yield row


_WRITERS = {"parquet": _write_parquet, "arrow": _write_arrow, "jsonl": _write_jsonl}
