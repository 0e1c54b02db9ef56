"""The index: documents and their nodes, the buckets of each layer, and the candidate pairs that these propose.

A node is what is one text after normalisation. All tables are functions of the live documents alone, and what a
change costs follows the change: only buckets that a node entered or left propose their pairs anew.
"""

from collections.abc import Iterator, Sequence

import duckdb
import numpy as np
import pyarrow as pa

from stemma.deduplication import Buckets, candidate_pairs
from stemma.hashing import digest
from stemma.resources.engine.duplicates.layers import Layer
from stemma.resources.engine.rowwise import segments_of
from stemma.resources.engine.run import Run, fetch_value, load_rows
from stemma.resources.memo import joined_as_written, quoted

PAIRS = "pairs"
TABLES = ("dedup_documents", "dedup_bands", "dedup_candidates", "dedup_pairs", "dedup_pending")
# Nodes whose signatures are held in memory together, and rows of buckets written with one statement.
SIGNATURES = 8_192
BUCKET_ROWS = 1 << 20


def live(run: Run) -> str:
    """Return the relation of the documents of cleaned with all that their index row is made of.

    Its columns are document_id, text_hash, body_hash (the memo key of the text), source, category, document_date,
    length and quality.
    """
    settings = run.config.deduplicate
    return f"""(SELECT document_id, text_hash, c.input_hash AS body_hash, c.source, {_category(run)} AS category,
            c.document_date, c.characters AS length,
            {_quality(run) if settings.keep == "best" else "NULL"}::DOUBLE AS quality
        FROM (SELECT *, characters AS text_length FROM state.cleaned WHERE verdicts IS NULL) AS c
        {"JOIN state.raw AS r USING (document_id)" if _by_label(run) else ""})"""


def _by_label(run: Run) -> bool:
    return run.config.deduplicate.semantic.category not in (None, "source", "language")


def _category(run: Run) -> str:
    category = run.config.deduplicate.semantic.category
    if category is None:
        return "''"
    return f"coalesce(r.labels->>{quoted(category)}, '')" if _by_label(run) else f"coalesce(c.{category}, '')"


def _quality(run: Run) -> str:
    """What makes a document better: an expression over the columns of cleaned."""
    rule = run.setup.document_quality
    if rule is not None:
        return rule.score
    failed = [f"coalesce(({rule.condition})::INTEGER, 0)" for rule in run.setup.rules.flag]
    return f"-({' + '.join(failed) or '0'})"


def has_index(connection: duckdb.DuckDBPyConnection, name: str, recipe: str) -> bool:
    """Tell whether an index was made by a recipe."""
    query = "SELECT count(*) FROM state.dedup_index WHERE name = ? AND recipe = ?"
    return bool(fetch_value(connection, query, [name, recipe]))


def clear_index(connection: duckdb.DuckDBPyConnection, name: str, recipe: str, tables: Sequence[str]) -> bool:
    """Empty the tables of an index if another recipe made it; returns whether it did."""
    if has_index(connection, name, recipe):
        return False
    for table in tables:
        connection.execute(f"DELETE FROM state.{table}")
    connection.execute("DELETE FROM state.dedup_index WHERE name = ?", [name])
    connection.execute("INSERT INTO state.dedup_index VALUES (?, ?)", [name, recipe])
    return True


def update_index(
    run: Run, connection: duckdb.DuckDBPyConnection, layers: tuple[Layer, ...], signed: str, *, whole: bool
) -> None:
    """Bring the index up to date with the live documents, in the session's transaction.

    `signed` names the memo places of the texts in the table `scope`; `whole` says that the index was empty. What
    hangs together with anything that changed is added to state.dedup_pending, until families are solved.
    """
    _diff_documents(run, connection, signed)
    if whole:
        # Of documents that are gone by now, the new index would never know that they stand in a family.
        connection.execute("INSERT INTO state.dedup_pending SELECT document_id FROM state.deduplicated")
    connection.execute(
        """INSERT INTO state.dedup_pending SELECT document_id FROM came UNION SELECT document_id FROM went
        UNION SELECT document_id FROM state.dedup_documents
            SEMI JOIN (SELECT node FROM came UNION SELECT node FROM went) USING (node)"""
    )
    connection.execute(
        """CREATE OR REPLACE TEMP TABLE dead_nodes AS SELECT DISTINCT node FROM went
        ANTI JOIN state.dedup_documents USING (node)"""
    )
    connection.execute(
        """CREATE OR REPLACE TEMP TABLE left_buckets AS
        SELECT DISTINCT layer, bucket FROM state.dedup_bands SEMI JOIN dead_nodes USING (node)"""
    )
    connection.execute("DELETE FROM state.dedup_bands WHERE node IN (SELECT node FROM dead_nodes)")
    for layer in layers:
        entered = _enter(run, connection, layer, whole=whole)
        _propose(connection, layer, entered, whole=whole)
        # What an edge did not count for before, it may count for what came: sources have policies of their own.
        came = "(SELECT node FROM came)"
        edges = f"state.dedup_pairs WHERE layer = {layer.number} AND score >= {layer.threshold!r}"
        note_pending(connection, f"(FROM {edges} AND (a IN {came} OR b IN {came}))")


