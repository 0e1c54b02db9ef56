"""Verification: the exact score of each candidate pair; a verified pair stands as long as a bucket proposes it."""

from collections.abc import Iterator

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from stemma.deduplication.components import components
from stemma.deduplication.moves import nodes_of
from stemma.deduplication.nodes import smallest_texts
from stemma.deduplication.numbers import same_numbers
from stemma.hashing import stored_keys
from stemma.resources.engine.duplicates.layers import Layer
from stemma.resources.engine.rowwise import segments_of
from stemma.resources.engine.run import Run, load_rows
from stemma.resources.handing import execute_over
from stemma.resources.memo import LostError, Segments

# Pairs whose signatures are compared together, and of those that remain, pairs whose texts are in memory together.
COMPARED_PAIRS = 50_000
VERIFIED_PAIRS = 5_000

# Layers that the setting `numbers` is for: what contains another text has numbers of its own.
NUMBERED = ("near", "edit")


def with_texts(pairs: pa.Table, documents: pa.Table) -> pa.Table:
    """Return candidate pairs (a, b, buckets) with a text of each node, of `documents` (node, text_hash, body_hash).

    Columns added: a_text, b_text (text hashes), a_body, b_body (memo keys of the texts). Texts of one node have the
    same words, so any will do; pairs that hang together come one after the other, so that a text is needed in one
    block of pairs and in no other.
    """
    texts = smallest_texts(documents)
    known = stored_keys(texts["node"])
    places = [pc.index_in(stored_keys(pairs[side]), known) for side in "ab"]
    for name in ("text", "body"):
        for side, place in zip("ab", places, strict=True):
            pairs = pairs.append_column(f"{side}_{name}", texts[f"{name}_hash"].take(place))
    a, b = (place.to_numpy().astype(np.int64) for place in places)
    return pairs.take(pa.array(np.argsort(components(len(known), a, b)[a], kind="stable")))


def measure(run: Run, layer: Layer, pairs: pa.Table) -> Iterator[pa.Table]:
    """Yield the pairs (as `with_texts` gives them) with their scores, block by block: (a, b, buckets, score).

    A pair whose signatures say that it cannot reach the threshold scores 0.
    """
    store, columns = segments_of(run, layer.stage), list(layer.compared)
    for start in range(0, pairs.num_rows, COMPARED_PAIRS):
        block = pairs.slice(start, COMPARED_PAIRS)
        signed, positions = fetch_memo(store, block, "text", columns)
        plausible = layer.plausible(signed, positions)
        yield _scored(block.filter(pa.array(~plausible)), None)
        rest = block.filter(pa.array(plausible))
        if layer.of_signatures:
            yield _scored(rest, layer.scores(signed, positions[plausible]))
        else:
            yield from _verified(run, layer, rest)


def _verified(run: Run, layer: Layer, pairs: pa.Table) -> Iterator[pa.Table]:
    for start in range(0, pairs.num_rows, VERIFIED_PAIRS):
        block = pairs.slice(start, VERIFIED_PAIRS)
        rows, positions = fetch_memo(segments_of(run, run.setup.clean), block, "body", ["text"])
        texts = rows["text"].to_pylist()
        scores = layer.scores(texts, positions)
        if run.config.deduplicate.numbers == "compare" and layer.name in NUMBERED:
            scores = np.where(same_numbers(texts, positions), scores, 0.0)
        yield _scored(block, scores)


def _scored(pairs: pa.Table, scores: np.ndarray | None) -> pa.Table:
    scores = np.zeros(pairs.num_rows) if scores is None else scores
    return pairs.select(["a", "b", "buckets"]).append_column("score", pa.array(scores, pa.float64()))


def keep_candidates(connection: duckdb.DuckDBPyConnection, layer: Layer, pairs: pa.Table) -> None:
    """Add these pairs to the candidates of a layer in the state: (a, b, buckets)."""
    execute_over(
        connection,
        pairs,
        f"INSERT INTO state.dedup_candidates SELECT {layer.number}, a, b, buckets FROM arriving",
    )


def remember(
    connection: duckdb.DuckDBPyConnection, layer: Layer, scored: pa.Table, *, kept: bool
) -> pa.Array:
    """Make verified pairs of the candidates with a score that reaches the threshold, and none of others.

    `scored` is what `measure` yields. `kept` says that the candidates stand in the state (see `keep_candidates`): these
    are none any more then, and what another run no longer proposes, or has measured as well, is left alone. Returns
    the nodes (binary(16)) of the verified pairs.
    """
    verified = scored.filter(pc.greater_equal(scored["score"], layer.threshold))
    if kept:
        load_rows(connection, "verified", verified)
        load_rows(connection, "scored", scored.select(["a", "b"]))
        verified = connection.execute(
            f"SELECT a, b, c.buckets, score FROM verified JOIN (FROM {_candidates(layer)}) AS c USING (a, b)"
        ).to_arrow_table()
        connection.execute(f"DELETE FROM {_candidates(layer)} AND (a, b) IN (SELECT (a, b) FROM scored)")
    execute_over(
        connection,
        verified,
        f"INSERT INTO state.dedup_pairs SELECT {layer.number}, a, b, buckets, score FROM arriving",
    )
    return nodes_of(verified)


def _candidates(layer: Layer) -> str:
    return f"state.dedup_candidates WHERE layer = {layer.number}"


def fetch_memo(store: Segments, pairs: pa.Table, side: str, names: list[str]) -> tuple[pa.Table, np.ndarray]:
    """Return columns of the memo for the keys in the columns a_<side> and b_<side>, one row each.

    And the numbers of the rows of each pair: int64[pairs, 2]. Raises LostError where the memo does not know a key.
    """
    sides = [stored_keys(pairs[f"{each}_{side}"]) for each in "ab"]
    keys = pa.concat_arrays(sides).dictionary_encode()
    rows, places = store.fetch(keys.dictionary, names)
    if (places < 0).any():
        raise LostError("deduplicated: the memo has lost what pairs are measured by; see docs/operations.md")
    return rows, places[keys.indices.to_numpy()].reshape(2, -1).T
