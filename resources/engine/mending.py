"""Mending: what the memo has lost is computed anew, from what it was made of.

A segment that is not what was written is moved away when it is read (see memo.py); one may be deleted as well, or not
be in a backup. The state still names what it held. A result is a function of its input and recipe, so the state stays
as it is, and only the memo is filled up, from the top down: contents from the files, texts from contents, and so on.
"""

from collections.abc import Callable

import duckdb

from stemma.resources.engine.chunked import chunked, cleaned_bodies
from stemma.resources.engine.cleaned import cleaned
from stemma.resources.engine.deduplicated import signing_stages
from stemma.resources.engine.duplicates.index import live
from stemma.resources.engine.embedded import embedded
from stemma.resources.engine.raw import store_again
from stemma.resources.engine.rowwise import RowDataset, run_stage
from stemma.resources.engine.run import Run, state_of
from stemma.resources.memo import LostError


class Mending:
    """The losses of one step of a run: told by its errors, made good before it is tried again."""

    def __init__(self, run: Run, last: str) -> None:
        """Take in what is lost of the datasets down to `last`."""
        self._run = run
        self._last = last
        self._seen = len(run.warehouse.memo.damaged)
        self._tried = False
        self._computed = 0
        self._told: list[str] = []

    def begins(self, error: Exception) -> bool:
        """Tell whether an error says that the memo has lost something that was not known to be lost before."""
        memo = self._run.warehouse.memo
        new = memo.damaged[self._seen :]
        is_lost = isinstance(error, LostError) or memo.take_missing()
        if self._run.dry or not (new or (is_lost and not self._tried)):
            return False
        if any(damage.moved_to is None for damage in new):
            return False
        self._seen += len(new)
        self._tried = True
        self._told += map(str, new) if new else [str(error).split("\n")[0]]
        return True

    def mend(self) -> None:
        """Fill up the memo. Raises as the stages do; then it may begin again."""
        if not self._tried:
            return
        run = self._run
        refills: dict[str, Callable[[], int | None]] = {
            "raw": lambda: store_again(run),
            "cleaned": lambda: _refill(run, cleaned(run.setup)),
            "deduplicated": lambda: _refill_signatures(run),
            "chunked": lambda: _refill(run, chunked(run.setup)),
            "embedded": lambda: _refill(run, embedded(run.setup)),
        }
        for name, refill in refills.items():
            computed = refill()
            # Another recipe's results are planned, and computed, by the dataset's own update.
            if computed is None:
                return
            self._computed += computed
            if name == self._last:
                return

    @property
    def warnings(self) -> list[str]:
        """What a person should hear of it."""
        if not self._told:
            return []
        return [*self._told, f"{self._computed} results that the memo had lost were made anew"]


def _refill(run: Run, dataset: RowDataset) -> int | None:
    """Compute what is lost of a dataset; returns how many results, None where it was made by another recipe."""
    with run.warehouse.session() as connection:
        if state_of(connection, dataset.name).stage_recipe != dataset.stage_recipe(run.setup):
            return None
        _audit_nothing(connection)
        connection.execute(f"CREATE OR REPLACE TABLE scope AS SELECT * FROM {dataset.desired}")
    return run_stage(run, dataset.stage, dataset.name, "scope", dataset.bodies(run)).computed


def _refill_signatures(run: Run) -> int | None:
    """Sign what is lost of deduplicated, as `_refill` computes."""
    stages = signing_stages(run.setup)
    with run.warehouse.session() as connection:
        made_by = state_of(connection, "deduplicated").stage_recipe
        if made_by != " ".join(run.setup.recipe(stage) for stage in stages):
            return None
        _audit_nothing(connection)
        connection.execute(
            f"CREATE OR REPLACE TABLE scope AS SELECT document_id, text_hash AS input_hash, body_hash FROM {live(run)}"
        )
    bodies = cleaned_bodies(run)
    return sum(run_stage(run, stage, "deduplicated", "scope", bodies).computed for stage in stages)


def _audit_nothing(connection: duckdb.DuckDBPyConnection) -> None:
    connection.execute("CREATE OR REPLACE TABLE audit_sample (input_hash UUID)")
