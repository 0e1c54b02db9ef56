"""Opening the published file as any reader would: read-only, at any time, disturbing nobody."""

from pathlib import Path
from typing import Any

import duckdb

from stemma.config import Config
from stemma.errors import StemmaError

SETTINGS: dict[str, Any] = {"python_enable_replacements": False, "arrow_lossless_conversion": True}


def open_published(
    config: Config, *, locked: bool = True, as_of: str | None = None
) -> duckdb.DuckDBPyConnection:
    """Open the corpus read-only, shut off from files, network, extensions and further settings (`locked`).

    `as_of` names a run: then the tables are those that were published when it had ended, in a database in memory.

    Raises StemmaError when nothing has been published yet or the file is no DuckDB database, UsageError for a run
    that is unknown or older than the history.
    """
    path = published_path(config)
    settings = dict(SETTINGS)
    if as_of is not None:
        from stemma.lineage.as_of import open_as_of

        connection = open_as_of(path, as_of, settings | {"autoload_known_extensions": False})
        if locked:
            # The file is open already.
            connection.execute("SET enable_external_access = false")
            connection.execute("SET lock_configuration = true")
        return connection
    if locked:
        settings |= {"enable_external_access": False, "autoload_known_extensions": False}
    try:
        connection = duckdb.connect(str(path), read_only=True, config=settings)
    except duckdb.Error as error:
        raise StemmaError(f"{path}: cannot be opened: {str(error).splitlines()[0]}") from error
    if locked:
        connection.execute("SET lock_configuration = true")
    return connection


def published_path(config: Config) -> Path:
    """Return where the published file is. Raises StemmaError when there is none yet."""
    path: Path = config.warehouse.path
    if not path.exists():
        raise StemmaError(f"{path}: nothing published yet; 'stemma run PATH' makes it")
    return path


def rows(
    connection: duckdb.DuckDBPyConnection, query: str, parameters: list[Any] | dict[str, Any] | None = None
) -> list[dict[str, Any]]:
    """Return a query's rows as dictionaries."""
    cursor = connection.execute(query, parameters or [])
    names = [column[0] for column in cursor.description]
    return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]
