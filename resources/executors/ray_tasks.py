"""What runs on the nodes of a Ray cluster. A node computes as the run's own machine does: in worker processes of its
own (`Workers`), so that limits, poison and a parser's death have the same outcome. No exception leaves here for a row.
"""

import functools
import pickle
import platform
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from stemma import __version__
from stemma.errors import StemmaError
from stemma.incremental.compute import compute
from stemma.incremental.recipe import code_hash, recipe
from stemma.incremental.stage import Stage
from stemma.reading import ReadError, Record
from stemma.resources.child import items_to_parts
from stemma.resources.executors.partitions import partition_numbers
from stemma.resources.executors.wire import fault_to_wire, to_wire
from stemma.resources.looking import Seen
from stemma.resources.workers import Limits, Workers, shared_workers

PARTITION = "partition"
PIECES = pa.schema(
    [
        ("number", pa.int64()),
        ("reading", pa.binary()),
        ("contents", pa.binary()),
        ("rest", pa.binary()),
        ("seen", pa.string()),
        ("fault", pa.string()),
    ]
)
# What is found in a file is sent in pieces of so many items, or of so many characters.
ITEMS, ITEM_CHARACTERS = 256, 4 * 2**20


@dataclass(frozen=True)
class StageOrder:
    """A stage, pickled; its recipe; how many rows the run computes in all; where a node computes them."""

    stage: bytes
    recipe: str
    count: int
    place: "Place"


@dataclass(frozen=True)
class Place:
    """The worker processes of each task, one or none; what a document may cost there."""

    processes: int
    limits: Limits

    def workers(self) -> Workers:
        """Return those of this process."""
        return shared_workers(self.processes, self.limits)


@dataclass(frozen=True)
class Order:
    """A function, pickled, and the hash of its code."""

    function: bytes
    code: str


def node_facts() -> dict[str, str]:
    """Return what must be the same on all nodes."""
    return {"Python": ".".join(platform.python_version_tuple()[:2]), "stemma": __version__}


@functools.lru_cache(maxsize=8)
def _stage(pickled: bytes, wanted: str) -> Stage:
    """Return a stage. Raises StemmaError where this node has no such stage, or another one."""
    stage: Stage = _unpickled(pickled)
    if recipe(stage) != wanted:
        raise StemmaError(
            f"node {platform.node()}: its code, or its libraries, of the stage '{stage.name}' are not those of the run:"
            " install the same versions on every node"
        )
    found = stage.facts() if stage.facts is not None else {}
    for name in sorted(found.keys() & stage.digests.keys()):
        if found[name] != stage.digests[name]:
            raise StemmaError(
                f"node {platform.node()}: {name}, which the stage '{stage.name}' depends on, is not that of the run"
            )
    return stage


@functools.lru_cache(maxsize=32)
def _function(order: Order) -> Callable[..., Any]:
    function: Callable[..., Any] = _unpickled(order.function)
    if code_hash(function) != order.code:
        raise StemmaError(
            f"node {platform.node()}: its code is not that of the run: install the same version on every node"
        )
    return function


def _unpickled(pickled: bytes) -> Any:
    try:
        return pickle.loads(pickled)
    except (ImportError, AttributeError) as error:
        raise StemmaError(f"node {platform.node()}: what is to be computed is not there: {error}") from error


def compute_batch(batch: pa.Table, order: StageOrder) -> Iterator[pa.Table]:
    """Yield the outcome of a batch, as tables of `wire_schema`."""
    stage: Stage | None = None
    try:
        stage = _stage(order.stage, order.recipe)
        if not stage.parallel:
            yield to_wire(stage, compute(stage, batch, None))
            return
        for computed in order.place.workers().run(stage, [batch], order.count):
            yield to_wire(stage, computed)
    except Exception as error:
        yield fault_to_wire(stage or pickle.loads(order.stage), error)


class ComputeWithModel:
    """`compute_batch` in a process of its own, which loads the stage's model once."""

    def __init__(self, order: StageOrder) -> None:
        self._order = order
        self._fault: Exception | None = None
        self._model: Any = None
        try:
            stage = _stage(order.stage, order.recipe)
            assert stage.load is not None
            self._model = stage.load(**stage.parameters)
        except Exception as error:
            # Whatever a broken model makes its libraries raise: Ray would start this actor again without end.
            self._fault = error

    def __call__(self, batch: pa.Table) -> pa.Table:
        stage: Stage = pickle.loads(self._order.stage)
        try:
            if self._fault is not None:
                raise self._fault
            return to_wire(stage, compute(stage, batch, self._model))
        except Exception as error:
            return fault_to_wire(stage, error)


def apply(table: pa.Table, order: Order) -> pa.Table:
    """Return what the ordered function makes of a table."""
    return _function(order)(table)


def number_partitions(table: pa.Table, key: str, count: int) -> pa.Table:
    """Return the table with the partition of each row's key."""
    return table.append_column(PARTITION, pa.array(partition_numbers(table[key], count)))


def apply_to_partition(table: pa.Table, order: Order) -> pa.Table:
    """Return what the ordered function makes of a whole partition."""
    return apply(table.drop_columns(PARTITION), order)


def look(batch: pa.Table, order: Order, place: Place) -> Iterator[pa.Table]:
    """Yield what is found for requests (columns number, request: pickled by the run), in pieces.

    Of each piece `reading` is the hash of the file that it comes from. The last one of a request has `seen`, what
    became of the look, or `fault`, why this node cannot take it.
    """
    for number, packed in zip(batch["number"].to_pylist(), batch["request"].to_pylist(), strict=True):
        items: list[Record | ReadError] = []
        size, reading = 0, b""
        try:
            for item in _function(order)(_unpickled(packed), place.workers()):
                if isinstance(item, Seen):
                    reading = item.file_hash if not item.is_last else reading
                    if item.is_last:
                        yield _piece(number, reading, items, seen=item.to_json())
                    continue
                items.append(item)
                size += len(item.content or "") if isinstance(item, Record) else 0
                if len(items) >= ITEMS or size >= ITEM_CHARACTERS:
                    yield _piece(number, reading, items)
                    items, size = [], 0
        except Exception as error:
            yield _piece(number, reading, [], fault=f"{type(error).__name__}: {error}")


def _piece(
    number: int,
    reading: bytes,
    items: list[Record | ReadError],
    *,
    seen: str | None = None,
    fault: str | None = None,
) -> pa.Table:
    contents, rest = items_to_parts(items)
    row = {
        "number": number,
        "reading": reading,
        "contents": contents,
        "rest": rest,
        "seen": seen,
        "fault": fault,
    }
    return pa.Table.from_pylist([row], schema=PIECES)
