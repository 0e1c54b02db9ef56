"""The published views: lineage in SQL. Their columns are the contract in stemma/datasets.py."""

from pathlib import Path

from stemma.datasets import DATASETS

# The stretch of a cleaned text that a character stands in.
_LAST_ORIGIN = "list_extract(list_filter(o.origins, lambda x: x.char_start <= {}), -1)"
# Characters of a text are bytes of its file where the lengths say so: UTF-8, UTF-8 behind a byte order mark, or an
# encoding of one byte a character. Fields of records are escaped in their file; there the lengths differ.
_BYTE = """CASE r.byte_end - r.byte_start
            WHEN strlen(r.content) THEN r.byte_start + strlen(left(r.content, {0}))
            WHEN length(r.content) THEN r.byte_start + {0}
            WHEN CASE WHEN r.record IS NULL AND r.encoding = 'utf_8' THEN strlen(r.content) + 3 END
                THEN r.byte_start + 3 + strlen(left(r.content, {0})) END"""

VIEWS = {
    "main.deduplicated": """SELECT m.document_id, m.cluster_id, m.cluster_size, c.title, c.text, c.text_hash,
            c.language, c.words, c.document_date
        FROM lineage.members AS m JOIN main.cleaned AS c USING (document_id)
        WHERE m.kept_document_id IS NULL
            AND NOT EXISTS (SELECT 1 FROM lineage.errors AS e WHERE e.document_id = m.document_id)""",
    "lineage.duplicates": """SELECT document_id, cluster_id, kept_document_id, similarity, method
        FROM lineage.members WHERE kept_document_id IS NOT NULL""",
    "lineage.decisions": """SELECT d.document_id, r.uri, d.stage, d.rule, d.score, d.threshold, d.kept_document_id,
            d.run_id
        FROM (SELECT document_id, stage, rule, score, threshold, kept_document_id, run_id FROM lineage.rejections
            UNION ALL SELECT document_id, 'deduplicated', method, similarity, threshold, kept_document_id, run_id
            FROM lineage.members WHERE kept_document_id IS NOT NULL) AS d
        JOIN main.raw AS r USING (document_id)""",
    "lineage.trace": f"""WITH recipes AS (SELECT
            max(recipe) FILTER (WHERE name = 'raw') AS raw_recipe,
            max(recipe) FILTER (WHERE name = 'cleaned') AS cleaned_recipe,
            max(recipe) FILTER (WHERE name = 'deduplicated') AS deduplicated_recipe,
            max(recipe) FILTER (WHERE name = 'chunked') AS chunked_recipe,
            max(recipe) FILTER (WHERE name = 'embedded') AS embedded_recipe FROM lineage.datasets),
        chunks AS (SELECT *, (first_origin).place AS place,
                (first_origin).source_char::BIGINT + char_start - (first_origin).char_start AS source_char_start,
                (last_origin).source_char::BIGINT + char_end - (last_origin).char_start AS source_char_end
            FROM (SELECT t.*, {_LAST_ORIGIN.format("t.char_start")} AS first_origin,
                    {_LAST_ORIGIN.format("t.char_end - 1")} AS last_origin
                FROM main.chunked AS t JOIN main.cleaned AS o USING (document_id)))
        SELECT e.chunk_id, e.document_id, r.source, r.uri, r.record, r.byte_start, r.byte_end, c.char_start, c.char_end,
            c.source_char_start, c.source_char_end, {_BYTE.format("c.source_char_start")} AS source_byte_start,
            {_BYTE.format("c.source_char_end")} AS source_byte_end, c.place, r.content_hash,
            e.text_hash, recipes.*
        FROM main.embedded AS e JOIN chunks AS c USING (chunk_id)
        JOIN main.raw AS r ON r.document_id = e.document_id CROSS JOIN recipes""",
}


def corpus_views(path: Path) -> dict[str, str]:
    """Return the views that make `corpus.raw` … mean main.raw … in a published file at `path`; none where they do.

    DuckDB names a database after its file: in corpus.duckdb, `corpus.raw` is the table raw in schema main, and a
    schema of the same name would make every such query fail as ambiguous. A file of any other name needs the schema.
    """
    if path.name.lstrip(".").split(".")[0].lower() == "corpus":
        return {}
    return {
        dataset.qualified: f"SELECT {', '.join(column.name for column in dataset.columns)} FROM {dataset.stored}"
        for dataset in DATASETS
    }
