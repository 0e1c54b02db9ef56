"""Publication: state and bodies joined into the one file that everybody reads, in one transaction."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import duckdb
import pyarrow as pa

from stemma.datasets import CHUNKED, CLEANED, EMBEDDING_HEALTH, ERRORS, MEASURES, PASSAGES, RAW, RUNS, Dataset
from stemma.embedding.storage import SQL_TYPES
from stemma.errors import StemmaError
from stemma.lineage.checks import BLOCKING, Check, run_check
from stemma.lineage.history import COPY, Kept, macros, quoted
from stemma.lineage.views import VIEWS, VIEWS_OF_FLAGS, corpus_views, generated_view
from stemma.resources.engine.chunked import CHUNK_TEXTS
from stemma.resources.engine.cleaned import contamination_view, flags_view, rules_query
from stemma.resources.engine.health import health_checks, measure_health
from stemma.resources.engine.history import Columns, History, number_macro, table_columns
from stemma.resources.engine.raw import bodies_of
from stemma.resources.engine.rowwise import segments_of
from stemma.resources.engine.run import Run, fetch_value, load_rows, states
from stemma.resources.engine.search_index import TABLES as INDEX_TABLES
from stemma.resources.engine.search_index import index_recipe, is_made_by, update_index
from stemma.resources.engine.vector_index import (
    discard_others,
    published_digest,
    update_vector_index,
    vector_index_recipe,
)
from stemma.resources.engine.vectors import are_derived, derive_rows, embedded_dataset
from stemma.resources.memo import LostError, joined_as_written

# Up to this size the file is published again only to add the rows of a run that changed nothing to
# lineage.runs; beyond it they wait for the next change, so that the cost of a run never follows the corpus.
NOTHING_NEW_BYTES = 64 * 1024 * 1024
NOTHING_NEW = "nothing has changed"


@dataclass(frozen=True)
class Publication:
    """What `publish` did: whether a new file stands, what came of it in words, and the outcome of the checks."""

    published: bool
    reason: str
    checks: tuple[Check, ...] = ()

    @property
    def failed(self) -> tuple[Check, ...]:
        """The checks that stopped the publication."""
        return tuple(check for check in self.checks if not check.passed and check.name in BLOCKING)


class _BlockedError(Exception):
    """Takes the next file back when a blocking check failed on it."""


def publish(run: Run, recipes: Mapping[str, str]) -> Publication:
    """Publish the state if all five datasets belong together and differ from what is published.

    `recipes` names the recipe of each dataset as configured now.

    A failed blocking check leaves the published file as it is: then the publication's `failed` names it.
    Raises StemmaError when nothing could be processed; here too the published file stays.
    """
    with run.warehouse.session() as connection:
        behind = first_behind(connection, recipes)
        if behind:
            return Publication(False, f"{behind} is not up to date with the dataset above it: run it as well")
        index = index_recipe(run.setup.code)
        fingerprint = _fingerprint(run, connection)
        path = run.warehouse.path
        nothing_new = path.exists() and _is_published(connection, fingerprint)
        if nothing_new and path.stat().st_size > NOTHING_NEW_BYTES:
            return Publication(False, NOTHING_NEW)
        _refuse_if_nothing_worked(run, connection)
        measure_health(run, connection)
        health = health_checks(connection)
        checks: list[Check] = []
        vectors: str | None = None

        def fill(connection: duckdb.DuckDBPyConnection) -> None:
            nonlocal vectors
            _fill(run, connection, index, fingerprint)
            vectors = published_digest(connection)
            checks.extend(run_check(connection, name, query) for name, query in BLOCKING.items())
            if not all(check.passed for check in checks):
                raise _BlockedError

        try:
            run.warehouse.publish(connection, fill, anew=_never_published(connection))
        except _BlockedError:
            return Publication(False, "a blocking check failed", tuple(checks))
        discard_others(run.warehouse.path, vectors)
        connection.execute("DELETE FROM state.publication")
        connection.execute("INSERT INTO state.publication VALUES (?)", [fingerprint])
        told = f"{NOTHING_NEW}; the run was added to lineage.runs" if nothing_new else "published"
        return Publication(True, told, (*checks, *health))


def first_behind(connection: duckdb.DuckDBPyConnection, recipes: Mapping[str, str]) -> str | None:
    """Return the first dataset that another recipe or an older version of the one above has made, if any."""
    made, above = states(connection), 0
    for dataset, recipe in recipes.items():
        state = made[dataset]
        if state.recipe != recipe or state.upstream_version != above:
            return dataset
        above = state.version
    return None


def _fingerprint(run: Run, connection: duckdb.DuckDBPyConnection) -> str:
    """Return a hash of all that is published but the rows of lineage.runs."""
    state = str(
        fetch_value(
            connection,
            """SELECT concat(
            (SELECT list((name, version, recipe, state_hash) ORDER BY name)::VARCHAR FROM state.datasets),
            (SELECT sum(hash(document_id, uri, record, stage, error, detail)::HUGEINT) FROM state.errors),
            (SELECT sum(hash(document_id, row_hash, gone)::HUGEINT) FROM state.waiting),
            (SELECT sum(hash(document_id, content_hash)::HUGEINT) FROM state.purged))""",
        )
    )
    # Where no history is wanted any more, that is to be published too.
    history = "" if run.config.history.publications else " without history"
    return state + index_recipe(run.setup.code) + vector_index_recipe(run.config.search) + history


def _is_published(connection: duckdb.DuckDBPyConnection, fingerprint: str) -> bool:
    return bool(
        fetch_value(connection, "SELECT count(*) FROM state.publication WHERE fingerprint = ?", [fingerprint])
    )


def is_published(run: Run, connection: duckdb.DuckDBPyConnection) -> bool:
    """Return whether what the state holds is what is published."""
    return run.warehouse.path.exists() and _is_published(connection, _fingerprint(run, connection))


def _never_published(connection: duckdb.DuckDBPyConnection) -> bool:
    """Has this state been published? One of another version's may have other columns than what is."""
    return fetch_value(connection, "SELECT count(*) FROM state.publication") == 0


