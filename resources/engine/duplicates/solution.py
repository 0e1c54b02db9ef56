"""Families of the verified pairs, solved where something changed; and what versions of documents there were."""

import functools

import duckdb
import numpy as np
import pyarrow as pa

from stemma.deduplication import Policy, families
from stemma.deduplication.components import components
from stemma.deduplication.stars import connected
from stemma.deduplication.versions import changed_versions
from stemma.hashing import UUID
from stemma.incremental.counts import Counts
from stemma.resources.engine.duplicates.layers import Layer, document_policy
from stemma.resources.engine.duplicates.priority import source_ranks
from stemma.resources.engine.run import Run, few, load_replaced, replace_rows
from stemma.resources.handing import execute_over
from stemma.resources.memo import quoted
from stemma.resources.warehouse import utc_now

# Edges whose components are found in this process: 100 bytes and half a microsecond each.
EDGES_HERE = 100_000_000
# A row of state.deduplicated is another one when any of these differs.
ROW_HASH = """hash(document_id, cluster_id, cluster_size, kept_document_id, similarity, method, threshold, text_hash,
    cuts)"""

CUTS = 'STRUCT("start" INTEGER, "end" INTEGER)[]'

EDGES = pa.schema([("a", UUID), ("b", UUID), ("similarity", pa.float64()), ("method", pa.string())])


def solve_families(
    run: Run,
    connection: duckdb.DuckDBPyConnection,
    counts: Counts,
    layers: tuple[Layer, ...],
    *,
    whole: bool,
    keeps_cuts: bool,
) -> pa.Table:
    """Solve the families of the pending documents, or all of them, and apply their members to state.deduplicated.

    `keeps_cuts` says that something may be cut from documents: that stays as long as their texts do. Returns the
    documents of these families (document_id, text_hash); replaced has those that were of them.
    """
    documents = _touched(connection, ("text_hash", "cuts") if keeps_cuts else (), whole=whole)
    documents, asked = _with_policies(run, documents)
    solved = families(
        documents,
        _edges(connection, layers, documents),
        policies=asked,
        keep=run.config.deduplicate.keep,
        connect=functools.partial(_connect, run),
    )
    for name in ("text_hash", "body_hash"):
        solved = solved.append_column(name, documents[name])
    cuts, before = "NULL", ""
    if keeps_cuts:
        cuts = "CASE WHEN m.kept AND r.text_hash = m.text_hash THEN r.cuts END"
        before = "LEFT JOIN (FROM replaced WHERE cuts IS NOT NULL) AS r ON r.key = m.document_id"
    execute_over(
        connection,
        solved,
        f"""CREATE OR REPLACE TEMP TABLE fresh AS SELECT *, {ROW_HASH} AS row_hash
        FROM (SELECT m.document_id, cluster_id, cluster_size, m.kept, kept_document_id, similarity, method, threshold,
                ({cuts})::{CUTS} AS cuts, '{run.run_id}' AS run_id, m.text_hash, body_hash AS input_hash
            FROM arriving AS m {before})""",
    )
    replace_rows(connection, counts, "document_id", "fresh")
    connection.execute("DELETE FROM state.dedup_pending")
    return documents.select(["document_id", "text_hash"])


def _connect(run: Run, nodes: int, source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Number the connected component of each node: here, or by the engine where there are very many edges."""
    if len(source) < EDGES_HERE:
        return components(nodes, source, target)
    return connected(nodes, source, target, run.executor)


def _touched(connection: duckdb.DuckDBPyConnection, columns: tuple[str, ...], *, whole: bool) -> pa.Table:
    """Return what the index knows of the pending documents and of the families that they were in, or of all.

    And make replaced, what state.deduplicated has of them, with these `columns` beside the others.
    """
    pending = few("state.dedup_pending", "document_id")
    clusters = f"(SELECT cluster_id FROM state.deduplicated WHERE document_id IN {pending})"
    condition = "true" if whole else f"cluster_id IN {few(clusters, 'cluster_id')}"
    load_replaced(connection, "deduplicated", "document_id", condition, *columns)
    members = f"({few('replaced', 'key')} UNION ALL {pending})"
    return connection.execute(
        f"""SELECT * EXCLUDE (row_hash) FROM state.dedup_documents
        WHERE {"true" if whole else f"document_id IN {members}"}"""
    ).to_arrow_table()


def _with_policies(run: Run, documents: pa.Table) -> tuple[pa.Table, list[Policy]]:
    """Return the documents with the columns policy and rank, and the policies that the first one numbers."""
    ranks = source_ranks(run, documents["source"])
    sources = documents["source"].combine_chunks().dictionary_encode()
    categories = documents["category"].combine_chunks().dictionary_encode()
    width = max(len(categories.dictionary), 1)
    codes = sources.indices.to_numpy().astype(np.int64) * width + categories.indices.to_numpy()
    known, policy = np.unique(codes, return_inverse=True)
    names, kinds = sources.dictionary.to_pylist(), categories.dictionary.to_pylist()
    asked = [document_policy(run.setup, names[code // width], kinds[code % width]) for code in known.tolist()]
    # Documents of like policies are decided as one where their texts are equal.
    distinct = [policy for place, policy in enumerate(asked) if policy not in asked[:place]]
    number = np.array([distinct.index(each) for each in asked], np.int64)
    documents = documents.append_column("policy", pa.array(number[policy]))
    return documents.append_column("rank", pa.array(ranks)), distinct


def _edges(connection: duckdb.DuckDBPyConnection, layers: tuple[Layer, ...], documents: pa.Table) -> pa.Table:
    """Return the verified pairs between the nodes of documents: (a, b, similarity, method)."""
    nodes = few("arriving", "node")
    parts = [
        execute_over(
            connection,
            documents.select(["node"]),
            f"""SELECT a, b, score AS similarity, {quoted(layer.name)} AS method FROM state.dedup_pairs
            WHERE layer = {layer.number} AND a IN {nodes} AND b IN {nodes}""",
        ).to_arrow_table()
        for layer in layers
    ]
    return pa.concat_tables([EDGES.empty_table(), *parts])


def record_versions(run: Run, connection: duckdb.DuckDBPyConnection, live: pa.Table) -> None:
    """Close the versions of texts that are not live any more, and open those that are new.

    Only those of documents that are `live` (document_id, text_hash) or in the table replaced (key) can be.
    """
    known = execute_over(
        connection,
        live.select(["document_id"]),
        f"""SELECT rowid AS place, document_id, version, text_hash, until IS NULL AS current FROM state.versions
        WHERE document_id IN ({few("replaced", "key")} UNION ALL {few("arriving", "document_id")})""",
    ).to_arrow_table()
    ended, begun = changed_versions(live, known)
    now = quoted(str(utc_now()))
    if ended.any():
        execute_over(
            connection,
            known.select(["place"]).filter(pa.array(ended)),
            f"""UPDATE state.versions SET until = greatest({now}::TIMESTAMP, since), until_run = {quoted(run.run_id)}
            WHERE rowid IN (SELECT place FROM arriving)""",
        )
    execute_over(
        connection,
        begun,
        f"""INSERT INTO state.versions BY NAME
        SELECT *, {now}::TIMESTAMP AS since, {quoted(run.run_id)} AS since_run FROM arriving""",
    )
