"""The index "bloom": a document is dropped when a Bloom filter has seen the like of it; it only ever grows.

Filters change in place, so each run that adds to them works on a copy, and which copy counts is told by the state.
"""

import shutil
from collections.abc import Mapping
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa

from stemma.deduplication import signature_array
from stemma.deduplication.bloom import open_filters, seen_before
from stemma.errors import StemmaError
from stemma.hashing import key, stored_keys
from stemma.incremental.counts import Counts
from stemma.resources.engine.duplicates.index import clear_index, drop_index
from stemma.resources.engine.duplicates.priority import by_priority
from stemma.resources.engine.duplicates.solution import CUTS, ROW_HASH
from stemma.resources.engine.rowwise import segments_of
from stemma.resources.engine.run import Run, apply_rows, fetch_value, load_rows
from stemma.resources.engine.setup import Setup

METHOD = "bloom"
TABLES = ("bloom_nodes", "bloom_filters")
# Signatures in memory together.
SIGNATURES = 8_192


def bloom_recipe(setup: Setup) -> str:
    """Return the recipe of the filters and of what they decided."""
    settings = setup.config.deduplicate
    parameters = (settings.threshold, settings.bloom_documents, settings.scope, settings.layers)
    return key(METHOD, setup.recipe(setup.sign), setup.code(seen_before), repr(parameters)).hex()


def decide_by_bloom(
    run: Run, connection: duckdb.DuckDBPyConnection, known: Mapping[str, str], counts: Counts, *, whole: bool
) -> pa.Table:
    """Decide on the nodes that came, one after the other by priority, and apply that to state.deduplicated.

    A document whose text has changed is no duplicate of what it was: it stays if it was kept. `known`: see `indexes`.
    Returns the documents of these nodes (document_id, text_hash); replaced has those that were of them.
    """
    recipe = bloom_recipe(run.setup)
    if clear_index(connection, known, METHOD, recipe, TABLES):
        whole = True
    connection.execute(
        f"""CREATE OR REPLACE TEMP TABLE new_nodes AS
        SELECT row_number() OVER (ORDER BY min(d.priority)) - 1 AS place, d.node, min(d.text_hash) AS input_hash,
            bool_or(coalesce(s.kept, false)) AS was_kept
        FROM (SELECT *, row_number() OVER (ORDER BY {by_priority(run)}) AS priority
            FROM state.dedup_documents) AS d
        ANTI JOIN state.bloom_nodes USING (node)
        LEFT JOIN {"(SELECT * FROM state.deduplicated LIMIT 0)" if whole else "state.deduplicated"} AS s
            ON s.document_id = d.document_id
        GROUP BY d.node"""
    )
    _ask(run, connection, counts, recipe)
    _apply(run, connection, counts, whole=whole)
    return connection.execute("SELECT document_id, text_hash FROM touched").to_arrow_table()


def forget_filters(connection: duckdb.DuckDBPyConnection, known: Mapping[str, str]) -> None:
    """Forget the filters of an earlier configuration: they have not seen what came since. `compact` deletes them."""
    if METHOD in known:
        drop_index(connection, METHOD, TABLES)


def _ask(run: Run, connection: duckdb.DuckDBPyConnection, counts: Counts, recipe: str) -> None:
    """Ask and fill the filters with the nodes that came; their decisions go to state.bloom_nodes."""
    new = fetch_value(connection, "SELECT count(*) FROM new_nodes")
    if not new:
        return
    settings = run.config.deduplicate
    near = "near" in settings.layers
    if near:
        folder = _next_filters(run, connection, recipe)
        try:
            filters = open_filters(
                folder,
                threshold=settings.threshold,
                permutations=settings.permutations,
                documents=settings.bloom_documents,
            )
        except ImportError as error:
            raise StemmaError(
                'index = "bloom" needs the package of the extra: pip install "stemma[bloom]"'
            ) from error
    for start in range(0, new, SIGNATURES):
        nodes, signatures = _signatures(run, connection, start)
        dropped = np.zeros(nodes.num_rows, bool)
        if near:
            known = signatures.is_valid().to_numpy(zero_copy_only=False)
            values = signature_array(signatures.drop_null(), settings.permutations)
            kept_before = nodes["was_kept"].to_numpy(zero_copy_only=False)[known]
            dropped[known] = seen_before(filters, values, kept_before.tolist())
        load_rows(connection, "decided", pa.table({"node": nodes["node"], "kept": ~dropped}))
        connection.execute("INSERT INTO state.bloom_nodes SELECT node, kept FROM decided")
        run.progress("deduplicated", min(start + SIGNATURES, new), new)
    if near:
        filters.sync()
        _commit_filters(connection, folder)
    asked = fetch_value(connection, "SELECT count(*) FROM state.bloom_nodes WHERE kept")
    if asked > settings.bloom_documents:
        counts.warnings.append(
            f"the Bloom filters were made for {settings.bloom_documents:,} documents and hold {asked:,}: they drop more"
            " and more that is no duplicate; raise [deduplicate] bloom_documents, which decides on all anew"
        )


