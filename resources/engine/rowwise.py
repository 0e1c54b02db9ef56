"""The one mechanism behind every row-wise stage: plan by anti-join, compute what is unknown, apply the delta."""

import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from stemma.errors import StemmaError
from stemma.hashing import uuid_array
from stemma.incremental.compute import Computed, Failure, batches
from stemma.incremental.counts import Counts
from stemma.incremental.recipe import explain
from stemma.incremental.stage import Stage
from stemma.resources.engine.run import (
    Run,
    State,
    apply_rows,
    fetch_value,
    few,
    finish,
    load_rows,
    replace_errors,
    state_of,
    states,
)
from stemma.resources.engine.setup import Setup
from stemma.resources.handing import execute_over
from stemma.resources.memo import LostError, Segments, has_failed, joined_as_written

# With this dataset all are published.
LAST = "embedded"
# When so many inputs of a run fail, all of them and for one reason, the reason is hardly theirs.
ALIKE_ROWS = 8
# Remembered rows recomputed as a check in each run that computes anyway.
AUDITED_ROWS = 2


@dataclass
class Outcome:
    """What running a stage over wanted inputs did.

    Attributes:
        located: names the table of memo places (see Segments).
        failed: whether the error of any of these says that it has failed, now or before.
    """

    located: str
    failed: bool = False
    computed: int = 0
    failures: list[Failure] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    @property
    def retryable(self) -> list[Failure]:
        return [failure for failure in self.failures if failure.retryable]


# Yields, for a table of missing inputs, what a stage takes of them: (input_hash, the stage's input columns).
Bodies = Callable[[str, Stage], Iterator[pa.RecordBatch]]


def segments_of(run: Run, stage: Stage) -> Segments:
    """Return the memo of a stage under its present recipe."""
    return run.warehouse.memo.segments(stage.name, run.setup.recipe(stage), stage.outputs)


def plan_stage(run: Run, stage: Stage, wanted: str) -> tuple[Outcome, str, int]:
    """Find which inputs of the table `wanted` the memo doesn't know.

    Returns the outcome so far, the name of the table of missing inputs, and how many they are.
    """
    connection = run.warehouse.connection
    located, missing = f"{stage.name}_located", f"{stage.name}_missing"
    failed = segments_of(run, stage).locate(
        connection,
        f"(SELECT input_hash FROM {wanted} UNION ALL SELECT input_hash FROM audit_sample)",
        located,
    )
    count = fetch_value(
        connection,
        f"""CREATE OR REPLACE TABLE {missing} AS SELECT DISTINCT ON (input_hash) * FROM {wanted}
        ANTI JOIN {located} USING (input_hash)""",
    )
    return Outcome(located, failed), missing, count


def run_stage(
    run: Run, stage: Stage, dataset: str, wanted: str, bodies: Bodies, *, only_failed: bool = False
) -> Outcome:
    """Compute the inputs of the table `wanted` that the memo doesn't know, batch by batch, each a checkpoint.

    Holds no lock. `only_failed` says that of what is computed, only what failed need be named in `located`. Raises
    StemmaError when inputs were there but none of them could be processed.
    """
    connection = run.warehouse.connection
    outcome, missing, count = plan_stage(run, stage, wanted)
    if count == 0 or run.dry:
        outcome.computed = count
        return outcome
    segments = segments_of(run, stage)
    worked_before = bool(segments.files())
    audit = _Audit(run, stage, outcome.located, missing)
    written: list[pa.Table] = []
    failed_rows: list[pa.Table] = []
    run.progress(dataset, 0, count)
    inputs = batches(bodies(missing, stage), stage.batch_rows)
    for computed in run.executor.run(stage, inputs, count):
        result = audit.take_out(computed)
        written.append(segments.append(result.rows.filter(pc.is_null(result.rows["error"]))))
        failed_rows.append(result.rows.filter(pc.is_valid(result.rows["error"])))
        outcome.computed += result.rows.num_rows + sum(failure.retryable for failure in result.failures)
        outcome.failures += result.failures
        run.progress(dataset, outcome.computed, count)
    if outcome.computed < count:
        raise LostError(
            f"{dataset}: the memo has lost {count - outcome.computed} inputs; see docs/operations.md"
        )
    if len(outcome.failures) == count and not worked_before:
        # Nothing has ever gone through: the fault lies with the stage, so its rows must not be remembered as bad.
        first = outcome.failures[0]
        raise StemmaError(
            f"{dataset}: nothing could be processed; the first reason: {first.error}: {first.detail}"
        )
    if _all_failed_alike(outcome.failures, count):
        # So here, in all likelihood: the rows are reported, and tried again by the next run.
        outcome.failures = [replace(failure, retryable=True) for failure in outcome.failures]
    else:
        written.append(segments.append(pa.concat_tables(failed_rows)))
    outcome.warnings += audit.warnings
    places = pa.concat_tables(written)
    if only_failed:
        places = places.filter(pc.is_valid(places["error"]))
    outcome.failed |= has_failed(places)
    if segments.merge() and not only_failed:
        segments.locate(connection, wanted, outcome.located)
    elif places.num_rows:
        execute_over(connection, places, f"INSERT INTO {outcome.located} BY NAME FROM arriving")
    return outcome


