"""Whether two published files hold the same corpus."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import duckdb

from stemma.datasets import (
    CHUNKED,
    CHUNKS,
    CLEANED,
    CONTAMINATION,
    CUTS,
    DEDUPLICATED,
    DUPLICATES,
    EMBEDDED,
    PASSAGES,
    POSTINGS,
    RAW,
    TRACE,
)

# When something was read or decided is history, not content: a rebuild has another.
_HISTORY = ("ingested_at", "run_id")
TABLES = {
    **{
        dataset.stored: [column.name for column in dataset.columns if column.name not in _HISTORY]
        for dataset in (
            RAW,
            CLEANED,
            DEDUPLICATED,
            CHUNKED,
            EMBEDDED,
            CHUNKS,
            POSTINGS,
            DUPLICATES,
            CONTAMINATION,
            PASSAGES,
            CUTS,
            TRACE,
        )
    },
    "lineage.decisions": ["document_id", "uri", "stage", "rule", "score", "threshold", "kept_document_id"],
    "lineage.flags": ["document_id", "uri", "rule", "score", "threshold"],
    "lineage.rules": ["rule", "action", "condition", "score", "threshold"],
    "lineage.errors": ["document_id", "source", "uri", "record", "stage", "error", "detail"],
    "lineage.members": [
        "document_id",
        "cluster_id",
        "cluster_size",
        "kept",
        "kept_document_id",
        "similarity",
        "method",
        "threshold",
    ],
    "lineage.purged": ["document_id", "content_hash", "purged_at", "reason"],
    "lineage.files": ["source", "path", "uri", "file_hash", "size"],
}


# What of a sample's documents does not depend on other documents: those that both sides keep whole.
_KEPT = """document_id IN (SELECT document_id FROM corpus_file.main.chunked)
    AND document_id IN (SELECT document_id FROM rebuilt_file.main.chunked)
    AND document_id NOT IN (SELECT document_id FROM corpus_file.lineage.cuts)"""
_SAMPLED = "document_id IN (SELECT document_id FROM rebuilt_file.main.raw)"
SAMPLED_TABLES = {
    RAW.stored: _SAMPLED,
    CLEANED.stored: _SAMPLED,
    CHUNKED.stored: _KEPT,
    EMBEDDED.stored: _KEPT,
}


def compare_files(corpus: Path, rebuilt: Path) -> list[dict[str, Any]]:
    """Return for each table how many rows the one has and the other hasn't, and an example.

    Every column counts but the times and run ids of history: `missing` are rows of `corpus` that `rebuilt`
    lacks, `extra` the reverse.
    """
    with _attached(corpus, rebuilt) as connection:
        return [_compare(connection, table, "true") for table in TABLES]


def compare_sample(corpus: Path, rebuilt: Path) -> list[dict[str, Any]]:
    """Compare, as `compare_files` does, what a rebuild of some of the files must have in common with the corpus."""
    with _attached(corpus, rebuilt) as connection:
        return [_compare(connection, table, condition) for table, condition in SAMPLED_TABLES.items()]


@contextmanager
def _attached(corpus: Path, rebuilt: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect() as connection:
        for name, path in (("corpus_file", corpus), ("rebuilt_file", rebuilt)):
            connection.execute(f"ATTACH '{str(path).replace(chr(39), chr(39) * 2)}' AS {name} (READ_ONLY)")
        yield connection


def _compare(connection: duckdb.DuckDBPyConnection, table: str, condition: str) -> dict[str, Any]:
    listed = ", ".join(TABLES[table])
    sides = [
        f"(SELECT {listed} FROM {name}.{table} WHERE {condition})" for name in ("corpus_file", "rebuilt_file")
    ]
    difference = f"(FROM {sides[0]} EXCEPT ALL FROM {sides[1]})"
    counts = connection.execute(
        f"SELECT (SELECT count(*) FROM {sides[0]}), (SELECT count(*) FROM {sides[1]}),"
        f" (SELECT count(*) FROM {difference})"
    ).fetchone()
    assert counts is not None
    rows, rebuilt_rows, missing = counts
    extra = rebuilt_rows - (rows - missing)
    example = None
    if missing or extra:
        example = connection.execute(
            f"SELECT left(d::VARCHAR, 200) FROM ({difference}"
            f" UNION ALL (FROM {sides[1]} EXCEPT ALL FROM {sides[0]})) AS d LIMIT 1"
        ).fetchone()
    return {
        "table": table.replace("main.", "corpus."),
        "rows": rows,
        "missing": missing,
        "extra": extra,
        "example": example[0] if example else None,
    }
