"""stemma run: the five datasets, through Dagster, with progress, and a summary of what came of it."""

import argparse
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from stemma.commands.output import print_json, print_table
from stemma.config import REMEMBERED_FILE, Config, load_config, to_toml, with_paths
from stemma.errors import StemmaError, UsageError

DATASET_NAMES = ("raw", "cleaned", "deduplicated", "chunked", "embedded")


def run(options: argparse.Namespace) -> int:
    """Bring the corpus up to date; returns 0, or 1 when the run or a blocking check failed."""
    selected = _selected(options.select)
    with _configured(options) as (config, file):
        if options.dry_run:
            from stemma.commands.plan import print_plan

            return print_plan(config, as_json=options.json)
        return _materialize(options, config, file, selected)


def _selected(text: str | None) -> list[str]:
    names = [name.strip() for name in text.split(",")] if text else list(DATASET_NAMES)
    for name in names:
        if name not in DATASET_NAMES:
            raise UsageError(f"--select: no dataset '{name}'; there are {', '.join(DATASET_NAMES)}")
    return names


@contextmanager
def _configured(options: argparse.Namespace) -> Iterator[tuple[Config, Path | None]]:
    """Yield the configuration and the file that every step reads it from.

    Paths on the command line make a configuration of their own. Where no stemma.toml stands, it is remembered
    in .stemma/, so that the next `stemma run`, `stemma status` or `stemma ui` here means the same corpus.
    """
    config = load_config(options.config)
    if not options.paths:
        yield config, config.file
        return
    config = with_paths(config, options.paths, Path.cwd())
    if options.dry_run:
        yield config, None
        return
    folder = config.directory / REMEMBERED_FILE.parent
    folder.mkdir(parents=True, exist_ok=True)
    lasting = config.file is None or config.file.parent == folder
    file = folder / (REMEMBERED_FILE.name if lasting else f"run-{os.getpid()}.toml")
    try:
        file.write_text(to_toml(config), encoding="utf-8")
        yield load_config(file), file
    finally:
        if not lasting:
            file.unlink(missing_ok=True)


def prepare_dagster_home(config: Config) -> Path:
    """Set DAGSTER_HOME, where Dagster keeps the history of runs, unless it is set; returns the folder."""
    home = Path(os.environ.get("DAGSTER_HOME") or config.directory / ".dagster").absolute()
    home.mkdir(parents=True, exist_ok=True)
    settings = home / "dagster.yaml"
    if not settings.exists():
        settings.write_text("telemetry:\n  enabled: false\nnux:\n  enabled: false\n", encoding="utf-8")
    os.environ["DAGSTER_HOME"] = str(home)
    return home


def _materialize(options: argparse.Namespace, config: Config, file: Path | None, selected: list[str]) -> int:
    if not config.sources:
        raise UsageError("nothing to read: name a path (stemma run PATH) or add [[sources]] to stemma.toml")
    prepare_dagster_home(config)
    show = not options.quiet and not options.json
    if show:
        print(f"Reading {', '.join(source.path for source in config.sources)} → {config.warehouse.path}")
    import dagster as dg

    from stemma.definitions import JOB, build_definitions

    definitions = build_definitions(config, str(file or ""))
    with dg.DagsterInstance.get() as instance, _progress(show):
        result = definitions.resolve_job_def(JOB).execute_in_process(
            instance=instance,
            raise_on_error=False,
            asset_selection=[dg.AssetKey(name) for name in selected],
            run_config={
                "loggers": {"console": {"config": {"log_level": "DEBUG" if options.debug else "CRITICAL"}}},
                "resources": {
                    "pipeline": {"config": {"config_file": str(file or ""), "allow_deletes": options.allow_deletes}}
                },
            },
            tags={"stemma/started_by": "stemma run"},
        )
        failure = None if result.success else _failure(instance, result)
        steps = {
            event.asset_key.to_user_string(): event.materialization.metadata
            for event in result.get_asset_materialization_events()
            if event.asset_key
        }
        checks = {e.check_name: e.passed for e in result.get_asset_check_evaluations()}
    if failure is not None:
        raise StemmaError(failure)
    _summarize(options, config, result.run_id, steps, checks)
    return 0 if all(checks.values()) else 1


def _failure(instance: Any, result: Any) -> str:
    """Return the one line that says why a run failed."""
    for event in result.all_events:
        if event.event_type_value == "STEP_FAILURE":
            data = event.event_specific_data
            described = getattr(data.user_failure_data, "description", None)
            if described:
                return f"{event.step_key}: {described}"
            error = data.error.cause or data.error
            return f"{event.step_key}: {error.message.strip().splitlines()[0]} (--debug shows where)"
        if event.event_type_value == "PIPELINE_FAILURE" and event.message:
            reason = event.message.strip().splitlines()[0]
    return locals().get("reason") or "the run failed; see the run in 'stemma ui'"


