"""Whether two published files hold the same corpus."""

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
    "lineage.files": ["source", "path", "uri", "file_hash", "size"],
}


def compare_files(corpus: Path, rebuilt: Path) -> list[dict[str, Any]]:
    """Return for each table how many rows the one has and the other hasn't, and an example.

    Every column counts but the times and run ids of history: `missing` are rows of `corpus` that `rebuilt`
    lacks, `extra` the reverse.
    """
    with duckdb.connect() as connection:
        for name, path in (("corpus_file", corpus), ("rebuilt_file", rebuilt)):
            connection.execute(f"ATTACH '{str(path).replace(chr(39), chr(39) * 2)}' AS {name} (READ_ONLY)")
        return [_compare(connection, table, columns) for table, columns in TABLES.items()]


def _compare(connection: duckdb.DuckDBPyConnection, table: str, columns: list[str]) -> dict[str, Any]:
    listed = ", ".join(columns)
    sides = [f"(SELECT {listed} FROM {name}.{table})" for name in ("corpus_file", "rebuilt_file")]
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