def _refuse_if_nothing_worked(run: Run, connection: duckdb.DuckDBPyConnection) -> None:
    row = connection.execute(
        """SELECT (SELECT count(*) FROM state.raw), (SELECT count(*) FROM state.errors),
            (SELECT count(*) FROM state.raw ANTI JOIN state.errors USING (document_id))"""
    ).fetchone()
    assert row is not None
    documents, errors, sound = row
    # Where documents were deleted until none was left, what is published must not keep them.
    emptied = documents == 0 and run.warehouse.path.exists()
    if errors and not sound and not emptied:
        first = connection.execute(
            "SELECT uri, error, detail FROM state.errors ORDER BY uri LIMIT 1"
        ).fetchone()
        assert first is not None
        raise StemmaError(
            f"nothing could be processed ({errors} errors, {documents} documents);"
            f" the first: {first[0]}: {first[1]}: {first[2]}"
        )


@dataclass(frozen=True)
class Published:
    """How a published base table is made: rows of `state` whose (key, row_hash) differ, joined with bodies by
    the relation that `bodies` makes of the table `fresh`.

    Vectors stay uncompressed: DuckDB's float compression saves 13 % of the space at twice the time of the insert.
    """

    dataset: Dataset
    state: str
    bodies: Callable[[Run], str]
    compression: str = "auto"


def _body_join(store_bodies: str, condition: str) -> str:
    return f"{store_bodies} AS body JOIN fresh ON {condition}"


def _raw_bodies(run: Run) -> str:
    store = bodies_of(run)
    return _body_join(
        store.find_bodies(run.warehouse.connection, "fresh", "input_hash, content, content_bytes"),
        "body.input_hash = fresh.input_hash",
    )


def _cleaned_bodies(run: Run) -> str:
    store = segments_of(run, run.setup.clean)
    return _body_join(
        store.find_bodies(run.warehouse.connection, "fresh", "input_hash, text, origins, pii"),
        "body.input_hash = fresh.input_hash",
    )


