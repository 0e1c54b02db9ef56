"""Run a stage over batches: one bad row costs one row."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from stemma.errors import RetryableError, StemmaError
from stemma.hashing import UUID
from stemma.incremental.stage import Stage

# A batch also ends at this many bytes, so that a batch of huge documents stays in memory.
BATCH_BYTES = 8 * 1024 * 1024
PIECE_ROWS = 32
DETAIL_CHARACTERS = 500

# Reasons that may pass: the row is reported, not remembered, and tried again by the next run.
RETRYABLE = (RetryableError, MemoryError, TimeoutError, ConnectionError)
# A stage is a pure function of its row: what it cannot import or open is the machine's fault, not the row's.
MACHINE_FAULTS = (*RETRYABLE, ImportError, OSError)


@dataclass(frozen=True)
class Failure:
    """One row that its stage could not process."""

    input_hash: bytes
    error: str
    detail: str
    retryable: bool


@dataclass(frozen=True)
class Computed:
    """The outcome of one batch.

    Attributes:
        rows: table of (input_hash uuid, the stage's outputs, error string, detail string): what the memo keeps,
            rows that failed for a lasting reason included (outputs null).
        failures: the rows that failed, for a lasting reason or not.
    """

    rows: pa.Table
    failures: tuple[Failure, ...]


def schema_of(stage: Stage) -> pa.Schema:
    """Return the schema of `Computed.rows`."""
    return pa.schema(
        [pa.field("input_hash", UUID), *stage.outputs, ("error", pa.string()), ("detail", pa.string())]
    )


def compute(stage: Stage, batch: pa.Table, model: Any) -> Computed:
    """Run a stage over one batch (columns: input_hash uuid and the stage's inputs).

    When the function raises, the batch is halved until the row that made it raise stands alone.

    Raises:
        StemmaError: the function broke its contract (row count or schema), which no bisection can mend.
    """
    outputs, failures = _attempt(stage, batch, model)
    return _computed(stage, outputs, failures)


def failed(stage: Stage, batch: pa.Table, error: str, detail: str, *, retryable: bool) -> Computed:
    """Return the outcome of a batch of one row that could not be computed, for a reason known outside of it."""
    key = batch["input_hash"].combine_chunks().storage[0].as_py()
    return _computed(stage, [], [Failure(key, error, detail, retryable)])


def _computed(stage: Stage, outputs: list[pa.Table], failures: list[Failure]) -> Computed:
    lasting = [failure for failure in failures if not failure.retryable]
    if lasting:
        outputs = [*outputs, _failed_rows(stage, lasting)]
    schema = schema_of(stage)
    rows = pa.concat_tables([table.cast(schema) for table in outputs]) if outputs else schema.empty_table()
    return Computed(rows, tuple(failures))


def _attempt(stage: Stage, batch: pa.Table, model: Any) -> tuple[list[pa.Table], list[Failure]]:
    if batch.num_rows == 0:
        return [], []
    try:
        outputs = call(stage, batch, model)
    except StemmaError as error:
        if not isinstance(error, RetryableError):
            raise
        failure: Exception = error
    except Exception as error:
        failure = error
    else:
        return [_with_keys(batch, outputs)], []
    if batch.num_rows == 1:
        return [], [_failure(batch, failure)]
    half = batch.num_rows // 2
    left, left_failures = _attempt(stage, batch.slice(0, half), model)
    right, right_failures = _attempt(stage, batch.slice(half), model)
    return left + right, left_failures + right_failures


def call(stage: Stage, batch: pa.Table, model: Any) -> pa.Table:
    """Call the stage's function on a batch and check what it returns.

    Raises:
        StemmaError: another row count or schema than declared.
        pa.ArrowInvalid: invalid data, such as text that is not UTF-8.
    """
    arguments = dict(stage.parameters)
    if stage.load is not None:
        arguments["model"] = model
    outputs = stage.function(batch.select(stage.inputs.names), **arguments)
    if outputs.num_rows != batch.num_rows or outputs.schema.names != stage.outputs.names:
        raise StemmaError(
            f"stage {stage.name}: {outputs.num_rows} rows of {outputs.schema.names} for {batch.num_rows} inputs;"
            f" wanted one row each of {stage.outputs.names}"
        )
    outputs = outputs.cast(stage.outputs)
    outputs.validate(full=True)
    return outputs


def _with_keys(batch: pa.Table, outputs: pa.Table) -> pa.Table:
    nulls = pa.nulls(batch.num_rows, pa.string())
    columns = [batch["input_hash"], *outputs.columns, nulls, nulls]
    return pa.table(columns, names=["input_hash", *outputs.schema.names, "error", "detail"])


def _failed_rows(stage: Stage, failures: list[Failure]) -> pa.Table:
    storage = pa.array([failure.input_hash for failure in failures], pa.binary(16))
    columns: list[Any] = [pa.ExtensionArray.from_storage(UUID, storage)]
    columns += [pa.nulls(len(failures), field.type) for field in stage.outputs]
    columns += [
        pa.array([failure.error for failure in failures], pa.string()),
        pa.array([failure.detail for failure in failures], pa.string()),
    ]
    return pa.table(columns, names=["input_hash", *stage.outputs.names, "error", "detail"])


def _failure(batch: pa.Table, error: Exception) -> Failure:
    key = batch["input_hash"].combine_chunks().storage[0].as_py()
    kind = type(error).__name__
    detail = " ".join(str(error).split())[:DETAIL_CHARACTERS] or kind
    # An Arrow string must be UTF-8; a message may quote what was not.
    detail = detail.encode("utf-8", "replace").decode()
    return Failure(key, kind, detail, isinstance(error, MACHINE_FAULTS) or kind == "OutOfMemoryError")


def batches(rows: Iterable[pa.RecordBatch], batch_rows: int) -> Iterator[pa.Table]:
    """Regroup record batches into tables of `batch_rows` rows, or fewer once they reach BATCH_BYTES."""
    pending: list[pa.RecordBatch] = []
    count = size = 0
    for incoming in rows:
        start = 0
        while start < incoming.num_rows:
            piece = _piece(incoming, start, batch_rows - count)
            start += piece.num_rows
            pending.append(piece)
            count += piece.num_rows
            size += piece.nbytes
            if count >= batch_rows or size >= BATCH_BYTES:
                yield pa.Table.from_batches(pending)
                pending, count, size = [], 0, 0
    if pending:
        yield pa.Table.from_batches(pending)


def _piece(rows: pa.RecordBatch, start: int, most: int) -> pa.RecordBatch:
    """Return the next rows, so few that they don't exceed BATCH_BYTES, unless a single one does."""
    count = min(PIECE_ROWS, most)
    while count > 1 and rows.slice(start, count).nbytes > BATCH_BYTES:
        count //= 2
    return rows.slice(start, count)
