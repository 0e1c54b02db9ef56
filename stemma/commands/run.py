"""stemma run: the five datasets, through Dagster, with progress, and a summary of what came of it."""

import argparse
import os
import re
import shlex
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import Any

from stemma.commands.output import print_json, print_table, say, say_aside
from stemma.config import (
    REMEMBERED_FILE,
    Config,
    load_config,
    local_folder,
    merged,
    parse_override,
    to_toml,
    with_paths,
)
from stemma.errors import StemmaError, UsageError

# No telemetry; nothing but events, which say all: Dagster's capture of output starts two processes a step; and no
# ticks without end: a sensor has a thousand a day.
DAGSTER_SETTINGS = """\
telemetry:
  enabled: false
nux:
  enabled: false
freshness:
  enabled: true
compute_logs:
  module: dagster._core.storage.noop_compute_log_manager
  class: NoOpComputeLogManager
retention:
  # Days for which the ticks of schedules and sensors are kept.
  schedule:
    purge_after_days: 90
  sensor:
    purge_after_days: {skipped: 7, success: 90, failure: 90}
"""
INTERRUPTION_SIGNS = (
    "ExecutionInterruptedError",
    "KeyboardInterrupt",
    "Query interrupted",
    "was interrupted",
)
# Without a terminal, progress is a line now and then.
SPEAK_SECONDS = 5.0
DATASET_NAMES = ("raw", "cleaned", "deduplicated", "chunked", "embedded")


def run(options: argparse.Namespace) -> int:
    """Bring the corpus up to date; returns 0, or 1 when the run or a blocking check failed."""
    selected = _selected(options.select)
    with _configured(options) as (config, file):
        if not config.sources:
            raise UsageError(
                "nothing to read: name a path (stemma run PATH) or add [[sources]] to stemma.toml"
            )
        if options.dry_run:
            from stemma.commands.plan import print_plan

            return print_plan(config, selected, as_json=options.json)
        return _materialize(options, config, file, selected)


def _selected(text: str | None) -> list[str]:
    names = [name.strip() for name in text.split(",")] if text else list(DATASET_NAMES)
    for name in names:
        if name not in DATASET_NAMES:
            raise UsageError(f"--select: no dataset '{name}'; there are {', '.join(DATASET_NAMES)}")
    return names


def _overrides(settings: list[str]) -> dict[str, Any]:
    """Return the keys that --set gives another value, by section."""
    together: dict[str, Any] = {}
    for setting in settings:
        together = merged(together, parse_override(setting))
    return together


@contextmanager
def _configured(options: argparse.Namespace) -> Iterator[tuple[Config, Path | None]]:
    """Yield the configuration and the file that every step reads it from.

    Paths on the command line make a configuration of their own. Where no stemma.toml stands, it is remembered
    in .stemma/, so that the next `stemma run`, `stemma status` or `stemma ui` here means the same corpus. One that
    is remembered already gives way only to one that worked: a path may be mistyped.
    """
    overrides = _overrides(options.set)
    config = load_config(options.config, overrides=overrides)
    if not options.paths:
        yield config, config.file
        return
    for path in options.paths:
        if local_folder(path) == Path(path) and not Path(path).expanduser().exists():
            raise UsageError(f"{path}: no such file or folder")
    config = with_paths(config, options.paths, Path.cwd())
    if options.dry_run:
        yield config, None
        return
    folder = config.directory / REMEMBERED_FILE.parent
    folder.mkdir(parents=True, exist_ok=True)
    remembered = folder / REMEMBERED_FILE.name
    lasting = config.file is None or config.file.parent == folder
    file = remembered if lasting and not remembered.exists() else folder / f"run-{os.getpid()}.toml"
    try:
        plain = with_paths(load_config(options.config), options.paths, Path.cwd())
        file.write_text(to_toml(plain), encoding="utf-8")
        yield load_config(file, overrides=overrides), file
        if lasting:
            os.replace(file, remembered)
    finally:
        if file != remembered:
            file.unlink(missing_ok=True)


def prepare_dagster_home(config: Config) -> Path:
    """Set DAGSTER_HOME, where Dagster keeps the history of runs, unless it is set; returns the folder."""
    home = Path(os.environ.get("DAGSTER_HOME") or config.directory / ".dagster").absolute()
    home.mkdir(parents=True, exist_ok=True)
    settings = home / "dagster.yaml"
    if not settings.exists():
        settings.write_text(DAGSTER_SETTINGS, encoding="utf-8")
    os.environ["DAGSTER_HOME"] = str(home)
    return home


