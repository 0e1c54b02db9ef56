"""The engine of a Ray cluster: Ray Data schedules, moves, shuffles and repeats what was lost; nothing of that is ours.

Tables go to the cluster's object store, and what comes of them is read from there, so nodes need no storage in common
with the run but the sources. Few rows are computed here: to send them away costs seconds.
"""

import contextlib
import dataclasses
import itertools
import pickle
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pyarrow as pa

from stemma.config import EngineConfig
from stemma.errors import StemmaError
from stemma.incremental.compute import Computed
from stemma.incremental.recipe import code_hash, recipe
from stemma.incremental.stage import Stage
from stemma.resources.child import items_from_parts
from stemma.resources.executors import ray_cluster, ray_tasks
from stemma.resources.executors.local import LocalExecutor
from stemma.resources.executors.ray_tasks import Order, Place, StageOrder
from stemma.resources.executors.wire import from_wire
from stemma.resources.looking import Found, Request, look_at, seen_from_json
from stemma.resources.workers import pickled

# Fewer rows, or files of so few bytes, are dealt with by this machine: sooner than a cluster's first task has started.
FEW_ROWS = 1024
FEW_BYTES = 64 * 2**20
# The most rows of a batch that are computed one by one, each for as long as a document may take.
BATCH_ROWS = 512
FEW_EXCHANGED = 1 << 22
# Files that one task looks at, unless they are large, and that are sent away together.
FILES, FILES_BYTES, WINDOW_FILES = 16, 8 * 2**20, 1 << 16
PARTITION_BYTES, LARGE_EXCHANGE_BYTES = 1 << 27, 1 << 30
# The share of the cluster's object store that the inputs of one window take.
WINDOW_SHARE, WINDOW_BYTES = 0.1, 1 << 30
STATS_CHARACTERS = 20_000

# A call of a function gets a whole block: a batch, a partition, some requests.
WHOLE: dict[str, Any] = {"batch_format": "pyarrow", "batch_size": None}

_shared: dict[EngineConfig, "RayExecutor"] = {}


def ray_executor(engine: EngineConfig, local: LocalExecutor) -> "RayExecutor":
    """Return this process's executor on the cluster of these settings; see `executor_of`."""
    if engine not in _shared:
        _shared[engine] = RayExecutor(engine, local)
    ray_cluster.connect(engine.address, BATCH_ROWS * engine.document_seconds)
    return _shared[engine]


