"""Sensors and the schedule against a real instance: no update is lost, whenever it comes."""

import contextlib
import dataclasses
import http.server
import importlib
import json
import os
import sqlite3
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from harness import Corpus, sentence

from stemma.assets.partitions import daily_partitions
from stemma.cli import main
from stemma.definitions import JOB, build_definitions
from stemma.sensors.failure import send

# The package has the function of that name.
reconciling = importlib.import_module("stemma.sensors.reconcile")
QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}


@pytest.fixture
def instance(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dg.DagsterInstance]:
    """A fresh DAGSTER_HOME."""
    home = tmp_path / "dagster_home"
    home.mkdir()
    (home / "dagster.yaml").write_text("telemetry:\n  enabled: false\n")
    monkeypatch.setenv("DAGSTER_HOME", str(home))
    with dg.DagsterInstance.get() as real:
        yield real


@pytest.fixture
def corpus(tmp_path: Path) -> Corpus:
    made = Corpus(tmp_path / "corpus")
    made.fill(3)
    settle(made)
    return made


def settle(corpus: Corpus) -> None:
    """Let all files be old enough not to be taken for unfinished."""
    for path in corpus.docs.rglob("*"):
        os.utime(path, (time.time() - 60, time.time() - 60))


class House:
    """The definitions of a corpus in an instance: evaluates a sensor, runs what it asks for."""

    def __init__(self, instance: dg.DagsterInstance, corpus: Corpus) -> None:
        self.instance, self.corpus = instance, corpus
        self.cursors: dict[str, str | None] = {}

    @property
    def definitions(self) -> dg.Definitions:
        """As a code location that was just (re)loaded has them."""
        config = self.corpus.config()
        return build_definitions(config, str(config.file))

    def tick(self, name: str) -> tuple[list[dg.RunRequest], str]:
        """Return the run requests of a sensor's tick, and why there are none."""
        definitions = self.definitions
        context = dg.build_sensor_context(
            instance=self.instance,
            cursor=self.cursors.get(name),
            definitions=definitions,
            sensor_name=name,
            resources=definitions.resources,
        )
        told = definitions.get_sensor_def(name).evaluate_tick(context)
        self.cursors[name] = told.cursor
        return list(told.run_requests or ()), told.skip_message or ""

    def run(self, request: dg.RunRequest | None = None, **more: Any) -> bool:
        """Run the job for a request, or for a partition; returns whether it succeeded."""
        job = self.definitions.resolve_job_def(JOB)
        tags = dict(request.tags) if request else {}
        key = request.partition_key if request else more.pop("partition_key")
        result = job.execute_in_process(
            instance=self.instance,
            raise_on_error=False,
            run_config=QUIET,
            partition_key=key,
            tags=tags,
            **more,
        )
        return result.success

    def reconciled(self) -> bool:
        """Return whether `reconcile` finds nothing to do."""
        return self.tick("reconcile") == ([], "the corpus is up to date")

    def reconcile(self) -> str:
        """Let `reconcile` start the run that it must ask for; returns the reason it gave."""
        (request,), _ = self.tick("reconcile")
        assert self.run(request)
        return request.tags["stemma/reason"]


@pytest.fixture
def house(instance: dg.DagsterInstance, corpus: Corpus) -> House:
    return House(instance, corpus)


def test_reconcile_finds_what_changes_between_two_ticks(house: House, corpus: Corpus) -> None:
    assert house.reconcile().startswith("the files of the sources"), "the first run on a fresh DAGSTER_HOME"
    assert house.reconciled()
    corpus.write("new.txt", sentence("new", 30))
    corpus.delete("doc000.txt")
    settle(corpus)
    house.reconcile()
    assert house.reconciled()
    assert corpus.count("corpus.raw") == 3
    corpus.set(chunk={"max_tokens": 40})
    assert "other settings" in house.reconcile()
    assert house.reconciled()
    corpus.path.unlink()
    assert house.reconcile() == "the last state is not published"
    assert house.reconciled()
    assert corpus.differences() == []


