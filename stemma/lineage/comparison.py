"""Whether two corpora are the same, row for row, and where what differs comes from."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import duckdb

from stemma.datasets import (
    CHUNKED,
    CHUNKS,
    CLEANED,
    CONTAMINATION,
    CUTS,
    DECISIONS,
    DEDUPLICATED,
    DUPLICATES,
    EMBEDDED,
    ERRORS,
    FAMILIES,
    FLAGS,
    PASSAGES,
    POSTINGS,
    PURGED,
    RAW,
    RULES,
    TRACE,
    WAITING,
    Dataset,
)

EXAMPLES = 5
# Beyond this what is compared is spilled.
MEMORY = "2GB"
# Of a value that differs: so many characters, from a little before the first that does.
SHOWN = 100
BEFORE = 30

# When something was read or decided is history, not content: a rebuild has another.
_HISTORY = ("ingested_at", "run_id", "superseded", "changed_at", "position")


@dataclass(frozen=True)
class Compared:
    """A table that is compared.

    Attributes:
        key: the columns that tell its rows apart; none where nothing does, and a row is told by all of them.
        columns: those that are compared.
        condition: which rows are, as SQL.
    """

    name: str
    key: tuple[str, ...]
    columns: tuple[str, ...]
    condition: str = "true"


def _published(dataset: Dataset, *key: str) -> Compared:
    columns = tuple(column.name for column in dataset.columns if column.name not in _HISTORY)
    return Compared(dataset.stored, key or tuple(dataset.key.split(", ")), columns)


_VIEWS = "kind = 'view' AND name NOT LIKE 'corpus.%'"

# In the order in which they are made: a document that differs in two of them does so because of the first.
PUBLISHED = (
    Compared("lineage.files", ("source", "path"), ("source", "path", "uri", "file_hash", "size")),
    _published(PURGED, "document_id", "content_hash"),
    _published(RAW),
    replace(_published(ERRORS), key=()),
    _published(RULES, "rule", "action"),
    _published(CLEANED),
    _published(FLAGS, "document_id", "rule"),
    _published(CONTAMINATION, "document_id", "evaluation_set", "item"),
    Compared(
        "lineage.members",
        ("document_id",),
        (
            *("document_id", "cluster_id", "cluster_size", "kept", "kept_document_id", "similarity"),
            *("method", "threshold"),
        ),
    ),
    _published(DUPLICATES),
    _published(FAMILIES),
    _published(DECISIONS, "document_id", "stage", "rule"),
    _published(PASSAGES, "document_id", "char_start", "char_end", "source_document_id", "source_char_start"),
    _published(CUTS),
    _published(DEDUPLICATED),
    _published(CHUNKED),
    _published(EMBEDDED),
    _published(CHUNKS),
    _published(POSTINGS, "word", "chunk_id"),
    _published(TRACE),
    _published(WAITING),
    Compared("lineage.datasets", ("name",), ("name", "recipe", "rows", "state_hash")),
    # All other views are made of tables above; that they are made of them by the same query is enough.
    Compared(
        "lineage.definitions",
        ("name",),
        ("name", "query"),
        _VIEWS,
    ),
)
TABLES = {table.name: list(table.columns) for table in PUBLISHED}

_SAMPLED = "document_id IN (SELECT document_id FROM rebuilt_file.main.raw)"
_SAMPLED_FILES = (
    "uri IN (SELECT uri FROM rebuilt_file.lineage.files UNION SELECT uri FROM rebuilt_file.lineage.errors)"
)
# What of a sample's documents does not depend on other documents: those that both sides keep whole.
_KEPT = "document_id IN ({})".format(
    " INTERSECT ".join(
        f"(SELECT document_id FROM {side}.lineage.members WHERE kept"
        f" EXCEPT SELECT document_id FROM {side}.lineage.cuts)"
        for side in ("corpus_file", "rebuilt_file")
    )
)
_CHUNKS_KEPT = (
    f"chunk_id IN (SELECT chunk_id FROM corpus_file.main.chunked WHERE {_KEPT}"
    f" UNION SELECT chunk_id FROM rebuilt_file.main.chunked WHERE {_KEPT})"
)
_CONDITIONS = {
    "lineage.files": "(source, path) IN (SELECT (source, path) FROM rebuilt_file.lineage.files)",
    RAW.stored: _SAMPLED,
    ERRORS.stored: f"{_SAMPLED_FILES} AND (stage IN ('raw', 'cleaned') OR {_KEPT})",
    RULES.stored: "true",
    CLEANED.stored: _SAMPLED,
    FLAGS.stored: _SAMPLED,
    CONTAMINATION.stored: _SAMPLED,
    DECISIONS.stored: f"{_SAMPLED} AND stage = 'cleaned'",
    CHUNKED.stored: _KEPT,
    EMBEDDED.stored: _KEPT,
    CHUNKS.stored: _KEPT,
    POSTINGS.stored: _CHUNKS_KEPT,
    TRACE.stored: _KEPT,
    "lineage.definitions": _VIEWS,
}
SAMPLED = tuple(
    replace(table, condition=_CONDITIONS[table.name]) for table in PUBLISHED if table.name in _CONDITIONS
)


# What the engine keeps for itself, and goes on from: the rows of each dataset, and the index of duplicates. A text
# may have come from another content, which is then named as its input.
STATE = tuple(
    Compared(name, key, columns)
    for name, key, columns in (
        ("raw", ("document_id",), ("document_id", "path", "input_hash", "row_hash")),
        ("cleaned", ("document_id",), ("document_id", "input_hash", "verdicts", "row_hash")),
        (
            "deduplicated",
            ("document_id",),
            ("document_id", "cluster_id", "kept", "kept_document_id", "text_hash", "row_hash"),
        ),
        ("chunked", ("chunk_id",), ("chunk_id", "document_id", "ordinal", "input_hash", "row_hash")),
        ("embedded", ("chunk_id",), ("chunk_id", "document_id", "input_hash", "row_hash")),
        ("errors", (), ("document_id", "source", "path", "uri", "record", "stage", "error", "detail")),
        ("dedup_index", ("name",), ("name", "recipe")),
        (
            "dedup_documents",
            ("document_id",),
            (
                *("document_id", "node", "text_hash", "body_hash", "source", "category", "document_date"),
                *("length", "quality", "row_hash"),
            ),
        ),
        ("dedup_bands", (), ("layer", "bucket", "node", "rank", "asks")),
        ("dedup_pairs", ("layer", "a", "b"), ("layer", "a", "b", "score", "buckets")),
        ("dedup_pending", ("document_id",), ("document_id",)),
        (
            "passages",
            ("document_id", "char_start", "char_end", "source_document_id", "source_char_start"),
            (
                *("document_id", "char_start", "char_end", "source_document_id", "source_char_start"),
                *("source_char_end", "words"),
            ),
        ),
    )
)


@dataclass(frozen=True)
class Difference:
    """A row that differs, with its way back.

    Attributes:
        kind: `changed`, `only in the corpus` or `only in the rebuild`.
        key: what tells the row, by column.
        columns: for each column that differs, what the corpus and what the rebuild has, from where they differ; of a
            row that only one has, nothing.
        document_id, source, uri, record, place: the document that it comes from, its file, its place there.
        first: the first table, in the order in which they are made, in which that document differs.
    """

    table: str
    kind: str
    key: Mapping[str, str | None]
    columns: Mapping[str, tuple[str | None, str | None]]
    document_id: str | None = None
    source: str | None = None
    uri: str | None = None
    record: str | None = None
    place: str | None = None
    first: str | None = None


@dataclass(frozen=True)
class Comparison:
    """What became of a table: its rows in the corpus, those only it has, those only the rebuild has, and examples."""

    table: str
    rows: int
    missing: int
    extra: int
    examples: tuple[Difference, ...] = field(default=())

    @property
    def differs(self) -> bool:
        """Whether any row does."""
        return bool(self.missing or self.extra)


def compare_files(corpus: Path, rebuilt: Path, spill: Path | None = None) -> list[Comparison]:
    """Compare two published files, table by table, in the order in which these are made.

    Every column counts but the times and run ids of history. Rows are told from others by a hash of 64 bits.
    What does not fit into memory is spilled into the folder `spill`.
    """
    return _compare_files(corpus, rebuilt, PUBLISHED, spill)


def compare_sample(corpus: Path, rebuilt: Path, spill: Path | None = None) -> list[Comparison]:
    """Compare, as `compare_files` does, what a rebuild of some of the files must have in common with the corpus.

    That is what depends on one document alone. Who is kept of a family depends on its other members, which may not
    be in the sample: families are not compared, and of chunks and all below only those of documents that both keep.
    """
    return _compare_files(corpus, rebuilt, SAMPLED, spill)


def _compare_files(
    corpus: Path, rebuilt: Path, tables: Sequence[Compared], spill: Path | None
) -> list[Comparison]:
    with _attached(corpus, rebuilt, spill) as connection:
        compared = compare_databases(connection, "corpus_file", "rebuilt_file", tables)
        return with_lineage(connection, compared)


@contextmanager
def _attached(corpus: Path, rebuilt: Path, spill: Path | None) -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect() as connection:
        if spill:
            connection.execute(f"SET memory_limit = '{MEMORY}'")
            connection.execute("SET temp_directory = ?", [str(spill)])
        for name, path in (("corpus_file", corpus), ("rebuilt_file", rebuilt)):
            connection.execute(f"ATTACH '{str(path).replace(chr(39), chr(39) * 2)}' AS {name} (READ_ONLY)")
        yield connection


def compare_databases(
    connection: duckdb.DuckDBPyConnection, corpus: str, rebuilt: str, tables: Iterable[Compared]
) -> list[Comparison]:
    """Compare tables of two attached databases; the examples lack their lineage."""
    return [_compare(connection, corpus, rebuilt, table) for table in tables]


def _compare(connection: duckdb.DuckDBPyConnection, corpus: str, rebuilt: str, table: Compared) -> Comparison:
    key = ", ".join(table.key or table.columns)
    hashed = f"{_content(connection, corpus, table)} AS row_content"
    ours, others = (
        f"SELECT {key}, {hashed} FROM {side}.{table.name} WHERE {table.condition}"
        for side in (corpus, rebuilt)
    )
    connection.execute(
        f"""CREATE OR REPLACE TEMP TABLE differing AS
        SELECT true AS is_ours, * FROM ({ours} EXCEPT ALL {others})
        UNION ALL SELECT false, * FROM ({others} EXCEPT ALL {ours})"""
    )
    row = connection.execute(
        f"""SELECT (SELECT count(*) FROM {corpus}.{table.name} WHERE {table.condition}),
            count(*) FILTER (is_ours), count(*) FILTER (NOT is_ours) FROM differing"""
    ).fetchone()
    assert row is not None
    rows, missing, extra = row
    examples = _examples(connection, corpus, rebuilt, table) if missing or extra else []
    return Comparison(_shown_name(table.name), rows, missing, extra, tuple(examples))


def _shown_name(table: str) -> str:
    return table.replace("main.", "corpus.")


def _content(connection: duckdb.DuckDBPyConnection, database: str, table: Compared) -> str:
    """Return the SQL of a hash of a row's columns.

    To DuckDB's hash an empty list is NULL, so it gets what holds lists as text, vectors aside, and which are NULL.
    """
    described = connection.execute(f"DESCRIBE {database}.{table.name}").fetchall()
    nested = {name for name, kind, *_ in described if re.search(r"\[\]|\(.*\)", kind) and "FLOAT" not in kind}
    values = [f"{name}::VARCHAR" if name in nested else name for name in table.columns]
    nulls = [f"{name} IS NULL" for name in table.columns]
    return f"hash({', '.join(values)}, [{', '.join(nulls)}])"


def _examples(
    connection: duckdb.DuckDBPyConnection, corpus: str, rebuilt: str, table: Compared
) -> Iterator[Difference]:
    """Yield the first rows that differ, in the order of their keys: those of both sides together."""
    key = table.key or table.columns
    keys = connection.execute(
        f"SELECT DISTINCT {', '.join(key)} FROM differing ORDER BY ALL LIMIT {EXAMPLES}"
    ).fetchall()
    for values in keys:
        named = {name: None if value is None else str(value) for name, value in zip(key, values, strict=True)}
        ours, others = (_rows(connection, side, table, key, values) for side in (corpus, rebuilt))
        shown = {name: _excerpt(value, 0) for name, value in named.items()}
        row = (ours or others or [{}])[0]
        # A family is named after one of its documents.
        told = {"document_id": row.get("document_id") or row.get("cluster_id")}
        if len(ours) == len(others) == 1:
            yield Difference(_shown_name(table.name), "changed", shown, _changes(ours[0], others[0]), **told)
        else:
            kind = "only in the corpus" if len(ours) > len(others) else "only in the rebuild"
            yield Difference(_shown_name(table.name), kind, shown, {}, **told)


def _rows(
    connection: duckdb.DuckDBPyConnection,
    side: str,
    table: Compared,
    key: Sequence[str],
    values: Sequence[Any],
) -> list[dict[str, str | None]]:
    same = " AND ".join(f"{name} IS NOT DISTINCT FROM ?" for name in key)
    columns = ", ".join(f"{name}::VARCHAR AS {name}" for name in table.columns)
    found = connection.execute(
        f"SELECT {columns} FROM {side}.{table.name} WHERE {table.condition} AND {same}", list(values)
    )
    return [dict(zip(table.columns, row, strict=True)) for row in found.fetchall()]


def _changes(
    ours: Mapping[str, str | None], others: Mapping[str, str | None]
) -> dict[str, tuple[str | None, str | None]]:
    changes = {}
    for name, value in ours.items():
        other = others[name]
        if value != other:
            pairs = enumerate(zip(value or "", other or "", strict=False))
            shorter = min(len(value or ""), len(other or ""))
            at = next((place for place, (a, b) in pairs if a != b), shorter)
            changes[name] = (_excerpt(value, at), _excerpt(other, at))
    return changes


def _excerpt(value: str | None, at: int) -> str | None:
    if value is None or len(value) <= SHOWN:
        return value
    start = max(0, at - BEFORE)
    return ("…" if start else "") + value[start : start + SHOWN] + ("…" if start + SHOWN < len(value) else "")


def with_lineage(connection: duckdb.DuckDBPyConnection, compared: list[Comparison]) -> list[Comparison]:
    """Complete the examples by their document, its file and place; `corpus_file` and `rebuilt_file` are attached."""
    first: dict[str, str] = {}
    completed = []
    for comparison in compared:
        examples = [_with_document(connection, each) for each in comparison.examples]
        for example in examples:
            if example.document_id and example.document_id not in first:
                first[example.document_id] = _first_table(connection, example)
        completed.append(
            replace(
                comparison,
                examples=tuple(
                    replace(each, first=first[each.document_id]) if each.document_id else each
                    for each in examples
                ),
            )
        )
    return completed


def _first_table(connection: duckdb.DuckDBPyConnection, example: Difference) -> str:
    """Return the first table, in the order of their making, whose rows of the example's document differ."""
    for table in PUBLISHED:
        if "document_id" in table.columns:
            content = _content(connection, "corpus_file", table)
            sides = [
                f"(SELECT {content} FROM {side}.{table.name} WHERE document_id = $1)"
                for side in ("corpus_file", "rebuilt_file")
            ]
            query = (
                f"(FROM {sides[0]} EXCEPT ALL FROM {sides[1]})"
                f" UNION ALL (FROM {sides[1]} EXCEPT ALL FROM {sides[0]}) LIMIT 1"
            )
            if connection.execute(query, [example.document_id]).fetchall():
                return _shown_name(table.name)
    return example.table


def _with_document(connection: duckdb.DuckDBPyConnection, example: Difference) -> Difference:
    """Add the document, its file and its place; rows of chunks have theirs in the cleaned text."""
    document, place = example.document_id, None
    chunk = example.key.get("chunk_id")
    for side in ("corpus_file", "rebuilt_file"):
        if chunk and place is None:
            found = connection.execute(
                f"SELECT document_id::VARCHAR, char_start, char_end FROM {side}.main.chunked WHERE chunk_id = ?",
                [chunk],
            ).fetchone()
            if found:
                document, place = found[0], f"characters {found[1]}–{found[2]} of the cleaned text"
    if document is None:
        return replace(example, source=example.key.get("source"), uri=example.key.get("uri"))
    for side in ("corpus_file", "rebuilt_file"):
        found = connection.execute(
            f"SELECT source, uri, record, byte_start, byte_end FROM {side}.main.raw WHERE document_id = ?",
            [document],
        ).fetchone()
        if found:
            source, uri, record, start, end = found
            if place is None and start is not None:
                place = f"bytes {start}–{end}"
            return replace(example, document_id=document, source=source, uri=uri, record=record, place=place)
    return replace(example, document_id=document, place=place)
