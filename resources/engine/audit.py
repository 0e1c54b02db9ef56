"""The audit: the corpus, or a sample of its files, rebuilt in a scratch place and compared with what is published."""

import dataclasses
import shutil
import tempfile
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stemma.config import Config
from stemma.errors import StemmaError
from stemma.lineage.comparison import compare_files, compare_sample
from stemma.resources.engine import Run, Setup, run_all
from stemma.resources.engine.run import silent
from stemma.resources.engine.staleness import staleness
from stemma.resources.warehouse import Warehouse


@dataclass(frozen=True)
class Audit:
    """What an audit found.

    Attributes:
        tables: for each table its rows, those only the corpus has (missing), those only the rebuild has (extra),
            and an example.
        stale: why the corpus is not what a run would make of it now; then differences are to be expected.
        damaged: what is said of each damaged file of the memo; they have been moved away, and the next run that
            needs what they held makes it anew.
    """

    tables: list[dict[str, Any]]
    stale: tuple[str, ...]
    damaged: tuple[str, ...] = ()

    @property
    def differing(self) -> list[dict[str, Any]]:
        """The tables that are not the same."""
        return [row for row in self.tables if row["missing"] or row["extra"]]


def audit(config: Config, share: float = 1.0, progress: Callable[[str, int, int], None] = silent) -> Audit:
    """Rebuild the corpus from nothing, beside it and without its memo, and compare every table.

    With a `share` below 1, that share of the files is rebuilt, always the same ones, and what does not depend on
    other documents is compared: raw, cleaned, and the chunks and vectors of documents that both keep. Without one, all
    files of the memo are checked as well.

    Raises StemmaError when nothing has been published, or the rebuild fails.
    """
    path = config.warehouse.path
    if not path.exists():
        raise StemmaError(f"{path}: nothing published yet; 'stemma run' makes it")
    stale = _stale(config)
    damaged = _damaged(config) if share >= 1 else ()
    with tempfile.TemporaryDirectory(prefix="stemma-audit-") as folder:
        rebuilt = Path(folder) / "corpus.duckdb"
        _rebuild(config, rebuilt, share, progress)
        compared = compare_files(path, rebuilt) if share >= 1 else compare_sample(path, rebuilt)
    return Audit(compared, stale, damaged)


def _damaged(config: Config) -> tuple[str, ...]:
    """Check every row of the memo."""
    memo = Warehouse(config.warehouse.path).memo
    try:
        return tuple(map(str, memo.check()))
    finally:
        memo.close()


def _stale(config: Config) -> tuple[str, ...]:
    run = Run("", Setup.of(config), Warehouse(config.warehouse.path))
    try:
        return staleness(run).reasons
    finally:
        run.warehouse.close()


def _rebuild(config: Config, path: Path, share: float, progress: Callable[[str, int, int], None]) -> None:
    scratch = dataclasses.replace(config, warehouse=dataclasses.replace(config.warehouse, path=path))
    # What is not of the sources although it lies beside them: the corpus that is being audited.
    ours = Warehouse(config.warehouse.path)
    left_out = ours.own_paths
    warehouse = Warehouse(path)
    # What was purged is part of what the corpus is made of.
    if ours.purges_path.exists():
        shutil.copyfile(ours.purges_path, warehouse.purges_path)
    run = Run(
        f"audit-{uuid.uuid4()}",
        Setup.of(scratch),
        warehouse,
        progress=progress,
        share=share,
        left_out=left_out,
    )
    try:
        run_all(run)
    finally:
        warehouse.close()