def _chunked_bodies(run: Run) -> str:
    store = segments_of(run, run.setup.chunk)
    return _body_join(
        store.find_bodies(run.warehouse.connection, "fresh", CHUNK_TEXTS),
        "body.input_hash = fresh.input_hash AND body.ordinal = fresh.ordinal",
    )


def _embedded_bodies(run: Run) -> str:
    if are_derived(run.setup):
        derive_rows(run, "fresh", "derived_vectors")
        return _body_join("derived_vectors", "body.chunk_id = fresh.chunk_id")
    store = segments_of(run, run.setup.embed)
    return _body_join(
        store.find_bodies(run.warehouse.connection, "fresh", "input_hash, embedding"),
        "body.input_hash = fresh.input_hash",
    )


TABLES = (
    Published(RAW, "state.raw", _raw_bodies),
    Published(CLEANED, "(SELECT * FROM state.cleaned WHERE verdicts IS NULL)", _cleaned_bodies),
    Published(CHUNKED, "state.chunked", _chunked_bodies),
)

VECTOR_TYPES = ("FLOAT[]", *(f"{kind}[]" for kind in SQL_TYPES.values()))

# Row for row what the state has: the columns that tell a row from the others, and the rows.
REJECTIONS = """SELECT document_id, 'cleaned' AS stage, verdict.rule AS rule, verdict.score AS score,
        verdict.threshold AS threshold, NULL::UUID AS kept_document_id, run_id
    FROM (SELECT document_id, unnest(verdicts) AS verdict, run_id FROM state.cleaned WHERE verdicts IS NOT NULL)"""
CONTAMINATIONS = """SELECT document_id, uri, match.set AS evaluation_set, match.item AS item, match.ngram AS ngram,
        match.char_start AS char_start, match.char_end AS char_end, match.matched AS matched, match.total AS total
    FROM (SELECT document_id, uri, unnest(matches) AS match
        FROM state.cleaned JOIN state.raw USING (document_id) WHERE len(matches) > 0)"""
MEMBERS = """SELECT document_id, cluster_id, cluster_size, kept, kept_document_id, similarity, method, threshold, run_id
    FROM state.deduplicated"""


@dataclass(frozen=True)
class Ledger:
    """How a ledger is made: the query of its rows, and the columns that tell these apart; none where nothing does."""

    key: str
    query: str

    def kept(self, name: str, columns: Columns) -> Kept:
        """Return what the history knows it by; `columns` are those of all tables."""
        key = self.key.split(", ") if self.key else (*(column for column, _type in columns[name]), COPY)
        return Kept(name, tuple(key), tuple(columns[name]))


WAITING_ROWS = """SELECT w.document_id, w.source, w.uri, w.record, w.partition_date,
        CASE WHEN w.gone THEN 'removed' WHEN r.document_id IS NULL THEN 'new' ELSE 'changed' END AS change
    FROM state.waiting AS w LEFT JOIN state.raw AS r USING (document_id)"""