def test_an_update_in_the_middle_of_a_run_is_found_after_it(
    house: House, corpus: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    from stemma.resources import pipeline

    def listen(dataset: str, _done: int, _total: int) -> None:
        if dataset == "cleaned":
            corpus.write("late.txt", sentence("late", 30))
            settle(corpus)
            # Whoever looks while the run goes on must not take the update for done.
            looks.append(house.tick("reconcile"))

    looks: list[Any] = []
    monkeypatch.setattr(pipeline, "listeners", [listen])
    house.reconcile()
    assert corpus.count("corpus.raw") == 3
    assert all(not requests and "goes on" in why for requests, why in looks)
    monkeypatch.setattr(pipeline, "listeners", [])
    house.reconcile()
    assert corpus.count("corpus.raw") == 4
    assert house.reconciled()


def test_partly_filled_partitions_are_filled(house: House, corpus: Corpus) -> None:
    for number, day in enumerate(("2026-01-01", "2026-01-02", "2026-01-03")):
        corpus.write(f"{day}.txt", sentence(number, 30))
    settle(corpus)
    assert house.run(partition_key="2026-01-02")
    assert corpus.query("SELECT partition_date::VARCHAR FROM corpus.raw") == [("2026-01-02",)]
    assert house.instance.get_materialized_partitions(dg.AssetKey("raw")) == {"2026-01-02"}
    assert "wait" in house.reconcile()
    assert house.reconciled()
    assert corpus.count("corpus.raw") == 6
    today = daily_partitions(corpus.config().partitions).get_last_partition_key()
    for name in ("raw", "cleaned"):
        marked = house.instance.get_materialized_partitions(dg.AssetKey(name))
        assert marked == {"2026-01-01", "2026-01-02", "2026-01-03", today}
    corpus.set(partitions={"catch_up": False})
    corpus.write("2026-01-01.txt", sentence("other", 30))
    settle(corpus)
    house.reconcile()
    assert corpus.count("lineage.waiting") == 1, "a run of today's partition is confined to it"
    assert house.reconciled()


def test_reconcile_waits_longer_after_each_run_in_vain(
    house: House, corpus: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stemma.resources.pipeline.DATASETS", {})
    (request,), _ = house.tick("reconcile")
    assert not house.run(request)
    assert "the next try" in house.tick("reconcile")[1]
    corpus.write("more.txt", sentence("more", 30))
    settle(corpus)
    assert house.tick("reconcile")[0], "something has changed since"
    monkeypatch.setattr(reconciling, "FIRST_PAUSE_SECONDS", 0.0)
    assert house.tick("reconcile")[0]
    assert [reconciling.pause(tries) for tries in (1, 2)] == [0.0, 0.0]
    monkeypatch.undo()
    assert [reconciling.pause(tries) for tries in (1, 2, 3, 20)] == [60, 120, 240, 3600]


@pytest.mark.slow
def test_files_that_are_written_without_a_pause_are_taken_in(
    house: House, corpus: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    house.reconcile()
    corpus.write("always.txt", sentence("always", 30))
    assert house.tick("reconcile") == ([], "files are still being written")
    assert house.tick("reconcile") == ([], "files are still being written")
    monkeypatch.setattr(reconciling, "PATIENCE_SECONDS", 0.0)
    assert "without a pause" in house.reconcile()
    assert corpus.count("corpus.raw") == 4
    assert house.reconciled()


@pytest.mark.slow
def test_a_killed_run_does_not_stop_reconcile_for_ever(
    house: House, corpus: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = house.definitions.resolve_job_def(JOB)
    house.instance.create_run_for_job(job, status=dg.DagsterRunStatus.STARTED)
    assert "goes on" in house.tick("reconcile")[1]
    monkeypatch.setattr("stemma.sensors.requests.SILENT_SECONDS", 0.0)
    house.reconcile()
    assert house.reconciled()


def test_the_inbox_waits_until_files_are_quiet(house: House, corpus: Corpus) -> None:
    (request,), _ = house.tick("inbox")
    assert house.run(request)
    assert house.tick("inbox") == ([], "nothing has changed in the sources")
    corpus.write("half.txt", "half a docu")
    assert house.tick("inbox") == ([], "files are still being written")
    corpus.write("half.txt", sentence("whole", 30))
    corpus.delete("doc001.txt")
    settle(corpus)
    (request,), _ = house.tick("inbox")
    assert house.run(request)
    assert sorted(uri for (uri,) in corpus.query("SELECT parse_filename(uri) FROM corpus.raw")) == [
        "doc000.txt", "doc002.txt", "half.txt"
    ]  # fmt: skip
    corpus.delete("half.txt")
    assert house.tick("inbox")[0], "what vanished is news as well"


def test_the_schedule_asks_for_yesterday(house: House) -> None:
    repository = house.definitions.get_repository_def()
    schedule = repository.get_schedule_def("nightly")
    context = dg.build_schedule_context(
        instance=house.instance,
        scheduled_execution_time=datetime(2026, 3, 1, 2, tzinfo=UTC),
        repository_def=repository,
    )
    (request,) = schedule.evaluate_tick(context).run_requests
    assert request.partition_key == "2026-02-28"
    assert schedule.cron_schedule == "0 2 * * *"


# -- upkeep --------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_compact_forgets_old_runs_but_for_the_last_good_one(
    house: House, instance: dg.DagsterInstance, corpus: Corpus
) -> None:
    for _ in range(2):
        assert house.run(partition_key="2026-01-01")
    last = instance.get_runs(limit=1)[0].run_id
    history = Path(os.environ["DAGSTER_HOME"]) / "history"
    with contextlib.closing(sqlite3.connect(history / "runs.db")) as runs, runs:
        runs.execute("UPDATE runs SET create_timestamp = '2026-01-01 00:00:00.000000'")
    command = ["compact", "--history-days", "30", "--config", str(corpus.root / "stemma.toml")]
    assert main(command) == 0
    assert [run.run_id for run in instance.get_runs()] == [last]
    assert [path.stem for path in (history / "runs").glob("*-*.db")] == [last]
    assert corpus.value("SELECT count(DISTINCT run_id) FROM lineage.runs") == 2
    assert main(command) == 0
    assert len(instance.get_runs()) == 1


# -- failures ------------------------------------------------------------------------------------------------------


class Hook(http.server.BaseHTTPRequestHandler):
    """Keeps what it is sent."""

    received: list[dict[str, Any]]

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.received.append(json.loads(body))
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_arguments: Any) -> None:
        pass


@pytest.fixture
def webhook(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """A server on loopback, and what it was sent."""
    monkeypatch.setattr(Hook, "received", [], raising=False)
    with http.server.HTTPServer(("127.0.0.1", 0), Hook) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/hook", Hook.received
        server.shutdown()


def test_a_failed_run_is_told(
    house: House, corpus: Corpus, webhook: tuple[str, list[dict[str, Any]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    url, received = webhook
    monkeypatch.setenv("HOOK", url)
    (corpus.root / "tellers.py").write_text(
        "import json\ndef tell(failure):\n    open('told.json', 'w').write(json.dumps(failure))\n"
    )
    monkeypatch.chdir(corpus.root)
    corpus.set(alerts={"webhook": "${HOOK}", "function": "tellers:tell"})
    corpus.sources = [dataclasses.replace(corpus.sources[0], path=str(corpus.root / "nowhere"))]
    definitions = house.definitions
    result = definitions.resolve_job_def(JOB).execute_in_process(
        instance=house.instance, raise_on_error=False, run_config=QUIET, partition_key="2026-01-01"
    )
    sensor = definitions.get_sensor_def("run_failure")
    context = dg.build_run_status_sensor_context(
        sensor_name="run_failure",
        dagster_instance=house.instance,
        dagster_run=result.dagster_run,
        dagster_event=result.get_run_failure_event(),
        resources=definitions.resources,
    ).for_run_failure()
    sensor(context)
    (told,) = received
    assert told == json.loads((corpus.root / "told.json").read_text())
    assert told["run_id"] == result.run_id
    assert told["steps"] == ["raw"]
    assert "nowhere" in told["message"]


def test_a_hook_that_fails_says_so(corpus: Corpus) -> None:
    corpus.set(alerts={"webhook": "http://127.0.0.1:9/none"})
    with pytest.raises(OSError):
        send(corpus.config().alerts, {})