def _all_failed_alike(failures: list[Failure], count: int) -> bool:
    reasons = {(failure.error, failure.detail) for failure in failures}
    return count >= ALIKE_ROWS and len(failures) == count and len(reasons) == 1


def streamed(run: Run, relation: Callable[[str], str]) -> Bodies:
    """Return the bodies that a SQL relation has, which `relation` makes for a table of missing inputs."""

    def stream(missing: str, stage: Stage) -> Iterator[pa.RecordBatch]:
        # A second statement on this connection would end the reader: whoever iterates leaves it alone.
        connection, found = run.warehouse.connection, relation(missing)
        names = ", ".join(["input_hash", *stage.inputs.names])
        with joined_as_written(connection):
            yield from connection.execute(f"SELECT {names} FROM {found}").to_arrow_reader(stage.batch_rows)

    return stream


def sample_for_audit(run: Run, connection: duckdb.DuckDBPyConnection, inputs: str) -> None:
    """Make the table audit_sample: a few rows of the relation `inputs` (a stage's inputs), others in each run."""
    connection.execute(
        f"""CREATE OR REPLACE TABLE audit_sample AS FROM {inputs} ORDER BY hash(input_hash, ?)
        LIMIT {AUDITED_ROWS if run.audit else 0}""",
        [run.run_id],
    )


class _Audit:
    """A few remembered inputs that are computed again beside the missing ones.

    What the recipe doesn't declare shows itself: the result differs from the one remembered.
    """

    def __init__(self, run: Run, stage: Stage, located: str, missing: str) -> None:
        """Add the rows of audit_sample that the memo knows to the table of missing inputs."""
        self.warnings: list[str] = []
        self._stage = stage
        self._remembered: dict[uuid.UUID, dict[str, Any]] = {}
        if not run.audit:
            return
        connection, audited = run.warehouse.connection, f"{stage.name}_audited"
        connection.execute(
            f"""CREATE OR REPLACE TABLE {audited} AS SELECT p.* FROM {located} AS p
            SEMI JOIN audit_sample USING (input_hash) WHERE error IS NULL"""
        )
        names = ", ".join(["input_hash", *stage.outputs.names])
        kept = connection.execute(
            f"SELECT {names} FROM {segments_of(run, stage).bodies(connection, audited, names)}"
        ).to_arrow_table()
        self._remembered = {row["input_hash"]: row for row in kept.to_pylist()}
        connection.execute(
            f"""INSERT INTO {missing} BY NAME
            SELECT DISTINCT ON (input_hash) * FROM audit_sample SEMI JOIN {audited} USING (input_hash)"""
        )

    def take_out(self, computed: Computed) -> Computed:
        """Return a batch's outcome without the audited rows, once they have been compared."""
        if not self._remembered:
            return computed
        keys = computed.rows["input_hash"].combine_chunks().storage
        ours = pc.is_in(keys, pa.array([key.bytes for key in self._remembered], pa.binary(16)))
        for row in computed.rows.filter(ours).to_pylist():
            error, _detail = row.pop("error"), row.pop("detail")
            if error is None and row != self._remembered[row["input_hash"]]:
                self.warnings.append(
                    f"stage {self._stage.name}: recomputing {row['input_hash']} gave another result than the memo"
                    " has: the stage depends on something that its recipe does not declare"
                )
        failures = []
        for failure in computed.failures:
            if uuid.UUID(bytes=failure.input_hash) in self._remembered:
                self.warnings.append(
                    f"stage {self._stage.name}: recomputing remembered rows failed: {failure.error}: {failure.detail}"
                )
            else:
                failures.append(failure)
        return Computed(computed.rows.filter(pc.invert(ours)), tuple(failures))