def _diff_documents(run: Run, connection: duckdb.DuckDBPyConnection, signed: str) -> None:
    """Make came and went, the documents that differ from the index, and bring state.dedup_documents up to date."""
    settings = run.config.deduplicate
    # Documents of other scopes are other nodes in other buckets: nothing is ever compared across.
    node = "norm_hash" if settings.scope == "global" else "md5(concat_ws('|', source, norm_hash))::UUID"
    hashes = segments_of(run, run.setup.sign).bodies(
        connection, f"(FROM {signed} WHERE error IS NULL)", "input_hash, norm_hash"
    )
    with joined_as_written(connection):
        connection.execute(
            f"""CREATE OR REPLACE TEMP TABLE fresh_nodes AS SELECT c.document_id, {node} AS node, c.text_hash
            FROM {hashes} AS s JOIN {live(run)} AS c ON s.input_hash = c.text_hash
            JOIN scope ON scope.document_id = c.document_id"""
        )
    # A document whose text stayed may still have another date; its node is known.
    connection.execute(
        f"""CREATE OR REPLACE TEMP TABLE current AS
        SELECT document_id, node, text_hash, source, category, document_date, length, quality,
            hash(node, text_hash, source, category, document_date, length, quality) AS row_hash
        FROM {live(run)} JOIN (FROM fresh_nodes UNION ALL
            SELECT document_id, node, text_hash FROM state.dedup_documents
            ANTI JOIN fresh_nodes USING (document_id)) USING (document_id, text_hash)"""
    )
    connection.execute(
        """CREATE OR REPLACE TEMP TABLE came AS
        SELECT * FROM current ANTI JOIN state.dedup_documents USING (document_id, row_hash)"""
    )
    connection.execute(
        """CREATE OR REPLACE TEMP TABLE went AS
        SELECT * FROM state.dedup_documents ANTI JOIN current USING (document_id, row_hash)"""
    )
    connection.execute(
        "DELETE FROM state.dedup_documents WHERE document_id IN (SELECT document_id FROM went)"
    )
    connection.execute("INSERT INTO state.dedup_documents SELECT * FROM came")


def _enter(run: Run, connection: duckdb.DuckDBPyConnection, layer: Layer, *, whole: bool) -> bool:
    """Enter the nodes that came into the layer's buckets; makes the table `entered`, returns whether any did."""
    known = (
        ""
        if whole
        else f"""ANTI JOIN (SELECT node FROM state.dedup_bands SEMI JOIN came USING (node)
            WHERE layer = {layer.number}) USING (node)"""
    )
    connection.execute(
        f"""CREATE OR REPLACE TEMP TABLE entering AS SELECT node, min(text_hash) AS input_hash,
            min(source) AS source FROM came {known} GROUP BY node"""
    )
    connection.execute("CREATE OR REPLACE TEMP TABLE entered (bucket UBIGINT)")
    nodes: list[pa.Array] = []
    parts: list[Buckets] = []
    count = 0
    for batch in _signatures(run, connection, layer):
        buckets = layer.buckets(batch)
        if run.config.deduplicate.scope != "global":
            scopes = np.array([_scope_bits(scope) for scope in batch["source"].to_pylist()], np.uint64)
            buckets = buckets._replace(keys=buckets.keys ^ scopes[buckets.rows])
        parts.append(buckets._replace(rows=buckets.rows + count))
        nodes.append(batch["node"].combine_chunks())
        count += batch.num_rows
    if not parts:
        return False
    _insert(
        connection,
        layer,
        pa.concat_arrays(nodes),
        Buckets(*map(np.concatenate, zip(*parts, strict=True))),
        whole,
    )
    return True


def _signatures(run: Run, connection: duckdb.DuckDBPyConnection, layer: Layer) -> Iterator[pa.Table]:
    """Yield the nodes of `entering` that take part in the layer: (node, source, and the layer's columns)."""
    store = segments_of(run, layer.stage)
    store.locate(connection, "entering", "entering_places", temporary=True)
    names = ", ".join(layer.columns)
    bodies = store.bodies(connection, "(FROM entering_places WHERE error IS NULL)", f"input_hash, {names}")
    with joined_as_written(connection):
        reader = connection.execute(
            f"""SELECT node, source, {names} FROM {bodies} JOIN entering USING (input_hash)
            WHERE signature IS NOT NULL"""
        ).to_arrow_reader(SIGNATURES)
        for batch in reader:
            if batch.num_rows:
                yield pa.Table.from_batches([batch])