def _signatures(run: Run, connection: duckdb.DuckDBPyConnection, start: int) -> tuple[pa.Table, pa.Array]:
    """Return a block of new_nodes in their order, and their signatures (null without words)."""
    block = f"(FROM new_nodes WHERE place >= {start} AND place < {start + SIGNATURES})"
    nodes = connection.execute(f"FROM {block} ORDER BY place").to_arrow_table()
    signed, places = segments_of(run, run.setup.sign).fetch(stored_keys(nodes["input_hash"]), ["signature"])
    return nodes, signed["signature"].combine_chunks().take(pa.array(places, mask=places < 0))


def _next_filters(run: Run, connection: duckdb.DuckDBPyConnection, recipe: str) -> Path:
    """Copy the filters that count to a new folder beside them, which the state will name if this transaction does."""
    home = run.warehouse.folder / METHOD
    row = connection.execute("SELECT folder FROM state.bloom_filters").fetchone()
    current = home / row[0] if row else None
    if home.is_dir():
        for leftover in home.iterdir():
            if leftover != current:
                shutil.rmtree(leftover)
    target = home / f"{recipe[:8]}-{run.run_id}"
    if current is None:
        target.mkdir(parents=True)
    else:
        shutil.copytree(current, target)
    return target


def _commit_filters(connection: duckdb.DuckDBPyConnection, folder: Path) -> None:
    connection.execute("DELETE FROM state.bloom_filters")
    connection.execute("INSERT INTO state.bloom_filters VALUES (?)", [folder.name])


def _apply(run: Run, connection: duckdb.DuckDBPyConnection, counts: Counts, *, whole: bool) -> None:
    """Make the rows of state.deduplicated of all documents whose node something came to or went from."""
    # All documents of what changed are pending.
    nodes = "(SELECT node FROM state.dedup_documents SEMI JOIN state.dedup_pending USING (document_id))"
    touched = "true" if whole else f"node IN {nodes}"
    connection.execute(
        f"""CREATE OR REPLACE TEMP TABLE touched_documents AS
        SELECT document_id FROM state.dedup_documents WHERE {touched}
        UNION SELECT document_id FROM state.dedup_pending
        {"UNION SELECT document_id FROM state.deduplicated" if whole else ""}"""
    )
    connection.execute(
        """CREATE OR REPLACE TEMP TABLE touched AS FROM state.dedup_documents
        SEMI JOIN touched_documents USING (document_id)"""
    )
    # Without the layer `exact` equal documents are all kept, or all dropped.
    first = "first" if "exact" in run.config.deduplicate.layers else "true"
    connection.execute(
        f"""CREATE OR REPLACE TEMP TABLE fresh AS SELECT *, {ROW_HASH} AS row_hash
        FROM (SELECT d.document_id, min(d.document_id) OVER family AS cluster_id, count(*) OVER family AS cluster_size,
                b.kept AND {first} AS kept,
                CASE WHEN b.kept AND NOT {first} THEN first_document END AS kept_document_id,
                CASE WHEN b.kept AND NOT {first} THEN 1.0 END::DOUBLE AS similarity,
                CASE WHEN NOT b.kept THEN '{METHOD}' WHEN NOT {first} THEN 'exact' END AS method,
                CASE WHEN NOT b.kept THEN {run.config.deduplicate.threshold!r}
                    WHEN NOT {first} THEN 1.0 END::DOUBLE AS threshold,
                NULL::{CUTS} AS cuts, '{run.run_id}' AS run_id,
                d.text_hash, d.body_hash AS input_hash
            FROM (SELECT *, row_number() OVER best = 1 AS first, first_value(document_id) OVER best AS first_document
                FROM touched
                WINDOW best AS (PARTITION BY node ORDER BY {by_priority(run)})) AS d
            JOIN state.bloom_nodes AS b USING (node)
            WINDOW family AS (PARTITION BY d.node))"""
    )
    apply_rows(connection, counts, "document_id", "fresh", "touched_documents")
    connection.execute("DELETE FROM state.dedup_pending")
