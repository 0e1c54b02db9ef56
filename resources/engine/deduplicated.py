"""deduplicated: families of near-duplicates, and the documents that witness each.

The families are a function of the live documents alone. What a change costs follows the change: the index of
bands is kept, only buckets that a document entered or left propose pairs anew, only pairs never verified are
verified, and only families that an edge or a member touched are solved again.
"""

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from stemma.deduplication import (
    band_keys,
    band_parameters,
    candidate_pairs,
    families,
    jaccard,
    plausible_pairs,
    shingle_sets,
    signature_array,
)
from stemma.hashing import digest, key
from stemma.incremental.counts import Counts
from stemma.incremental.recipe import explain
from stemma.incremental.stage import Stage
from stemma.resources.engine.chunked import cleaned_bodies
from stemma.resources.engine.rowwise import Outcome, find_failed, run_stage, sample_for_audit, segments_of
from stemma.resources.engine.run import (
    Run,
    State,
    apply_rows,
    fetch_value,
    finish,
    load_rows,
    remember_recipe,
    replace_errors,
    state_of,
)
from stemma.resources.engine.setup import Setup
from stemma.resources.memo import Segments, joined_as_written

PAIR_OUTPUTS = pa.schema([pa.field("similarity", pa.float64())])
# Pairs verified and committed to the memo together; their texts are held in memory meanwhile.
VERIFY_PAIRS = 5_000
# So few pairs are verified within the transaction: that costs less than to plan again.
VERIFY_AT_ONCE = 5_000


def dedup_recipe(setup: Setup) -> str:
    """Return the recipe of deduplicated: signatures, candidates, verification, the choice of the kept, settings."""
    settings = setup.config.deduplicate
    return key(
        "deduplicated",
        setup.recipe(setup.sign),
        _pairs_recipe(setup),
        setup.code(candidate_pairs),
        setup.code(band_keys),
        setup.code(band_parameters),
        setup.code(families),
        repr((settings.threshold, settings.scope, settings.keep)),
    ).hex()


def _pairs_recipe(setup: Setup) -> str:
    words = str(setup.config.deduplicate.shingle_words)
    code = [setup.code(function) for function in (plausible_pairs, shingle_sets, jaccard)]
    return key(
        "pairs", setup.recipe(setup.sign), *code, words, repr(setup.config.deduplicate.threshold)
    ).hex()


def _pairs_of(run: Run) -> Segments:
    return run.warehouse.memo.segments("pairs", _pairs_recipe(run.setup), PAIR_OUTPUTS)


def update_deduplicated(run: Run) -> Counts:
    """Bring deduplicated up to date with cleaned; returns what was done."""
    counts = run.begin("deduplicated", dedup_recipe(run.setup))
    stage = run.setup.sign
    with run.warehouse.session() as connection:
        upstream_version = state_of(connection, "cleaned").version
        state = state_of(connection, "deduplicated")
        live = "(SELECT * FROM state.cleaned WHERE verdicts IS NULL)"
        counts.rows_in = fetch_value(connection, f"SELECT count(*) FROM {live}")
        if state.upstream_version == upstream_version and state.recipe == counts.recipe and state.settled:
            counts.rows_reused = counts.rows_in
            if not run.dry:
                _close(run, connection, counts, stage, upstream_version, settled=True)
            return counts
        _plan_signatures(connection, state, counts.recipe, live)
        inputs = f"(SELECT document_id, text_hash AS input_hash, input_hash AS body_hash FROM {live})"
        sample_for_audit(run, connection, inputs)
    outcome = run_stage(run, stage, "deduplicated", "scope", cleaned_bodies(run))
    counts.rows_computed = outcome.computed
    counts.rows_reused = counts.rows_in - outcome.computed
    counts.warnings += outcome.warnings
    if run.dry:
        return counts
    while (unverified := _solve(run, counts, stage, outcome, live, upstream_version)) is not None:
        _verify(run, unverified)
    return counts


def _plan_signatures(connection: duckdb.DuckDBPyConnection, state: State, recipe_now: str, live: str) -> None:
    known = (
        "" if state.recipe != recipe_now else "ANTI JOIN state.dedup_documents USING (document_id, text_hash)"
    )
    connection.execute(
        f"""CREATE OR REPLACE TABLE scope AS
        SELECT document_id, text_hash AS input_hash, input_hash AS body_hash FROM {live} {known}"""
    )