@dataclass(frozen=True)
class Annotation:
    """A further stage over what the dataset's own stage made of its inputs.

    inputs: from `located`, the relation of (input_hash, body_hash = input of the dataset's stage).
    """

    stage: Stage
    inputs: Callable[[Run, str], str]
    bodies: Callable[[Run], Bodies]

    @property
    def wanted(self) -> str:
        return f"{self.stage.name}_wanted"


@dataclass(frozen=True)
class RowDataset:
    """A dataset made by one row-wise stage.

    SQL relations over `state`:
        desired: (document_id, part, input_hash, origin, and what `bodies` needs): the dataset's inputs; `part`
            is the row's key below the document, `origin` a hash of all that its row takes from above.
        current: (document_id, part, origin) as applied before.
        fresh: from `scope` (the rows of desired for documents whose inputs changed) and `located` to the rows
            of state.<name>, in the order of its columns.
        derivation: what its rows are derived by from what its stages made, if that may change while these stay.
        decide: brings the rows that stand up to another recipe whose stages are the same.
    """

    name: str
    upstream: str
    key: str
    stage: Stage
    desired: str
    current: str
    bodies: Callable[[Run], Bodies]
    fresh: Callable[[Run, str], str]
    recipe: str
    annotations: tuple[Annotation, ...] = ()
    derivation: str = ""
    decide: Callable[[Run, duckdb.DuckDBPyConnection, Counts], None] | None = None

    def stage_recipe(self, setup: Setup) -> str:
        """Return the recipes of all its stages and its derivation: with these, its rows stay as they are."""
        stages = [self.stage, *(annotation.stage for annotation in self.annotations)]
        return " ".join([*(setup.recipe(stage) for stage in stages), self.derivation]).rstrip()


def update(run: Run, dataset: RowDataset) -> Counts:
    """Bring a row-wise dataset up to date with the one above it; returns what was done."""
    counts = run.begin(dataset.name, dataset.recipe)
    while not _try_update(run, dataset, counts):
        pass
    return counts


def _try_update(run: Run, dataset: RowDataset, counts: Counts) -> bool:
    """Plan, compute and apply; returns whether it was applied.

    It isn't where another run has applied its own meanwhile: this plan says what differs from a state that is no
    more. With other settings the rows of both would stand side by side, and pass for those of one recipe.
    """
    with run.warehouse.session() as connection:
        made = states(connection)
        upstream_version, planned_on = made[dataset.upstream].version, made[dataset.name]
        if (
            planned_on.upstream_version == upstream_version
            and planned_on.recipe == dataset.recipe
            and planned_on.settled
        ):
            counts.rows_in = counts.rows_reused = fetch_value(
                connection, f"SELECT count(*) FROM {dataset.desired}"
            )
            _close(run, connection, counts, dataset, upstream_version, planned_on, settled=True)
            return True
        if dataset.name == LAST and not run.dry:
            run.warehouse.prepare()
        counts.rows_in = _plan(run, connection, dataset, planned_on)
        sample_for_audit(run, connection, "desired")
    outcome = run_stage(run, dataset.stage, dataset.name, "scope", dataset.bodies(run))
    computed = outcome.computed
    counts.warnings += outcome.warnings
    annotated = [_annotate(run, dataset, annotation, outcome) for annotation in dataset.annotations]
    for more in annotated:
        computed = max(computed, more.computed)
        counts.warnings += more.warnings
    counts.rows_computed += computed
    counts.rows_reused = max(0, counts.rows_in - counts.rows_computed)
    if not run.dry:
        settled = not any(each.retryable for each in (outcome, *annotated))
        with run.warehouse.session() as connection:
            now = state_of(connection, dataset.name)
            if _applied(now) != _applied(planned_on):
                return False
            _apply(run, connection, counts, dataset, outcome, annotated)
            if dataset.decide is not None and now.recipe != dataset.recipe:
                dataset.decide(run, connection, counts)
            replace_errors(connection, dataset.name, "desired", "changed", "failed", run.run_id)
            _close(run, connection, counts, dataset, upstream_version, now, settled=settled)
    return True


def _applied(state: State) -> tuple[str, int, int]:
    return state.recipe, state.version, state.upstream_version


