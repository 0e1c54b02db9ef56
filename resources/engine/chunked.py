"""chunked: spans of the kept documents."""

from collections.abc import Iterator

import pyarrow as pa

from stemma.hashing import key, stored_keys
from stemma.incremental.stage import Stage
from stemma.resources.engine.rowwise import Bodies, RowDataset, segments_of, streamed
from stemma.resources.engine.run import Run
from stemma.resources.engine.setup import Setup


def chunked(setup: Setup) -> RowDataset:
    """Return how chunked is made of the kept documents."""
    stage = setup.chunk
    # body_hash is the memo key of the cleaned text, input_hash (the text's own hash, with what is cut from it) that of
    # its chunks. Another content may be cleaned to the same text: then deduplicated stands, but for the content that
    # it came from.
    desired = """(SELECT d.document_id, d.document_id AS part,
        CASE WHEN d.cuts IS NULL THEN d.text_hash ELSE md5(concat_ws('|', d.text_hash, d.cuts))::UUID END AS input_hash,
        coalesce(c.input_hash, d.input_hash) AS body_hash, d.cuts, hash(d.text_hash, d.cuts) AS origin
        FROM state.deduplicated AS d LEFT JOIN state.cleaned AS c USING (document_id, text_hash)
        WHERE d.kept)"""
    return RowDataset(
        name="chunked",
        upstream="deduplicated",
        key="chunk_id",
        stage=stage,
        desired=desired,
        current="(SELECT DISTINCT document_id, document_id AS part, origin FROM state.chunked)",
        bodies=_bodies,
        fresh=lambda run, located: _fresh(run, stage, located),
        recipe=key("chunked", setup.recipe(stage)).hex(),
    )


def _bodies(run: Run) -> Bodies:
    """Return the relation of (input_hash, text, cuts) for tables of inputs."""

    def relation(missing: str) -> str:
        texts = cleaned_texts(run, missing)
        return f"""(SELECT m.input_hash, t.text, m.cuts FROM {texts} AS t
            JOIN {missing} AS m ON m.body_hash = t.body_hash)"""

    return streamed(run, relation)


def cleaned_texts(run: Run, table: str) -> str:
    """Return the relation (body_hash, text) of cleaned texts whose memo keys a table names body_hash."""
    keys = f"(SELECT body_hash AS input_hash FROM {table})"
    columns = "input_hash AS body_hash, text"
    return segments_of(run, run.setup.clean).find_bodies(run.warehouse.connection, keys, columns)


def cleaned_bodies(run: Run) -> Bodies:
    """Return the bodies (input_hash = text_hash, text) for tables that name the text's memo key body_hash."""

    def read(missing: str, _stage: Stage) -> Iterator[pa.RecordBatch]:
        keys = run.warehouse.connection.execute(f"SELECT body_hash FROM {missing}").to_arrow_table()
        texts = segments_of(run, run.setup.clean).scan(stored_keys(keys["body_hash"]), ["text_hash", "text"])
        for _rows, batch in texts:
            yield batch.rename_columns(["input_hash", "text"])

    return read


def _fresh(run: Run, stage: Stage, located: str) -> str:
    """The rows of state.chunked for the documents in scope.

    A chunk's id is made of its document, its text and its occurrence among equal texts of the document: text
    inserted before it does not change it.
    """
    spans = segments_of(run, stage).bodies(run.warehouse.connection, located, CHUNK_SPANS)
    return f"""
        SELECT md5(concat_ws('|', document_id, text_hash, occurrence))::UUID AS chunk_id, document_id, ordinal,
            char_start, char_end, byte_start, byte_end, tokens, section, text_hash, input_hash, origin,
            hash(document_id, ordinal, char_start, char_end, byte_start, tokens, section, text_hash) AS row_hash
        FROM (SELECT s.document_id, c.ordinal, c.char_start, c.char_end, c.byte_start, c.byte_end, c.tokens, c.section,
                c.text_hash, s.input_hash, s.origin,
                row_number() OVER (PARTITION BY s.document_id, c.text_hash ORDER BY c.ordinal) AS occurrence
            FROM {spans} AS c JOIN scope AS s USING (input_hash))"""


# A memo row's list of chunks as rows: the list's columns are unnested side by side, in step.
CHUNK_SPANS = """input_hash, unnest(range(len(chunks)))::INTEGER AS ordinal,
    unnest([c.char_start for c in chunks]) AS char_start, unnest([c.char_end for c in chunks]) AS char_end,
    unnest([c.byte_start for c in chunks]) AS byte_start, unnest([c.byte_end for c in chunks]) AS byte_end,
    unnest([c.tokens for c in chunks]) AS tokens, unnest([c.section for c in chunks]) AS section,
    unnest([c.text_hash for c in chunks])::UUID AS text_hash"""
CHUNK_TEXTS = (
    """input_hash, unnest(range(len(chunks)))::INTEGER AS ordinal, unnest([c.text for c in chunks]) AS text"""
)