def _solve(
    run: Run, counts: Counts, stage: Stage, outcome: Outcome, live: str, upstream_version: int
) -> pa.Table | None:
    """Bring index and families up to date in one transaction, if every candidate pair has been verified.

    Otherwise everything is rolled back and the unverified pairs are returned.
    """
    try:
        with run.warehouse.session() as connection:
            same_recipe = state_of(connection, "deduplicated").recipe == counts.recipe
            if not same_recipe:
                for table in ("documents", "bands", "candidates", "edges"):
                    connection.execute(f"DELETE FROM state.dedup_{table}")
            _diff_documents(run, connection, stage, outcome, live)
            _update_bands(run, connection)
            _update_candidates(connection)
            _update_edges(run, connection)
            _solve_families(run, connection, counts, live, whole=not same_recipe)
            _close(run, connection, counts, stage, upstream_version, settled=not outcome.retryable)
    except _Unverified as unknown:
        return unknown.pairs
    _pairs_of(run).merge()
    return None


def _diff_documents(
    run: Run, connection: duckdb.DuckDBPyConnection, stage: Stage, outcome: Outcome, live: str
) -> None:
    """Make node_rows (fresh nodes with their signatures), and came/went, the documents that differ from the index."""
    settings = run.config.deduplicate
    # Documents of other scopes are other nodes in other buckets: nothing is ever compared across.
    scope = "''" if settings.scope == "global" else "c.source"
    node = "s.norm_hash" if settings.scope == "global" else "md5(concat_ws('|', c.source, s.norm_hash))::UUID"
    signatures = segments_of(run, stage).bodies(
        connection, f"(FROM {outcome.located} WHERE error IS NULL)", "input_hash, norm_hash, signature"
    )
    with joined_as_written(connection):
        connection.execute(
            f"""CREATE OR REPLACE TEMP TABLE signed AS SELECT c.document_id, {node} AS node, c.text_hash,
                c.document_date, c.characters AS length,
                hash({node}, c.text_hash, c.document_date, c.characters) AS row_hash, s.signature, {scope} AS scope
            FROM {signatures} AS s JOIN {live} AS c ON s.input_hash = c.text_hash
            JOIN scope ON scope.document_id = c.document_id"""
        )
    # A document whose text stayed may still have another date; its node is known.
    connection.execute(
        f"""CREATE OR REPLACE TEMP TABLE current AS
        SELECT * EXCLUDE (signature, scope) FROM signed
        UNION ALL
        SELECT c.document_id, d.node, c.text_hash, c.document_date, c.characters AS length,
            hash(d.node, c.text_hash, c.document_date, c.characters) AS row_hash
        FROM {live} AS c JOIN state.dedup_documents AS d USING (document_id, text_hash)
        WHERE c.document_id NOT IN (SELECT document_id FROM signed)"""
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
    find_failed(connection, outcome)


def _update_bands(run: Run, connection: duckdb.DuckDBPyConnection) -> None:
    """Enter new nodes into the band index, take dead ones out; `touched` holds the buckets that changed."""
    connection.execute(
        """CREATE OR REPLACE TEMP TABLE dead_nodes AS SELECT DISTINCT node FROM went
        ANTI JOIN state.dedup_documents USING (node)"""
    )
    connection.execute(
        """CREATE OR REPLACE TEMP TABLE touched AS
        SELECT DISTINCT bucket FROM state.dedup_bands SEMI JOIN dead_nodes USING (node)"""
    )
    connection.execute("DELETE FROM state.dedup_bands WHERE node IN (SELECT node FROM dead_nodes)")
    fresh = connection.execute(
        """SELECT node, any_value(signature) AS signature, any_value(scope) AS scope FROM signed
        ANTI JOIN (SELECT node FROM state.dedup_bands SEMI JOIN signed USING (node)) USING (node)
        WHERE signature IS NOT NULL GROUP BY node"""
    ).to_arrow_table()
    if fresh.num_rows == 0:
        return
    permutations = run.config.deduplicate.permutations
    bands, rows = band_parameters(run.config.deduplicate.threshold, permutations)
    packed = np.frombuffer(b"".join(fresh["signature"].to_pylist()), dtype="<u4").reshape(-1, permutations)
    buckets = band_keys(packed, bands, rows)
    if run.config.deduplicate.scope != "global":
        buckets ^= np.array([[_scope_bits(scope)] for scope in fresh["scope"].to_pylist()], np.uint64)
    nodes = fresh["node"].combine_chunks().take(np.repeat(np.arange(fresh.num_rows), bands))
    load_rows(connection, "entered", pa.table({"bucket": buckets.reshape(-1), "node": nodes}))
    connection.execute("INSERT INTO state.dedup_bands SELECT bucket, node FROM entered")
    connection.execute(
        "INSERT INTO touched SELECT DISTINCT bucket FROM entered ANTI JOIN touched USING (bucket)"
    )


def _scope_bits(scope: str) -> int:
    return int.from_bytes(digest(scope.encode())[:8], "little")


def _update_candidates(connection: duckdb.DuckDBPyConnection) -> None:
    """Propose the pairs of the touched buckets anew: a bucket's pairs are a function of its members.

    Makes gone_pairs and new_pairs (a, b): those that no bucket proposes any more, and those that none did before.
    """
    connection.execute(
        """CREATE OR REPLACE TEMP TABLE old_pairs AS
        SELECT DISTINCT a, b FROM state.dedup_candidates SEMI JOIN touched USING (bucket)"""
    )
    connection.execute("DELETE FROM state.dedup_candidates WHERE bucket IN (SELECT bucket FROM touched)")
    load_rows(connection, "proposed", _proposals(connection))
    connection.execute(
        """CREATE OR REPLACE TEMP TABLE new_pairs AS SELECT DISTINCT a, b FROM proposed
        ANTI JOIN old_pairs USING (a, b) ANTI JOIN state.dedup_candidates USING (a, b)"""
    )
    connection.execute("INSERT INTO state.dedup_candidates SELECT bucket, a, b FROM proposed")
    connection.execute(
        """CREATE OR REPLACE TEMP TABLE gone_pairs AS
        SELECT a, b FROM old_pairs ANTI JOIN state.dedup_candidates USING (a, b)"""
    )


def _proposals(connection: duckdb.DuckDBPyConnection) -> pa.Table:
    """Return the pairs that the touched buckets propose: (bucket, a, b), the smaller node first."""
    members = connection.execute(
        """SELECT bucket, node FROM state.dedup_bands SEMI JOIN touched USING (bucket)
        QUALIFY count(*) OVER (PARTITION BY bucket) > 1 ORDER BY bucket, node"""
    ).to_arrow_table()
    if members.num_rows == 0:
        return pa.table({"bucket": members["bucket"], "a": members["node"], "b": members["node"]})
    buckets, nodes = members["bucket"].combine_chunks(), members["node"].combine_chunks()
    # Members are numbered by place, so that a pair of places tells its bucket, and the smallest node comes first.
    pairs = candidate_pairs(buckets.to_numpy(), np.arange(members.num_rows))
    first, second = pa.array(pairs[:, 0]), pa.array(pairs[:, 1])
    return pa.table({"bucket": buckets.take(first), "a": nodes.take(first), "b": nodes.take(second)})


def _update_edges(run: Run, connection: duckdb.DuckDBPyConnection) -> None:
    """Drop the edges of gone pairs and measure new ones; `changed_edges` (a, b) holds what came and went.

    Raises _Unverified with the pairs that are to be measured, if they are many and the memo doesn't know them.
    """
    connection.execute(
        """CREATE OR REPLACE TEMP TABLE changed_edges AS
        SELECT a, b FROM state.dedup_edges SEMI JOIN gone_pairs USING (a, b)"""
    )
    connection.execute("DELETE FROM state.dedup_edges WHERE (a, b) IN (SELECT (a, b) FROM changed_edges)")
    load_rows(connection, "measured", _measured(run, connection))
    connection.execute(
        f"""CREATE OR REPLACE TEMP TABLE fresh_edges AS SELECT a, b, similarity FROM measured
        WHERE similarity >= {run.config.deduplicate.threshold}::DOUBLE"""
    )
    connection.execute("INSERT INTO state.dedup_edges FROM fresh_edges")
    connection.execute("INSERT INTO changed_edges SELECT a, b FROM fresh_edges")


def _measured(run: Run, connection: duckdb.DuckDBPyConnection) -> pa.Table:
    """Return the new pairs with their similarity: (a, b, similarity)."""
    if fetch_value(connection, "SELECT count(*) FROM new_pairs") <= VERIFY_AT_ONCE:
        pairs = _with_texts(connection, "new_pairs")
        return pairs.select(["a", "b"]).append_column("similarity", pa.array(_similarities(run, pairs)))
    connection.execute(
        """CREATE OR REPLACE TEMP TABLE pair_keys AS
        SELECT a, b, md5(concat_ws('|', a, b))::UUID AS input_hash FROM new_pairs"""
    )
    store = _pairs_of(run)
    store.locate(connection, "pair_keys", "pair_places", temporary=True)
    unknown = "(SELECT * FROM pair_keys ANTI JOIN pair_places USING (input_hash))"
    if fetch_value(connection, f"SELECT count(*) FROM {unknown}"):
        raise _Unverified(_with_texts(connection, unknown))
    similarities = store.bodies(connection, "pair_places", "input_hash, similarity")
    with joined_as_written(connection):
        return connection.execute(
            f"SELECT a, b, similarity FROM {similarities} JOIN pair_keys USING (input_hash)"
        ).to_arrow_table()


def _with_texts(connection: duckdb.DuckDBPyConnection, pairs: str) -> pa.Table:
    """Return the pairs of a relation with the memo keys and the hashes of a text of each node.

    The columns are those of the relation and a_key, b_key, a_text, b_text.
    """
    return connection.execute(
        f"""WITH pairs AS (FROM {pairs}),
            texts AS (SELECT node, arg_min(c.input_hash, d.document_id) AS text_key,
                    arg_min(c.text_hash, d.document_id) AS text_hash
                FROM state.dedup_documents AS d SEMI JOIN (SELECT a AS node FROM pairs UNION SELECT b FROM pairs)
                USING (node) JOIN state.cleaned AS c USING (document_id) GROUP BY node)
        SELECT p.*, x.text_key AS a_key, y.text_key AS b_key, x.text_hash AS a_text, y.text_hash AS b_text
        FROM pairs AS p
        JOIN texts AS x ON x.node = p.a JOIN texts AS y ON y.node = p.b ORDER BY p.a, p.b"""
    ).to_arrow_table()


class _Unverified(Exception):
    """Candidate pairs lack their similarity: measure them outside the lock, then solve again."""

    def __init__(self, pairs: pa.Table) -> None:
        super().__init__(f"{pairs.num_rows} pairs")
        self.pairs = pairs


def _verify(run: Run, pairs: pa.Table) -> None:
    """Measure pairs (as `_with_texts` gives them, with input_hash) and commit their similarity to the memo."""
    plausible = _plausible(run, pairs)
    ruled_out = pairs.filter(pa.array(~plausible))
    _remember(run, ruled_out, np.zeros(ruled_out.num_rows))
    rest = pairs.filter(pa.array(plausible))
    for start in range(0, rest.num_rows, VERIFY_PAIRS):
        block = rest.slice(start, VERIFY_PAIRS)
        _remember(run, block, _exact(run, block))
        run.progress("deduplicated", start + block.num_rows, rest.num_rows)


def _similarities(run: Run, pairs: pa.Table) -> np.ndarray:
    """Return the exact similarity of each pair, and 0 where the signatures tell a pair apart."""
    similarities = np.zeros(pairs.num_rows)
    if pairs.num_rows:
        plausible = _plausible(run, pairs)
        similarities[plausible] = _exact(run, pairs.filter(pa.array(plausible)))
    return similarities


def _exact(run: Run, pairs: pa.Table) -> np.ndarray:
    if pairs.num_rows == 0:
        return np.zeros(0)
    texts = _fetch(run, segments_of(run, run.setup.clean), pairs, "a_key", "b_key", "input_hash, text")
    sets = shingle_sets(texts["text"].to_pylist(), shingle_words=run.config.deduplicate.shingle_words)
    return jaccard(sets, _numbered(pairs, "a_key", "b_key", texts))


def _plausible(run: Run, pairs: pa.Table) -> np.ndarray:
    signs = segments_of(run, run.setup.sign)
    rows = _fetch(run, signs, pairs, "a_text", "b_text", "input_hash, signature")
    signatures = signature_array(rows["signature"], run.config.deduplicate.permutations)
    numbered = _numbered(pairs, "a_text", "b_text", rows)
    return plausible_pairs(signatures, numbered, run.config.deduplicate.threshold)


def _remember(run: Run, pairs: pa.Table, similarity: np.ndarray) -> None:
    nulls = pa.nulls(pairs.num_rows, pa.string())
    columns = [pairs["input_hash"], pa.array(similarity), nulls, nulls]
    _pairs_of(run).append(pa.table(columns, names=["input_hash", "similarity", "error", "detail"]))


def _fetch(run: Run, memo: Segments, pairs: pa.Table, first: str, second: str, columns: str) -> pa.Table:
    """Return columns of the memo for the keys that stand in two columns of `pairs`, one row each."""
    connection = run.warehouse.connection
    connection.register("block", pairs)
    connection.execute(
        f"""CREATE OR REPLACE TEMP TABLE block_keys AS SELECT DISTINCT input_hash
        FROM (SELECT {first} AS input_hash FROM block UNION ALL SELECT {second} FROM block)"""
    )
    connection.unregister("block")
    memo.locate(connection, "block_keys", "block_places", temporary=True)
    return connection.execute(f"FROM {memo.bodies(connection, 'block_places', columns)}").to_arrow_table()


def _numbered(pairs: pa.Table, first: str, second: str, rows: pa.Table) -> np.ndarray:
    """Return two columns of keys as an array int64[pairs, 2] of positions in `rows`."""
    keys = rows["input_hash"].cast(pa.binary(16))
    sides = [pc.index_in(pairs[side].cast(pa.binary(16)), value_set=keys) for side in (first, second)]
    return np.stack([side.to_numpy() for side in sides], axis=1).astype(np.int64)


def _solve_families(
    run: Run, connection: duckdb.DuckDBPyConnection, counts: Counts, live: str, *, whole: bool
) -> None:
    """Solve the families that a changed document or edge touches, and apply their members."""
    if whole:
        connection.execute(
            """CREATE OR REPLACE TEMP TABLE touched_documents AS SELECT document_id FROM state.dedup_documents
            UNION SELECT document_id FROM state.deduplicated"""
        )
    else:
        connection.execute(
            """CREATE OR REPLACE TEMP TABLE touched_documents AS
            WITH nodes AS (SELECT node FROM came UNION SELECT node FROM went
                    UNION SELECT a FROM changed_edges UNION SELECT b FROM changed_edges),
                direct AS (SELECT document_id FROM state.dedup_documents SEMI JOIN nodes USING (node)
                    UNION SELECT document_id FROM went),
                clusters AS (SELECT DISTINCT cluster_id FROM state.deduplicated SEMI JOIN direct USING (document_id))
            SELECT document_id FROM direct
            UNION SELECT document_id FROM state.deduplicated SEMI JOIN clusters USING (cluster_id)"""
        )
    documents = connection.execute(
        """SELECT document_id, node, document_date, length FROM state.dedup_documents
        SEMI JOIN touched_documents USING (document_id)"""
    ).to_arrow_table()
    load_rows(connection, "documents", documents)
    edges = connection.execute(
        """SELECT a, b, similarity FROM state.dedup_edges
        WHERE a IN (SELECT node FROM documents)"""
    ).to_arrow_table()
    load_rows(connection, "members", families(documents, edges, keep=run.config.deduplicate.keep))
    connection.execute(
        f"""CREATE OR REPLACE TEMP TABLE fresh AS
        SELECT m.document_id, m.cluster_id, m.cluster_size, m.kept_document_id, m.similarity, m.method,
            CASE m.method WHEN 'near' THEN {run.config.deduplicate.threshold}::DOUBLE
                WHEN 'exact' THEN 1.0 END AS threshold,
            '{run.run_id}' AS run_id, c.text_hash, c.input_hash,
            hash(m.document_id, m.cluster_id, m.cluster_size, m.kept_document_id, m.similarity, m.method, threshold,
                c.text_hash) AS row_hash
        FROM members AS m JOIN state.cleaned AS c USING (document_id)"""
    )
    apply_rows(connection, counts, "document_id", "fresh", "touched_documents")
    replace_errors(connection, "deduplicated", live, "scope", "failed", run.run_id)


def _close(
    run: Run,
    connection: duckdb.DuckDBPyConnection,
    counts: Counts,
    stage: Stage,
    upstream_version: int,
    *,
    settled: bool,
) -> None:
    remember_recipe(
        connection,
        "deduplicated",
        counts.recipe,
        lambda: explain(stage) | {"settings": repr(run.config.deduplicate)},
    )
    finish(
        run,
        connection,
        counts,
        upstream_version=upstream_version,
        stage_recipe=run.setup.recipe(stage),
        settled=settled,
    )
