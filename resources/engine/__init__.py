"""The engine: brings each dataset up to date with the one above it, and publishes all five together.

Each dataset's module says how it is made; `rowwise` is the one mechanism behind the row-wise stages,
`deduplicated` the global one, `publication` the way into the published file.
"""

import contextlib
import ctypes
from collections.abc import Callable
from typing import TypeVar

import duckdb
import pyarrow as pa

from stemma.errors import StemmaError
from stemma.incremental.counts import Counts
from stemma.lineage.checks import Check
from stemma.resources.engine.chunked import chunked
from stemma.resources.engine.cleaned import cleaned
from stemma.resources.engine.deduplicated import dedup_recipe, update_deduplicated
from stemma.resources.engine.embedded import embedded
from stemma.resources.engine.mending import Mending
from stemma.resources.engine.publication import Publication
from stemma.resources.engine.publication import publish as publish_state
from stemma.resources.engine.raw import raw_recipe, update_raw
from stemma.resources.engine.rowwise import LAST, update
from stemma.resources.engine.run import Run
from stemma.resources.engine.setup import Setup
from stemma.resources.engine.step_checks import check_step
from stemma.resources.faults import told

# Arrow's own pool keeps what it once had; the system's gives freed batches back.
pa.set_memory_pool(pa.system_memory_pool())

Result = TypeVar("Result")


def with_enough_memory(run: Run, work: Callable[[Run], Result]) -> Result:
    """Do a step of a run, again with more memory for DuckDB when it asks for it.

    Every step converges: what the first try computed is in the memo, and its transaction was rolled back.
    """
    while True:
        try:
            result = work(run)
        except (duckdb.Error, OSError) as error:
            if not _is_out_of_memory(error) or not run.warehouse.grant_memory():
                raise
        else:
            run.warehouse.let_go()
            return result
        finally:
            _give_back_memory()


def _is_out_of_memory(error: Exception) -> bool:
    """Out of memory has an exception of its own, unless a checkpoint, a constraint or an Arrow reader met it first."""
    return isinstance(error, duckdb.OutOfMemoryException) or "memory_limit" in str(error)


def _give_back_memory() -> None:
    # glibc keeps what one stage freed in the middle of its heap, and the next one takes as much on top.
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def with_what_it_needs(run: Run, dataset: str, work: Callable[[Run], Result]) -> Result:
    """Do a step of a run, again with more memory, or once the memo has again what it has lost (see mending.py).

    Raises StemmaError for what a person has to mend.
    """
    mending = Mending(run, dataset)

    def mended(run: Run) -> Result:
        mending.mend()
        return work(run)

    while True:
        try:
            result = with_enough_memory(run, mended)
        except Exception as error:
            if not mending.begins(error):
                clear = told(error, run.warehouse)
                if clear is error:
                    raise
                raise clear from error
        else:
            run.counts[dataset].warnings += mending.warnings
            return result


DATASETS: dict[str, Callable[[Run], Counts]] = {
    "raw": lambda run: with_what_it_needs(run, "raw", update_raw),
    "cleaned": lambda run: with_what_it_needs(run, "cleaned", lambda run: update(run, cleaned(run.setup))),
    "deduplicated": lambda run: with_what_it_needs(run, "deduplicated", update_deduplicated),
    "chunked": lambda run: with_what_it_needs(run, "chunked", lambda run: update(run, chunked(run.setup))),
    "embedded": lambda run: with_what_it_needs(run, "embedded", lambda run: update(run, embedded(run.setup))),
}


def recipes(setup: Setup) -> dict[str, str]:
    """Return the recipe of each dataset as configured, in the order of the datasets."""
    return {
        "raw": raw_recipe(setup),
        "cleaned": cleaned(setup).recipe,
        "deduplicated": dedup_recipe(setup),
        "chunked": chunked(setup).recipe,
        "embedded": embedded(setup).recipe,
    }


def publish(run: Run) -> Publication:
    """Publish what the run's updates have made of the corpus; see publication.publish."""
    # Each has what its libraries take, and none has anything to do here.
    run.workers.rest()
    return with_what_it_needs(run, LAST, lambda run: publish_state(run, recipes(run.setup)))


def check(run: Run, dataset: str) -> tuple[Check, ...]:
    """Check a dataset that has just been updated; see step_checks.check_step."""
    return with_what_it_needs(run, dataset, lambda run: check_step(run, dataset))


def run_all(run: Run) -> Publication:
    """Update all five datasets and publish them, in this process and without an orchestrator.

    Raises StemmaError when a blocking check fails; the published file stays as it is.
    """
    for update_dataset in DATASETS.values():
        update_dataset(run)
    publication = publish(run)
    if publication.failed:
        failed = "; ".join(f"{check.name}: {check.detail}" for check in publication.failed)
        raise StemmaError(f"a blocking check failed, nothing was published: {failed}")
    return publication


__all__ = ["DATASETS", "Publication", "Run", "Setup", "check", "publish", "recipes", "run_all"]
