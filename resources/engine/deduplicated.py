"""deduplicated: families of duplicates, and the documents that are kept of each.

The families are a function of the live documents alone. What a change costs follows the change: the index of
buckets is kept, only buckets that a document entered or left propose pairs anew, only those are measured, and only
families that an edge or a member touched are solved again.
"""

from collections.abc import Mapping

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from stemma.config import SourceDuplicatesConfig
from stemma.deduplication import families
from stemma.deduplication.moves import nodes_of
from stemma.hashing import UUID, key, stored_keys
from stemma.incremental.counts import Counts
from stemma.incremental.recipe import explain
from stemma.incremental.stage import Stage
from stemma.resources.engine.chunked import cleaned_bodies
from stemma.resources.engine.duplicates.bloom import bloom_recipe, decide_by_bloom, forget_filters
from stemma.resources.engine.duplicates.change import Difference
from stemma.resources.engine.duplicates.index import (
    PAIRS,
    TABLES,
    clear_index,
    compare_documents,
    compared,
    indexes,
    live,
    update_index,
)
from stemma.resources.engine.duplicates.layers import Layer, index_recipe, layers
from stemma.resources.engine.duplicates.pairs import keep_candidates, measure, remember, with_texts
from stemma.resources.engine.duplicates.passages import (
    PASSAGES,
    UnmeasuredPassages,
    clear_passages,
    compare,
    passage_stage,
    passages_recipe,
    remember_passages,
    update_passages,
)
from stemma.resources.engine.duplicates.pending import documents_of, note_pending
from stemma.resources.engine.duplicates.solution import record_versions, solve_families
from stemma.resources.engine.rowwise import Outcome, find_failed, run_stage, sample_for_audit
from stemma.resources.engine.run import (
    Run,
    State,
    finish,
    put_together,
    replace_errors,
    states,
)
from stemma.resources.engine.setup import Setup
from stemma.resources.handing import execute_over

# So few pairs are measured within the transaction: that costs less than another one.
MEASURED_AT_ONCE = 20_000
# Of more, the scores are committed so often: each time costs a pass over all candidates.
CHECKPOINTS = 20

# So many texts, of so many characters, are signed while others wait: a tenth of a second.
SIGNED_AT_ONCE = 2_000
CHARACTERS_AT_ONCE = 2_000_000

Unmeasured = list[tuple[Layer, pa.Table]]


class _Overtaken(Exception):
    """A run of another configuration has emptied the index that this one was planned with."""


def dedup_recipe(setup: Setup) -> str:
    """Return the recipe of deduplicated: the index, the choice of the kept, settings."""
    settings = setup.config.deduplicate
    made_by = bloom_recipe(setup) if settings.index == "bloom" else passages_recipe(setup)
    own = [
        (source.name, source.deduplicate)
        for source in setup.config.sources
        if source.deduplicate != SourceDuplicatesConfig()
    ]
    return key(
        "deduplicated",
        index_recipe(setup),
        setup.code(families),
        repr(settings),
        repr(own),
        made_by,
    ).hex()


def update_deduplicated(run: Run) -> Counts:
    """Bring deduplicated up to date with cleaned; returns what was done.

    Each turn of the loop is a session. In between is computed what is much: signatures, scores, passages.
    """
    counts = run.begin("deduplicated", dedup_recipe(run.setup))
    asked = layers(run.setup)
    planned_on: Difference | None = None
    outcomes, todo = list[Outcome](), Unmeasured()
    upstream_version = -1
    while True:
        try:
            with run.warehouse.session() as connection:
                made, known = states(connection), indexes(connection)
                if not outcomes:
                    upstream_version = made["cleaned"].version
                    counts.rows_in = made["cleaned"].rows
                    if _is_current(made, counts):
                        counts.rows_reused = counts.rows_in
                        if not run.dry:
                            _close(run, connection, counts, upstream_version, True, made["deduplicated"])
                        return counts
                    planned_on = _plan_signatures(run, connection, made, known)
                    if _is_signed_at_once(run, connection, asked):
                        with run.warehouse.paused(connection):
                            outcomes = _sign(run, counts, asked)
                elif planned_on is not None:
                    planned_on = _planned_still(run, connection, made, known, planned_on)
                if outcomes:
                    todo = _bring_index(run, connection, made, known, asked, outcomes, planned_on)
                    planned_on = None
                    if not todo:
                        settled = not any(outcome.retryable for outcome in outcomes)
                        _solve(run, connection, known, counts, asked, made["deduplicated"])
                        _close(run, connection, counts, upstream_version, settled, made["deduplicated"])
                        return counts
        except _Overtaken:
            return update_deduplicated(run)
        except UnmeasuredPassages as unknown:
            _compare(run, unknown.pairs)
        else:
            if outcomes:
                _measure(run, todo)
                continue
            outcomes = _sign(run, counts, asked)
            if run.dry:
                return counts


