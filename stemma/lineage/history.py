"""The history in a published file, as SQL: what every table held as of an earlier publication.

Schema `history` of the file has, beside the tables as they are,

- for each stored table T, by its name without schema, `history.T`: rows that publications took away, with the numbers
  of the publication that brought each (`valid_from`; 0 where it was there when the history began) and of the one that
  took it (`valid_until`);
- `history.since` (name of the table, key, valid_from): rows that are there now and came with a publication that is
  remembered.

So T as of publication n is T without the rows that came after n, and with those that went after n and had come by n.
`history.publications` maps runs to numbers; `history.tables` says from which publication on a table can be asked.
Table T itself has no column more, so that whoever asks for the present reads what it read before.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import duckdb

SCHEMA = "history"
# The columns of history.T beside those of T.
FROM, UNTIL = "valid_from", "valid_until"
# In a key: rows that are equal in all columns are told apart by their number among these.
COPY = "copy"

TABLES = f"""
CREATE SCHEMA IF NOT EXISTS {SCHEMA};
CREATE TABLE IF NOT EXISTS {SCHEMA}.publications (
    number BIGINT, run_id VARCHAR, published_at TIMESTAMP, fingerprint VARCHAR);
CREATE TABLE IF NOT EXISTS {SCHEMA}.tables (name VARCHAR, key VARCHAR, since BIGINT);
CREATE TABLE IF NOT EXISTS {SCHEMA}.since (name VARCHAR, key UUID, {FROM} BIGINT);
"""
# A publication's number by itself or its run's id, where the table can answer for it.
NUMBER_MACRO = f"""CREATE OR REPLACE MACRO {SCHEMA}.number(run, relation) AS coalesce(
    (SELECT max(p.number) FROM {SCHEMA}.publications AS p JOIN {SCHEMA}.tables AS t ON t.since <= p.number
    WHERE t.name = relation AND (p.number::VARCHAR = run::VARCHAR OR p.run_id = run::VARCHAR)),
    error(concat('the history has no ', relation, ' as of ', run, ' (see history.publications)')))"""


@dataclass(frozen=True)
class Kept:
    """A stored table with a history: `schema.name`, and the columns that tell its rows from each other."""

    name: str
    key: tuple[str, ...]

    @property
    def gone(self) -> str:
        """The table of rows that went."""
        return f"{SCHEMA}.{self.short}"

    @property
    def short(self) -> str:
        return self.name.split(".")[1]

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

    def identity(self, alias: str) -> str:
        """Return the SQL expression of what stands for a row in history.since; null equals null."""
        if self.key in (("document_id",), ("chunk_id",)):
            return f"{alias}.{self.key[0]}"
        texts = ", ".join(f"{alias}.{quoted(name)}::VARCHAR" for name in self.key)
        return f"md5(to_json([{texts}]))::UUID"


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
        UNION ALL SELECT * EXCLUDE ({FROM}, {UNTIL}) FROM {catalog}{kept.gone}
        WHERE {FROM} <= {number} AND {number} < {UNTIL}"""


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


def forget(
    connection: duckdb.DuckDBPyConnection, tables: Iterable[Kept], oldest: int, catalog: str = ""
) -> None:
    """Forget all publications before the number `oldest`, with the rows that none of the others has."""
    for kept in tables:
        connection.execute(f"DELETE FROM {catalog}{kept.gone} WHERE {UNTIL} <= {oldest}")
    connection.execute(f"DELETE FROM {catalog}{SCHEMA}.since WHERE {FROM} <= {oldest}")
    connection.execute(f"DELETE FROM {catalog}{SCHEMA}.publications WHERE number < {oldest}")


def forget_all(connection: duckdb.DuckDBPyConnection, catalog: str) -> None:
    """Forget all publications but the latest, in a file that perhaps has a history, and words of what has gone.

    `catalog` is the name of the database with the file, and a dot.
    """
    try:
        latest = connection.execute(f"SELECT max(number) FROM {catalog}{SCHEMA}.publications").fetchone()
        listed = connection.execute(f"SELECT name FROM {catalog}{SCHEMA}.tables").fetchall()
    except duckdb.CatalogException:
        return
    if latest and latest[0] is not None:
        forget(connection, [Kept(name, ()) for (name,) in listed], latest[0], catalog)
        # What went after the latest publication without another one.
        for (name,) in listed:
            connection.execute(f"DELETE FROM {catalog}{Kept(name, ()).gone}")
    connection.execute(
        f"""DELETE FROM {catalog}search.posting_rows
        WHERE number NOT IN (SELECT number FROM {catalog}search.numbers)"""
    )
