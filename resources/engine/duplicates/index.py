"""The index: documents and their nodes, the buckets of each layer, and the candidate pairs that these propose.

A node is what is one text after normalisation. All tables are functions of the live documents alone, and what a
change costs follows the change: only buckets that a node entered or left propose their pairs anew.
"""

from collections.abc import Iterator, Mapping, Sequence

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from stemma.deduplication import Buckets, bucket_pairs
from stemma.deduplication.difference import unpaired
from stemma.hashing import digest
from stemma.resources.engine.duplicates.layers import Layer
from stemma.resources.engine.duplicates.moves import apply_moved, find_moved
from stemma.resources.engine.duplicates.pending import forget_nodes
from stemma.resources.engine.duplicates.priority import by_priority
from stemma.resources.engine.rowwise import segments_of
from stemma.resources.engine.run import Run, State, fetch_value, few, load_rows, make_table, put_together
from stemma.resources.handing import execute_over
from stemma.resources.memo import quoted, stored_keys

PAIRS = "pairs"
TABLES = ("dedup_documents", "dedup_bands", "dedup_candidates", "dedup_pairs", "dedup_pending")
# Rows of buckets written with one statement.
BUCKET_ROWS = 1 << 20
# Signatures in memory at a time, each with its buckets.
SIGNATURES = 1 << 13