def _annotate(run: Run, dataset: RowDataset, annotation: Annotation, outcome: Outcome) -> Outcome:
    connection = run.warehouse.connection
    connection.execute(
        f"CREATE OR REPLACE TABLE {annotation.wanted} AS {annotation.inputs(run, outcome.located)}"
    )
    sample_for_audit(run, connection, annotation.wanted)
    return run_stage(run, annotation.stage, dataset.name, annotation.wanted, annotation.bodies(run))


def _plan(run: Run, connection: duckdb.DuckDBPyConnection, dataset: RowDataset, state: State) -> int:
    """Make the tables desired, changed (documents) and scope (the rows of these); returns how many are desired."""
    rows_in: int = fetch_value(
        connection, f"CREATE OR REPLACE TABLE desired AS SELECT * FROM {dataset.desired}"
    )
    if state.stage_recipe == dataset.stage_recipe(run.setup):
        # A document is in scope when any of its rows came, went or takes something else from above.
        rows = """(SELECT document_id, count(*) AS parts, sum(hash(part, origin)::HUGEINT) AS origins FROM {}
            GROUP BY document_id)"""
        now, before = rows.format("desired"), rows.format(dataset.current)
        changed = f"""SELECT document_id FROM {now} ANTI JOIN {before} USING (document_id, parts, origins)
            UNION SELECT document_id FROM {before} ANTI JOIN {now} USING (document_id, parts, origins)"""
    else:
        changed = f"SELECT document_id FROM desired UNION SELECT document_id FROM {dataset.current}"
    connection.execute(f"CREATE OR REPLACE TABLE changed AS {changed}")
    connection.execute(
        f"CREATE OR REPLACE TABLE scope AS FROM desired WHERE document_id IN {few('changed', 'document_id')}"
    )
    return rows_in


def find_failed(
    connection: duckdb.DuckDBPyConnection, outcome: Outcome, inputs: str = "scope", *, more: bool = False
) -> None:
    """Make the temporary table failed (document_id, error, detail): documents with an input that failed.

    `inputs` has the columns document_id and input_hash; with `more`, they are added to those found before.
    """
    if not (outcome.failed or outcome.retryable):
        if not more:
            connection.execute(
                "CREATE OR REPLACE TEMP TABLE failed (document_id UUID, error VARCHAR, detail VARCHAR)"
            )
        return
    found = f"SELECT input_hash, error, detail FROM {outcome.located} WHERE error IS NOT NULL"
    # What failed for a reason that may pass is not in the memo; it is reported all the same.
    if outcome.retryable:
        columns = {
            "input_hash": uuid_array(failure.input_hash for failure in outcome.retryable),
            "error": pa.array([failure.error for failure in outcome.retryable], pa.string()),
            "detail": pa.array([failure.detail for failure in outcome.retryable], pa.string()),
        }
        load_rows(connection, "retryable", pa.table(columns))
        found += " UNION ALL FROM retryable"
    into = "INSERT INTO failed" if more else "CREATE OR REPLACE TEMP TABLE failed AS"
    connection.execute(
        f"""{into} SELECT document_id, min(error) AS error, min(detail) AS detail
        FROM {inputs} JOIN ({found}) USING (input_hash) GROUP BY document_id"""
    )


def _apply(
    run: Run,
    connection: duckdb.DuckDBPyConnection,
    counts: Counts,
    dataset: RowDataset,
    outcome: Outcome,
    annotated: list[Outcome],
) -> None:
    find_failed(connection, outcome)
    for annotation, more in zip(dataset.annotations, annotated, strict=True):
        inputs = f"""(SELECT s.document_id, w.input_hash FROM scope AS s
            JOIN {annotation.wanted} AS w ON w.body_hash = s.input_hash)"""
        find_failed(connection, more, inputs, more=True)
    fresh = dataset.fresh(run, outcome.located)
    with joined_as_written(connection):
        connection.execute(
            f"CREATE OR REPLACE TEMP TABLE fresh AS SELECT * FROM ({fresh}) ANTI JOIN failed USING (document_id)"
        )
    apply_rows(connection, counts, dataset.key, "fresh", "changed")


def _close(
    run: Run,
    connection: duckdb.DuckDBPyConnection,
    counts: Counts,
    dataset: RowDataset,
    upstream_version: int,
    before: State,
    *,
    settled: bool,
) -> None:
    if run.dry:
        return
    finish(
        run,
        connection,
        counts,
        upstream_version=upstream_version,
        stage_recipe=dataset.stage_recipe(run.setup),
        settled=settled,
        before=before,
        explained=lambda: explain(dataset.stage),
    )
