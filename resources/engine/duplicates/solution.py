"""Families of the verified pairs, solved where something changed; and what versions of documents there were."""

import functools

import duckdb
import numpy as np
import pyarrow as pa

from stemma.deduplication import Policy, families
from stemma.deduplication.components import components
from stemma.deduplication.stars import connected
from stemma.hashing import UUID
from stemma.incremental.counts import Counts
from stemma.resources.engine.duplicates.layers import Layer, document_policy
from stemma.resources.engine.duplicates.priority import source_rank
from stemma.resources.engine.run import Run, few, load_replaced, load_rows, replace_rows
from stemma.resources.memo import quoted
from stemma.resources.warehouse import utc_now

# Edges whose components are found in this process: 100 bytes and half a microsecond each.
EDGES_HERE = 100_000_000
# A row of state.deduplicated is another one when any of these differs.
ROW_HASH = """hash(document_id, cluster_id, cluster_size, kept_document_id, similarity, method, threshold, text_hash,
    cuts)"""

EDGES = pa.schema([("a", UUID), ("b", UUID), ("similarity", pa.float64()), ("method", pa.string())])


def solve_families(
    run: Run,
    connection: duckdb.DuckDBPyConnection,
    counts: Counts,
    layers: tuple[Layer, ...],
    *,
    whole: bool,
) -> None:
    """Solve the families of the pending documents, or all of them, and apply their members to state.deduplicated."""
    _find_touched(connection, whole=whole)
    documents = connection.execute(
        "SELECT document_id, node, source, category, document_date, length, quality FROM touched"
    ).to_arrow_table()
    documents, asked = _with_policies(run, documents)
    solved = families(
        documents,
        _edges(connection, layers),
        policies=asked,
        keep=run.config.deduplicate.keep,
        connect=functools.partial(_connect, run),
    )
    load_rows(connection, "members", solved)
    connection.execute(
        f"""CREATE OR REPLACE TEMP TABLE fresh AS SELECT *, {ROW_HASH} AS row_hash
        FROM (SELECT m.document_id, m.cluster_id, m.cluster_size, m.kept, m.kept_document_id, m.similarity, m.method,
                m.threshold, CASE WHEN m.kept AND d.text_hash = t.text_hash THEN d.cuts END AS cuts,
                '{run.run_id}' AS run_id, t.text_hash, t.body_hash AS input_hash
            FROM members AS m JOIN touched AS t USING (document_id)
            LEFT JOIN (FROM replaced WHERE cuts IS NOT NULL) AS d ON d.key = document_id)"""
    )
    replace_rows(connection, counts, "document_id", "fresh")
    connection.execute("DELETE FROM state.dedup_pending")


def _connect(run: Run, nodes: int, source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Number the connected component of each node: here, or by the engine where there are very many edges."""
    if len(source) < EDGES_HERE:
        return components(nodes, source, target)
    return connected(nodes, source, target, run.executor)


def _find_touched(connection: duckdb.DuckDBPyConnection, *, whole: bool) -> None:
    """Make touched_documents: the pending documents with the families that they were in; or all there are.

    And replaced, what state.deduplicated has of them, and touched, what the index knows of them.
    """
    clusters = f"""(SELECT DISTINCT cluster_id FROM state.deduplicated
        WHERE document_id IN {few("state.dedup_pending", "document_id")})"""
    condition = "true" if whole else f"cluster_id IN {few(clusters, 'cluster_id')}"
    load_replaced(connection, "deduplicated", "document_id", condition, "cuts", "text_hash")
    connection.execute(
        f"""CREATE OR REPLACE TEMP TABLE touched_documents AS SELECT key AS document_id FROM replaced
        UNION SELECT document_id FROM state.{"dedup_documents" if whole else "dedup_pending"}"""
    )
    load_touched(connection)


def load_touched(connection: duckdb.DuckDBPyConnection) -> None:
    """Make touched: the rows of state.dedup_documents of the documents in touched_documents."""
    connection.execute(f"CREATE OR REPLACE TEMP TABLE touched AS {_touched('dedup_documents')}")


def _with_policies(run: Run, documents: pa.Table) -> tuple[pa.Table, list[Policy]]:
    """Return the documents with the columns policy and rank, and the policies that the first one numbers."""
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
    ranks = np.array([source_rank(run, name) for name in names], np.int64)[sources.indices.to_numpy()]
    documents = documents.append_column("policy", pa.array(number[policy]))
    return documents.append_column("rank", pa.array(ranks)), distinct


def _edges(connection: duckdb.DuckDBPyConnection, layers: tuple[Layer, ...]) -> pa.Table:
    """Return the verified pairs between the nodes of touched documents: (a, b, similarity, method)."""
    parts = [
        connection.execute(
            f"""SELECT a, b, score AS similarity, {quoted(layer.name)} AS method FROM state.dedup_pairs
            WHERE layer = {layer.number}
                AND a IN (SELECT node FROM touched) AND b IN (SELECT node FROM touched)"""
        ).to_arrow_table()
        for layer in layers
    ]
    return pa.concat_tables([EDGES.empty_table(), *parts])


def _touched(table: str) -> str:
    """Return the relation of the rows of a table of the state that are of touched documents."""
    return f"(FROM state.{table} WHERE document_id IN {few('touched_documents', 'document_id')})"


def record_versions(run: Run, connection: duckdb.DuckDBPyConnection) -> None:
    """Close the versions of texts that are not live any more, and open those that are new.

    Only those of the documents in the table touched_documents can be; the table touched has their rows of the index.
    """
    now = utc_now()
    connection.execute(
        f"""CREATE OR REPLACE TEMP TABLE texts AS
        SELECT document_id, text_hash, v.version, v.until, v.version IS NOT NULL AS known, live
        FROM (SELECT document_id, text_hash, version, until, until IS NULL AS current FROM {_touched("versions")}) AS v
        FULL JOIN (SELECT document_id, text_hash, true AS live, true AS current FROM touched) AS d
            USING (document_id, text_hash, current)"""
    )
    connection.execute(
        """UPDATE state.versions SET until = greatest(?, since), until_run = ?
        FROM (FROM texts WHERE known AND until IS NULL AND live IS NULL) AS ended
        WHERE versions.document_id = ended.document_id AND versions.until IS NULL""",
        [now, run.run_id],
    )
    connection.execute(
        """INSERT INTO state.versions
        SELECT document_id, coalesce(last, 0) + 1, text_hash, ?, ?, NULL, NULL
        FROM (SELECT *, max(version) OVER (PARTITION BY document_id) AS last FROM texts) WHERE NOT known""",
        [now, run.run_id],
    )