class RayExecutor:
    """See `Executor`. Its rows are a Dataset of Ray, or the local engine's where they are few."""

    def __init__(self, engine: EngineConfig, local: LocalExecutor) -> None:
        self._engine = engine
        self._local = local
        self._place = Place(min(1, local.workers.processes), local.workers.limits)
        self._stats: list[str] = []

    def run(self, stage: Stage, batches: Iterable[pa.Table], count: int) -> Iterator[Computed]:
        packed = None if count < FEW_ROWS else pickled(stage)
        if packed is None:
            yield from self._local.run(stage, batches, count)
            return
        order = StageOrder(packed, recipe(stage), count, self._place)
        for window in _windows(batches, self._window_bytes()):
            dataset = self._computed(_dataset(window), stage, order)
            for table in self._tables(dataset):
                yield from_wire(table)

    def _computed(self, dataset: Any, stage: Stage, order: StageOrder) -> Any:
        if stage.load is None or stage.parallel:
            return dataset.map_batches(ray_tasks.compute_batch, fn_args=(order,), num_cpus=1, **WHOLE)
        from ray.data import ActorPoolStrategy

        gpus = self._engine.gpus
        actors = self._actors()
        return dataset.map_batches(
            ray_tasks.ComputeWithModel,
            fn_constructor_args=(order,),
            compute=ActorPoolStrategy(min_size=1, max_size=actors),
            num_cpus=1,
            num_gpus=gpus or None,
            **WHOLE,
        )

    def _actors(self) -> int:
        """Return how many processes load a model: as configured, or as many as there are GPUs or processors for."""
        import ray

        there, gpus = ray.cluster_resources(), self._engine.gpus
        if there.get("GPU", 0) < gpus:
            raise StemmaError(f"[engine] gpus = {gpus:g}: the Ray cluster has {there.get('GPU', 0):g}")
        room = there["GPU"] / gpus if gpus else there.get("CPU", 1)
        return self._engine.actors or max(1, int(room))

    def read(self, requests: Iterable[Request]) -> Iterator[tuple[Request, Found]]:
        here: list[Request] = []
        waiting = iter(requests)
        while asked := list(itertools.islice(waiting, WINDOW_FILES)):
            away = [request for request in asked if not request.is_query]
            if len(away) < FEW_ROWS and sum(request.entry.size or 0 for request in away) < FEW_BYTES:
                here += asked
            else:
                here += [request for request in asked if request.is_query]
                yield from self._read(away, here)
        yield from self._local.read(here)

    def _read(self, asked: list[Request], here: list[Request]) -> Iterator[tuple[Request, Found]]:
        """Let nodes look at files; those that a node cannot open are added to `here`: this machine listed them."""
        looked = _dataset(_request_tables(asked)).map_batches(
            ray_tasks.look, fn_args=(_order(look_at), self._place), num_cpus=1, **WHOLE
        )
        read: dict[int, bytes] = {}
        for piece in self._tables(looked):
            for row in piece.to_pylist():
                if row["fault"]:
                    raise StemmaError(row["fault"])
                number, request = row["number"], asked[row["number"]]
                yield from ((request, item) for item in items_from_parts(row["contents"], row["rest"]))
                seen = seen_from_json(row["seen"]) if row["seen"] else None
                # Where a node is lost in the middle of a file, another one goes on; the file may have changed by then.
                if read.setdefault(number, row["reading"]) != row["reading"]:
                    seen = seen and dataclasses.replace(
                        seen, kind="put off", error="changing", detail="read in two goes"
                    )
                if seen and seen.kind == "unreadable":
                    here.append(request)
                elif seen:
                    yield request, seen

    def scatter(self, tables: Iterable[pa.Table]) -> Any:
        tables = iter(tables)
        first: list[pa.Table] = []
        rows = 0
        for table in tables:
            first.append(table)
            rows += table.num_rows
            if rows >= FEW_EXCHANGED:
                return _dataset(itertools.chain(first, tables))
        return self._local.scatter(first)

    def map(self, rows: Any, function: Callable[[pa.Table], pa.Table]) -> Any:
        if isinstance(rows, list):
            return self._local.map(rows, function)
        mapped = rows.map_batches(ray_tasks.apply, fn_args=(_order(function),), **WHOLE)
        return self._kept(mapped)

    def exchange(self, rows: Any, key: str, function: Callable[[pa.Table], pa.Table]) -> Any:
        if isinstance(rows, list):
            return self._local.exchange(rows, key, function)
        import ray
        from ray.data.context import ShuffleStrategy

        size = rows.size_bytes()
        count = max(int(ray.cluster_resources().get("CPU", 1)), 1 + size // PARTITION_BYTES)
        # Keys are put into partitions by us, so that one call gets all keys of a partition and not one key alone.
        numbered = rows.map_batches(ray_tasks.number_partitions, fn_args=(key, count), **WHOLE)
        if size < LARGE_EXCHANGE_BYTES:
            # Ray's own choice takes ten seconds more, whatever the size: it starts processes while others wait.
            numbered.context.shuffle_strategy = ShuffleStrategy.SORT_SHUFFLE_PULL_BASED
        grouped = numbered.groupby(ray_tasks.PARTITION, num_partitions=count)
        return self._kept(
            grouped.map_groups(
                ray_tasks.apply_to_partition, fn_args=(_order(function),), batch_format="pyarrow"
            )
        )

    def gather(self, rows: Any) -> Iterator[pa.Table]:
        return self._local.gather(rows) if isinstance(rows, list) else self._tables(rows)

    def remarks(self) -> list[str]:
        if len(ray_cluster.nodes()) > 1:
            return []
        return [
            'the Ray cluster has a single node: there [engine] kind = "local" does the same with less than half of the'
            " processor time (docs/scale.md)"
        ]

    def take_stats(self) -> str:
        told, self._stats = "\n".join(self._stats), []
        return told[:STATS_CHARACTERS]

    def _window_bytes(self) -> int:
        import ray

        room = ray.cluster_resources().get("object_store_memory", WINDOW_BYTES)
        return min(WINDOW_BYTES, max(1, int(room * WINDOW_SHARE)))

    def _kept(self, dataset: Any) -> Any:
        with _errors_told():
            kept = dataset.materialize()
        self._stats.append(kept.stats())
        return kept

    def _tables(self, dataset: Any) -> Iterator[pa.Table]:
        with _errors_told():
            for table in dataset.iter_batches(batch_size=None, batch_format="pyarrow"):
                if table.num_rows:
                    yield table
        self._stats.append(dataset.stats())


def _dataset(tables: Iterable[pa.Table]) -> Any:
    """Put tables into the object store, one block each, as they come."""
    import ray

    blocks: list[Any] = [ray.put(table) for table in tables]
    return ray.data.from_arrow_refs(blocks)


def _request_tables(requests: list[Request]) -> Iterator[pa.Table]:
    """Yield tables of requests (number, request), of FILES each or of as many files as have FILES_BYTES."""
    start = size = 0
    for number, request in enumerate(requests, 1):
        size += request.entry.size or 0
        if number - start == FILES or size >= FILES_BYTES or number == len(requests):
            packed = [pickle.dumps(each) for each in requests[start:number]]
            yield pa.table({"number": pa.array(range(start, number), pa.int64()), "request": packed})
            start, size = number, 0


def _windows(tables: Iterable[pa.Table], size: int) -> Iterator[list[pa.Table]]:
    """Yield the tables in lists of about this many bytes."""
    window: list[pa.Table] = []
    there = 0
    for table in tables:
        window.append(table)
        there += table.nbytes
        if there >= size:
            yield window
            window, there = [], 0
    if window:
        yield window


def _order(function: Callable[..., Any]) -> Order:
    packed = pickled(function)
    if packed is None:
        raise StemmaError(f"{function}: no other process can find it")
    return Order(packed, code_hash(function))


@contextlib.contextmanager
def _errors_told() -> Iterator[None]:
    """Raise Ray's own errors as StemmaError, and one of ours that it carries as that."""
    from ray.data.exceptions import ExecutionTimeoutError
    from ray.exceptions import RayError

    try:
        yield
    except (RayError, ExecutionTimeoutError) as error:
        cause: BaseException | None = error
        while cause is not None and not isinstance(cause, StemmaError):
            cause = getattr(cause, "cause", None) or cause.__cause__
        if cause is not None:
            raise StemmaError(str(cause)) from error
        raise StemmaError(f"the Ray cluster could not do it: {ray_cluster.told(error)}") from error
