"""Opening the published file as any reader would: read-only, at any time, disturbing nobody."""

from pathlib import Path
from typing import Any

import duckdb

from stemma.config import Config
from stemma.errors import StemmaError


def open_published(config: Config, *, locked: bool = False) -> duckdb.DuckDBPyConnection:
    """Open the corpus read-only; `locked` also shuts it off from files, network and further settings.

    Raises StemmaError when nothing has been published yet or the file is no DuckDB database.
    """
    path: Path = config.warehouse.path
    if not path.exists():
        raise StemmaError(f"{path}: nothing published yet; 'stemma run' makes it")
    settings: dict[str, Any] = {"python_enable_replacements": False, "arrow_lossless_conversion": True}
    if locked:
        settings |= {"enable_external_access": False, "autoload_known_extensions": False}
    try:
        connection = duckdb.connect(str(path), read_only=True, config=settings)
    except duckdb.Error as error:
        raise StemmaError(f"{path}: cannot be opened: {str(error).splitlines()[0]}") from error
    if locked:
        connection.execute("SET lock_configuration = true")
    return connection


def rows(
    connection: duckdb.DuckDBPyConnection, query: str, parameters: list[Any] | dict[str, Any] | None = None
) -> list[dict[str, Any]]:
    """Return a query's rows as dictionaries."""
    cursor = connection.execute(query, parameters or [])
    names = [column[0] for column in cursor.description]
    return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]