def open_instance() -> Any:
    """Return Dagster's instance of DAGSTER_HOME, which is closed by leaving its context.

    Raises StemmaError, in one line, where dagster.yaml asks for what is not there: a variable, a package, a database.
    """
    import dagster as dg

    try:
        return dg.DagsterInstance.get()
    except Exception as error:
        unset = sorted(set(re.findall(r'environment variable "(\w+)" which is not set', str(error))))
        if unset:
            reason = f"the environment has no {', '.join(unset)}"
        elif "dagster_postgres" in str(error):
            reason = 'the package of Postgres is missing: pip install "stemma[postgres]"'
        else:
            reason = f"{type(error).__name__}: {(str(error).strip() or 'no reason given').splitlines()[0]}"
        settings = Path(os.environ["DAGSTER_HOME"]) / "dagster.yaml"
        raise StemmaError(f"Dagster's history cannot be opened by {settings}: {reason}") from error


def _materialize(options: argparse.Namespace, config: Config, file: Path | None, selected: list[str]) -> int:
    started = time.monotonic()
    prepare_dagster_home(config)
    show = not options.quiet and not options.json
    if show:
        sources = ", ".join(source.path or f"query:{source.name}" for source in config.sources)
        print(
            f"Reading {sources} → {config.warehouse.path}",
            flush=True,
        )
    with open_instance() as instance, _progress(show):
        result = _execute(instance, config, file, selected, options)
    if not result.success:
        if _interrupted(result):
            raise KeyboardInterrupt
        raise StemmaError(_failure(result))
    _summarize(options, config, result, time.monotonic() - started)
    return 0


def _execute(
    instance: Any, config: Config, file: Path | None, selected: list[str], options: argparse.Namespace
) -> Any:
    """Run Dagster's job in this process; returns its ExecuteInProcessResult."""
    import dagster as dg

    from stemma.definitions import BY_DAY, JOB, build_definitions

    named = str(file or "")
    partition, days = _partition(options.days, config)
    return (
        build_definitions(config, named)
        .resolve_job_def(JOB if options.days is None else BY_DAY)
        .execute_in_process(
            instance=instance,
            raise_on_error=False,
            asset_selection=[dg.AssetKey(name) for name in selected],
            run_config={
                "loggers": {"console": {"config": {"log_level": "DEBUG" if options.debug else "CRITICAL"}}},
                "resources": {
                    "pipeline": {
                        "config": {
                            "config_file": named,
                            "allow_deletes": options.allow_deletes,
                            "all_days": options.days is None,
                            "sources": options.source,
                            "overrides": _overrides(options.set),
                        }
                    }
                },
            },
            partition_key=partition,
            tags={"stemma/started_by": "stemma run", **days},
        )
    )


def _partition(days: str | None, config: Config) -> tuple[str | None, dict[str, str]]:
    """Return the partition of a run, or the tags of a range of them; nothing without `days`."""
    from stemma.assets.partitions import partition_of

    if days is None:
        return None, {}
    first, _, last = days.partition("..")
    try:
        keys = [partition_of(date.fromisoformat(day), config.partitions) for day in (first, last or first)]
    except ValueError as error:
        raise UsageError(f"--days {days}: write a day, 2026-01-31, or two with .. between") from error
    if keys[0] > keys[1]:
        raise UsageError(f"--days {days}: the first day comes after the last")
    if keys[0] == keys[1]:
        return keys[0], {}
    return None, {
        "dagster/asset_partition_range_start": keys[0],
        "dagster/asset_partition_range_end": keys[1],
    }


def _interrupted(result: Any) -> bool:
    """Return whether somebody pressed Ctrl-C, which Dagster reports as a failure of the step or of the run.

    A query that was running then fails in DuckDB's own words.
    """
    told = [event.message or "" for event in result.all_events if event.is_failure]
    for event in result.all_events:
        error = event.step_failure_data.error if event.is_step_failure else None
        while error is not None:
            told.append(f"{error.cls_name}: {error.message}")
            error = error.cause
    return any(sign in line for line in told for sign in INTERRUPTION_SIGNS)


