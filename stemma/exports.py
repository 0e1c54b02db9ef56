"""Exports of the published corpus to files, whole or as what has changed since the last one or since a run."""

import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from stemma.errors import StemmaError, UsageError
from stemma.lineage.as_of import FILE, LATEST, find_publication, make_database
from stemma.lineage.changes import AFTER, BEFORE

# Those that exports of changes are written in; and those that hold a table among others.
CHANGE_FORMATS = ("parquet", "arrow", "jsonl")
FORMATS = (*CHANGE_FORMATS, "duckdb", "lance")
BATCH_ROWS = 2_048
# What a folder of exports knows of its rows, so that the next one tells what has changed.
KEYS = "keys.parquet"
_CHANGES_SCHEMA = pa.schema([("key", pa.string()), ("change", pa.string())])
_KEYS_SCHEMA = pa.schema([("key", pa.string()), ("row_hash", pa.uint64())])


@dataclass(frozen=True)
class Relation:
    """What can be exported: rows with their lineage, by a key. Ids and JSON are text, which every reader knows."""

    key: str
    query: str


# Schema main, where the corpus is in the file and as of a run, whatever name the database has.
_DOCUMENT = """r.source, r.uri, r.record, r.byte_start, r.byte_end, r.content_hash::VARCHAR AS content_hash, d.title,
    d.language, d.document_date, r.labels::VARCHAR AS labels, r.metadata::VARCHAR AS metadata"""
_CHUNK = f"""c.chunk_id::VARCHAR AS chunk_id, c.document_id::VARCHAR AS document_id, c.ordinal, c.char_start,
    c.char_end, c.section, c.tokens, {_DOCUMENT}, c.text_hash::VARCHAR AS text_hash, c.text"""
_OF_CHUNKS = """FROM main.chunked AS c JOIN main.deduplicated AS d USING (document_id)
    JOIN main.raw AS r USING (document_id)"""