LEDGERS = {
    "lineage.rejections": Ledger("", REJECTIONS),
    "lineage.contamination": Ledger("", CONTAMINATIONS),
    "lineage.members": Ledger("document_id", MEMBERS),
    "lineage.superseded": Ledger(
        "document_id, version", "SELECT * FROM state.versions WHERE until IS NOT NULL"
    ),
    "lineage.passages": Ledger(
        "document_id, char_start, source_document_id, source_char_start, char_end",
        f"SELECT {', '.join(column.name for column in PASSAGES.columns)} FROM state.passages",
    ),
    "lineage.cuts": Ledger(
        "document_id", "SELECT document_id, cuts FROM state.deduplicated WHERE cuts IS NOT NULL"
    ),
    # Two records of a file may fail in the same way.
    "lineage.errors": Ledger(
        "", f"SELECT {', '.join(column.name for column in ERRORS.columns)} FROM state.errors"
    ),
    "lineage.waiting": Ledger("document_id", WAITING_ROWS),
    "lineage.purged": Ledger("document_id", "FROM state.purged"),
    "lineage.runs": Ledger(
        "run_id, dataset", f"SELECT {', '.join(column.name for column in RUNS.columns)} FROM state.runs"
    ),
    "lineage.embedding_health": Ledger(
        "run_id",
        f"SELECT {', '.join(column.name for column in EMBEDDING_HEALTH.columns)} FROM state.embedding_health",
    ),
    "lineage.measures": Ledger(
        "number, measure",
        f"SELECT {', '.join(column.name for column in MEASURES.columns)} FROM state.measures",
    ),
    "lineage.files": Ledger(
        "source, path", "SELECT source, path, uri, file_hash, size, mtime_ns FROM state.files"
    ),
    "lineage.datasets": Ledger(
        "name", "SELECT name, recipe, version, rows, state_hash, run_id FROM state.datasets"
    ),
    "lineage.recipes": Ledger("dataset, recipe", "SELECT recipe, dataset, explained FROM state.recipes"),
}
# The published views and macros, so that they are made anew only where they differ: each would be bound again.
DEFINITIONS = Ledger("name", "FROM wanted_definitions")
_DEFINITIONS_SCHEMA = pa.schema(
    [("position", pa.int32()), ("name", pa.string()), ("kind", pa.string()), ("query", pa.string())]
)
NUMBERS = Kept(
    "search.numbers", ("number",), (("chunk_id", "UUID"), ("number", "UINTEGER"), ("words", "INTEGER"))
)


def _fill(run: Run, connection: duckdb.DuckDBPyConnection, index: str, fingerprint: str) -> None:
    """Make the attached database `next` equal to the state, with a text index of the recipe `index`.

    What the publication changes goes to the history; `fingerprint` tells what is published from other publications.
    """
    connection.execute("CREATE SCHEMA IF NOT EXISTS next.lineage")
    embedded = embedded_dataset(run.setup)
    published = (*TABLES, Published(embedded, "state.embedded", _embedded_bodies, compression="uncompressed"))
    connection.execute(INDEX_TABLES)
    load_rows(connection, "wanted_definitions", _DEFINITIONS_SCHEMA.empty_table())
    ledgers = {
        **LEDGERS,
        "lineage.rules": Ledger("", rules_query(run.setup.rules)),
        "lineage.definitions": DEFINITIONS,
    }
    columns = _create(
        connection, [each.dataset for each in published], ledgers, run.setup.embedder.dimensions
    )
    kept_datasets = [
        Kept(each.dataset.base, (each.dataset.key,), tuple(columns[each.dataset.base])) for each in published
    ]
    kept_ledgers = {name: ledger.kept(name, columns) for name, ledger in ledgers.items()}
    tables = [*kept_datasets, NUMBERS, *kept_ledgers.values()]

    history = History(connection, run.config.history, columns)
    history.fit(tables)
    for each, kept in zip(published, kept_datasets, strict=True):
        _update(run, connection, each, kept, history)
    _index(connection, index, history)
    _define(run, connection, embedded, tables if history.is_kept else [])
    changed = _differing(connection, ledgers)
    for name in changed:
        _replace(connection, kept_ledgers[name], ledgers[name].query, history)
    if "lineage.definitions" in changed or _lacks_a_view(connection):
        _make_definitions(connection)
    update_vector_index(connection, run.config.search, run.warehouse.path, embedded)
    history.close(run.run_id, fingerprint)


def _index(connection: duckdb.DuckDBPyConnection, index: str, history: History) -> None:
    """Bring the text index up to date, with the chunks that went and came by their numbers."""
    if not is_made_by(connection, index):
        # All postings are made anew, and those that were are not kept.
        history.begin(NUMBERS)
    connection.execute(
        """CREATE OR REPLACE TEMP TABLE going AS
        SELECT number FROM search.numbers ANTI JOIN main.chunked USING (chunk_id)"""
    )
    history.keep(NUMBERS, "going")
    first = fetch_value(connection, "SELECT coalesce(max(next_number), 0) FROM search.index")
    update_index(connection, index, kept=f"({NUMBERS.gone()})" if history.is_kept else None)
    history.came(NUMBERS, f"(SELECT number FROM search.numbers WHERE number >= {first})")
    history.note()


