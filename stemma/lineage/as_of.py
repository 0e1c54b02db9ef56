"""Opening a published file as of an earlier run: the same tables and views, in a database in memory."""

import json
import re
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import duckdb

from stemma.datasets import DATASETS
from stemma.errors import StemmaError, UsageError
from stemma.lineage.history import SCHEMA, Kept, as_of, quoted
from stemma.lineage.views import database_name

LATEST = "latest"
# The file itself, beside the database that answers in its name.
FILE = "published_file"
# Tables that are as good for any publication: they are read by way of search.numbers alone.
_SHARED = ("search.posting_rows", "search.index")


@dataclass(frozen=True)
class Publication:
    """A publication that the file can answer for.

    Attributes:
        number: what the history counts by; for the latest one, more than it has come to.
        run_id: the run that published it.
        published_at: when, in UTC.
        is_latest: whether it is what the file's own tables hold.
    """

    number: int
    run_id: str | None
    published_at: datetime | None
    is_latest: bool = False


def find_publication(connection: duckdb.DuckDBPyConnection, run: str, catalog: str = "") -> Publication:
    """Return the publication that a run means: what was published when it had ended.

    Args:
        connection: to a published file, which is the database `catalog` (a name and a dot; empty for the default).
        run: a run's id or the beginning of one; "latest"; or -1 for the publication before the latest, -2 …

    Raises UsageError where no run, or several, are meant, and for a publication that is not remembered.
    """
    known = _publications(connection, catalog)
    latest = Publication(
        (known[-1].number if known else 0) + 1,
        known[-1].run_id if known else None,
        known[-1].published_at if known else None,
        is_latest=True,
    )
    if run == LATEST:
        return latest
    if not known:
        raise UsageError(
            "the published file has no history: [history] publications is 0, or no run has published since it was set"
        )
    if re.fullmatch(r"-\d+", run):
        back = int(run[1:])
        if back >= len(known):
            raise UsageError(f"{run}: the history goes back {len(known) - 1} publications; {_oldest(known)}")
        return known[-1 - back]
    run_id = _run_id(connection, run, known, catalog)
    own = [each for each in known if each.run_id == run_id]
    if own:
        return own[-1]
    # By the order of runs, and not by their clocks, which may have gone backwards.
    earlier = {
        earlier_run
        for (earlier_run,) in connection.execute(
            f"""SELECT DISTINCT run_id FROM {catalog}lineage.runs WHERE number <= (
                SELECT max(number) FROM {catalog}lineage.runs WHERE run_id = ?)""",
            [run_id],
        ).fetchall()
    }
    before = [each for each in known if each.run_id in earlier]
    if not before:
        raise UsageError(f"run {run_id} is older than the history: {_oldest(known)}")
    return before[-1]


def _publications(connection: duckdb.DuckDBPyConnection, catalog: str) -> list[Publication]:
    try:
        listed = connection.execute(
            f"SELECT number, run_id, published_at FROM {catalog}{SCHEMA}.publications ORDER BY number"
        ).fetchall()
    except duckdb.CatalogException:
        return []
    return [Publication(*row) for row in listed]


def _oldest(known: list[Publication]) -> str:
    at = known[0].published_at
    when = f" at {at.isoformat(' ', 'seconds')} UTC" if at else ""
    return f"its oldest is that of run {known[0].run_id}{when}"


def _run_id(connection: duckdb.DuckDBPyConnection, run: str, known: list[Publication], catalog: str) -> str:
    listed = connection.execute(
        f"SELECT DISTINCT run_id FROM {catalog}lineage.runs WHERE starts_with(run_id, ?)", [run]
    ).fetchall()
    meant = {row[0] for row in listed} | {
        each.run_id for each in known if each.run_id is not None and each.run_id.startswith(run)
    }
    if run in meant:
        return run
    if not run or not meant:
        raise UsageError(
            f"{run or 'an empty text'}: no run of the corpus has this id ('stemma status' lists the last)"
        )
    if len(meant) > 1:
        raise UsageError(
            f"{run}: {len(meant)} runs begin so: {', '.join(sorted(meant)[:3])} …; give more of the id"
        )
    return meant.pop()


