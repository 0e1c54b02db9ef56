"""The Dagster resource: opens the warehouse for a step, brings one dataset up to date, tells how it goes."""

import functools
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

import dagster as dg
from pydantic import Field

from stemma.config import Config, load_config
from stemma.errors import StemmaError
from stemma.incremental.counts import Counts
from stemma.incremental.days import ALL_DAYS, Days
from stemma.lineage.checks import Check
from stemma.resources.engine import DATASETS, Publication, Run, Setup, check, publish
from stemma.resources.engine.audit import Audit, audit
from stemma.resources.engine.days import changed_days
from stemma.resources.engine.staleness import Sources, Staleness, look_at_sources, staleness
from stemma.resources.engine.step_checks import WARNING
from stemma.resources.engine.story import Story, story
from stemma.resources.openlineage import reported
from stemma.resources.warehouse import Warehouse

LOG_SECONDS = 5.0

# Whoever runs the job in its own process (the command line) may watch: called as listener(dataset, done, total).
listeners: list[Callable[[str, int, int], None]] = []
# The same for what a person should hear while it works, such as that it waits for another run.
notices: list[Callable[[str], None]] = []


@dataclass(frozen=True)
class Step:
    """What a step did: its counts, the outcome of its checks, the publication if it made one, what there is to see.

    `days` has the rows of each day that a step of `raw` or `cleaned` changed.
    """

    counts: Counts
    checks: tuple[Check, ...]
    publication: Publication | None
    story: Story
    days: dict[date, int] = field(default_factory=dict)


class Pipeline(dg.ConfigurableResource):
    """Access to the corpus of one stemma.toml.

    Attributes:
        config_file: path of stemma.toml; empty looks in STEMMA_CONFIG and the working folder.
        allow_deletes: lets more of a source vanish than max(5, 10 %) of its documents.
        all_days: takes in what has changed on any day, whatever partition the run is for; false: on its own days
            alone. Unset, [partitions] catch_up says so for a run of today's partition.
        sources: names of the sources that the run reads; the documents of others stay as they are. None: all.
        overrides: keys of stemma.toml that have another value for this run, by section; see OVERRIDABLE.
    """

    config_file: str = ""
    allow_deletes: bool = False
    all_days: bool | None = None
    sources: list[str] = Field(default_factory=list)
    overrides: dict[str, Any] = Field(default_factory=dict)

    def config(self) -> Config:
        """Load the configuration anew, as it is now, with the run's overrides."""
        return load_config(Path(self.config_file) if self.config_file else None, overrides=self.overrides)

    def look_at_sources(self) -> Sources:
        """List the sources. Raises StemmaError when one cannot be listed."""
        with self._looking() as run:
            return look_at_sources(run)

    def staleness(self, *, quiet_seconds: float) -> Staleness:
        """Return why the corpus is not what a run would make of it now; see resources/engine/staleness.py."""
        with self._looking() as run:
            return staleness(run, quiet_seconds=quiet_seconds)

    def audit(self, context: dg.AssetCheckExecutionContext, share: float, seed: int) -> Audit:
        """Rebuild the corpus, or a share of its files, beside it, and compare; see resources/engine/audit.py."""
        return audit(self.config(), share, _progress(context), seed=seed)

    def _taken_in(self, days: Days, config: Config) -> Days:
        until_now = days.last is None
        all_days = config.partitions.catch_up and until_now if self.all_days is None else self.all_days
        return ALL_DAYS if all_days else days

    @contextmanager
    def _looking(self) -> Iterator[Run]:
        config = self.config()
        run = Run("", Setup.of(config), Warehouse(config.warehouse.path))
        try:
            yield run
        finally:
            run.warehouse.close()

    def materialize(self, context: dg.AssetExecutionContext, dataset: str, days: Days = ALL_DAYS) -> Step:
        """Bring a dataset up to date, and check it; `embedded`, the last one, publishes.

        Of the sources `raw` takes in what has changed on these days; the datasets below follow it.

        Raises dg.Failure, with one clear line, for what a person has to mend.
        """
        try:
            config = self.config()
            run = Run(
                run_id=context.run_id,
                setup=_setup(context.run_id, config),
                warehouse=Warehouse(config.warehouse.path, waiting=_waiting(context)),
                progress=_progress(context),
                allow_deletes=self.allow_deletes,
                days=self._taken_in(days, config),
                sources=tuple(self.sources),
            )
        except StemmaError as error:
            raise dg.Failure(description=str(error)) from error
        try:
            with reported(dataset, context.run_id, context.job_name, config, context.log.warning) as report:
                counts = DATASETS[dataset](run)
                counts.engine = run.executor.take_stats()
                for warning in counts.warnings:
                    context.log.warning(warning)
                checks = check(run, dataset)
                publication = publish(run) if dataset == "embedded" else None
                checks = publication.checks if publication else checks
                report(counts, [c.name for c in checks if not c.passed and c.name not in WARNING])
            return Step(
                counts,
                checks,
                publication,
                told(context, run, counts),
                changed_days(run, dataset),
            )
        except StemmaError as error:
            raise dg.Failure(description=str(error)) from error
        finally:
            run.warehouse.close()


@functools.lru_cache(1)
def _setup(_run_id: str, config: Config) -> Setup:
    """Return one setup for all steps of a run in this process: code does not change while it runs."""
    return Setup.of(config)


def told(context: dg.AssetExecutionContext, run: Run, counts: Counts) -> Story:
    """Return what there is to see of a step; what goes wrong with that costs a picture, never the run."""
    try:
        return story(run, counts)
    except Exception as error:
        context.log.warning(
            f"{counts.dataset}: nothing to see: {type(error).__name__}: {error}", exc_info=True
        )
        return Story([], {})


def _waiting(context: dg.AssetExecutionContext) -> Callable[[str], None]:
    def tell(line: str) -> None:
        context.log.info(line)
        for notice in notices:
            notice(line)

    return tell


def _progress(
    context: dg.AssetCheckExecutionContext | dg.AssetExecutionContext,
) -> Callable[[str, int, int], None]:
    started = last = time.monotonic()

    def report(dataset: str, done: int, total: int) -> None:
        nonlocal last
        for listener in listeners:
            listener(dataset, done, total)
        now = time.monotonic()
        if now - last >= LOG_SECONDS:
            last = now
            rate = done / (now - started)
            left = f", {(total - done) / rate:.0f} s left" if total and rate else ""
            context.log.info(f"{dataset}: {done:,} of {total:,} ({rate:,.0f} a second{left})")

    return report
