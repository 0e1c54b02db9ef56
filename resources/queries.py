"""Queries as sources: the rows of a SELECT become a temporary file of JSON lines, which is read as any other."""

import hashlib
import json
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, BinaryIO, Protocol
from urllib.parse import quote

import duckdb

from stemma.errors import StemmaError
from stemma.reading.fields import json_able
from stemma.resources.scratch import SPILL, Scratch
from stemma.resources.warehouse import first_line

QUERY_FORMAT = "jsonl"
"""The format that a query's rows are written in: one way for all databases, types as JSON has them."""

_FETCH_ROWS = 1000
_MEMORY_LIMIT = "1GB"
_SQLITE_MAGIC = b"SQLite format 3\0"
_DUCKDB_MAGIC = b"DUCK"


class QueryLike(Protocol):
    """What running a query needs to know of a source (a `stemma.config.SourceConfig`)."""

    @property
    def name(self) -> str: ...
    @property
    def query(self) -> str | None: ...
    @property
    def database(self) -> str | None: ...


Rows = Iterator[tuple[Any, ...]]


def run_query(source: QueryLike, directory: Path, scratch: Path) -> tuple[BinaryIO, bytes]:
    """Run a source's query; nothing that it could do writes to the database.

    Args:
        source: its query, and its database: a DuckDB or SQLite file, an SQLAlchemy URL, or None for an empty
            DuckDB that may read files.
        directory: the folder that relative paths inside the query start from.
        scratch: an existing folder for the temporary file.

    Returns:
        The rows as JSON lines, at their beginning, in a file that vanishes when it is closed; and the first 16
        bytes of its SHA-256.

    Raises:
        StemmaError: the database cannot be opened, the query fails, or it is no single SELECT.
    """
    assert source.query is not None
    file = tempfile.TemporaryFile(dir=scratch)  # noqa: SIM115
    state = hashlib.sha256()
    try:
        for line in _lines(_rows(source.query, source.database, directory, scratch)):
            state.update(line)
            file.write(line)
    except Exception as error:
        file.close()
        # The address of a database may hold a password; the driver's words might repeat it.
        message = first_line(error)
        if source.database and "://" in source.database:
            message = message.replace(source.database, "the database")
        raise StemmaError(f"source {source.name!r}: the query failed: {message}") from error
    except BaseException:
        file.close()
        raise
    file.seek(0)
    return file, state.digest()[:16]


def _rows(query: str, database: str | None, directory: Path, scratch: Path) -> Rows:
    """Yield the names of the columns, then each row."""
    if database is None:
        return _duckdb_rows(query, None, directory, scratch)
    if "://" in database:
        return _sqlalchemy_rows(query, database)
    with open(database, "rb") as file:
        head = file.read(16)
    if head == _SQLITE_MAGIC or not head:
        return _sqlite_rows(query, database)
    if head[8:12] == _DUCKDB_MAGIC:
        return _duckdb_rows(query, database, directory, scratch)
    raise StemmaError(f"{database} is no DuckDB or SQLite file")


def _lines(rows: Rows) -> Iterator[bytes]:
    names = _distinct([str(name) for name in next(rows)])
    for row in rows:
        fields = {
            name: json_able(value) for name, value in zip(names, row, strict=True) if not _is_bytes(value)
        }
        yield json.dumps(fields, ensure_ascii=False, allow_nan=False).encode() + b"\n"


def _is_bytes(value: Any) -> bool:
    return isinstance(value, bytes | bytearray | memoryview)


def _distinct(names: list[str]) -> list[str]:
    """Return the columns' names, repeated ones with a number."""
    found: list[str] = []
    for number, name in enumerate(names, 1):
        found.append(name if name not in found else f"{name}#{number}")
    return found


def _fetched(cursor: Any) -> Rows:
    while batch := cursor.fetchmany(_FETCH_ROWS):
        yield from (tuple(row) for row in batch)


def _duckdb_rows(query: str, database: str | None, directory: Path, scratch: Path) -> Rows:
    spill = Scratch(scratch, SPILL)
    config: dict[str, str | bool | int | float | list[str]] = {
        "memory_limit": _MEMORY_LIMIT,
        "temp_directory": str(spill.path),
        "python_enable_replacements": False,
        "autoinstall_known_extensions": False,
        "autoload_known_extensions": False,
    }
    with closing(spill), duckdb.connect(config=config) as connection:
        if database is None:
            connection.execute(f"SET file_search_path = {_literal(str(directory))}")
        else:
            connection.execute(f"ATTACH {_literal(database)} AS source (READ_ONLY)")
            connection.execute("USE source")
            connection.execute("SET enable_external_access = false")
        connection.execute("SET lock_configuration = true")
        statements = connection.extract_statements(query)
        if len(statements) != 1 or statements[0].type != duckdb.StatementType.SELECT:
            raise StemmaError("it is not a single SELECT")
        cursor = connection.execute(statements[0])
        yield tuple(column[0] for column in cursor.description or ())
        yield from _fetched(cursor)


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _sqlite_rows(query: str, database: str) -> Rows:
    with closing(sqlite3.connect(f"file:{quote(database)}?mode=ro", uri=True)) as connection:
        # Text that is not UTF-8 costs no more than its bad bytes.
        connection.text_factory = lambda data: data.decode("utf-8", "replace")
        connection.execute("PRAGMA query_only = ON")
        cursor = connection.execute(query)
        if cursor.description is None:
            raise StemmaError("it is not a single SELECT")
        yield tuple(column[0] for column in cursor.description)
        yield from _fetched(cursor)


def _sqlalchemy_rows(query: str, url: str) -> Rows:
    import sqlalchemy

    address = sqlalchemy.make_url(url)
    if address.get_backend_name() == "sqlite" and address.database:
        # SQLite would make an empty file of that name.
        path = address.database.removeprefix("file:")
        if path != ":memory:" and not Path(path).is_file():
            raise StemmaError(f"there is no file {path}")
    engine = sqlalchemy.create_engine(address)
    try:
        # Never committed: what a query might change is rolled back.
        with engine.connect().execution_options(stream_results=True) as connection:
            result = connection.exec_driver_sql(query)
            if not result.returns_rows:
                raise StemmaError("it is not a single SELECT")
            yield tuple(result.keys())
            yield from _fetched(result)
            connection.rollback()
    finally:
        engine.dispose()
