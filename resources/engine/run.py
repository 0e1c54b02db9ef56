"""One run: what it is made of, and the bookkeeping that every dataset's update shares."""

import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from stemma.config import Config
from stemma.incremental.counts import Counts
from stemma.incremental.days import ALL_DAYS, Days
from stemma.resources.engine.setup import Setup
from stemma.resources.executors import Executor, executor_of, workers_of
from stemma.resources.handing import execute_over
from stemma.resources.warehouse import Warehouse, utc_now
from stemma.resources.workers import Workers


def silent(_dataset: str, _done: int, _total: int) -> None:
    """Show no progress."""


@dataclass
class Run:
    """What an update of a dataset needs.

    Attributes:
        progress: called as progress(dataset, done, total) after each batch; total 0 means unknown.
        allow_deletes: lets more documents of a source vanish than the guard would.
        days: what of the sources `raw` takes in; the datasets below follow it.
        sources: names of the sources that are read; the documents of others stay as they are. None: all.
        share: of the sources' files only this share is read, for an audit; the same ones for the same `sample`.
        left_out: files and folders that are no part of the sources, beside the warehouse's own.
        dry: plan only; nothing is computed or written.
        audit: recompute a few remembered rows of each stage that computes anyway, and compare.
    """

    run_id: str
    setup: Setup
    warehouse: Warehouse
    progress: Callable[[str, int, int], None] = silent
    allow_deletes: bool = False
    days: Days = ALL_DAYS
    sources: tuple[str, ...] = ()
    share: float = 1.0
    sample: int = 0
    left_out: tuple[Path, ...] = ()
    dry: bool = False
    audit: bool = True
    counts: dict[str, Counts] = field(default_factory=dict)

    @property
    def config(self) -> Config:
        """The configuration that the run follows."""
        return self.setup.config

    @property
    def executor(self) -> Executor:
        """What computes: see stemma/resources/executors. Raises StemmaError where there is none."""
        return executor_of(self.config.engine)

    @property
    def workers(self) -> Workers:
        """The worker processes of this machine."""
        return workers_of(self.config.engine)

    def begin(self, dataset: str, recipe: str) -> Counts:
        """Start the counts of a dataset's update."""
        self.counts[dataset] = Counts(dataset, recipe, utc_now(), seconds=-time.perf_counter())
        return self.counts[dataset]


@dataclass(frozen=True)
class State:
    """The row of state.datasets for one dataset; version 0 when it was never made.

    `checked` is the version whose rows passed a check that is too dear to be made at each run.
    """

    recipe: str = ""
    stage_recipe: str = ""
    version: int = 0
    upstream_version: int = -1
    state_hash: str = ""
    rows: int = 0
    run_id: str = ""
    settled: bool = False
    checked: int = 0


class _States(dict[str, State]):
    """The bookkeeping of datasets by their names; of one that was never made, that it was not."""

    def __missing__(self, _name: str) -> State:
        return State()


def states(connection: duckdb.DuckDBPyConnection) -> Mapping[str, State]:
    """Read the bookkeeping of all datasets, within a session."""
    # This is read many times a run: JSON functions and a parameter would cost three times as much.
    rows = connection.execute(
        "SELECT name, recipe, stage_recipe, version, upstream_version, state_hash, rows, run_id, detail::VARCHAR"
        " FROM state.datasets"
    ).fetchall()
    return _States((name, State(*facts, **json.loads(detail))) for name, *facts, detail in sorted(rows))


def state_of(connection: duckdb.DuckDBPyConnection, dataset: str) -> State:
    """Read the bookkeeping of a dataset, within a session."""
    return states(connection)[dataset]


