"""stemma sql: one query of the published file."""

import argparse
import csv
import json
import sys

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from stemma.commands.output import plain, print_table
from stemma.commands.published import open_published
from stemma.config import load_config
from stemma.errors import UsageError

TABLE_ROWS = 100


def sql(options: argparse.Namespace) -> int:
    """Print the answer to a query. Raises UsageError for a query that DuckDB refuses."""
    query = sys.stdin.read() if options.query == "-" else options.query
    if not query.strip():
        raise UsageError("the query is empty")
    with open_published(load_config(options.config), locked=True) as connection:
        try:
            cursor = connection.execute(query)
            if cursor is None or cursor.description is None:
                raise UsageError("that statement returns no rows")
            _print(cursor, options.format, options.limit)
        except duckdb.Error as error:
            # DuckDB's message, without the lines that point into the query.
            raise UsageError(str(error).split("\n\nLINE ")[0]) from error
    return 0


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
        writer = csv.writer(sys.stdout, lineterminator="\n")
        writer.writerow(names)
        writer.writerows(listed)
    else:
        json.dump(
            [dict(zip(names, row, strict=True)) for row in listed],
            sys.stdout,
            ensure_ascii=False,
            default=plain,
        )
        sys.stdout.write("\n")


def _limited(cursor: duckdb.DuckDBPyConnection, limit: int | None) -> pa.Table:
    table = cursor.to_arrow_table()
    return table if limit is None else table.slice(0, limit)
