"""Verification: the exact score of each candidate pair; a verified pair stands as long as a bucket proposes it."""

from collections.abc import Iterator

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from stemma.deduplication.components import components
from stemma.deduplication.numbers import same_numbers
from stemma.resources.engine.duplicates.index import note_pending
from stemma.resources.engine.duplicates.layers import Layer
from stemma.resources.engine.rowwise import segments_of
from stemma.resources.engine.run import Run, fetch_value, load_rows
from stemma.resources.handing import handed
from stemma.resources.memo import LostError, Segments

# Pairs whose signatures are compared together, and of those that remain, pairs whose texts are in memory together.
COMPARED_PAIRS = 50_000
VERIFIED_PAIRS = 5_000

# Layers that the setting `numbers` is for: what contains another text has numbers of its own.
NUMBERED = ("near", "edit")


def unmeasured(connection: duckdb.DuckDBPyConnection, layer: Layer) -> pa.Table:
    """Return the candidate pairs of a layer: (a, b)."""
    return connection.execute(
        f"SELECT a, b FROM state.dedup_candidates WHERE layer = {layer.number}"
    ).to_arrow_table()


def with_texts(connection: duckdb.DuckDBPyConnection, pairs: pa.Table) -> pa.Table:
    """Return pairs with a text of each node: (a, b, a_text, b_text: text hashes, a_key, b_key: memo keys).

    Texts of one node have the same words, so any will do; pairs that hang together come one after the other, so
    that a text is needed in one block of pairs and in no other.
    """
    load_rows(connection, "wanted_pairs", pairs.append_column("family", pa.array(_families(pairs))))
    return connection.execute(
        """WITH texts AS (SELECT node, arg_min(c.input_hash, d.document_id) AS text_key,
                    arg_min(c.text_hash, d.document_id) AS text_hash
                FROM state.dedup_documents AS d
                SEMI JOIN (SELECT a AS node FROM wanted_pairs UNION SELECT b FROM wanted_pairs) USING (node)
                JOIN state.cleaned AS c USING (document_id, text_hash) GROUP BY node)
        SELECT p.a, p.b, x.text_hash AS a_text, y.text_hash AS b_text, x.text_key AS a_key, y.text_key AS b_key
        FROM wanted_pairs AS p JOIN texts AS x ON x.node = p.a JOIN texts AS y ON y.node = p.b
        ORDER BY p.family, p.a, p.b"""
    ).to_arrow_table()


def _families(pairs: pa.Table) -> np.ndarray:
    """Number the connected components of the pairs; returns that of each pair."""
    sides = [pairs[name].combine_chunks().cast(pa.binary(16)) for name in ("a", "b")]
    nodes = pa.concat_arrays(sides).dictionary_encode()
    a, b = np.split(nodes.indices.to_numpy().astype(np.int64), 2)
    return components(len(nodes.dictionary), a, b)[a]


def measure(run: Run, layer: Layer, pairs: pa.Table) -> Iterator[pa.Table]:
    """Yield the pairs (as `with_texts` gives them) with their scores, block by block: (a, b, score).

    A pair whose signatures say that it cannot reach the threshold scores 0.
    """
    for start in range(0, pairs.num_rows, COMPARED_PAIRS):
        block = pairs.slice(start, COMPARED_PAIRS)
        signed = fetch_memo(
            run, segments_of(run, layer.stage), block, "text", ", ".join(("input_hash", *layer.columns))
        )
        positions = numbered(block, "text", signed)
        plausible = layer.plausible(signed, positions)
        yield _scored(block.filter(pa.array(~plausible)), None)
        if layer.of_signatures:
            rest = block.filter(pa.array(plausible))
            yield _scored(rest, layer.scores(signed, positions[plausible]))
        else:
            yield from _verified(run, layer, block.filter(pa.array(plausible)))


def _verified(run: Run, layer: Layer, pairs: pa.Table) -> Iterator[pa.Table]:
    for start in range(0, pairs.num_rows, VERIFIED_PAIRS):
        block = pairs.slice(start, VERIFIED_PAIRS)
        rows = fetch_memo(run, segments_of(run, run.setup.clean), block, "key", "input_hash, text")
        texts, positions = rows["text"].to_pylist(), numbered(block, "key", rows)
        scores = layer.scores(texts, positions)
        if run.config.deduplicate.numbers == "compare" and layer.name in NUMBERED:
            scores = np.where(same_numbers(texts, positions), scores, 0.0)
        yield _scored(block, scores)


def _scored(pairs: pa.Table, scores: np.ndarray | None) -> pa.Table:
    scores = np.zeros(pairs.num_rows) if scores is None else scores
    return pairs.select(["a", "b"]).append_column("score", pa.array(scores, pa.float64()))


def remember(connection: duckdb.DuckDBPyConnection, layer: Layer, scored: pa.Table) -> None:
    """Make verified pairs of the candidates with a score (a, b, score) that reaches the threshold, and none of others.

    Notes which families they touch. What another run no longer proposes, or has measured as well, is left alone.
    """
    load_rows(connection, "scored", scored)
    candidates = f"(FROM state.dedup_candidates WHERE layer = {layer.number})"
    connection.execute(
        f"""CREATE OR REPLACE TEMP TABLE verified AS SELECT a, b, buckets, score
        FROM (FROM scored WHERE score >= {layer.threshold!r}) JOIN {candidates} USING (a, b)"""
    )
    connection.execute(
        f"INSERT INTO state.dedup_pairs SELECT {layer.number}, a, b, buckets, score FROM verified"
    )
    note_pending(connection, "verified")
    connection.execute(
        f"DELETE FROM state.dedup_candidates WHERE layer = {layer.number} AND (a, b) IN (SELECT (a, b) FROM scored)"
    )


def fetch_memo(run: Run, memo: Segments, pairs: pa.Table, side: str, columns: str) -> pa.Table:
    """Return columns of the memo for the keys in the columns a_<side> and b_<side>, one row each."""
    connection = run.warehouse.connection
    with handed(connection, "block", pairs):
        connection.execute(
            f"""CREATE OR REPLACE TEMP TABLE block_keys AS SELECT DISTINCT input_hash
            FROM (SELECT a_{side} AS input_hash FROM block UNION ALL SELECT b_{side} FROM block)"""
        )
    memo.locate(connection, "block_keys", "block_places", temporary=True)
    rows = connection.execute(f"FROM {memo.bodies(connection, 'block_places', columns)}").to_arrow_table()
    if rows.num_rows < fetch_value(connection, "SELECT count(*) FROM block_keys"):
        raise LostError("deduplicated: the memo has lost what pairs are measured by; see docs/operations.md")
    return rows


def numbered(pairs: pa.Table, side: str, rows: pa.Table) -> np.ndarray:
    """Return the columns a_<side> and b_<side> as an array int64[pairs, 2] of positions in `rows`."""
    keys = rows["input_hash"].cast(pa.binary(16))
    sides = [pc.index_in(pairs[f"{each}_{side}"].cast(pa.binary(16)), value_set=keys) for each in "ab"]
    return np.stack([each.to_numpy() for each in sides], axis=1).astype(np.int64)