RELATIONS = {
    "documents": Relation(
        "document_id",
        f"""SELECT d.document_id::VARCHAR AS document_id, d.cluster_id::VARCHAR AS cluster_id, d.cluster_size,
            {_DOCUMENT}, d.words, d.text_hash::VARCHAR AS text_hash, d.text
        FROM main.deduplicated AS d JOIN main.raw AS r USING (document_id)""",
    ),
    "chunks": Relation("chunk_id", f"SELECT {_CHUNK} {_OF_CHUNKS}"),
    "vectors": Relation(
        "chunk_id",
        f"""SELECT {_CHUNK}, e.model, e.embedding {_OF_CHUNKS}
        JOIN (SELECT chunk_id, model, embedding FROM main.embedded) AS e USING (chunk_id)""",
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
        form: one of FORMATS. JSON Lines have one object a row. In a DuckDB file the table is named as the relation, and
            tables of other names stay. A Lance dataset becomes a new version of itself.

    Raises UsageError for what is no DuckDB file, a Lance dataset that is not named `.lance`, or without its package.
    """
    relation = RELATIONS[what]
    reader = connection.execute(f"{relation.query} ORDER BY {relation.key}").to_arrow_reader(BATCH_ROWS)
    return Exported(path, added=write_rows(path, reader, form, table=what))


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
    keys_before = pq.read_table(folder / KEYS) if (folder / KEYS).exists() else _KEYS_SCHEMA.empty_table()
    connection.register("keys_before", keys_before)
    _compare(connection, relation, "keys_before")
    connection.unregister("keys_before")
    counts = dict(connection.execute("SELECT change, count(*) FROM changes GROUP BY change").fetchall())
    if not counts and parts:
        return Exported(None)
    run = connection.execute(
        "SELECT run_id FROM lineage.runs ORDER BY number DESC NULLS LAST, finished_at DESC, run_id LIMIT 1"
    ).fetchone()
    path = folder / f"{len(parts) + 1:05}-{run[0] if run else 'none'}.{form}"
    _write_changes(connection, what, path, form)
    keys = connection.execute("SELECT key, row_hash FROM present ORDER BY key").to_arrow_reader(BATCH_ROWS)
    write_rows(folder / KEYS, keys, "parquet", metadata={"relation": what, "form": form})
    return Exported(path, **counts)


def export_since(
    connection: duckdb.DuckDBPyConnection, what: str, folder: Path, form: str, run: str
) -> Exported:
    """Write to a folder what has changed since what a run published, as `since-<run_id>.<form>`.

    What there was then is known by the published file's history, or, for a run that this has forgotten, by an export of
    it in the folder. The file has each key once, with its row as it is now; what came and went in between is left out.
    A folder that holds exports of changes is brought up to date first (`export_changes`). Nothing is written where
    nothing has changed.

    Args:
        connection: with a published file attached (`stemma.lineage.as_of.attached`).
        run: as `find_publication` takes it, or the whole id of a run that was exported to the folder.

    Raises UsageError for a run of which neither knows.
    """
    parts = _parts(folder, what, form) if folder.exists() else []
    runs = [path.stem[6:] for path in parts]
    make_database(connection, AFTER, find_publication(connection, LATEST, f"{FILE}."))
    try:
        then = _keys_as_of(connection, what, run)
    except UsageError as unknown:
        if run not in runs:
            known = ", ".join(runs) or "none"
            raise UsageError(f"{unknown}; {folder} has exports of changes of the runs: {known}") from unknown
        then = None
    folder.mkdir(parents=True, exist_ok=True)
    if parts:
        export_changes(connection, what, folder, form)
    if then is None:
        since = run
        _sum_up(connection, _exports(folder, what, form, runs, run))
    else:
        since = then
        _compare(connection, RELATIONS[what], "keys_then")
    return _write_since(connection, what, folder / f"since-{since}.{form}", form)


def _keys_as_of(connection: duckdb.DuckDBPyConnection, what: str, run: str) -> str:
    """Make the temporary table keys_then (key, row_hash) of what a run had published; returns the id of who did.

    Raises UsageError where the history does not know that.
    """
    publication = find_publication(connection, run, f"{FILE}.")
    make_database(connection, BEFORE, publication)
    try:
        connection.execute(f"CREATE OR REPLACE TEMP TABLE keys_then AS {_keys(RELATIONS[what])}")
    except (duckdb.InvalidInputException, duckdb.BinderException, duckdb.CatalogException) as error:
        # Columns that there were not then, or tables that were laid out otherwise.
        reason = str(error).splitlines()[0].split("Error: ", 1)[-1]
        raise UsageError(f"the history cannot tell the {what} of run {run}: {reason}") from error
    finally:
        connection.execute(f"USE {AFTER}")
    return publication.run_id or "none"


def _exports(folder: Path, what: str, form: str, runs: list[str], run: str) -> pa.Table:
    """Return the changes in a folder's exports, oldest first: key, change, and if they are `after` that of a run."""
    last = len(runs) - 1 - runs[::-1].index(run)
    found = [_changes_in(path, RELATIONS[what].key, form) for path in _parts(folder, what, form)]
    return pa.concat_tables(
        table.append_column("after", pa.array([number > last] * table.num_rows, pa.bool_()))
        for number, table in enumerate(found)
    )


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


def _keys(relation: Relation) -> str:
    """Return the query (key, row_hash) of a relation as it is in the default database."""
    return f"SELECT {relation.key} AS key, hash(*COLUMNS(*)) AS row_hash FROM ({relation.query})"


def _compare(connection: duckdb.DuckDBPyConnection, relation: Relation, before: str) -> None:
    """Make the temporary tables present (key, row_hash) and changes (key, change) since the table `before`."""
    connection.execute(f"CREATE OR REPLACE TEMP TABLE present AS {_keys(relation)}")
    connection.execute(
        f"""CREATE OR REPLACE TEMP TABLE changes AS
        SELECT coalesce(p.key, b.key) AS key, CASE WHEN b.key IS NULL THEN 'added' WHEN p.key IS NULL THEN 'removed'
            ELSE 'changed' END AS change
        FROM present AS p FULL JOIN {before} AS b ON p.key = b.key
        WHERE p.row_hash IS DISTINCT FROM b.row_hash"""
    )


def _changes_in(path: Path, key: str, form: str) -> pa.Table:
    """Return key and change of each row of an export of changes."""
    if form == "parquet":
        found = pq.read_table(path, columns=[key, "change"])
    elif form == "arrow":
        with pa.OSFile(str(path)) as file:
            found = pa.ipc.open_file(file).read_all().select([key, "change"])
    else:
        with path.open(encoding="utf-8") as lines:
            rows = [(row[key], row["change"]) for row in map(json.loads, lines)]
        found = pa.table([[row[0] for row in rows], [row[1] for row in rows]], [key, "change"])
    return pa.table([found[key], found["change"]], schema=_CHANGES_SCHEMA)


def _sum_up(connection: duckdb.DuckDBPyConnection, exports: pa.Table) -> None:
    """Make the temporary table changes of what exports (key, change, after) come to from the first `after` one on."""
    numbered = exports.append_column("number", pa.array(range(exports.num_rows), pa.int64()))
    connection.register("exported", numbered)
    # `present` is of export_changes: the keys that there are now.
    connection.execute(
        """CREATE OR REPLACE TEMP TABLE changes AS
        SELECT key, CASE WHEN NOT was THEN 'added' WHEN now THEN 'changed' ELSE 'removed' END AS change
        FROM (SELECT e.key, coalesce(arg_max(e.change, e.number) FILTER (NOT e.after) <> 'removed', false) AS was,
                e.key IN (SELECT key FROM present) AS now
            FROM exported AS e GROUP BY e.key HAVING bool_or(e.after))
        WHERE was OR now"""
    )
    connection.unregister("exported")


def _write_since(connection: duckdb.DuckDBPyConnection, what: str, path: Path, form: str) -> Exported:
    """Write the rows that `changes` names; where it names none, no file is left of an earlier time."""
    counts = dict(connection.execute("SELECT change, count(*) FROM changes GROUP BY change").fetchall())
    if not counts:
        path.unlink(missing_ok=True)
        return Exported(None)
    _write_changes(connection, what, path, form)
    return Exported(path, **counts)


def _write_changes(connection: duckdb.DuckDBPyConnection, what: str, path: Path, form: str) -> None:
    """Write the rows that the temporary table `changes` names."""
    relation = RELATIONS[what]
    reader = connection.execute(
        f"""SELECT x.change, x.key AS {relation.key}, e.* EXCLUDE ({relation.key})
        FROM changes AS x LEFT JOIN ({relation.query}) AS e ON e.{relation.key} = x.key AND x.change <> 'removed'
        ORDER BY x.key"""
    ).to_arrow_reader(BATCH_ROWS)
    write_rows(path, reader, form, metadata={"relation": what})


def write_rows(
    path: Path,
    reader: pa.RecordBatchReader,
    form: str,
    metadata: dict[str, str] | None = None,
    table: str = "rows",
) -> int:
    """Write rows as one of FORMATS, in a DuckDB file as a `table`; returns how many.

    They are written beside and moved into place: whoever reads meanwhile sees the old file or the new one, whole.
    """
    if form == "lance":
        return _write_lance(path, reader)
    target = path.with_name(f".{path.name}.{os.getpid()}.next")
    try:
        if form == "duckdb":
            rows = _write_duckdb(path, target, reader, table)
        else:
            rows = _WRITERS[form](target, reader, reader.schema.with_metadata(metadata))
        os.replace(target, path)
    finally:
        target.unlink(missing_ok=True)
    return rows


def _write_duckdb(path: Path, target: Path, reader: pa.RecordBatchReader, table: str) -> int:
    if path.exists():
        shutil.copyfile(path, target)
    try:
        with duckdb.connect(str(target)) as connection:
            connection.register("arriving", reader)
            connection.execute(f'CREATE OR REPLACE TABLE "{table}" AS FROM arriving')
            ((rows,),) = connection.execute(f'SELECT count(*) FROM "{table}"').fetchall()
            connection.unregister("arriving")
    except (duckdb.IOException, duckdb.CatalogException) as error:
        raise UsageError(
            f"{path}: cannot be written as a DuckDB file: {str(error).splitlines()[0]}"
        ) from error
    finally:
        target.with_name(f"{target.name}.wal").unlink(missing_ok=True)
    return int(rows)


def _write_lance(path: Path, reader: pa.RecordBatchReader) -> int:
    """Write a Lance dataset: a new version of one that is there, which its readers do not see before it is whole."""
    if path.suffix != ".lance":
        raise UsageError(f"{path}: a Lance dataset is a folder whose name ends in .lance")
    try:
        import lancedb
    except ImportError as error:
        raise UsageError(
            'the format "lance" needs the package of the extra: pip install "stemma[lance]"'
        ) from error
    table = lancedb.connect(path.parent).create_table(path.stem, reader, mode="overwrite")
    return int(table.count_rows())


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