def _define(
    run: Run, connection: duckdb.DuckDBPyConnection, embedded: Dataset, remembered: Sequence[Kept]
) -> None:
    """Make the table wanted_definitions: views, and macros for the tables with a history, in the order to make them."""
    views = {
        **({embedded.stored: generated_view(embedded)} if embedded.base != embedded.stored else {}),
        **VIEWS,
        "lineage.flags": flags_view(run.setup.rules),
        "lineage.contamination_report": contamination_view(run.setup),
        **VIEWS_OF_FLAGS,
        **corpus_views(run.warehouse.path),
    }
    listed = [(name, "view", query) for name, query in views.items()]
    if remembered:
        listed += [(name, "macro", query) for name, query in macros(remembered, views).items()]
    rows = [
        {"position": position, "name": name, "kind": kind, "query": query}
        for position, (name, kind, query) in enumerate(listed)
    ]
    load_rows(connection, "wanted_definitions", pa.Table.from_pylist(rows, _DEFINITIONS_SCHEMA))


def _lacks_a_view(connection: duckdb.DuckDBPyConnection) -> bool:
    """Tell whether a published view is not there: it went with what it read."""
    return bool(
        fetch_value(
            connection,
            """SELECT count(*) FROM lineage.definitions WHERE kind = 'view' AND name NOT IN (
                SELECT concat(schema_name, '.', view_name) FROM duckdb_views() WHERE database_name = 'next')""",
        )
    )


def _make_definitions(connection: duckdb.DuckDBPyConnection) -> None:
    listed = connection.execute(
        "SELECT name, kind, query FROM lineage.definitions ORDER BY position"
    ).fetchall()
    if any(kind == "macro" for _name, kind, _query in listed):
        number_macro(connection)
    for name, kind, query in listed:
        if kind == "macro":
            connection.execute(f"CREATE OR REPLACE MACRO next.{name}(run) AS TABLE {query}")
            continue
        connection.execute(f"CREATE SCHEMA IF NOT EXISTS next.{name.split('.')[0]}")
        connection.execute(f"CREATE OR REPLACE VIEW next.{name} AS {query}")


def _fit_vectors(
    connection: duckdb.DuckDBPyConnection, dataset: Dataset, dimensions: int, columns: Columns
) -> None:
    """Drop the vectors of another number of dimensions, or stored in another way: the columns' types hold both."""
    for name in ("main.embedded", "main.embedded_rows"):
        if name not in columns or (
            name == dataset.base and columns[name] == _stored_columns(dataset, dimensions)
        ):
            continue
        # What reads them as a view goes with them; a table of that name may take its place.
        if name != "main.embedded":
            connection.execute("DROP VIEW IF EXISTS next.main.embedded")
        connection.execute(f"DROP TABLE next.{name}")
        del columns[name]


def _create(
    connection: duckdb.DuckDBPyConnection,
    datasets: Sequence[Dataset],
    ledgers: Mapping[str, Ledger],
    dimensions: int,
) -> Columns:
    """Create the tables that are not there, and the last, of vectors, if it is otherwise; returns all columns."""
    columns = table_columns(connection)
    _fit_vectors(connection, datasets[-1], dimensions, columns)
    missing = {
        **{each.base: _listed(_stored_columns(each, dimensions)) for each in datasets},
        **{name: f"AS {ledger.query} LIMIT 0" for name, ledger in ledgers.items()},
    }
    for name in missing.keys() - columns.keys():
        connection.execute(f"CREATE TABLE next.{name} {missing[name]}")
    return columns if missing.keys() <= columns.keys() else table_columns(connection)


def _listed(columns: list[tuple[str, str]]) -> str:
    return f"({', '.join(f'{name} {kind}' for name, kind in columns)})"


def _stored_columns(dataset: Dataset, dimensions: int) -> list[tuple[str, str]]:
    """Return name and type of the columns of a dataset's base table; its vectors have so many dimensions."""
    columns = [
        (
            column.name,
            column.type.replace("[]", f"[{dimensions}]") if column.type in VECTOR_TYPES else column.type,
        )
        for column in dataset.columns
        if not column.generated
    ]
    return [*columns, ("row_hash", "UBIGINT")]


