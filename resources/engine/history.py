"""Writing the history: what each publication takes from a table and brings to it (see stemma/lineage/history.py)."""

import json
from collections.abc import Iterable
from datetime import datetime, timedelta

import duckdb

from stemma.config import HistoryConfig
from stemma.lineage.history import FROM, NUMBER_MACRO, SCHEMA, TABLES, Kept, forget
from stemma.resources.engine.run import few
from stemma.resources.warehouse import utc_now

Columns = dict[str, list[tuple[str, str]]]


class History:
    """The history in the file that is being published: the connection's default database, `next`.

    A publication that changes nothing but the books of the run has no number of its own: what it writes there
    counts for the next one that has.
    """

    def __init__(
        self, connection: duckdb.DuckDBPyConnection, config: HistoryConfig, standing: Iterable[str]
    ) -> None:
        """Go on with the history, or begin one; `standing` names the tables of the file."""
        self._connection = connection
        self._config = config
        self._recording: set[str] = set()
        self._coming: list[str] = []
        self.is_kept = config.publications > 0
        if not self.is_kept:
            connection.execute(f"DROP SCHEMA IF EXISTS {SCHEMA} CASCADE")
            return
        if f"{SCHEMA}.gone" not in standing:
            connection.execute(TABLES)
        self._publications = connection.execute(
            f"SELECT number, published_at, fingerprint FROM {SCHEMA}.publications ORDER BY number DESC"
        ).fetchall()
        self._number = self._publications[0][0] + 1 if self._publications else 1

    # -- tables ------------------------------------------------------------------------------------------------

    def fit(self, tables: Iterable[Kept]) -> None:
        """Begin a history for each of these tables; anew for one whose columns are others than they were.

        What a table is filled with at the publication that its history begins with was always there.
        """
        if not self.is_kept:
            return
        tables = list(tables)
        begun = {
            name: (tuple(described), since)
            for name, *described, since in self._connection.execute(
                f"SELECT name, key, columns, since FROM {SCHEMA}.tables"
            ).fetchall()
        }
        for name in begun.keys() - {kept.name for kept in tables}:
            self._forget(name)
        for kept in tables:
            described, since = begun.get(kept.name, (None, 0))
            if described != _described(kept):
                self.begin(kept)
            elif since < self._number:
                self._recording.add(kept.name)

    def begin(self, kept: Kept) -> None:
        """Begin the history of a table with this publication."""
        if not self.is_kept:
            return
        self._forget(kept.name)
        self._recording.discard(kept.name)
        self._connection.execute(
            f"INSERT INTO {SCHEMA}.tables VALUES (?, ?, ?, ?)", [kept.name, *_described(kept), self._number]
        )

    def _forget(self, name: str) -> None:
        for table in ("tables", "since", "gone"):
            self._connection.execute(f"DELETE FROM {SCHEMA}.{table} WHERE name = ?", [name])

    # -- rows --------------------------------------------------------------------------------------------------

    def keep(self, kept: Kept, going: str) -> None:
        """Keep the rows of a table that are about to go: those of relation `going`, which has its key."""
        if kept.name not in self._recording:
            return
        if kept.has_ids:
            # The texts of all other rows are not read.
            rows = f"(FROM {kept.name} WHERE {kept.key[0]} IN {few(going, kept.key[0])}) AS t"
        else:
            rows = f"{kept.keyed(kept.name)} AS t SEMI JOIN {going} AS g ON {kept.same('t', 'g')}"
        # What came with this very number was in no publication.
        self._connection.execute(
            f"""INSERT INTO {SCHEMA}.gone SELECT '{kept.name}', coalesce(s.{FROM}, 0), {self._number}, {kept.cells}
            FROM {rows}
            LEFT JOIN (SELECT key, max({FROM}) AS {FROM} FROM {SCHEMA}.since WHERE name = '{kept.name}' GROUP BY key)
                AS s ON s.key = {kept.identity("t")}
            WHERE s.{FROM} IS NULL OR s.{FROM} < {self._number}"""
        )

    def came(self, kept: Kept, coming: str) -> None:
        """Note that the rows of relation `coming`, which has a table's key, are there from now on: see `note`."""
        if kept.name in self._recording:
            self._coming.append(
                f"SELECT '{kept.name}', {kept.identity('c')}, {self._number} FROM {coming} AS c"
            )

    def note(self) -> None:
        """Write down what came, in one statement: the relations must still be there."""
        if self._coming:
            self._connection.execute(f"INSERT INTO {SCHEMA}.since {' UNION ALL '.join(self._coming)}")
            self._coming.clear()

    # -- publications ------------------------------------------------------------------------------------------

    def close(self, run_id: str, fingerprint: str) -> None:
        """Count the publication, if it differs from the last one, and forget what is older than is wanted."""
        if not self.is_kept:
            return
        self.note()
        now = utc_now()
        if not self._publications or self._publications[0][2] != fingerprint:
            self._connection.execute(
                f"INSERT INTO {SCHEMA}.publications VALUES (?, ?, ?, ?)",
                [self._number, run_id, now, fingerprint],
            )
            self._publications.insert(0, (self._number, now, fingerprint))
        oldest = self._oldest(now)
        if self._publications[-1][0] < oldest:
            forget(self._connection, oldest)

    def _oldest(self, now: datetime) -> int:
        """Return the number of the oldest publication that is to be remembered."""
        oldest, ended, _fingerprint = self._publications[0]
        horizon = now - timedelta(days=self._config.days) if self._config.days is not None else None
        for number, published_at, _fingerprint in self._publications[1 : self._config.publications + 1]:
            # A publication stood until the next one.
            if horizon is not None and ended < horizon:
                break
            oldest, ended = number, published_at
        return int(oldest)


def number_macro(connection: duckdb.DuckDBPyConnection) -> None:
    """Make the macro that the table macros of the history read."""
    connection.execute(NUMBER_MACRO)


def table_columns(connection: duckdb.DuckDBPyConnection) -> Columns:
    """Return name and type of the columns of each table of the file."""
    return dict(
        connection.execute(
            """SELECT concat(schema_name, '.', table_name),
                list((column_name, data_type) ORDER BY column_index)
            FROM duckdb_columns() SEMI JOIN duckdb_tables() USING (database_name, schema_name, table_name)
            WHERE database_name = 'next' GROUP BY ALL"""
        ).fetchall()
    )


def _described(kept: Kept) -> tuple[str, str]:
    return ", ".join(kept.key), json.dumps(kept.columns)