def _insert(
    connection: duckdb.DuckDBPyConnection, layer: Layer, nodes: pa.Array, buckets: Buckets, whole: bool
) -> None:
    for start in range(0, len(buckets.keys), BUCKET_ROWS):
        part = Buckets(*(column[start : start + BUCKET_ROWS] for column in buckets))
        load_rows(
            connection,
            "arrived",
            pa.table(
                {
                    "bucket": part.keys,
                    "node": nodes.take(pa.array(part.rows)),
                    "rank": part.rank,
                    "asks": part.asks,
                }
            ),
        )
        connection.execute(
            f"INSERT INTO state.dedup_bands SELECT {layer.number}, bucket, node, rank, asks FROM arrived"
        )
        if not whole:
            connection.execute("INSERT INTO entered SELECT bucket FROM arrived")


def _scope_bits(scope: str) -> int:
    return int.from_bytes(digest(scope.encode())[:8], "little")


def _propose(connection: duckdb.DuckDBPyConnection, layer: Layer, entered: bool, *, whole: bool) -> None:
    """Propose the pairs of the touched buckets anew: a bucket's pairs are a function of its members.

    Scores of pairs that no bucket proposes any more are forgotten.
    """
    number = layer.number
    if whole:
        load_rows(connection, "proposed", _proposals(connection, f"state.dedup_bands WHERE layer = {number}"))
        connection.execute(f"INSERT INTO state.dedup_candidates SELECT {number}, bucket, a, b FROM proposed")
        return
    connection.execute(
        f"""CREATE OR REPLACE TEMP TABLE touched AS
        SELECT DISTINCT bucket FROM (FROM entered UNION ALL
            SELECT bucket FROM left_buckets WHERE layer = {number})"""
    )
    if not fetch_value(connection, "SELECT count(*) FROM touched"):
        return
    standing = f"state.dedup_candidates WHERE layer = {number}"
    connection.execute(
        f"""CREATE OR REPLACE TEMP TABLE old_pairs AS
        SELECT DISTINCT a, b FROM (FROM {standing}) SEMI JOIN touched USING (bucket)"""
    )
    connection.execute(f"DELETE FROM {standing} AND bucket IN (SELECT bucket FROM touched)")
    members = f"(FROM state.dedup_bands WHERE layer = {number}) SEMI JOIN touched USING (bucket)"
    load_rows(connection, "proposed", _proposals(connection, members))
    connection.execute(f"INSERT INTO state.dedup_candidates SELECT {number}, bucket, a, b FROM proposed")
    connection.execute(
        f"""CREATE OR REPLACE TEMP TABLE gone_pairs AS
        SELECT a, b FROM old_pairs ANTI JOIN (FROM {standing}) USING (a, b)"""
    )
    gone = f"state.dedup_pairs WHERE layer = {number} AND (a, b) IN (SELECT (a, b) FROM gone_pairs)"
    note_pending(connection, f"(FROM {gone} AND score >= {layer.threshold!r})")
    connection.execute(f"DELETE FROM {gone}")


def note_pending(connection: duckdb.DuckDBPyConnection, pairs: str) -> None:
    """Add the documents of the pairs (a, b) of a relation to those whose families are to be solved."""
    connection.execute(
        f"""INSERT INTO state.dedup_pending SELECT document_id FROM state.dedup_documents
        WHERE node IN (SELECT unnest([a, b]) FROM {pairs})"""
    )


def _proposals(connection: duckdb.DuckDBPyConnection, members: str) -> pa.Table:
    """Return the pairs that buckets propose: (bucket, a, b), a before b in the bucket."""
    shared = f"(SELECT bucket FROM {members} GROUP BY bucket HAVING count(*) > 1)"
    rows = connection.execute(
        f"""SELECT bucket, node, asks FROM (FROM {members}) SEMI JOIN {shared} USING (bucket)
        ORDER BY bucket, rank, node"""
    ).to_arrow_table()
    buckets, nodes = rows["bucket"].combine_chunks(), rows["node"].combine_chunks()
    if rows.num_rows == 0:
        return pa.table({"bucket": buckets, "a": nodes, "b": nodes})
    # Members are numbered by place, so that a pair of places tells its bucket and who comes first in it.
    pairs = candidate_pairs(
        buckets.to_numpy(), np.arange(rows.num_rows), asks=rows["asks"].to_numpy(zero_copy_only=False)
    )
    first, second = pa.array(pairs[:, 0]), pa.array(pairs[:, 1])
    return pa.table({"bucket": buckets.take(first), "a": nodes.take(first), "b": nodes.take(second)})