@contextmanager
def _progress(show: bool) -> Iterator[None]:
    """Show a bar for each dataset while it is worked on (on a terminal: live; elsewhere: a line when it is done)."""
    from stemma.resources import pipeline

    if not show:
        yield
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    console = Console(stderr=True)
    bars: dict[str, Any] = {}
    lines: dict[str, int] = {}
    with Progress(
        TextColumn("{task.description:<13}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=console,
        disable=not console.is_terminal,
    ) as progress:

        def listen(dataset: str, done: int, total: int) -> None:
            if console.is_terminal:
                if dataset not in bars:
                    bars[dataset] = progress.add_task(dataset, total=total or None)
                progress.update(bars[dataset], completed=done, total=total or None)
                return
            tenth = done * 10 // total if total else 0
            if lines.get(dataset) != tenth:
                lines[dataset] = tenth
                print(f"{dataset:<13} {done:>8,} of {total:,}", file=sys.stderr, flush=True)

        pipeline.listeners.append(listen)
        try:
            yield
        finally:
            pipeline.listeners.remove(listen)


def _summarize(
    options: argparse.Namespace, config: Config, run_id: str, steps: dict[str, Any], checks: dict[str, bool]
) -> None:
    counts = {
        name: {key: value.value for key, value in metadata.items() if isinstance(value.value, int | float | str | bool)}
        for name, metadata in steps.items()
    }
    publication = counts.get("embedded", {}).get("publication", "not published: 'embedded' was not selected")
    corpus = corpus_facts(config) if config.warehouse.path.exists() else {}
    if options.json:
        print_json({"run_id": run_id, "publication": publication, "datasets": counts, "corpus": corpus, "checks": checks})
        return
    print_table(
        f"Run {run_id[:8]}: {publication}",
        ["dataset", "in", "computed", "reused", "added", "changed", "removed", "rows", "errors", "seconds"],
        [
            [name, *(counts[name].get(key) for key in COUNT_KEYS), counts[name].get("errors"), counts[name].get("seconds")]
            for name in DATASET_NAMES
            if name in counts
        ],
    )
    for name, metadata in steps.items():
        if "warnings" in metadata:
            print(f"warning, {name}: {metadata['warnings'].value}")
    if corpus:
        print_corpus(corpus)
        _next_commands(config, options)


COUNT_KEYS = (
    "rows_in",
    "rows_computed",
    "rows_reused",
    "rows_added",
    "rows_changed",
    "rows_removed",
    "dagster/row_count",
)


def corpus_facts(config: Config) -> dict[str, Any]:
    """Return what the published corpus holds, in numbers."""
    from stemma.commands.published import open_published, rows

    with open_published(config) as connection:
        facts = rows(
            connection,
            """SELECT (SELECT count(*) FROM corpus.raw) AS documents, (SELECT count(*) FROM corpus.deduplicated) AS kept,
                (SELECT count(*) FROM lineage.decisions) AS dropped,
                (SELECT count(DISTINCT document_id) FROM lineage.errors) AS documents_in_error,
                (SELECT count(*) FROM lineage.errors) AS errors,
                (SELECT count(DISTINCT cluster_id) FROM lineage.members WHERE cluster_size > 1) AS families,
                (SELECT count(*) FROM corpus.chunked) AS chunks, (SELECT count(*) FROM corpus.embedded) AS vectors,
                (SELECT count(DISTINCT text_hash) FROM corpus.embedded) AS distinct_vectors""",
        )[0]
        facts["dropped_by"] = rows(
            connection,
            """SELECT stage, rule, count(*) AS documents, min(score) AS lowest_score, max(score) AS highest_score,
                any_value(threshold) AS threshold FROM lineage.decisions GROUP BY ALL ORDER BY documents DESC, rule""",
        )
        facts["error_kinds"] = rows(
            connection,
            """SELECT stage, error, count(*) AS count, any_value(uri) AS example FROM lineage.errors
            GROUP BY ALL ORDER BY count DESC, error LIMIT 10""",
        )
    return facts


def print_corpus(corpus: dict[str, Any]) -> None:
    """Print what the corpus holds: the funnel, what was dropped and why, what failed."""
    print_table(
        "Corpus",
        ["documents in", "kept", "dropped", "in error", "families", "chunks", "vectors"],
        [[corpus[key] for key in ("documents", "kept", "dropped", "documents_in_error", "families", "chunks", "vectors")]],
    )
    if corpus["dropped_by"]:
        columns = ("stage", "rule", "documents", "lowest_score", "highest_score", "threshold")
        print_table("Dropped, and why", [name.replace("_", " ") for name in columns], [[r[c] for c in columns] for r in corpus["dropped_by"]])
    if corpus["error_kinds"]:
        columns = ("stage", "error", "count", "example")
        print_table("Could not be processed (lineage.errors)", columns, [[r[c] for c in columns] for r in corpus["error_kinds"]])


def _next_commands(config: Config, options: argparse.Namespace) -> None:
    given = f" --config {options.config}" if options.config else ""
    print("Next:")
    print(f'  stemma search{given} "how do I …"          the nearest chunks')
    print(f'  stemma sql{given} "FROM lineage.decisions"  every document that was dropped, and why')
    print(f"  stemma why{given} PATH                     what became of one file")
    print(f"  stemma ui{given}                           the graph, the runs, the checks")
    print(f"Any DuckDB client opens {config.warehouse.path} read-only, at any time.")