def _failure(result: Any) -> str:
    """Return the one line that says why a run failed."""
    evaluations = result.get_asset_check_evaluations()
    failed = [check for check in evaluations if not check.passed and check.blocking]
    if failed:
        faults = "; ".join(f"{check.check_name}: {check.metadata['detail'].value}" for check in failed)
        dataset = failed[0].asset_key.to_user_string()
        return f"{dataset}: a blocking check failed, nothing was published: {faults}"
    for event in result.all_events:
        if event.is_step_failure:
            failure = event.step_failure_data
            described = failure.user_failure_data.description if failure.user_failure_data else None
            error = failure.error.cause or failure.error
            reason = described or f"{error.message.strip().splitlines()[0]} (--debug shows where)"
            return reason if reason.startswith(f"{event.step_key}:") else f"{event.step_key}: {reason}"
    messages = [event.message for event in result.all_events if event.is_failure and event.message]
    return messages[0] if messages else "the run failed; 'stemma ui' shows it"


@contextmanager
def _progress(show: bool) -> Iterator[None]:
    """Show a bar for each dataset while it is worked on (on a terminal: live; elsewhere: lines)."""
    from stemma.resources import pipeline

    if not show:
        yield
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    console = Console(stderr=True)
    bars: dict[str, Any] = {}
    spoken: dict[str, float] = {}
    started: dict[str, float] = {}
    with Progress(
        TextColumn("{task.description:<13}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=console,
        disable=not console.is_terminal,
    ) as progress:

        def listen(dataset: str, done: int, total: int) -> None:
            now = time.monotonic()
            seconds = now - started.setdefault(dataset, now)
            rate = f"{done / seconds:,.0f}/s" if done and seconds else ""
            if console.is_terminal:
                if dataset not in bars:
                    bars[dataset] = progress.add_task(dataset, total=total or None, rate=rate)
                progress.update(bars[dataset], completed=done, total=total or None, rate=rate)
                return
            if done == total or now - spoken.setdefault(dataset, now) >= SPEAK_SECONDS:
                spoken[dataset] = now
                of = f" of {total:,}" if total else ""
                left = f", {seconds / done * (total - done):,.0f} s left" if rate and done < total else ""
                told = f"  ({rate}{left})" if rate else ""
                print(f"{dataset:<13}{done:>9,}{of}{told}", file=sys.stderr, flush=True)

        pipeline.listeners.append(listen)
        pipeline.notices.append(say_aside)
        try:
            yield
        finally:
            pipeline.listeners.remove(listen)
            pipeline.notices.remove(say_aside)


def _summarize(options: argparse.Namespace, config: Config, result: Any, seconds: float) -> None:
    metadata = {
        event.asset_key.to_user_string(): event.materialization.metadata
        for event in result.get_asset_materialization_events()
        if event.asset_key
    }
    counts = {
        name: {key: entry.value for key, entry in facts.items() if _is_fact(entry.value)}
        for name, facts in metadata.items()
    }
    publication = counts.get("embedded", {}).get("publication", "not published: 'embedded' was not selected")
    corpus = corpus_facts(config) if config.warehouse.path.exists() else {}
    if options.json:
        checks = {
            f"{check.asset_key.to_user_string()}.{check.check_name}": check.passed
            for check in result.get_asset_check_evaluations()
        }
        print_json(
            {
                "run_id": result.run_id,
                "publication": publication,
                "seconds": round(seconds, 3),
                "datasets": counts,
                "corpus": corpus,
                "checks": checks,
            }
        )
        return
    print(f"\nRun {result.run_id[:8]}: {publication}, {seconds:.1f} s\n")
    print_table(
        "",
        ["dataset", *COUNT_KEYS.values()],
        [[name, *(counts[name].get(key) for key in COUNT_KEYS)] for name in DATASET_NAMES if name in counts],
    )
    for name, facts in metadata.items():
        if "warnings" in facts:
            say(f"warning, {name}: {facts['warnings'].value}")
    for check in result.get_asset_check_evaluations():
        if not check.passed:
            named = f"{check.asset_key.to_user_string()}, {check.check_name}"
            say(f"warning, {named}: {check.metadata['detail'].value}")
    print_remarks(config)
    if corpus:
        print_corpus(corpus)
        _next_commands(config, options)


def print_remarks(config: Config) -> None:
    """Print what somebody who chose this engine should hear."""
    from stemma.resources.executors import executor_of

    for remark in executor_of(config.engine).remarks():
        print(f"note: {remark}")


def _is_fact(value: Any) -> bool:
    """Tell whether a metadata value is a number or text, and no picture."""
    return isinstance(value, int | float) or (isinstance(value, str) and not value.startswith("!["))


COUNT_KEYS = {
    "rows_in": "in",
    "rows_computed": "computed",
    "rows_added": "added",
    "rows_changed": "changed",
    "rows_removed": "removed",
    "dagster/row_count": "rows",
    "errors": "errors",
    "seconds": "seconds",
}


def corpus_facts(config: Config) -> dict[str, Any]:
    """Return what the published corpus holds, in numbers."""
    from stemma.commands.published import open_published, rows

    with open_published(config) as connection:
        facts = rows(
            connection,
            """SELECT (SELECT count(*) FROM corpus.raw) AS documents,
                (SELECT count(*) FROM corpus.deduplicated) AS kept,
                (SELECT count(DISTINCT document_id) FROM lineage.decisions) AS dropped,
                (SELECT count(DISTINCT document_id) FROM lineage.errors) AS documents_in_error,
                (SELECT count(*) FROM lineage.errors) AS errors,
                (SELECT count(DISTINCT cluster_id) FROM lineage.members WHERE cluster_size > 1) AS families,
                (SELECT count(*) FROM corpus.chunked) AS chunks, (SELECT count(*) FROM corpus.embedded) AS vectors,
                (SELECT count(DISTINCT text_hash) FROM corpus.embedded) AS distinct_vectors""",
        )[0]
        facts["dropped_by"] = rows(
            connection,
            """SELECT stage, rule, count(*) AS documents, round(min(score), 3) AS lowest_score,
                round(max(score), 3) AS highest_score, min(threshold) AS threshold
            FROM lineage.decisions GROUP BY stage, rule ORDER BY documents DESC, stage, rule""",
        )
        facts["error_kinds"] = rows(
            connection,
            """SELECT stage, error, count(*) AS count, min(uri) AS example FROM lineage.errors
            GROUP BY stage, error ORDER BY count DESC, stage, error LIMIT 10""",
        )
    return facts


def print_corpus(corpus: dict[str, Any]) -> None:
    """Print what the corpus holds: the funnel, what was dropped and why, what failed."""
    funnel = ("documents", "kept", "dropped", "documents_in_error", "families", "chunks", "vectors")
    print_table(
        "Corpus",
        ["documents in", "kept", "dropped", "failed", "families", "chunks", "vectors"],
        [[corpus[key] for key in funnel]],
    )
    _print_rows(
        "Dropped, and why (lineage.decisions)",
        corpus["dropped_by"],
        ("stage", "rule", "documents", "lowest_score", "highest_score", "threshold"),
    )
    _print_rows(
        "Could not be processed (lineage.errors)",
        corpus["error_kinds"],
        ("stage", "error", "count", "example"),
    )


def _print_rows(title: str, listed: list[dict[str, Any]], columns: tuple[str, ...]) -> None:
    if listed:
        heads = [name.replace("_", " ") for name in columns]
        print_table(title, heads, [[row[name] for name in columns] for row in listed])


def _next_commands(config: Config, options: argparse.Namespace) -> None:
    given = f" --config {shlex.quote(str(options.config))}" if options.config else ""
    commands = {
        f'stemma search{given} "how do I …"': "the chunks that answer best, by meaning and by words",
        f'stemma sql{given} "FROM lineage.decisions"': "every document that was dropped, and why",
        f"stemma why{given} PATH": "what became of one file",
        f"stemma report{given}": "all of this and more on one page, with pictures",
        f"stemma ui{given}": "the graph, the runs, the checks",
    }
    width = max(map(len, commands))
    on_path = shutil.which("stemma") is not None
    activate = Path(sys.executable).with_name("activate")
    print("Next:" if on_path or not activate.exists() else f"Next, after `source {activate}`:")
    for command, meaning in commands.items():
        print(f"  {command:<{width}}   {meaning}")
    print(f"Any DuckDB client opens {config.warehouse.path} read-only, at any time.")
