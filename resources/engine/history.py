"""Writing the history: what each publication takes from a table and brings to it (see stemma/lineage/history.py)."""

from collections.abc import Iterable
from datetime import datetime, timedelta

import duckdb

from stemma.config import HistoryConfig
from stemma.lineage.history import COPY, FROM, NUMBER_MACRO, SCHEMA, TABLES, UNTIL, Kept, forget
from stemma.resources.engine.run import fetch_value
from stemma.resources.warehouse import utc_now

Columns = dict[str, list[tuple[str, str]]]


class History:
    """The history in the file that is being published: the connection's default database, `next`.

    A publication that changes nothing but the books of the run has no number of its own: what it writes there
    counts for the next one that has.
    """

    def __init__(self, connection: duckdb.DuckDBPyConnection, config: HistoryConfig) -> None:
        self._connection = connection
        self._config = config
        self._recording: set[str] = set()
        self.is_kept = config.publications > 0
        if not self.is_kept:
            connection.execute(f"DROP SCHEMA IF EXISTS {SCHEMA} CASCADE")
            return
        connection.execute(TABLES)
        self._number = (
            fetch_value(connection, f"SELECT coalesce(max(number), 0) FROM {SCHEMA}.publications") + 1
        )

    # -- tables ------------------------------------------------------------------------------------------------

    def fit(self, tables: Iterable[Kept], columns: Columns) -> None:
        """Make a history for each of these tables; anew for one whose columns are others than they were.

        `columns` are those of all tables of the file. What a table is filled with at the publication that its history
        begins with was always there.
        """
        if not self.is_kept:
            return
        tables = list(tables)
        listed = self._connection.execute(f"SELECT name, key, since FROM {SCHEMA}.tables").fetchall()
        begun = {(name, key): since for name, key, since in listed}
        for name, _key in begun.keys() - {(kept.name, ", ".join(kept.key)) for kept in tables}:
            self._forget(Kept(name, ()))
        for kept in tables:
            since = begun.get((kept.name, ", ".join(kept.key)))
            if since is None or not _fits(kept, columns):
                self.begin(kept)
            elif since < self._number:
                self._recording.add(kept.name)

    def begin(self, kept: Kept) -> None:
        """Begin the history of a table with this publication."""
        if not self.is_kept:
            return
        self._forget(kept)
        self._recording.discard(kept.name)
        self._connection.execute(
            f"""CREATE TABLE {kept.gone} AS
            SELECT *, 0::BIGINT AS {FROM}, 0::BIGINT AS {UNTIL} FROM {kept.name} LIMIT 0"""
        )
        self._connection.execute(
            f"INSERT INTO {SCHEMA}.tables VALUES (?, ?, ?)", [kept.name, ", ".join(kept.key), self._number]
        )

    def _forget(self, kept: Kept) -> None:
        self._connection.execute(f"DROP TABLE IF EXISTS {kept.gone}")
        for table in ("tables", "since"):
            self._connection.execute(f"DELETE FROM {SCHEMA}.{table} WHERE name = ?", [kept.name])

    # -- rows --------------------------------------------------------------------------------------------------

    def keep(self, kept: Kept, going: str) -> None:
        """Keep the rows of a table that are about to go: those of relation `going`, which has its key."""
        if kept.name not in self._recording:
            return
        columns = f"t.* EXCLUDE ({COPY})" if COPY in kept.key else "t.*"
        # What came with this very number was in no publication.
        self._connection.execute(
            f"""INSERT INTO {kept.gone} SELECT {columns}, coalesce(s.{FROM}, 0), {self._number}
            FROM {kept.keyed(kept.name)} AS t SEMI JOIN {going} AS g ON {kept.same("t", "g")}
            LEFT JOIN {SCHEMA}.since AS s ON s.name = '{kept.name}' AND s.key = {kept.identity("t")}
            WHERE s.{FROM} IS NULL OR s.{FROM} < {self._number}"""
        )
        self._connection.execute(
            f"DELETE FROM {SCHEMA}.since WHERE name = ? AND key IN (SELECT {kept.identity('g')} FROM {going} AS g)",
            [kept.name],
        )

    def came(self, kept: Kept, coming: str) -> None:
        """Note that the rows of relation `coming`, which has a table's key, are there from now on."""
        if kept.name in self._recording:
            self._connection.execute(
                f"INSERT INTO {SCHEMA}.since SELECT ?, {kept.identity('c')}, ? FROM {coming} AS c",
                [kept.name, self._number],
            )

    # -- publications ------------------------------------------------------------------------------------------

    def close(self, tables: Iterable[Kept], run_id: str, fingerprint: str) -> None:
        """Count the publication, if it differs from the last one, and forget what is older than is wanted."""
        if not self.is_kept:
            return
        last = fetch_value(
            self._connection, f"SELECT arg_max(fingerprint, number) FROM {SCHEMA}.publications"
        )
        now = utc_now()
        if last != fingerprint:
            self._connection.execute(
                f"INSERT INTO {SCHEMA}.publications VALUES (?, ?, ?, ?)",
                [self._number, run_id, now, fingerprint],
            )
        self._prune(tables, self._oldest(now))

    def _oldest(self, now: datetime) -> int:
        """Return the number of the oldest publication that is to be remembered."""
        listed = self._connection.execute(
            f"SELECT number, published_at FROM {SCHEMA}.publications ORDER BY number DESC"
        ).fetchall()
        oldest, ended = listed[0]
        horizon = now - timedelta(days=self._config.days) if self._config.days is not None else None
        for number, published_at in listed[1 : self._config.publications + 1]:
            # A publication stood until the next one.
            if horizon is not None and ended < horizon:
                break
            oldest, ended = number, published_at
        return int(oldest)

    def _prune(self, tables: Iterable[Kept], oldest: int) -> None:
        query = f"SELECT count(*) FROM {SCHEMA}.publications WHERE number < ?"
        if fetch_value(self._connection, query, [oldest]):
            forget(self._connection, tables, oldest)


def number_macro(connection: duckdb.DuckDBPyConnection) -> None:
    """Make the macro that the table macros of the history read."""
    connection.execute(NUMBER_MACRO)


def table_columns(connection: duckdb.DuckDBPyConnection) -> Columns:
    """Return name and type of the columns of each table of the file."""
    return dict(
        connection.execute(
            """SELECT concat(schema_name, '.', table_name),
                list((column_name, data_type) ORDER BY column_index)
            FROM duckdb_columns() WHERE database_name = 'next' AND NOT internal GROUP BY ALL"""
        ).fetchall()
    )


def _fits(kept: Kept, columns: Columns) -> bool:
    return columns.get(kept.gone) == [*columns[kept.name], (FROM, "BIGINT"), (UNTIL, "BIGINT")]