def _is_current(made: Mapping[str, State], counts: Counts) -> bool:
    state = made["deduplicated"]
    return (
        state.upstream_version == made["cleaned"].version and state.recipe == counts.recipe and state.settled
    )


def _is_signed_at_once(run: Run, connection: duckdb.DuckDBPyConnection, asked: tuple[Layer, ...]) -> bool:
    """Tell whether what is to be signed takes moments only, so that it is done while others wait for the lock."""
    if run.dry or any(stage.load is not None for stage in _stages(run.setup, asked)):
        return False
    found = connection.execute("SELECT count(*), coalesce(sum(length), 0) FROM scope")
    ((texts, characters),) = found.fetchall()
    return texts <= SIGNED_AT_ONCE and characters <= CHARACTERS_AT_ONCE


def _solve(
    run: Run,
    connection: duckdb.DuckDBPyConnection,
    known: Mapping[str, str],
    counts: Counts,
    asked: tuple[Layer, ...],
    before: State,
) -> None:
    whole = before.recipe != counts.recipe
    if run.config.deduplicate.index == "bloom":
        documents = decide_by_bloom(run, connection, known, counts, whole=whole)
    else:
        forget_filters(connection, known)
        keeps_cuts = passage_stage(run.setup) is not None
        documents = solve_families(run, connection, counts, asked, whole=whole, keeps_cuts=keeps_cuts)
        update_passages(run, connection, known, counts, at_once=MEASURED_AT_ONCE)
    record_versions(run, connection, documents)
    replace_errors(connection, "deduplicated", live(run), "scope", "failed", run.run_id)


def _planned_still(
    run: Run,
    connection: duckdb.DuckDBPyConnection,
    made: Mapping[str, State],
    known: Mapping[str, str],
    planned_on: Difference,
) -> Difference:
    """Return how the documents differ from those that the index knows, after others may have changed it.

    Raises _Overtaken where the index is no more that this was planned with.
    """
    if known.get(PAIRS) != index_recipe(run.setup):
        raise _Overtaken
    if planned_on.compared == compared(connection, made):
        return planned_on
    return compare_documents(run, connection, made)


def _bring_index(
    run: Run,
    connection: duckdb.DuckDBPyConnection,
    made: Mapping[str, State],
    known: Mapping[str, str],
    asked: tuple[Layer, ...],
    outcomes: list[Outcome],
    planned_on: Difference | None,
) -> Unmeasured:
    """Bring the index up to date; returns the pairs that are to be measured, unless they are few and are by now.

    `planned_on` is how the documents differ from those that the index knows, as far as that is known.
    """
    whole = clear_index(connection, known, PAIRS, index_recipe(run.setup), TABLES)
    if planned_on is None:
        planned_on = compare_documents(run, connection, made)
    candidates, nodes, gone = update_index(run, connection, planned_on, asked, whole=whole)
    for number, outcome in enumerate(outcomes):
        find_failed(connection, outcome, more=number > 0)
    paired = [*nodes, *map(nodes_of, candidates)]
    documents = documents_of(connection, paired, "node, document_id, text_hash, body_hash")
    todo = [
        (layer, with_texts(pairs, documents))
        for layer, pairs in zip(asked, candidates, strict=True)
        if pairs.num_rows
    ]
    at_once = sum(pairs.num_rows for _layer, pairs in todo) <= MEASURED_AT_ONCE
    for layer, pairs in todo:
        if at_once:
            scored = pa.concat_tables(measure(run, layer, pairs))
            nodes.append(remember(connection, layer, scored, kept=False))
        else:
            keep_candidates(connection, layer, pairs.select(["a", "b", "buckets"]))
    is_pending = pc.is_in(stored_keys(documents["node"]), pa.concat_arrays(nodes))
    note_pending(
        connection,
        pa.chunked_array([*documents.filter(is_pending)["document_id"].chunks, *gone.chunks], UUID),
    )
    return [] if at_once else todo


