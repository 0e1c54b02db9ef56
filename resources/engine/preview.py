"""A few rows of a dataset to look at, from the state (without bodies)."""

from typing import Any

from stemma.resources.engine.run import Run

PREVIEW_ROWS = 8

QUERIES = {
    "raw": "SELECT source, path, record, media_type, document_date, size_bytes FROM state.raw",
    "cleaned": "SELECT path, c.title, language, round(language_score, 2) AS language_score, words,"
    " list_extract(verdicts, 1).rule AS dropped_by"
    " FROM state.cleaned AS c JOIN state.raw USING (document_id)",
    "deduplicated": "SELECT path, cluster_size, method, round(similarity, 3) AS similarity,"
    " kept FROM state.deduplicated JOIN state.raw USING (document_id)",
    "chunked": "SELECT path, ordinal, char_start, char_end, tokens, section"
    " FROM state.chunked JOIN state.raw USING (document_id)",
    "embedded": "SELECT chunk_id, path, model FROM state.embedded JOIN state.raw USING (document_id)",
}


def preview(run: Run, dataset: str) -> list[dict[str, Any]]:
    """Return up to PREVIEW_ROWS rows, the same ones for the same state."""
    with run.warehouse.session() as connection:
        cursor = connection.execute(f"SELECT * FROM ({QUERIES[dataset]}) ORDER BY ALL LIMIT {PREVIEW_ROWS}")
        names = [column[0] for column in cursor.description]
        return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]
