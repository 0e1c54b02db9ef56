"""Where the work of a run is done: the few verbs that it needs of an engine, and the engines that have them.

`local` is this machine: the run's own process and its worker processes. `on_ray` is a Ray cluster. Stages know
neither, and what comes out is row for row the same. Whatever computes, the run's own process is the only one that
writes to the memo and to DuckDB.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Protocol

import pyarrow as pa

from stemma.config import EngineConfig
from stemma.incremental.compute import Computed
from stemma.incremental.stage import Stage
from stemma.resources.executors.local import LocalExecutor
from stemma.resources.looking import Found, Request
from stemma.resources.workers import Limits, Workers, shared_workers


class Executor(Protocol):
    """An engine. Its rows (of `scatter`, `map` and `exchange`) are its own: only `gather` makes tables of them."""

    def read(self, requests: Iterable[Request]) -> Iterator[tuple[Request, Found]]:
        """Yield what `look_at` finds for each of the requests, in any order.

        What is found for one request comes in its order, though perhaps with that for others in between.
        """

    def run(self, stage: Stage, batches: Iterable[pa.Table], count: int) -> Iterator[Computed]:
        """Yield the outcome of each batch (`count` rows in all), in pieces, in no particular order.

        A stage with a model of its own (`load`, and not `parallel`) is computed by few processes that each load it.
        Raises StemmaError when the stage's function broke its contract.
        """

    def scatter(self, tables: Iterable[pa.Table]) -> Any:
        """Take tables of one schema in as rows."""

    def map(self, rows: Any, function: Callable[[pa.Table], pa.Table]) -> Any:
        """Return the rows that the function, found by its name in any process, makes of pieces of these."""

    def exchange(self, rows: Any, key: str, function: Callable[[pa.Table], pa.Table]) -> Any:
        """Return the rows that the function makes of whole partitions: all rows of a key come in one call.

        `key` is a column of int64 or uint64; a call may get the rows of many keys. An engine that does not keep to
        this gives wrong answers, silently.
        """

    def gather(self, rows: Any) -> Iterator[pa.Table]:
        """Yield the rows as tables, in no particular order."""

    def remarks(self) -> list[str]:
        """Return what a person who chose this engine should hear."""

    def take_stats(self) -> str:
        """Return what the engine has to say, as text, of what it did since it was last asked."""


def executor_of(engine: EngineConfig) -> Executor:
    """Return this process's executor of these settings; they live until the process ends.

    Raises StemmaError where Ray is not installed, the cluster cannot be reached, or its nodes have other versions.
    """
    local = LocalExecutor(workers_of(engine))
    if engine.kind == "local":
        return local
    from stemma.resources.executors.on_ray import ray_executor

    return ray_executor(engine, local)


def workers_of(engine: EngineConfig) -> Workers:
    """Return this process's worker processes of these settings."""
    return shared_workers(engine.workers, Limits(float(engine.document_seconds), engine.document_memory_mib))


__all__ = ["Executor", "LocalExecutor", "executor_of", "workers_of"]