def _plan_signatures(
    run: Run, connection: duckdb.DuckDBPyConnection, made: Mapping[str, State], known: Mapping[str, str]
) -> Difference | None:
    """Make the table scope: the documents whose text an index does not know.

    Returns how the documents differ from those that the index of pairs knows; None where there is none.
    """
    has_pairs = known.get(PAIRS) == index_recipe(run.setup)
    has_passages = passage_stage(run.setup) is None or known.get(PASSAGES) == passages_recipe(run.setup)
    planned_on = compare_documents(run, connection, made) if has_pairs else None
    scope = (
        "CREATE OR REPLACE TABLE scope AS SELECT document_id, text_hash AS input_hash, body_hash, length FROM"
    )
    if planned_on is not None and has_passages:
        execute_over(connection, planned_on.fresh(), f"{scope} arriving")
    else:
        connection.execute(f"{scope} {live(run)}")
    sample_for_audit(
        run, connection, f"(SELECT text_hash AS input_hash, body_hash, document_id FROM {live(run)})"
    )
    return planned_on


def _sign(run: Run, counts: Counts, asked: tuple[Layer, ...]) -> list[Outcome]:
    """Sign the texts of the documents in scope for each layer; the first outcome is that of the nodes' own hash."""
    outcomes = [
        run_stage(run, stage, "deduplicated", "scope", cleaned_bodies(run), only_failed=True)
        for stage in _stages(run.setup, asked)
    ]
    counts.rows_computed = max(outcome.computed for outcome in outcomes)
    counts.rows_reused = max(0, counts.rows_in - counts.rows_computed)
    counts.warnings += [warning for outcome in outcomes for warning in outcome.warnings]
    return outcomes


def signing_stages(setup: Setup) -> list[Stage]:
    """Return all stages whose results deduplicated is made of."""
    return _stages(setup, layers(setup))


def _stages(setup: Setup, asked: tuple[Layer, ...]) -> list[Stage]:
    """Return the stages that sign texts: first the one that names the nodes, then those of the layers."""
    passages = passage_stage(setup)
    stages = [setup.sign, *(layer.stage for layer in asked), *([passages] if passages else [])]
    return list({stage.name: stage for stage in stages}.values())


def _measure(run: Run, todo: Unmeasured) -> None:
    """Measure pairs outside of any transaction; each part of the scores is committed, and a checkpoint."""
    total, done = sum(pairs.num_rows for _layer, pairs in todo), 0
    for layer, pairs in todo:
        for scored in put_together(measure(run, layer, pairs), max(MEASURED_AT_ONCE, total // CHECKPOINTS)):
            with run.warehouse.session() as connection:
                nodes = remember(connection, layer, scored, kept=True)
                note_pending(connection, documents_of(connection, [nodes], "document_id")["document_id"])
            done += scored.num_rows
            run.progress("deduplicated", done, total)


def _compare(run: Run, pairs: pa.Table) -> None:
    """Compare pairs of texts for passages outside of any transaction; each block is committed, and a checkpoint."""
    done = 0
    for block in compare(run, pairs):
        with run.warehouse.session() as connection:
            clear_passages(run, connection, indexes(connection))
            remember_passages(connection, [block])
        done += block[0].num_rows
        run.progress("deduplicated", done, pairs.num_rows)


def _close(
    run: Run,
    connection: duckdb.DuckDBPyConnection,
    counts: Counts,
    upstream_version: int,
    settled: bool,
    before: State,
) -> None:
    stages = signing_stages(run.setup)
    finish(
        run,
        connection,
        counts,
        upstream_version=upstream_version,
        stage_recipe=" ".join(run.setup.recipe(stage) for stage in stages),
        settled=settled,
        before=before,
        explained=lambda: {
            **{stage.name: explain(stage) for stage in stages},
            "settings": repr(run.config.deduplicate),
        },
    )
