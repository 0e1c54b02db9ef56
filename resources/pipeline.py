"""The Dagster resource: opens the warehouse for a step, brings one dataset up to date, tells how it goes."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import dagster as dg

from stemma.config import Config, load_config
from stemma.errors import StemmaError
from stemma.incremental.counts import Counts
from stemma.lineage.checks import Check
from stemma.resources.engine import DATASETS, Publication, Run, Setup, publish
from stemma.resources.engine.step_checks import check_step
from stemma.resources.engine.story import Story, story
from stemma.resources.warehouse import Warehouse

LOG_SECONDS = 5.0

# Whoever runs the job in its own process (the command line) may watch: called as listener(dataset, done, total).
listeners: list[Callable[[str, int, int], None]] = []


@dataclass(frozen=True)
class Step:
    """What a step did: its counts, the outcome of its checks, the publication if it made one, what there is to see."""

    counts: Counts
    checks: tuple[Check, ...]
    publication: Publication | None
    story: Story


class Pipeline(dg.ConfigurableResource):
    """Access to the corpus of one stemma.toml.

    Attributes:
        config_file: path of stemma.toml; empty looks in STEMMA_CONFIG and the working folder.
        allow_deletes: lets more of a source vanish than max(5, 10 %) of its documents.
    """

    config_file: str = ""
    allow_deletes: bool = False

    def config(self) -> Config:
        """Load the configuration anew, as it is now."""
        return load_config(Path(self.config_file) if self.config_file else None)

    def materialize(self, context: dg.AssetExecutionContext, dataset: str) -> Step:
        """Bring a dataset up to date, and check it; `embedded`, the last one, publishes.

        Raises dg.Failure, with one clear line, for what a person has to mend.
        """
        try:
            config = self.config()
            run = Run(
                run_id=context.run_id,
                setup=Setup.of(config),
                warehouse=Warehouse(config.warehouse.path, waiting=context.log.info),
                progress=_progress(context),
                allow_deletes=self.allow_deletes,
            )
        except StemmaError as error:
            raise dg.Failure(description=str(error)) from error
        try:
            counts = DATASETS[dataset](run)
            for warning in counts.warnings:
                context.log.warning(warning)
            checks = check_step(run, dataset)
            publication = publish(run) if dataset == "embedded" else None
            return Step(
                counts,
                publication.checks if publication else checks,
                publication,
                told(context, run, counts),
            )
        except StemmaError as error:
            raise dg.Failure(description=str(error)) from error
        finally:
            run.warehouse.close()


def told(context: dg.AssetExecutionContext, run: Run, counts: Counts) -> Story:
    """Return what there is to see of a step; what goes wrong with that costs a picture, never the run."""
    try:
        return story(run, counts)
    except Exception as error:
        context.log.warning(
            f"{counts.dataset}: nothing to see: {type(error).__name__}: {error}", exc_info=True
        )
        return Story([], {})


def _progress(context: dg.AssetExecutionContext) -> Callable[[str, int, int], None]:
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
