"""stemma sql: one query of the published file."""

import argparse
import csv
import json
import math
import re
import sys
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from stemma.commands.output import harmless, plain, print_table, write_json
from stemma.commands.published import open_published
from stemma.config import load_config
from stemma.errors import UsageError

TABLE_ROWS = 100
_LOGGING = re.compile(r"\b(enable|disable|truncate)_(logging|duckdb_logs)\b|\btruncate_duckdb_logs\b", re.I)


def sql(options: argparse.Namespace) -> int:
    """Print the answer to a query. Raises UsageError for a query that DuckDB refuses, or an unknown run."""
    query = _query(options.query)
    with open_published(load_config(options.config), locked=True, as_of=options.as_of) as connection:
        try:
            _refuse_calls(query)
            if options.as_of is not None:
                _refuse_statements(query)
            cursor = connection.execute(query)
            if cursor is None or cursor.description is None:
                raise UsageError("that statement returns no rows")
            _print(cursor, options.format, options.limit)
        except pa.ArrowNotImplementedError as error:
            raise UsageError(f"{_first_line(error)}; cast that column, to VARCHAR perhaps") from error
        except duckdb.Error as error:
            # DuckDB's message, without the lines that point into the query.
            raise UsageError(str(error).split("\n\nLINE ")[0]) from error
    return 0


def _query(given: str) -> str:
    try:
        query = sys.stdin.buffer.read().decode() if given == "-" else given.encode().decode()
    except UnicodeError as error:
        raise UsageError("the query is not UTF-8") from error
    if not query.strip():
        raise UsageError("the query is empty")
    return query


def _refuse_calls(query: str) -> None:
    # A procedure may switch on what writes files; a query cannot.
    for statement in duckdb.extract_statements(query):
        if statement.type == duckdb.StatementType.CALL or _LOGGING.search(statement.query):
            raise UsageError("neither CALL nor the functions that set up DuckDB's log are queries")


def _refuse_statements(query: str) -> None:
    # A database in memory could be written to, to no end.
    allowed = (duckdb.StatementType.SELECT, duckdb.StatementType.EXPLAIN)
    if any(statement.type not in allowed for statement in duckdb.extract_statements(query)):
        raise UsageError("an earlier run can only be queried")


def _first_line(error: BaseException) -> str:
    return str(error).split("\n")[0]


def _print(cursor: duckdb.DuckDBPyConnection, form: str, limit: int | None) -> None:
    names = [column[0] for column in cursor.description or []]
    if form == "parquet":
        table = _limited(cursor, limit)
        if sys.stdout.isatty():
            raise UsageError(
                "Parquet is binary: send it to a file, stemma sql … --format parquet > rows.parquet"
            )
        pq.write_table(table, pa.PythonFile(sys.stdout.buffer, mode="w"))
        return
    if form == "table":
        wanted = TABLE_ROWS if limit is None else limit
        listed = cursor.fetchmany(wanted + 1)
        print_table("", names, listed[:wanted], separators=False)
        if len(listed) > wanted:
            print(f"first {wanted} rows; --limit N or another --format shows more", file=sys.stderr)
        return
    listed = cursor.fetchall() if limit is None else cursor.fetchmany(limit)
    if form == "csv":
        writer = csv.writer(_Harmless() if sys.stdout.isatty() else sys.stdout, lineterminator="\n")
        writer.writerow(names)
        writer.writerows([_cell(value) for value in row] for row in listed)
    else:
        unique = _told_apart(names)
        answer = [dict(zip(unique, map(_jsonable, row), strict=True)) for row in listed]
        write_json(answer, allow_nan=False)


class _Harmless:
    """Standard output, where it is a terminal: what is in a cell gives it no orders."""

    def write(self, text: str) -> int:
        return sys.stdout.write(harmless(text))


def _cell(value: Any) -> Any:
    """Return a value as CSV has it: nested ones as JSON, bytes as hexadecimal digits."""
    if isinstance(value, dict | list | tuple):
        return json.dumps(_jsonable(value), ensure_ascii=False, default=plain)
    return value.hex() if isinstance(value, bytes) else value


def _jsonable(value: Any) -> Any:
    """Return a value without what JSON has no number for: NaN and infinity become null."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, list | tuple):
        return [_jsonable(item) for item in value]
    if isinstance(value, dict):
        return {str(name): _jsonable(item) for name, item in value.items()}
    return value


def _told_apart(names: list[str]) -> list[str]:
    """Return the names, with a number to those that stand there before: a, a_1."""
    unique: list[str] = []
    for name in names:
        number, candidate = 0, name
        while candidate in unique:
            number += 1
            candidate = f"{name}_{number}"
        unique.append(candidate)
    return unique


def _limited(cursor: duckdb.DuckDBPyConnection, limit: int | None) -> pa.Table:
    table = cursor.to_arrow_table()
    return table if limit is None else table.slice(0, limit)