def finish(
    run: Run,
    connection: duckdb.DuckDBPyConnection,
    counts: Counts,
    *,
    upstream_version: int,
    stage_recipe: str = "",
    settled: bool = True,
    before: State | None = None,
    explained: Callable[[], dict[str, Any]] = dict,
) -> None:
    """Close a dataset's update in the session's transaction: version, state hash, the row of lineage.runs.

    `before` is the dataset's bookkeeping, where it is known; `explained` tells what went into its recipe, and is asked
    when it has another one than before: to work that out reads much code.

    `settled` is false when rows failed for a reason that may pass: then the next run tries them again even
    though nothing above has changed.
    """
    before = before or state_of(connection, counts.dataset)
    changed = counts.touched or before.recipe != counts.recipe
    if before.recipe != counts.recipe:
        _remember_recipe(connection, counts, explained)
    if changed:
        counts.rows, counts.state_hash = state_hash(connection, counts.dataset)
    else:
        counts.rows, counts.state_hash = before.rows, before.state_hash
    counts.errors = fetch_value(
        connection, "SELECT count(*) FROM state.errors WHERE stage = ?", [counts.dataset]
    )
    counts.finished_at = utc_now()
    counts.seconds += time.perf_counter()
    connection.execute("DELETE FROM state.datasets WHERE name = ?", [counts.dataset])
    connection.execute(
        "INSERT INTO state.datasets VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        [
            counts.dataset,
            counts.recipe,
            stage_recipe,
            before.version + int(changed),
            upstream_version,
            counts.state_hash,
            counts.rows,
            run.run_id,
            json.dumps({"settled": settled, "checked": before.checked}),
        ],
    )
    connection.execute(
        "DELETE FROM state.runs WHERE run_id = ? AND dataset = ?", [run.run_id, counts.dataset]
    )
    connection.execute(
        # Runs are numbered as they come: a clock may go backwards.
        """INSERT INTO state.runs SELECT ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?,
            coalesce(min(number) FILTER (run_id = ?), max(number) + 1, 1) FROM state.runs""",
        [
            run.run_id,
            counts.dataset,
            counts.recipe,
            counts.started_at,
            counts.finished_at,
            counts.rows_in,
            counts.rows_added,
            counts.rows_changed,
            counts.rows_removed,
            counts.rows_reused,
            counts.rows_computed,
            counts.rows,
            counts.errors,
            run.run_id,
        ],
    )


def remember_checked(connection: duckdb.DuckDBPyConnection, dataset: str, version: int) -> None:
    """Note that the rows of a dataset, in this version, passed a check."""
    connection.execute(
        """UPDATE state.datasets SET detail = json_merge_patch(detail, json_object('checked', version))
        WHERE name = ? AND version = ?""",
        [dataset, version],
    )


def state_hash(connection: duckdb.DuckDBPyConnection, dataset: str) -> tuple[int, str]:
    """Return a dataset's row count and an order-free hash of its rows and decisions (the sum of the row hashes)."""
    key = "chunk_id" if dataset in ("chunked", "embedded") else "document_id"
    row = connection.execute(
        f"""SELECT count(*) FILTER ({kept_rows(dataset)}), count(*), coalesce(sum(hash({key}, row_hash)::HUGEINT), 0)
        FROM state.{dataset}"""
    ).fetchone()
    assert row is not None
    return row[0], f"{row[1]}-{row[2] % 2**64:016x}"


def kept_rows(dataset: str) -> str:
    """Return the condition for the rows of state.<dataset> that are rows of the dataset: the others were dropped."""
    return {"cleaned": "verdicts IS NULL", "deduplicated": "kept"}.get(dataset, "true")


def replace_errors(
    connection: duckdb.DuckDBPyConnection, stage: str, inputs: str, scope: str, failed: str, run_id: str
) -> None:
    """Make the errors of a stage, for the documents of relation `scope`, those of relation `failed`.

    `failed` has the columns document_id, error, detail. A row that stands already keeps its run_id. What is not
    among `inputs`, the documents that the stage is given, has no error there: a stage above dropped it.
    """
    if not fetch_value(
        connection,
        f"SELECT (SELECT count(*) FROM {failed}) + (SELECT count(*) FROM state.errors WHERE stage = ?)",
        [stage],
    ):
        return
    connection.execute(
        f"""CREATE OR REPLACE TEMP TABLE new_errors AS
        SELECT f.document_id, r.source, r.path, r.uri, r.record, ? AS stage, f.error, f.detail, ? AS run_id
        FROM {failed} AS f JOIN state.raw AS r USING (document_id)""",
        [stage, run_id],
    )
    connection.execute(
        f"""DELETE FROM state.errors WHERE stage = ? AND (document_id NOT IN (SELECT document_id FROM {inputs})
        OR document_id IN (SELECT document_id FROM {scope})
            AND NOT EXISTS (SELECT 1 FROM new_errors AS n WHERE n.document_id = errors.document_id
                AND n.error = errors.error AND n.detail = errors.detail))""",
        [stage],
    )
    connection.execute(
        """INSERT INTO state.errors SELECT * FROM new_errors AS n WHERE NOT EXISTS
        (SELECT 1 FROM state.errors AS e WHERE e.stage = n.stage AND e.document_id = n.document_id)"""
    )


