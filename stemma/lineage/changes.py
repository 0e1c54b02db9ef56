"""What changed between two publications: the databases `before` and `after` of one connection."""

from typing import Any

import duckdb

from stemma.datasets import CHUNKED, CLEANED, EMBEDDED, RAW

BEFORE, AFTER = "before", "after"

# Key and hash of each row of a dataset; vectors may be stored in another table than rows are read from.
_KEPT = """SELECT document_id, hash(*COLUMNS(d.* EXCLUDE (document_id, text)), x.cuts) AS row_hash
    FROM {side}.main.deduplicated AS d LEFT JOIN {side}.lineage.cuts AS x USING (document_id)"""
_CHANGED = (
    "count(*) FILTER (b.key IS NOT NULL AND a.key IS NOT NULL AND b.row_hash IS DISTINCT FROM a.row_hash)"
)

# A document, by what is known of it at one time.
_STATES = """SELECT r.document_id, r.source, r.uri, r.record, r.content_hash, c.text_hash,
        CASE WHEN e.document_id IS NOT NULL THEN 'error' WHEN d.document_id IS NOT NULL THEN 'dropped' ELSE 'kept' END
            AS fate,
        coalesce(e.stage, d.stage) AS stage, coalesce(e.reason, d.rule) AS reason, d.score, d.threshold,
        d.kept_document_id
    FROM {side}.main.raw AS r LEFT JOIN {side}.main.cleaned AS c USING (document_id)
    LEFT JOIN (SELECT document_id, min(stage) AS stage, arg_min(concat(error, ': ', detail), stage) AS reason
        FROM {side}.lineage.errors GROUP BY document_id) AS e ON e.document_id = r.document_id
    LEFT JOIN (SELECT d.document_id, d.stage, d.rule, d.score, d.threshold, d.kept_document_id
        FROM {side}.lineage.decisions AS d LEFT JOIN {side}.lineage.rules AS p ON p.rule = d.rule AND p.action = 'drop'
        QUALIFY row_number() OVER (PARTITION BY d.document_id ORDER BY p.position, d.rule) = 1) AS d
        ON d.document_id = r.document_id"""
_DOCUMENTS = f"""CREATE OR REPLACE TEMP TABLE changed_documents AS
    SELECT coalesce(a.document_id, b.document_id) AS document_id, coalesce(a.source, b.source) AS source,
        coalesce(a.uri, b.uri) AS uri, coalesce(a.record, b.record) AS record,
        CASE WHEN b.document_id IS NULL THEN 'added' WHEN a.document_id IS NULL THEN 'removed'
            WHEN a.content_hash <> b.content_hash THEN 'content'
            WHEN a.text_hash <> b.text_hash THEN 'text' ELSE 'decision' END AS change,
        b.fate AS fate_before, b.reason AS reason_before, a.fate AS fate_after, a.stage AS stage_after,
        a.reason AS reason_after, a.score, a.threshold, k.uri AS kept_uri
    FROM ({_STATES.format(side=BEFORE)}) AS b FULL JOIN ({_STATES.format(side=AFTER)}) AS a USING (document_id)
    LEFT JOIN {AFTER}.main.raw AS k ON k.document_id = a.kept_document_id
    WHERE (b.content_hash, b.text_hash, b.fate, b.reason) IS DISTINCT FROM
        (a.content_hash, a.text_hash, a.fate, a.reason)"""
DOCUMENT_COLUMNS = (
    *("document_id", "source", "uri", "record", "change", "fate_before", "reason_before", "fate_after"),
    *("stage_after", "reason_after", "score", "threshold", "kept_uri"),
)


def dataset_changes(connection: duckdb.DuckDBPyConnection) -> dict[str, dict[str, int] | str]:
    """Return for each dataset its rows before and after, and how many were added, changed and removed.

    In their place stands the reason where the history does not know the rows of then.
    """
    found: dict[str, dict[str, int] | str] = {}
    for dataset in ("raw", "cleaned", "deduplicated", "chunked", "embedded"):
        try:
            sides = [_rows(connection, side, dataset) for side in (BEFORE, AFTER)]
            row = connection.execute(
                f"""SELECT count(b.key), count(a.key), count(*) FILTER (b.key IS NULL), {_CHANGED},
                    count(*) FILTER (a.key IS NULL)
                FROM ({sides[0]}) AS b FULL JOIN ({sides[1]}) AS a ON b.key = a.key"""
            ).fetchone()
        except duckdb.InvalidInputException as error:
            found[dataset] = str(error).removeprefix("Invalid Input Error: ")
            continue
        names = ("before", "after", "added", "changed", "removed")
        found[dataset] = dict(zip(names, row or (), strict=True))
    return found


def _rows(connection: duckdb.DuckDBPyConnection, side: str, dataset: str) -> str:
    """Return a query (key, row_hash) of a dataset's rows."""
    if dataset == "deduplicated":
        return f"SELECT document_id AS key, row_hash FROM ({_KEPT.format(side=side)})"
    key = {"raw": RAW, "cleaned": CLEANED, "chunked": CHUNKED, "embedded": EMBEDDED}[dataset].key
    row = connection.execute(
        """SELECT view_name FROM duckdb_views() WHERE database_name = ? AND schema_name = 'main'
        AND view_name IN (?, ?) ORDER BY length(view_name) DESC""",
        [side, dataset, f"{dataset}_rows"],
    ).fetchone()
    assert row is not None
    return f"SELECT {key} AS key, row_hash FROM {side}.main.{row[0]}"


def document_changes(connection: duckdb.DuckDBPyConnection) -> None:
    """Make the temporary table changed_documents: documents that came, went, or are otherwise, and what became of them.

    Its columns are DOCUMENT_COLUMNS. `change` is added, removed, content, text (of the same content), or decision (of
    the same text). A fate is kept, dropped or error, with the rule or the error as its reason; null where there is no
    such document.
    """
    connection.execute(_DOCUMENTS)


def decision_changes(connection: duckdb.DuckDBPyConnection) -> list[dict[str, Any]]:
    """Count changed_documents by what became of them: newly dropped or in error, by rule, and back again."""
    cursor = connection.execute(
        """SELECT CASE WHEN fate_after = 'kept' THEN 'back' ELSE fate_after END AS what,
            CASE WHEN fate_after = 'kept' THEN NULL ELSE stage_after END AS stage,
            CASE WHEN fate_after = 'dropped' THEN reason_after WHEN fate_after = 'error' THEN
                split_part(reason_after, ':', 1) ELSE reason_before END AS reason, count(*) AS documents
        FROM changed_documents
        WHERE fate_after IN ('dropped', 'error')
                AND (fate_before IS DISTINCT FROM fate_after OR reason_before IS DISTINCT FROM reason_after)
            OR fate_after = 'kept' AND fate_before IN ('dropped', 'error')
        GROUP BY ALL ORDER BY what DESC, documents DESC, reason"""
    )
    names = [column[0] for column in cursor.description]
    return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]