def live(run: Run) -> str:
    """Return the relation of the documents of cleaned with all that their index row is made of.

    Its columns are document_id, text_hash, body_hash (the memo key of the text), source, category, document_date,
    length, quality, and place, that of the row in state.cleaned.
    """
    settings = run.config.deduplicate
    return f"""(SELECT document_id, text_hash, c.input_hash AS body_hash, c.source, {_category(run)} AS category,
            c.document_date, c.characters AS length,
            {_quality(run) if settings.keep == "best" else "NULL"}::DOUBLE AS quality, c.place
        FROM (SELECT *, rowid AS place, characters AS text_length FROM state.cleaned WHERE verdicts IS NULL) AS c
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


def indexes(connection: duckdb.DuckDBPyConnection) -> dict[str, str]:
    """Return the recipes that indexes were made by, by their names."""
    return dict(connection.execute("SELECT name, recipe FROM state.dedup_index").fetchall())


def clear_index(
    connection: duckdb.DuckDBPyConnection,
    known: Mapping[str, str],
    name: str,
    recipe: str,
    tables: Sequence[str],
) -> bool:
    """Empty the tables of an index if another recipe made it; returns whether it did. `known` are the `indexes`."""
    if known.get(name) == recipe:
        return False
    drop_index(connection, name, tables)
    connection.execute("INSERT INTO state.dedup_index VALUES (?, ?)", [name, recipe])
    return True


def drop_index(connection: duckdb.DuckDBPyConnection, name: str, tables: Sequence[str]) -> None:
    """Empty the tables of an index, and forget what recipe made it."""
    for table in tables:
        connection.execute(f"DELETE FROM state.{table}")
    connection.execute("DELETE FROM state.dedup_index WHERE name = ?", [name])


def compare_documents(run: Run, connection: duckdb.DuckDBPyConnection, made: Mapping[str, State]) -> str:
    """Make coming and went: the live documents that the index does not know as they are, and those it knows otherwise.

    Both may name a document. Returns the key of what was compared; see `compared`.
    """
    row_hash = """hash(document_id, text_hash, body_hash, source, category, document_date, length, quality)
        AS row_hash"""
    found = _in_order(connection, f"SELECT {row_hash}, place FROM {live(run)}")
    known = _in_order(connection, "SELECT row_hash, rowid AS place FROM state.dedup_documents")
    comes, stands = unpaired(found["row_hash"].to_numpy(), known["row_hash"].to_numpy())
    execute_over(
        connection,
        found.take(pa.array(comes)),
        f"""CREATE OR REPLACE TEMP TABLE coming AS SELECT *, {row_hash} FROM {live(run)}
        WHERE place IN (SELECT place FROM arriving)""",
    )
    execute_over(
        connection,
        known.take(pa.array(stands)),
        f"""CREATE OR REPLACE TEMP TABLE went AS FROM state.dedup_documents
        WHERE {"rowid IN (SELECT place FROM arriving)" if len(stands) else "false"}""",
    )
    return compared(connection, made)


def _in_order(connection: duckdb.DuckDBPyConnection, query: str) -> pa.Table:
    """Return the rows of a query in the order of their places: of a large table, threads read parts as they come."""
    rows = connection.execute(query).to_arrow_table()
    # Each part is in order: for NumPy's stable sort, a millisecond for 100,000 rows.
    return rows.take(pa.array(np.argsort(rows["place"].to_numpy(), kind="stable")))


def compared(connection: duckdb.DuckDBPyConnection, made: Mapping[str, State]) -> str:
    """Return a key of all that `compare_documents` compares: another one tells that another run was here.

    Whoever changes the index leaves documents pending, or brings the dataset to its end.
    """
    pending = fetch_value(connection, "SELECT sum(hash(document_id)::HUGEINT) FROM state.dedup_pending")
    return f"{made} {pending}"


def update_index(
    run: Run,
    connection: duckdb.DuckDBPyConnection,
    made: Mapping[str, State],
    layers: tuple[Layer, ...],
    *,
    whole: bool,
    planned_on: str,
) -> list[pa.Table]:
    """Bring the index up to date with the live documents, in the session's transaction.

    Returns for each layer the candidate pairs: (a, b, buckets: how many propose it).

    `whole` says that the index was empty; `planned_on` is what `compare_documents` returned, if it was called. What
    hangs together with anything that changed is added to state.dedup_pending, until families are solved; or its node
    to the table pending_nodes, until `note_pending` looks its documents up.
    """
    forget_nodes(connection)
    if planned_on != compared(connection, made):
        compare_documents(run, connection, made)
    changed = _diff_documents(run, connection)
    if whole:
        # Of documents that are gone by now, the new index would never know that they stand in a family.
        connection.execute("INSERT INTO state.dedup_pending SELECT document_id FROM state.deduplicated")
    entering = connection.execute(
        """SELECT node, min(text_hash) AS input_hash, min(source) AS source, any_value(was) AS known
        FROM came JOIN changed_nodes USING (node) GROUP BY node"""
    ).to_arrow_table()
    moved = {}
    for layer in layers:
        _collect(run, connection, layer, entering)
        if not whole:
            is_left = changed > entering.num_rows
            moved[layer.number] = find_moved(run, connection, layer, changed=changed, is_left=is_left)
    _apply_documents(connection)
    candidates = []
    for layer in layers:
        connection.execute(
            f"""INSERT INTO state.dedup_bands
            SELECT {layer.number}, bucket, node, rank, asks FROM entered_{layer.number} WHERE NOT known"""
        )
        if whole:
            _load_pairs(run, connection, layer)
            candidates.append(connection.execute(f"FROM {_named(layer)}").to_arrow_table())
        else:
            candidates.append(apply_moved(connection, layer, moved[layer.number]))
    return candidates


def _diff_documents(run: Run, connection: duckdb.DuckDBPyConnection) -> int:
    """Make came, the documents that come and are signed, and changed_nodes: what becomes of the nodes of those.

    Of each such node it tells whether there was a document of it, and whether one stays; the table standing has
    the documents that were of these nodes. Returns how many nodes change.
    """
    settings = run.config.deduplicate
    # Documents of other scopes are other nodes in other buckets: nothing is ever compared across.
    node = "norm_hash" if settings.scope == "global" else "md5(concat_ws('|', source, norm_hash))::UUID"
    _load_fresh_nodes(run, connection)
    # A document whose text stayed may still have another date; its node is known.
    connection.execute(
        f"""CREATE OR REPLACE TEMP TABLE came AS
        SELECT document_id, if(norm_hash IS NULL, known.node, {node}) AS node, text_hash, body_hash, source,
            category, document_date, length, quality, row_hash, place
        FROM coming LEFT JOIN fresh_nodes USING (document_id)
        LEFT JOIN (SELECT document_id, text_hash, node FROM went) AS known USING (document_id, text_hash)
        WHERE norm_hash IS NOT NULL OR known.node IS NOT NULL"""
    )
    connection.execute(
        f"""CREATE OR REPLACE TEMP TABLE standing AS
        SELECT document_id, node, NOT document_id IN (SELECT document_id FROM went) AS stays
        FROM state.dedup_documents
        WHERE node IN {few("(SELECT node FROM came UNION ALL SELECT node FROM went)", "node")}"""
    )
    return make_table(
        connection,
        "changed_nodes",
        """SELECT node, bool_or(was) AS was, bool_or(stays) AS stays
        FROM (SELECT node, false AS was, true AS stays FROM came UNION ALL SELECT node, true, stays FROM standing)
        GROUP BY node""",
    )


def _load_fresh_nodes(run: Run, connection: duckdb.DuckDBPyConnection) -> None:
    """Make fresh_nodes (document_id, norm_hash), of the documents that come with a text that they had not before."""
    fresh = connection.execute(
        "SELECT document_id, text_hash FROM coming ANTI JOIN went USING (document_id, text_hash)"
    ).to_arrow_table()
    signed, places = segments_of(run, run.setup.sign).fetch(stored_keys(fresh["text_hash"]), ["norm_hash"])
    hashes = signed["norm_hash"].take(pa.array(places, mask=places < 0))
    load_rows(connection, "fresh_nodes", fresh.select(["document_id"]).append_column("norm_hash", hashes))


def _apply_documents(connection: duckdb.DuckDBPyConnection) -> None:
    """Make state.dedup_documents the current ones, and take dead nodes out of the buckets."""
    connection.execute(
        "DELETE FROM state.dedup_documents WHERE document_id IN (SELECT document_id FROM went)"
    )
    # In the order of cleaned: `unpaired` passes over what stands alike.
    connection.execute(
        "INSERT INTO state.dedup_documents SELECT * EXCLUDE (place) FROM came ORDER BY came.place"
    )
    connection.execute(
        """INSERT INTO state.dedup_pending SELECT document_id FROM came UNION SELECT document_id FROM went
        UNION SELECT document_id FROM standing"""
    )
    if fetch_value(connection, "SELECT count(*) FROM changed_nodes WHERE NOT stays"):
        connection.execute(
            "DELETE FROM state.dedup_bands WHERE node IN (SELECT node FROM changed_nodes WHERE NOT stays)"
        )


def _collect(run: Run, connection: duckdb.DuckDBPyConnection, layer: Layer, entering: pa.Table) -> None:
    """Make entered_<layer>, the buckets of the nodes that documents come to, and whether they were known."""
    number = layer.number
    connection.execute(
        f"""CREATE OR REPLACE TEMP TABLE entered_{number} (
            bucket UINTEGER, node UUID, rank BIGINT, asks BOOLEAN, known BOOLEAN)"""
    )
    found: list[pa.Table] = []
    parts: list[Buckets] = []
    count = 0
    for signed in put_together(_signatures(run, layer, entering), SIGNATURES):
        signed = signed.filter(pc.is_valid(signed["signature"]))
        nodes = entering.take(signed["row"])
        buckets = layer.buckets(signed)
        if run.config.deduplicate.scope != "global":
            scopes = np.array([_scope_bits(scope) for scope in nodes["source"].to_pylist()], np.uint64)
            buckets = buckets._replace(keys=buckets.keys ^ scopes[buckets.rows])
        parts.append(buckets._replace(rows=buckets.rows + count))
        found.append(nodes.select(["node", "known"]))
        count += nodes.num_rows
    if parts:
        every = Buckets(*map(np.concatenate, zip(*parts, strict=True)))
        _load_entered(connection, number, pa.concat_tables(found).combine_chunks(), every)


def _signatures(run: Run, layer: Layer, entering: pa.Table) -> Iterator[pa.Table]:
    """Yield what buckets of the nodes are made of, and in the column row which of them it is."""
    keys = stored_keys(entering["input_hash"])
    for rows, signed in segments_of(run, layer.stage).scan(keys, list(layer.bucketed)):
        yield pa.Table.from_batches([signed]).append_column("row", pa.array(rows))


def _load_entered(
    connection: duckdb.DuckDBPyConnection, number: int, nodes: pa.Table, buckets: Buckets
) -> None:
    for start in range(0, len(buckets.keys), BUCKET_ROWS):
        part = Buckets(*(column[start : start + BUCKET_ROWS] for column in buckets))
        places = pa.array(part.rows)
        rows = {
            "bucket": stored_buckets(part.keys),
            "node": nodes["node"].take(places),
            "rank": part.rank,
            "asks": part.asks,
            "known": nodes["known"].take(places),
        }
        execute_over(connection, pa.table(rows), f"INSERT INTO entered_{number} FROM arriving")


def stored_buckets(keys: np.ndarray) -> np.ndarray:
    """Return the names of buckets as they are stored: half of their bits.

    Buckets are looked for in a table of 27 a document, which is half as large so. Two that are taken for one propose
    pairs that are measured and found to be none: at a million documents, one in fifty of all candidates.
    """
    return keys.astype(np.uint32)


def _scope_bits(scope: str) -> int:
    return int.from_bytes(digest(scope.encode())[:8], "little")


def _load_pairs(run: Run, connection: duckdb.DuckDBPyConnection, layer: Layer) -> None:
    """Make now, the pairs that all buckets propose: (first, second: nodes in their order, buckets: how many).

    Members of a bucket must meet in one place, and that is all: an exchange by bucket.
    """
    members = f"state.dedup_bands WHERE layer = {layer.number}"
    connection.execute(
        f"""CREATE OR REPLACE TEMP TABLE shared AS SELECT bucket, node, rank, asks
        FROM (FROM {members}) SEMI JOIN (SELECT bucket FROM {members} GROUP BY bucket HAVING count(*) > 1)
        USING (bucket)"""
    )
    connection.execute(
        f"""CREATE OR REPLACE TEMP TABLE numbers AS
        SELECT node, row_number() OVER (ORDER BY node_rank, place) - 1 AS number
        FROM (SELECT node, min(rank) AS node_rank FROM shared GROUP BY node)
        JOIN (SELECT node, min(place) AS place
            FROM (SELECT node, row_number() OVER (ORDER BY {by_priority(run)}) AS place
                FROM state.dedup_documents SEMI JOIN shared USING (node))
            GROUP BY node) USING (node)"""
    )
    reader = connection.execute(
        "SELECT bucket, number AS member, asks FROM shared JOIN numbers USING (node) ORDER BY number"
    ).to_arrow_reader(BUCKET_ROWS)
    executor = run.executor
    rows = executor.scatter(pa.Table.from_batches([batch]) for batch in reader)
    found = executor.gather(executor.exchange(rows, "bucket", bucket_pairs))
    connection.execute("CREATE OR REPLACE TEMP TABLE proposed (first BIGINT, second BIGINT, buckets BIGINT)")
    for part in found:
        load_rows(connection, "part", part)
        connection.execute("INSERT INTO proposed FROM part")
    connection.execute(
        """CREATE OR REPLACE TEMP TABLE now AS SELECT x.node AS first, y.node AS second, buckets
        FROM (SELECT first, second, sum(buckets)::BIGINT AS buckets FROM proposed GROUP BY ALL) AS p
        JOIN numbers AS x ON x.number = p.first JOIN numbers AS y ON y.number = p.second"""
    )


def _named(layer: Layer) -> str:
    """Return the table now as a relation (a, b, buckets): where no side contains the other, a is the smaller."""
    if layer.directed:
        return "(SELECT first AS a, second AS b, buckets FROM now)"
    return "(SELECT least(first, second) AS a, greatest(first, second) AS b, buckets FROM now)"