def _remember_recipe(
    connection: duckdb.DuckDBPyConnection, counts: Counts, explained: Callable[[], dict[str, Any]]
) -> None:
    known = "SELECT count(*) FROM state.recipes WHERE recipe = ? AND dataset = ?"
    if not fetch_value(connection, known, [counts.recipe, counts.dataset]):
        connection.execute(
            "INSERT INTO state.recipes VALUES (?, ?, ?)",
            [counts.recipe, counts.dataset, json.dumps(explained(), sort_keys=True)],
        )


def make_table(connection: duckdb.DuckDBPyConnection, name: str, query: str) -> int:
    """Make the temporary table `name` of the rows of a query; returns how many they are."""
    rows: int = fetch_value(connection, f"CREATE OR REPLACE TEMP TABLE {name} AS {query}")
    return rows


def few(table: str, column: str) -> str:
    """Return the relation of a column's values in a table that is small beside the one they are looked up in.

    DuckDB makes a Bloom filter, and passes over what it does not let through, only of a side that is filtered: 27,000
    of 2.5 million rows are found in 15 ms then, and in 26 without.
    """
    return f"(SELECT {column} FROM {table} WHERE {column} IS NOT NULL)"


def load_rows(connection: duckdb.DuckDBPyConnection, name: str, rows: pa.Table) -> None:
    """Make the temporary table `name` of Arrow rows, to be joined: DuckDB can't push filters on UUIDs into Arrow."""
    execute_over(connection, rows, f"CREATE OR REPLACE TEMP TABLE {name} AS SELECT * FROM arriving")


def put_together(blocks: Iterable[pa.Table], rows: int) -> Iterator[pa.Table]:
    """Yield the blocks put together to tables of so many rows at least, but for the last one."""
    kept: list[pa.Table] = []
    for block in blocks:
        kept.append(block)
        if sum(each.num_rows for each in kept) >= rows:
            yield pa.concat_tables(kept)
            kept = []
    if kept:
        yield pa.concat_tables(kept)


def fetch_value(
    connection: duckdb.DuckDBPyConnection, query: str, parameters: list[Any] | None = None
) -> Any:
    """Return the single value of a query."""
    row = connection.execute(query, parameters or []).fetchone()
    assert row is not None
    return row[0]


def apply_rows(
    connection: duckdb.DuckDBPyConnection, counts: Counts, key: str, fresh: str, scope: str
) -> None:
    """Replace the rows of a dataset for the documents of relation `scope` by those of the table `fresh`.

    `fresh` has the columns of state.<dataset>, in order; see `replace_rows`.
    """
    load_replaced(connection, counts.dataset, key, f"document_id IN {few(scope, 'document_id')}")
    replace_rows(connection, counts, key, fresh)


def load_replaced(
    connection: duckdb.DuckDBPyConnection, dataset: str, key: str, condition: str, *more: str
) -> None:
    """Make replaced, the rows of state.<dataset> that a condition is true of: (place, key, row_hash, kept, more)."""
    columns = ", ".join(
        ["rowid AS place", f"{key} AS key", "row_hash", f"{kept_rows(dataset)} AS kept", *more]
    )
    connection.execute(
        f"CREATE OR REPLACE TEMP TABLE replaced AS SELECT {columns} FROM state.{dataset} WHERE {condition}"
    )


def replace_rows(connection: duckdb.DuckDBPyConnection, counts: Counts, key: str, fresh: str) -> None:
    """Replace the rows of a dataset that are in the table replaced by those of the table `fresh`.

    Counts rows added, changed (by row_hash) and removed, and apart from them the decisions on documents that were no
    row of the dataset before and are none now.
    """
    table = f"state.{counts.dataset}"
    row = connection.execute(
        f"""SELECT count(*) FILTER (now AND NOT before), count(*) FILTER (now AND before AND differs),
            count(*) FILTER (before AND NOT now), count(*) FILTER (NOT now AND NOT before AND differs)
        FROM (SELECT coalesce(f.kept, false) AS now, coalesce(r.kept, false) AS before,
                r.row_hash IS DISTINCT FROM f.row_hash AS differs
            FROM (SELECT {key} AS key, row_hash, {kept_rows(counts.dataset)} AS kept FROM {fresh}) AS f
            FULL JOIN replaced AS r USING (key))"""
    ).fetchone()
    assert row is not None
    counts.rows_added += row[0]
    counts.rows_changed += row[1]
    counts.rows_removed += row[2]
    counts.decisions_changed += row[3]
    connection.execute(f"DELETE FROM {table} WHERE rowid IN (SELECT place FROM replaced)")
    connection.execute(f"INSERT INTO {table} SELECT * FROM {fresh}")
