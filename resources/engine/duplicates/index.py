"""The index: documents and their nodes, the buckets of each layer, and the candidate pairs that these propose.

A node is what is one text after normalisation. All tables are functions of the live documents alone, and what a
change costs follows the change: only buckets that a node entered or left propose their pairs anew.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from stemma.deduplication import bucket_pairs
from stemma.deduplication.difference import unpaired
from stemma.deduplication.nodes import changed_nodes, entering_nodes, scope_bits, scoped_nodes
from stemma.hashing import UUID, stored_keys
from stemma.resources.engine.duplicates.change import Change, Difference
from stemma.resources.engine.duplicates.layers import Layer
from stemma.resources.engine.duplicates.moves import apply_moved, find_moved
from stemma.resources.engine.duplicates.pending import documents_of
from stemma.resources.engine.duplicates.priority import by_priority
from stemma.resources.engine.rowwise import segments_of
from stemma.resources.engine.run import Run, State, fetch_value, few, load_rows, put_together
from stemma.resources.handing import execute_over
from stemma.resources.memo import quoted

PAIRS = "pairs"
TABLES = ("dedup_documents", "dedup_bands", "dedup_candidates", "dedup_pairs", "dedup_pending")
# Rows of buckets that proposed pairs are gathered from at a time.
BUCKET_ROWS = 1 << 20
# Signatures in memory at a time, each with its buckets.
SIGNATURES = 1 << 13
# Buckets that a node enters; `known` says that it was in them already, and that one more document comes to it.
ENTERED = pa.schema(
    [
        pa.field("bucket", pa.uint32()),
        pa.field("node", UUID),
        pa.field("rank", pa.int64()),
        pa.field("asks", pa.bool_()),
        pa.field("known", pa.bool_()),
    ]
)


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


class Updated(NamedTuple):
    """What bringing the index up to date leaves to be done.

    Attributes:
        candidates: for each layer the pairs that are to be measured: (a, b, buckets: how many propose it).
        nodes: those whose families are to be solved (binary(16)), in parts.
        documents: documents that are gone, whose families are to be solved (uuid).
    """

    candidates: list[pa.Table]
    nodes: list[pa.Array]
    documents: pa.ChunkedArray


def compare_documents(
    run: Run, connection: duckdb.DuckDBPyConnection, made: Mapping[str, State]
) -> Difference:
    """Compare the live documents with those that the index knows."""
    row_hash = """hash(document_id, text_hash, body_hash, source, category, document_date, length, quality)
        AS row_hash"""
    found = _in_order(connection.execute(f"SELECT {row_hash}, place FROM {live(run)}"))
    known = _in_order(connection.execute("SELECT row_hash, rowid AS place FROM state.dedup_documents"))
    comes, stands = unpaired(found["row_hash"].to_numpy(), known["row_hash"].to_numpy())
    coming = _in_order(
        execute_over(
            connection,
            found.take(pa.array(comes)),
            f"SELECT *, {row_hash} FROM {live(run)} WHERE place IN (SELECT place FROM arriving)",
        )
    )
    went = execute_over(
        connection,
        known.take(pa.array(stands)),
        f"""FROM state.dedup_documents
        WHERE {"rowid IN (SELECT place FROM arriving)" if len(stands) else "false"}""",
    ).to_arrow_table()
    return Difference(coming, went, compared(connection, made))


def _in_order(found: duckdb.DuckDBPyConnection) -> pa.Table:
    """Return the rows of a query in the order of their places: of a large table, threads read parts as they come."""
    rows = found.to_arrow_table()
    places = rows["place"].to_numpy()
    if (places[1:] >= places[:-1]).all():
        return rows
    # Each part is in order: for NumPy's stable sort, a millisecond for 100,000 rows.
    return rows.take(pa.array(np.argsort(places, kind="stable")))


def compared(connection: duckdb.DuckDBPyConnection, made: Mapping[str, State]) -> str:
    """Return a key of all that `compare_documents` compares: another one tells that another run was here.

    Whoever changes the index leaves documents pending, or brings the dataset to its end.
    """
    pending = fetch_value(connection, "SELECT sum(hash(document_id)::HUGEINT) FROM state.dedup_pending")
    return f"{made} {pending}"


def update_index(
    run: Run,
    connection: duckdb.DuckDBPyConnection,
    difference: Difference,
    layers: tuple[Layer, ...],
    *,
    whole: bool,
) -> Updated:
    """Bring the index up to date with the live documents, in the session's transaction; `whole`: it was empty.

    What hangs together with anything that changed is to be solved: see `Updated`.
    """
    change = _changed(run, connection, difference)
    if whole:
        # Of documents that are gone by now, the new index would never know that they stand in a family.
        connection.execute("INSERT INTO state.dedup_pending SELECT document_id FROM state.deduplicated")
    entering = entering_nodes(change.came, change.nodes)
    moved, entered = {}, {}
    for layer in layers:
        buckets = _buckets(run, layer, entering)
        if whole:
            for part in buckets:
                _insert_buckets(connection, layer, part)
        else:
            entered[layer.number] = pa.concat_tables(buckets)
            moved[layer.number] = find_moved(run, connection, layer, change, entered[layer.number])
    _apply_documents(connection, change)
    candidates, nodes = [], [stored_keys(change.nodes["node"])]
    for layer in layers:
        if whole:
            _load_pairs(run, connection, layer)
            candidates.append(connection.execute(f"FROM {_named(layer)}").to_arrow_table())
        else:
            _insert_buckets(connection, layer, entered[layer.number])
            proposed, touched = apply_moved(connection, layer, moved[layer.number], change.came)
            candidates.append(proposed)
            nodes.append(touched)
    return Updated(candidates, nodes, change.went["document_id"])


def _changed(run: Run, connection: duckdb.DuckDBPyConnection, difference: Difference) -> Change:
    """Return what comes and goes, and what becomes of the nodes of that."""
    coming, went, _compared = difference
    before = difference.before()
    fresh = before < 0
    # A document whose text stayed may still have another date; its node is known.
    nodes = [_fresh_nodes(run, coming.filter(pa.array(fresh))), stored_keys(went["node"])]
    numbers = np.where(fresh, np.cumsum(fresh) - 1, before + fresh.sum())
    node = pa.ExtensionArray.from_storage(UUID, pa.concat_arrays(nodes).take(pa.array(numbers)))
    place = coming.schema.get_field_index("text_hash")
    came = coming.add_column(place, "node", node).filter(node.is_valid())
    touched = [stored_keys(came["node"]), stored_keys(went["node"])]
    standing = documents_of(connection, touched, "document_id, node")
    return Change(came, went, changed_nodes(came, went, standing))


def _fresh_nodes(run: Run, documents: pa.Table) -> pa.Array:
    """Return the nodes (binary(16)) of documents by their texts; null for one that is not signed."""
    keys = stored_keys(documents["text_hash"])
    signed, places = segments_of(run, run.setup.sign).fetch(keys, ["norm_hash"])
    nodes = stored_keys(signed["norm_hash"]).take(pa.array(places, mask=places < 0))
    if run.config.deduplicate.scope == "global":
        return nodes
    # Documents of other scopes are other nodes in other buckets: nothing is ever compared across.
    return scoped_nodes(nodes, documents["source"])


def _apply_documents(connection: duckdb.DuckDBPyConnection, change: Change) -> None:
    """Make state.dedup_documents the current ones, and take dead nodes out of the buckets."""
    if change.went.num_rows:
        execute_over(
            connection,
            change.went.select(["document_id"]),
            f"DELETE FROM state.dedup_documents WHERE document_id IN {few('arriving', 'document_id')}",
        )
    # In the order of cleaned: `unpaired` passes over what stands alike.
    execute_over(
        connection,
        change.came,
        "INSERT INTO state.dedup_documents BY NAME SELECT * EXCLUDE (place) FROM arriving ORDER BY place",
    )
    dead = change.nodes.filter(pc.invert(change.nodes["stays"]))
    if dead.num_rows:
        execute_over(
            connection,
            dead.select(["node"]),
            f"DELETE FROM state.dedup_bands WHERE node IN {few('arriving', 'node')}",
        )


def _buckets(run: Run, layer: Layer, entering: pa.Table) -> Iterator[pa.Table]:
    """Yield the buckets of the nodes that documents come to: (bucket, node, rank, asks, known)."""
    yield ENTERED.empty_table()
    for signed in put_together(_signatures(run, layer, entering), SIGNATURES):
        signed = signed.filter(pc.is_valid(signed["signature"]))
        nodes = entering.take(signed["row"])
        keys, rows, rank, asks = layer.buckets(signed)
        if run.config.deduplicate.scope != "global":
            keys = keys ^ scope_bits(nodes["source"])[rows, 0]
        of_node = nodes.select(["node", "known"]).combine_chunks().take(pa.array(rows))
        yield pa.Table.from_arrays(
            [
                pa.array(stored_buckets(keys)),
                of_node["node"],
                pa.array(rank),
                pa.array(asks),
                of_node["known"],
            ],
            schema=ENTERED,
        )


def _signatures(run: Run, layer: Layer, entering: pa.Table) -> Iterator[pa.Table]:
    """Yield what buckets of the nodes are made of, and in the column row which of them it is."""
    keys = stored_keys(entering["input_hash"])
    for rows, signed in segments_of(run, layer.stage).scan(keys, list(layer.bucketed)):
        yield pa.Table.from_batches([signed]).append_column("row", pa.array(rows))


def _insert_buckets(connection: duckdb.DuckDBPyConnection, layer: Layer, entered: pa.Table) -> None:
    fresh = entered.filter(pc.invert(entered["known"]))
    if fresh.num_rows:
        execute_over(
            connection,
            fresh,
            f"INSERT INTO state.dedup_bands SELECT {layer.number}, bucket, node, rank, asks FROM arriving",
        )


def stored_buckets(keys: np.ndarray) -> np.ndarray:
    """Return the names of buckets as they are stored: half of their bits.

    Buckets are looked for in a table of 27 a document, which is half as large so. Two that are taken for one propose
    pairs that are measured and found to be none: at a million documents, one in fifty of all candidates.
    """
    return keys.astype(np.uint32)


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