def open_as_of(path: Path, run: str, settings: dict[str, Any] | None = None) -> duckdb.DuckDBPyConnection:
    """Open a published file as of a run: a connection whose default database has all tables and views as of then.

    Raises StemmaError where the file cannot be opened, and UsageError as `find_publication` does.
    """
    connection = attached(path, settings)
    try:
        publication = find_publication(connection, run, f"{FILE}.")
        name = database_name(path)
        make_database(connection, name if name != FILE else f"{FILE}_as_of", publication)
    except BaseException:
        connection.close()
        raise
    return connection


def attached(path: Path, settings: dict[str, Any] | None = None) -> duckdb.DuckDBPyConnection:
    """Return a connection with a published file attached, read-only, as the database FILE."""
    connection = duckdb.connect(config=settings or {})
    try:
        connection.execute(f"ATTACH '{str(path).replace(chr(39), chr(39) * 2)}' AS {FILE} (READ_ONLY)")
    except duckdb.Error as error:
        connection.close()
        raise StemmaError(f"{path}: cannot be opened: {str(error).splitlines()[0]}") from error
    return connection


def make_database(connection: duckdb.DuckDBPyConnection, name: str, publication: Publication) -> None:
    """Make a database in memory, and the default one, that has the tables and views of a publication.

    What its history cannot tell raises when it is read, and says why.
    """
    connection.execute(f"ATTACH ':memory:' AS {quoted(name)}")
    connection.execute(f"USE {quoted(name)}")
    made: set[str] = set()
    for table, key, columns, since in connection.execute(
        f"SELECT name, key, columns, since FROM {FILE}.{SCHEMA}.tables"
        if not publication.is_latest
        else "SELECT '', '', '', 0 LIMIT 0"
    ).fetchall():
        kept = Kept(table, tuple(key.split(", ")), tuple((name, kind) for name, kind in json.loads(columns)))
        is_known = since <= publication.number
        query = as_of(kept, str(publication.number), f"{FILE}.") if is_known else _unknown(table)
        _make(connection, table, query, made)
    shared = _SHARED if not publication.is_latest else _stored(connection)
    for table in shared:
        _make(connection, table, f"FROM {FILE}.{table}", made)
    definitions = connection.execute(
        "SELECT name, query FROM lineage.definitions WHERE kind = 'view' ORDER BY position"
    ).fetchall()
    named = {view for view, _query in definitions}
    for dataset in DATASETS:
        # Vectors may have been stored in another table then.
        if dataset.stored not in made | named:
            _make(connection, dataset.stored, _unknown(dataset.stored), made)
    for view, query in definitions:
        if view not in made:
            _make_view(connection, view, query, made)


def _stored(connection: duckdb.DuckDBPyConnection) -> list[str]:
    return [
        f"{schema}.{table}"
        for schema, table in connection.execute(
            "SELECT schema_name, table_name FROM duckdb_tables() WHERE database_name = ? AND schema_name <> ?",
            [FILE, SCHEMA],
        ).fetchall()
    ]


def _make(connection: duckdb.DuckDBPyConnection, name: str, query: str, made: set[str]) -> None:
    connection.execute(f"CREATE SCHEMA IF NOT EXISTS {name.split('.')[0]}")
    connection.execute(f"CREATE VIEW {name} AS {query}")
    made.add(name)


def _make_view(connection: duckdb.DuckDBPyConnection, name: str, query: str, made: set[str]) -> None:
    try:
        _make(connection, name, query, made)
    except (duckdb.CatalogException, duckdb.BinderException):
        # It reads columns that its tables had once: of another version of Stemma.
        _make(connection, name, f"SELECT {_not_kept(name)} AS unknown", made)


def _unknown(table: str) -> str:
    return f"SELECT * FROM {FILE}.{table} WHERE {_not_kept(table)} IS NULL"


def _not_kept(table: str) -> str:
    shown = table.replace("main.", "corpus.").removesuffix("_rows")
    return f"error('the history has no {shown} of that run: it was laid out otherwise then')"
