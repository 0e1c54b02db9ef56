"""Passages that kept documents share: the index of fingerprints, the runs of words, and what is cut where.

All of it hangs on the order of priority among the documents that are kept, so it is worked out when the families
are solved. What costs is remembered by text: fingerprints in the memo, runs of words by pairs of texts in the state.
"""

from collections.abc import Iterable, Iterator, Mapping

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from stemma.deduplication.passages import (
    SIGNED_PASSAGES,
    cut_spans,
    owned_cuts,
    passage_buckets,
    shared_passages,
    sign_passages,
)
from stemma.hashing import key
from stemma.incremental.counts import Counts
from stemma.incremental.stage import Stage
from stemma.resources.engine.duplicates.index import clear_index
from stemma.resources.engine.duplicates.layers import asked_layers
from stemma.resources.engine.duplicates.pairs import fetch_memo
from stemma.resources.engine.duplicates.priority import by_priority, by_source
from stemma.resources.engine.duplicates.solution import ROW_HASH
from stemma.resources.engine.rowwise import segments_of
from stemma.resources.engine.run import Run, load_rows, make_table
from stemma.resources.engine.setup import SIGNING, TEXT, Setup
from stemma.resources.memo import joined_as_written

PASSAGES = "passages"
TABLES = ("passage_postings", "passage_texts", "passage_pairs", "passage_runs")
# In a bucket each document is compared with so many of the first by priority: 0.9993 of the shared words of all pairs
# of the licence texts, where one finds 0.9964.
OWNERS = 4
# Pairs whose texts are in memory together.
COMPARED_PAIRS = 2_000
SIGNATURES = 8_192
# Documents whose texts are in memory together while they are cut.
CUT_DOCUMENTS = 2_000


_NO_CUTS = (
    """CREATE OR REPLACE TEMP TABLE wanted_cuts AS SELECT document_id, cuts FROM state.deduplicated LIMIT 0"""
)


class UnmeasuredPassages(Exception):
    """Takes a transaction back until pairs of texts (earlier, later, and their memo keys) have been compared."""

    def __init__(self, pairs: pa.Table) -> None:
        super().__init__(f"{pairs.num_rows} pairs")
        self.pairs = pairs


def passage_stage(setup: Setup) -> Stage | None:
    """Return the stage that signs texts for passages; None where no source asks for the layer."""
    settings = setup.config.deduplicate
    asking = [settings.layers, *(source.deduplicate.layers for source in setup.config.sources)]
    if not any("passage" in layers for layers in asking):
        return None
    return Stage(
        name="sign_passages",
        function=sign_passages,
        parameters={"min_words": settings.passage.min_words},
        inputs=TEXT,
        outputs=SIGNED_PASSAGES,
        libraries=("numpy",),
        digests={"unicode": setup.sign.digests["unicode"]},
        parallel=True,
        **SIGNING,
    )


def passages_recipe(setup: Setup) -> str:
    """Return the recipe of the index of passages and of what is made of it."""
    stage = passage_stage(setup)
    functions = (passage_buckets, shared_passages, owned_cuts, cut_spans)
    return key(
        "passages", *([setup.recipe(stage), *map(setup.code, functions)] if stage is not None else [])
    ).hex()


def update_passages(
    run: Run, connection: duckdb.DuckDBPyConnection, known: Mapping[str, str], counts: Counts, *, at_once: int
) -> None:
    """Bring passages and cuts up to date with the documents kept, in the session's transaction.

    `known` are the `indexes`. Raises UnmeasuredPassages if more than `at_once` pairs of texts have never been compared.
    """
    stage = passage_stage(run.setup)
    is_other = clear_passages(run, connection, known)
    if stage is None and not is_other:
        return
    if stage is None:
        connection.execute("DELETE FROM state.passages")
        connection.execute(_NO_CUTS)
    else:
        _load_owners(run, connection)
        _update_postings(run, connection, stage)
        _load_pairs(run, connection)
        unknown = _unmeasured(connection)
        if unknown.num_rows > at_once:
            raise UnmeasuredPassages(unknown)
        remember_passages(connection, compare(run, unknown))
        _apply_passages(connection)
        _load_cuts(run, connection)
    _apply_cuts(connection, counts)


def clear_passages(run: Run, connection: duckdb.DuckDBPyConnection, known: Mapping[str, str]) -> bool:
    """Empty the index of passages if another recipe made it; returns whether it did. `known` are the `indexes`."""
    return clear_index(connection, known, PASSAGES, passages_recipe(run.setup), TABLES)


