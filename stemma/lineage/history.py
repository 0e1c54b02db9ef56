"""The history in a published file, as SQL: what every table held as of an earlier publication.

Schema `history` of the file has, beside the tables as they are,

- `history.gone` (name of the table, valid_from, valid_until, cells): rows that publications took away, with the numbers
  of the publication that brought each (`valid_from`; 0 where it was there when the history began) and of the one that
  took it (`valid_until`). `cells` are the row's values as texts. One table for the rows of all: each column of a table
  that changes costs a publication about half a millisecond, and the tables have 150;
- `history.since` (name of the table, key, valid_from): rows that came with a publication that is remembered, with more
  than one number where one went and came back.

So T as of publication n is T without the rows that came after n, and with those that went after n and had come by n.
`history.publications` maps runs to numbers; `history.tables` says from which publication on a table can be asked.
Table T itself has no column more, so that whoever asks for the present reads what it read before.
"""

import contextlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import duckdb

SCHEMA = "history"
FROM, UNTIL = "valid_from", "valid_until"
# In a key: rows that are equal in all columns are told apart by their number among these.
COPY = "copy"

TABLES = f"""
CREATE SCHEMA IF NOT EXISTS {SCHEMA};
CREATE TABLE IF NOT EXISTS {SCHEMA}.publications (
    number BIGINT, run_id VARCHAR, published_at TIMESTAMP, fingerprint VARCHAR);
CREATE TABLE IF NOT EXISTS {SCHEMA}.tables (name VARCHAR, key VARCHAR, columns VARCHAR, since BIGINT);
CREATE TABLE IF NOT EXISTS {SCHEMA}.gone (name VARCHAR, {FROM} BIGINT, {UNTIL} BIGINT, cells VARCHAR[]);
CREATE TABLE IF NOT EXISTS {SCHEMA}.since (name VARCHAR, key UUID, {FROM} BIGINT);
"""
# A publication's number by itself or its run's id, where the table can answer for it.
NUMBER_MACRO = f"""CREATE OR REPLACE MACRO {SCHEMA}.number(run, relation) AS coalesce(
    (SELECT max(p.number) FROM {SCHEMA}.publications AS p JOIN {SCHEMA}.tables AS t ON t.since <= p.number
    WHERE t.name = relation AND (p.number::VARCHAR = run::VARCHAR OR p.run_id = run::VARCHAR)),
    error(concat('the history has no ', relation, ' as of ', run, ' (see history.publications)')))"""


@dataclass(frozen=True)
class Kept:
    """A stored table with a history: `schema.name`, the columns that tell its rows from each other, and all columns.

    `columns` are names and types, as the table has them.
    """

    name: str
    key: tuple[str, ...]
    columns: tuple[tuple[str, str], ...] = ()

    @property
    def cells(self) -> str:
        """Return the SQL expression of a row's values as texts, of a relation `t`."""
        return f"[{', '.join(_text(f't.{quoted(name)}', kind) for name, kind in self.columns)}]"

    @property
    def values(self) -> str:
        """Return the SQL expressions of a row's columns, of its cells."""
        return ", ".join(
            f"{_value(f'cells[{place}]', kind)} AS {quoted(name)}"
            for place, (name, kind) in enumerate(self.columns, 1)
        )

    def gone(self, catalog: str = "") -> str:
        """Return the rows that went, as a query; `catalog` as in as_of."""
        return f"SELECT {self.values} FROM {catalog}{SCHEMA}.gone WHERE name = '{self.name}'"

    def keyed(self, relation: str) -> str:
        """Return a relation of the table's rows with all columns of its key."""
        if COPY not in self.key:
            return relation
        rest = ", ".join(quoted(column) for column in self.key if column != COPY)
        return f"(SELECT *, row_number() OVER (PARTITION BY {rest}) AS {COPY} FROM {relation})"

    def same(self, left: str, right: str) -> str:
        """Return the condition that two rows have one key; null equals null."""
        return " AND ".join(
            f"{left}.{quoted(name)} IS NOT DISTINCT FROM {right}.{quoted(name)}" for name in self.key
        )

    @property
    def has_ids(self) -> bool:
        """Whether an id tells its rows from each other."""
        return self.key in (("document_id",), ("chunk_id",))

    def identity(self, alias: str) -> str:
        """Return the SQL expression of what stands for a row in history.since; null equals null."""
        if self.has_ids:
            return f"{alias}.{self.key[0]}"
        texts = ", ".join(f"{alias}.{quoted(name)}::VARCHAR" for name in self.key)
        return f"md5(to_json([{texts}]))::UUID"


