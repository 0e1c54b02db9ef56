"""The audit: the corpus, or a sample of its files, rebuilt in a scratch place and compared with what is published."""

import contextlib
import dataclasses
import shutil
import tempfile
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from stemma.config import Config
from stemma.errors import StemmaError
from stemma.lineage.comparison import (
    STATE,
    Comparison,
    compare_databases,
    compare_files,
    compare_sample,
)
from stemma.resources.engine import Run, Setup, run_all
from stemma.resources.engine.run import silent
from stemma.resources.engine.staleness import staleness
from stemma.resources.memo import quoted
from stemma.resources.scratch import AUDIT, Scratch, remove_abandoned
from stemma.resources.warehouse import Warehouse

# A rebuild holds its bodies twice, in its memo and in what it publishes; so much of the disk is left in any case.
COPIES = 2
LEFT_BYTES = 256 * 2**20
WHOLE = 1.0


@dataclass(frozen=True)
class Audit:
    """What an audit found.

    Attributes:
        tables: what became of each table.
        stale: why the corpus is not what a run would make of it now; then differences are to be expected.
        damaged: what is said of each damaged file of the memo; they have been moved away, and the next run that
            needs what they held makes it anew.
        share, seed: which sample of the files it was.
    """

    tables: list[Comparison]
    stale: tuple[str, ...]
    share: float = WHOLE
    seed: int = 0
    damaged: tuple[str, ...] = ()

    @property
    def differing(self) -> list[Comparison]:
        """The tables that are not the same."""
        return [each for each in self.tables if each.differs]


def audit(
    config: Config,
    share: float = WHOLE,
    progress: Callable[[str, int, int], None] = silent,
    *,
    seed: int = 0,
    scratch: Path | None = None,
) -> Audit:
    """Rebuild the corpus from nothing, without its memo, in a folder of its own, and compare every table.

    With a `share` below 1, that share of the files is rebuilt, the same ones for the same `seed`, and what does not
    depend on other documents is compared (see `compare_sample`); else the engine's own state is compared as well,
    the index of duplicates with it, and all files of the memo are checked. The folder is made in `scratch`, and
    removed whatever happens; one whose process was killed is removed by the next run.

    Raises StemmaError when nothing has been published, the rebuild fails, or the disk has no room for it.
    """
    path = config.warehouse.path
    if not path.exists():
        raise StemmaError(f"{path}: nothing published yet; 'stemma run PATH' makes it")
    stale = _stale(config)
    ours = Warehouse(path)
    damaged = _damaged(ours) if share >= WHOLE else ()
    with _folder(ours, scratch) as folder:
        _refuse_without_room(folder, COPIES * ours.size().published * share)
        rebuilt = Warehouse(folder / path.name)
        _rebuild(config, ours, rebuilt, share, seed, _watching(folder, progress))
        if share < WHOLE:
            compared = compare_sample(path, rebuilt.path, folder)
        else:
            compared = [*compare_files(path, rebuilt.path, folder), *compare_states(ours, rebuilt)]
    return Audit(compared, stale, share, seed, damaged)


def _damaged(ours: Warehouse) -> tuple[str, ...]:
    """Check every row of the memo."""
    try:
        return tuple(map(str, ours.memo.check()))
    finally:
        ours.memo.close()


def compare_states(ours: Warehouse, rebuilt: Warehouse) -> list[Comparison]:
    """Compare what two warehouses keep for the engine alone: from it the next run goes on, so it must be right too."""
    try:
        with ours.session() as connection:
            connection.execute(f"ATTACH {quoted(str(rebuilt.state_path))} AS rebuilt (READ_ONLY)")
            compared = compare_databases(connection, "state", "rebuilt", STATE)
        return [
            dataclasses.replace(
                each,
                table=f"state.{each.table}",
                examples=tuple(
                    dataclasses.replace(example, table=f"state.{example.table}") for example in each.examples
                ),
            )
            for each in compared
        ]
    finally:
        ours.close()


@contextlib.contextmanager
def _folder(ours: Warehouse, scratch: Path | None) -> Iterator[Path]:
    if scratch is not None:
        scratch.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="stemma-audit-", dir=scratch) as name:
            yield Path(name)
        return
    remove_abandoned(ours.folder, AUDIT)
    made = Scratch(ours.folder, AUDIT)
    try:
        yield made.path
    finally:
        made.close()


def _refuse_without_room(folder: Path, needed: float) -> None:
    free = shutil.disk_usage(folder).free
    if free < needed + LEFT_BYTES:
        raise StemmaError(
            f"a rebuild needs about {needed / 1e9:.1f} GB beside the corpus, and {folder.parent} has"
            f" {free / 1e9:.1f} GB: name another place with --scratch, or take a sample with --share"
        )


def _watching(folder: Path, progress: Callable[[str, int, int], None]) -> Callable[[str, int, int], None]:
    """Return a progress that stops the rebuild before it fills the disk: the corpus lives there as well."""

    def report(dataset: str, done: int, total: int) -> None:
        if shutil.disk_usage(folder).free < LEFT_BYTES:
            raise StemmaError(
                f"the rebuild was given up: less than {LEFT_BYTES >> 20} MB are left in {folder.parent}"
            )
        progress(dataset, done, total)

    return report


def _stale(config: Config) -> tuple[str, ...]:
    run = Run("", Setup.of(config), Warehouse(config.warehouse.path))
    try:
        return staleness(run).reasons
    finally:
        run.warehouse.close()


def _rebuild(
    config: Config,
    ours: Warehouse,
    rebuilt: Warehouse,
    share: float,
    seed: int,
    progress: Callable[[str, int, int], None],
) -> None:
    scratch = dataclasses.replace(config, warehouse=dataclasses.replace(config.warehouse, path=rebuilt.path))
    # What was purged is part of what the corpus is made of.
    if ours.purges_path.exists():
        shutil.copyfile(ours.purges_path, rebuilt.purges_path)
    run = Run(
        f"audit-{uuid.uuid4()}",
        Setup.of(scratch),
        rebuilt,
        progress=progress,
        share=share,
        sample=seed,
        # What is not of the sources although it lies beside them: the corpus that is being audited.
        left_out=ours.own_paths,
    )
    try:
        run_all(run)
    finally:
        rebuilt.close()