def _load_owners(run: Run, connection: duckdb.DuckDBPyConnection) -> None:
    """Make the table owners: the documents kept, by priority (1 is the best), and whether their source asks."""
    scope = "''" if run.config.deduplicate.scope == "global" else "d.source"
    connection.execute(
        f"""CREATE OR REPLACE TEMP TABLE owners AS
        SELECT document_id, d.text_hash, d.body_hash, {scope} AS scope,
            {by_source(run, "source", lambda source: "passage" in asked_layers(run.setup, source))} AS asks,
            row_number() OVER (ORDER BY {by_priority(run)}) AS priority
        FROM state.dedup_documents AS d SEMI JOIN (FROM state.deduplicated WHERE kept) USING (document_id)"""
    )


def _update_postings(run: Run, connection: duckdb.DuckDBPyConnection, stage: Stage) -> None:
    """Make the fingerprints in state.passage_postings those of the texts of owners."""
    connection.execute(
        """CREATE OR REPLACE TEMP TABLE gone_texts AS SELECT text_hash FROM state.passage_texts
        ANTI JOIN owners USING (text_hash)"""
    )
    for table in ("texts", "postings"):
        connection.execute(
            f"DELETE FROM state.passage_{table} WHERE text_hash IN (SELECT text_hash FROM gone_texts)"
        )
    connection.execute(
        """CREATE OR REPLACE TEMP TABLE new_texts AS SELECT DISTINCT text_hash AS input_hash FROM owners
        ANTI JOIN state.passage_texts USING (text_hash)"""
    )
    for texts, postings in list(_postings(run, connection, stage)):
        load_rows(connection, "arrived", texts)
        connection.execute("INSERT INTO state.passage_texts SELECT text_hash, words FROM arrived")
        load_rows(connection, "arrived", postings)
        connection.execute("INSERT INTO state.passage_postings SELECT bucket, text_hash FROM arrived")


def _postings(
    run: Run, connection: duckdb.DuckDBPyConnection, stage: Stage
) -> Iterator[tuple[pa.Table, pa.Table]]:
    """Yield the texts of new_texts with the number of their words, and their fingerprints."""
    bodies = segments_of(run, stage).find_bodies(connection, "new_texts", "input_hash, words, signature")
    reader = connection.execute(f"FROM {bodies}").to_arrow_reader(SIGNATURES)
    for batch in reader:
        signed = pa.Table.from_batches([batch])
        buckets = passage_buckets(signed, np.zeros(signed.num_rows, np.int64))
        texts = signed["input_hash"].combine_chunks()
        yield (
            pa.table({"text_hash": texts, "words": signed["words"]}),
            pa.table({"bucket": buckets.keys, "text_hash": texts.take(pa.array(buckets.rows))}),
        )


def _load_pairs(run: Run, connection: duckdb.DuckDBPyConnection) -> None:
    """Make the table passage_candidates: pairs of documents that may share a passage, the earlier and the later."""
    connection.execute(
        f"""CREATE OR REPLACE TEMP TABLE passage_candidates AS
        WITH shared AS (SELECT bucket FROM state.passage_postings JOIN owners USING (text_hash)
                GROUP BY bucket HAVING count(*) > 1),
            ranked AS (SELECT bucket, o.*,
                    row_number() OVER (PARTITION BY bucket, scope ORDER BY priority) AS place
                FROM state.passage_postings SEMI JOIN shared USING (bucket) JOIN owners AS o USING (text_hash))
        SELECT DISTINCT f.document_id AS source_document_id, l.document_id, f.text_hash AS earlier,
            l.text_hash AS later, f.body_hash AS earlier_key, l.body_hash AS later_key
        FROM ranked AS f JOIN ranked AS l ON f.bucket = l.bucket AND f.scope = l.scope AND f.place < l.place
        WHERE f.place <= {OWNERS} AND l.asks"""
    )
    for table in ("pairs", "runs"):
        connection.execute(
            f"""DELETE FROM state.passage_{table}
            WHERE (earlier, later) NOT IN (SELECT (earlier, later) FROM passage_candidates)"""
        )


def _unmeasured(connection: duckdb.DuckDBPyConnection) -> pa.Table:
    return connection.execute(
        """SELECT earlier AS a_text, later AS b_text, any_value(earlier_key) AS a_key, any_value(later_key) AS b_key
        FROM passage_candidates ANTI JOIN state.passage_pairs USING (earlier, later)
        GROUP BY earlier, later ORDER BY earlier, later"""
    ).to_arrow_table()


def compare(run: Run, pairs: pa.Table) -> Iterator[tuple[pa.Table, pa.Table]]:
    """Yield blocks of the pairs of texts with the runs of words that they share."""
    for start in range(0, pairs.num_rows, COMPARED_PAIRS):
        block = pairs.slice(start, COMPARED_PAIRS)
        rows, positions = fetch_memo(segments_of(run, run.setup.clean), block, "key", ["text"])
        found = shared_passages(
            rows["text"].to_pylist(),
            positions,
            min_words=run.config.deduplicate.passage.min_words,
        )
        texts = block.select(["a_text", "b_text"]).take(found["pair"])
        yield block, pa.table([*texts.columns, *found.columns[1:]], names=[*RUNS])