def _text(column: str, kind: str) -> str:
    return f"base64({column})" if kind == "BLOB" else f"{column}::VARCHAR"


def _value(cell: str, kind: str) -> str:
    return f"from_base64({cell})" if kind == "BLOB" else f"{cell}::{kind}"


def quoted(name: str) -> str:
    """Return a name as SQL takes any name."""
    return '"' + name.replace('"', '""') + '"'


def as_of(kept: Kept, number: str, catalog: str = "") -> str:
    """Return a query of a table's rows as of a publication.

    `number` is an SQL expression, `catalog` the name of the database with the file, and a dot; empty for the default.
    """
    current = kept.keyed(f"{catalog}{kept.name}")
    columns = f"t.* EXCLUDE ({COPY})" if COPY in kept.key else "t.*"
    return f"""SELECT {columns} FROM {current} AS t
        ANTI JOIN (SELECT key FROM {catalog}{SCHEMA}.since WHERE name = '{kept.name}' AND {FROM} > {number}) AS s
        ON {kept.identity("t")} = s.key
        UNION ALL {kept.gone(catalog)} AND {FROM} <= {number} AND {number} < {UNTIL}"""


# What can be asked of the file without Stemma: history.raw_at(run) … with what these are made of.
ASKED = (
    *("main.raw", "main.cleaned", "main.deduplicated", "main.chunked", "main.embedded"),
    *("lineage.decisions", "lineage.errors"),
)
_RELATION = re.compile(r"\b(?:main|lineage)\.(\w+)\b(?!\s*\()")


def macros(tables: Sequence[Kept], views: Mapping[str, str]) -> dict[str, str]:
    """Return table macros by name, `history.raw_at(run)` for main.raw and so on, as the queries that they are.

    Those named in ASKED, and what they read: each before what reads it. `views` are the published views.
    """
    stored = {kept.name: kept for kept in tables}
    made: dict[str, str] = {}

    def make(name: str) -> None:
        macro = _macro(name)
        if macro in made:
            return
        if name in stored:
            made[macro] = as_of(stored[name], f"{SCHEMA}.number(run, '{name}')")
            return
        query = views[name]
        for match in _RELATION.finditer(query):
            if match[0] in stored or match[0] in views:
                make(match[0])
        made[macro] = _RELATION.sub(
            lambda match: f"{_macro(match[0])}(run)" if match[0] in {*stored, *views} else match[0], query
        )

    for name in ASKED:
        make(name)
    return made


def _macro(name: str) -> str:
    return f"{SCHEMA}.{name.split('.')[1]}_at"


def forget(connection: duckdb.DuckDBPyConnection, oldest: int, catalog: str = "") -> None:
    """Forget all publications before the number `oldest`, with the rows that none of the others has."""
    connection.execute(f"DELETE FROM {catalog}{SCHEMA}.gone WHERE {UNTIL} <= {oldest}")
    connection.execute(f"DELETE FROM {catalog}{SCHEMA}.since WHERE {FROM} <= {oldest}")
    connection.execute(f"DELETE FROM {catalog}{SCHEMA}.publications WHERE number < {oldest}")


def forget_all(connection: duckdb.DuckDBPyConnection, catalog: str) -> None:
    """Forget all publications but the latest, in a file that perhaps has a history, and words of what has gone.

    `catalog` is the name of the database with the file, and a dot.
    """
    with contextlib.suppress(duckdb.CatalogException):
        latest = connection.execute(f"SELECT max(number) FROM {catalog}{SCHEMA}.publications").fetchone()
        if latest and latest[0] is not None:
            forget(connection, latest[0], catalog)
            # What went after the latest publication without another one.
            connection.execute(f"DELETE FROM {catalog}{SCHEMA}.gone")
    with contextlib.suppress(duckdb.CatalogException):
        connection.execute(
            f"""DELETE FROM {catalog}search.posting_rows
            WHERE number NOT IN (SELECT number FROM {catalog}search.numbers)"""
        )
