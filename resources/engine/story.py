"""What a step has to tell on the page of its dataset: a few rows, the time that reuse saved, numbers for pictures."""

from dataclasses import dataclass
from typing import Any

import duckdb
import pyarrow as pa

from stemma.embedding.arrays import Vectors, matrix
from stemma.incremental.counts import Counts
from stemma.reporting.numbers import SAMPLE, STATE, numbers, saved
from stemma.resources.engine.rowwise import segments_of
from stemma.resources.engine.run import Run, fetch_value, load_rows

PREVIEW_ROWS = 8

PREVIEWS = {
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


@dataclass(frozen=True)
class Story:
    """What is to be seen of a dataset after a step.

    Attributes:
        preview: up to PREVIEW_ROWS rows without bodies, the same ones for the same state.
        saved: the columns of `stemma.reporting.numbers.SAVED`; empty where the step reused nothing.
        numbers: what pictures are made of (see `stemma.reporting.numbers.numbers`); None if the step changed nothing.
        vectors, places: of `embedded`, a sample of the vectors, and of each the source, uri and language.
    """

    preview: list[dict[str, Any]]
    saved: dict[str, Any]
    numbers: dict[str, Any] | None = None
    vectors: Vectors | None = None
    places: tuple[dict[str, Any], ...] = ()


def story(run: Run, counts: Counts) -> Story:
    """Return what there is to tell of a dataset that has just been updated."""
    dataset = counts.dataset
    with run.warehouse.session() as connection:
        preview = _rows(connection, f"SELECT * FROM ({PREVIEWS[dataset]}) ORDER BY ALL LIMIT {PREVIEW_ROWS}")
        reuse = saved(connection, STATE, [run.run_id]).get((run.run_id, dataset), {})
        if not counts.touched and not (dataset == "embedded" and _something_changed(run, connection)):
            return Story(preview, reuse)
        found = numbers(connection, STATE, dataset)
        if dataset != "embedded" or not counts.touched:
            return Story(preview, reuse, found)
        vectors, places = _sampled_vectors(run, connection)
        return Story(preview, reuse, found, vectors, places)


def _something_changed(run: Run, connection: duckdb.DuckDBPyConnection) -> bool:
    """Tell whether the run changed any dataset: the last one draws what becomes of documents on the way to it."""
    return bool(
        fetch_value(
            connection,
            """SELECT count(*) FROM state.runs
            WHERE run_id = ? AND rows_added + rows_changed + rows_removed > 0""",
            [run.run_id],
        )
    )


def _sampled_vectors(
    run: Run, connection: duckdb.DuckDBPyConnection
) -> tuple[Vectors | None, tuple[dict[str, Any], ...]]:
    """Return the model's vectors of a fixed sample of texts; read one by one, whatever the size of the corpus."""
    connection.execute(
        f"""CREATE OR REPLACE TEMP TABLE map_sample AS SELECT e.chunk_id, e.document_id, e.input_hash
        FROM state.embedded AS e SEMI JOIN ({SAMPLE.format(**STATE)}) USING (chunk_id)"""
    )
    store = segments_of(run, run.setup.embed)
    bodies = store.find_bodies(connection, "map_sample", "input_hash, embedding")
    load_rows(connection, "map_bodies", connection.execute(f"SELECT * FROM {bodies}").to_arrow_table())
    found: pa.Table = connection.execute(
        """SELECT embedding FROM map_sample JOIN map_bodies USING (input_hash) ORDER BY chunk_id"""
    ).to_arrow_table()
    places = _rows(
        connection,
        """SELECT r.source, r.uri, c.language FROM map_sample AS s JOIN state.raw AS r USING (document_id)
        JOIN state.cleaned AS c USING (document_id)
        WHERE s.input_hash IN (SELECT input_hash FROM map_bodies) ORDER BY s.chunk_id""",
    )
    return (matrix(found) if found.num_rows else None), tuple(places)


def _rows(connection: duckdb.DuckDBPyConnection, query: str) -> list[dict[str, Any]]:
    cursor = connection.execute(query)
    names = [column[0] for column in cursor.description]
    return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]