RUNS = (
    *("earlier", "later", "char_start", "char_end", "source_char_start", "source_char_end", "words"),
    *("first_word", "source_first_word"),
)


def remember_passages(
    connection: duckdb.DuckDBPyConnection, compared: Iterable[tuple[pa.Table, pa.Table]]
) -> None:
    """Keep in the state which pairs of texts were compared, and the runs that they share."""
    for pairs, runs in compared:
        load_rows(connection, "compared", pairs.select(["a_text", "b_text"]))
        load_rows(connection, "found_runs", runs)
        known = "ANTI JOIN state.passage_pairs USING (earlier, later)"
        connection.execute(f"INSERT INTO state.passage_runs SELECT * FROM found_runs {known}")
        connection.execute(
            f"""INSERT INTO state.passage_pairs
            SELECT earlier, later FROM (SELECT a_text AS earlier, b_text AS later FROM compared) {known}"""
        )


def _apply_passages(connection: duckdb.DuckDBPyConnection) -> None:
    connection.execute("DELETE FROM state.passages")
    connection.execute(
        """INSERT INTO state.passages SELECT document_id, char_start, char_end, source_document_id,
            source_char_start, source_char_end, words
        FROM passage_candidates JOIN state.passage_runs USING (earlier, later)"""
    )


def _load_cuts(run: Run, connection: duckdb.DuckDBPyConnection) -> None:
    """Make the table wanted_cuts (document_id, cuts): what is cut from the documents kept, if it is asked for.

    A document of which next to nothing would stay is not cut: whether it goes is for the layer `contained` to say.
    """
    connection.execute(_NO_CUTS)
    if not run.config.deduplicate.passage.cut:
        return
    connection.execute(
        """CREATE OR REPLACE TEMP TABLE sharing AS
        SELECT row_number() OVER (ORDER BY priority) - 1 AS row, o.document_id, o.text_hash AS input_hash,
            o.body_hash, o.priority, t.words
        FROM owners AS o JOIN state.passage_texts AS t USING (text_hash)
        WHERE o.document_id IN (SELECT unnest([document_id, source_document_id]) FROM state.passages)"""
    )
    documents = connection.execute("SELECT * FROM sharing ORDER BY row").to_arrow_table()
    passages = connection.execute(
        """SELECT l.row AS document, f.row AS source_document, first_word, source_first_word, r.words
        FROM passage_candidates AS p JOIN state.passage_runs AS r USING (earlier, later)
        JOIN sharing AS f ON f.document_id = p.source_document_id JOIN sharing AS l ON l.document_id = p.document_id"""
    ).to_arrow_table()
    owned = owned_cuts(documents, passages)
    is_cut = pc.and_(pc.greater(pc.list_value_length(owned["cut_words"]), 0), pc.is_null(owned["witness"]))
    documents = documents.append_column("cut_words", owned["cut_words"]).filter(is_cut)
    for start in range(0, documents.num_rows, CUT_DOCUMENTS):
        load_rows(connection, "cutting", documents.slice(start, CUT_DOCUMENTS))
        keys = "(SELECT body_hash AS input_hash FROM cutting)"
        bodies = segments_of(run, run.setup.clean).find_bodies(connection, keys, "input_hash, text")
        with joined_as_written(connection):
            rows = connection.execute(
                f"""SELECT document_id, text, cut_words FROM {bodies} AS b
                JOIN cutting ON cutting.body_hash = b.input_hash"""
            ).to_arrow_table()
        load_rows(
            connection, "cut", rows.select(["document_id"]).append_column("cuts", cut_spans(rows)["cuts"])
        )
        connection.execute("INSERT INTO wanted_cuts FROM cut WHERE len(cuts) > 0")


def _apply_cuts(connection: duckdb.DuckDBPyConnection, counts: Counts) -> None:
    """Make the cuts of state.deduplicated those of wanted_cuts."""
    others = make_table(
        connection,
        "other_cuts",
        """SELECT document_id, w.cuts
        FROM (SELECT document_id, cuts FROM state.deduplicated) AS d LEFT JOIN wanted_cuts AS w USING (document_id)
        WHERE w.cuts IS DISTINCT FROM d.cuts""",
    )
    counts.rows_changed += others
    if not others:
        return
    connection.execute(
        """UPDATE state.deduplicated SET cuts = other_cuts.cuts FROM other_cuts
        WHERE other_cuts.document_id = deduplicated.document_id"""
    )
    connection.execute(
        f"""UPDATE state.deduplicated SET row_hash = {ROW_HASH}
        WHERE document_id IN (SELECT document_id FROM other_cuts)"""
    )
