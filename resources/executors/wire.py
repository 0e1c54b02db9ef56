"""Outcomes of batches as plain Arrow tables, in which they travel between machines: a row for each row that went in."""

import pyarrow as pa
import pyarrow.compute as pc

from stemma.errors import RetryableError, StemmaError
from stemma.hashing import UUID, uuid_array
from stemma.incremental.compute import Computed, Failure, schema_of
from stemma.incremental.stage import Stage

# What a row is: computed or failed for a lasting reason; failed for one that may pass; no row, but a fault that ends
# the run, or one that may pass.
DONE, PASSING, BROKEN, BROKEN_FOR_NOW = range(4)


def wire_schema(stage: Stage) -> pa.Schema:
    """Return the schema of what travels: that of `Computed.rows`, and `kind`."""
    return schema_of(stage).append(pa.field("kind", pa.int8()))


def to_wire(stage: Stage, computed: Computed) -> pa.Table:
    """Return an outcome as a table."""
    passing = [failure for failure in computed.failures if failure.retryable]
    rows = computed.rows.append_column("kind", pa.array([DONE] * computed.rows.num_rows, pa.int8()))
    return pa.concat_tables([rows.cast(wire_schema(stage)), _without_outputs(stage, passing, PASSING)])


def fault_to_wire(stage: Stage, error: Exception) -> pa.Table:
    """Return a fault of the stage or of the machine, which is no row's, as a table of one row."""
    kind = BROKEN_FOR_NOW if isinstance(error, RetryableError) else BROKEN
    detail = str(error).encode("utf-8", "replace").decode()
    return _without_outputs(stage, [Failure(bytes(16), type(error).__name__, detail, False)], kind)


def from_wire(table: pa.Table) -> Computed:
    """Return the outcome in a table. Raises StemmaError, or RetryableError, where it is a fault."""
    kinds = table["kind"]
    faults = table.filter(pc.greater(kinds, PASSING)).select(["kind", "detail"]).to_pylist()
    if faults:
        kind = RetryableError if faults[0]["kind"] == BROKEN_FOR_NOW else StemmaError
        raise kind(faults[0]["detail"])
    failed = table.filter(pc.is_valid(table["error"])).select(["input_hash", "error", "detail", "kind"])
    failures = tuple(
        Failure(row["input_hash"].bytes, row["error"], row["detail"], row["kind"] == PASSING)
        for row in failed.to_pylist()
    )
    return Computed(table.filter(pc.equal(kinds, DONE)).drop_columns("kind"), failures)


def _without_outputs(stage: Stage, failures: list[Failure], kind: int) -> pa.Table:
    count, schema = len(failures), wire_schema(stage)
    known = {
        "input_hash": uuid_array(failure.input_hash for failure in failures),
        "error": pa.array([failure.error for failure in failures], pa.string()),
        "detail": pa.array([failure.detail for failure in failures], pa.string()),
        "kind": pa.array([kind] * count, pa.int8()),
    }
    columns = [known[field.name] if field.name in known else pa.nulls(count, field.type) for field in schema]
    assert schema.field("input_hash").type == UUID
    return pa.Table.from_arrays(columns, schema=schema)
