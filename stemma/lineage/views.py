"""The published views: lineage in SQL. Their columns are the contract in stemma/datasets.py."""

from pathlib import Path

from stemma.datasets import DATASETS

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
    "lineage.trace": """WITH recipes AS (SELECT
            max(recipe) FILTER (WHERE name = 'raw') AS raw_recipe,
            max(recipe) FILTER (WHERE name = 'cleaned') AS cleaned_recipe,
            max(recipe) FILTER (WHERE name = 'deduplicated') AS deduplicated_recipe,
            max(recipe) FILTER (WHERE name = 'chunked') AS chunked_recipe,
            max(recipe) FILTER (WHERE name = 'embedded') AS embedded_recipe FROM lineage.datasets)
        SELECT e.chunk_id, e.document_id, r.source, r.uri, r.record, r.byte_start, r.byte_end, c.char_start, c.char_end,
            r.content_hash, e.text_hash, recipes.*
        FROM main.embedded AS e JOIN main.chunked AS c USING (chunk_id)
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