def _update(
    run: Run, connection: duckdb.DuckDBPyConnection, published: Published, kept: Kept, history: History
) -> None:
    dataset, key = published.dataset, published.dataset.key
    table = f"next.{dataset.base}"
    connection.execute(
        f"""CREATE OR REPLACE TEMP TABLE stale AS SELECT {key} FROM {table}
        ANTI JOIN {published.state} AS now USING ({key}, row_hash)"""
    )
    if fetch_value(connection, "SELECT count(*) FROM stale"):
        history.keep(kept, "stale")
        connection.execute(f"DELETE FROM {table} WHERE {key} IN (SELECT {key} FROM stale)")
    connection.execute(
        f"""CREATE OR REPLACE TEMP TABLE fresh AS
        SELECT * FROM {published.state} ANTI JOIN {table} USING ({key}, row_hash)"""
    )
    wanted = fetch_value(connection, "SELECT count(*) FROM fresh")
    if not wanted:
        return
    rows = published.bodies(run)
    columns = ", ".join(
        f"{'body' if column.body else 'fresh'}.{column.name}"
        for column in dataset.columns
        if not column.generated
    )
    connection.execute(f"SET force_compression = '{published.compression}'")
    with joined_as_written(connection):
        connection.execute(f"INSERT INTO {table} SELECT {columns}, fresh.row_hash FROM {rows}")
    connection.execute("SET force_compression = 'auto'")
    have = fetch_value(connection, f"SELECT count(*) FROM {table} SEMI JOIN fresh USING ({key})")
    if have != wanted:
        raise LostError(
            f"publication of {dataset.qualified}: {wanted} rows wanted, {have} bodies found in the memo;"
            " nothing was published (see docs/operations.md, 'The memo lost something')"
        )
    history.came(kept, "fresh")
    history.note()


def _differing(connection: duckdb.DuckDBPyConnection, ledgers: Mapping[str, Ledger]) -> list[str]:
    """Return the names of those that are not what their queries say, by the sum of their rows' hashes."""
    rows = "SELECT {'rows': count(*), 'hashes': sum(hash(*COLUMNS(*))::HUGEINT)} FROM"
    parts = [
        f"SELECT '{name}' WHERE ({rows} ({ledger.query})) IS DISTINCT FROM ({rows} next.{name})"
        for name, ledger in ledgers.items()
    ]
    return [name for (name,) in connection.execute(" UNION ALL ".join(parts)).fetchall()]


def _replace(connection: duckdb.DuckDBPyConnection, kept: Kept, query: str, history: History) -> None:
    """Make a table equal to a query, touching only rows that differ."""
    table = f"next.{kept.name}"
    coming = f"coming_{kept.name.split('.')[1]}"
    key = ", ".join(map(quoted, kept.key))
    same = f"{kept.same('a', 'b')} AND a.content = b.content"
    connection.execute(
        f"""CREATE OR REPLACE TEMP TABLE wanted AS
        SELECT *, hash(*COLUMNS(*)) AS content FROM {kept.keyed(f"({query})")}"""
    )
    connection.execute(
        f"""CREATE OR REPLACE TEMP TABLE standing AS
        SELECT place, {key}, hash(*COLUMNS(* EXCLUDE (place))) AS content
        FROM {kept.keyed(f"(SELECT rowid AS place, * FROM {table})")}"""
    )
    connection.execute(
        f"CREATE OR REPLACE TEMP TABLE going AS FROM standing AS a ANTI JOIN wanted AS b ON {same}"
    )
    connection.execute(
        f"CREATE OR REPLACE TEMP TABLE {coming} AS FROM wanted AS a ANTI JOIN standing AS b ON {same}"
    )
    if fetch_value(connection, "SELECT count(*) FROM going"):
        history.keep(kept, "going")
        connection.execute(f"DELETE FROM {table} WHERE rowid IN (SELECT place FROM going)")
    columns = f"* EXCLUDE (content{f', {COPY}' if COPY in kept.key else ''})"
    connection.execute(f"INSERT INTO {table} SELECT {columns} FROM {coming}")
    history.came(kept, coming)
