"""What a row-wise stage is: a versioned pure function over Arrow tables, its parameters and its schemas."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

# Of most stages fewer rows than this are computed sooner than a process has started (0.4 s).
SMALL_ROWS = 256


@dataclass(frozen=True)
class Stage:
    """A pure function `pa.Table -> pa.Table` with one output row for each input row, in the same order.

    What makes several rows of one (chunking) puts them into a list column, so that the memo holds one row
    for each input whatever comes out. No state may pass from one row to another.

    Attributes:
        name: the stage's name; its memo is kept under it.
        function: called as `function(table, **parameters)`, and with `model=load(**parameters)` as well
            where `load` is given. A row that cannot be processed makes it raise; the engine then bisects
            the batch, so a function never needs to catch errors for its rows.
        parameters: JSON-able keyword arguments; part of the recipe.
        inputs: schema of the columns that the function reads.
        outputs: schema of the table that it returns.
        libraries: distributions whose version changes the result; part of the recipe.
        digests: further facts that change the result (weights, tokenizer), name to value; part of the recipe.
        version: raised by hand when something changed that the recipe cannot see.
        batch_rows: rows given to one call, and committed to the memo together.
        load: loads what the function needs once (a model); called only when a row must be computed.
        parallel: whether worker processes may compute it, each with what it loads.
        small_rows: so few rows are computed in the run's own process, because to start others takes longer.
        alone: tells, for a table of inputs, which rows must be computed one at a time in a process that may die:
            those for which the function calls a parser that is not to be trusted with them.
        facts: finds facts of `digests` (name to value) in the process that it is called in: another machine may have
            other weights under the same path, or another key.
    """

    name: str
    function: Callable[..., pa.Table]
    parameters: Mapping[str, Any]
    inputs: pa.Schema
    outputs: pa.Schema
    libraries: tuple[str, ...] = ()
    digests: Mapping[str, str] = field(default_factory=dict)
    version: int = 1
    batch_rows: int = 512
    load: Callable[..., Any] | None = None
    parallel: bool = False
    small_rows: int = SMALL_ROWS
    alone: Callable[[pa.Table], pa.BooleanArray] | None = None
    facts: Callable[[], Mapping[str, str]] | None = None
