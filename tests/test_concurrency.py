"""Everything at once, in real processes: nothing fails, no reader sees a mixed state, no update is lost."""

import contextlib
import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import clients
import pytest
from harness import Corpus, sentence, slow
from server import STEMMA, Server, environment_of, serving, wait_for

from stemma.resources.engine import Run, Setup, raw
from stemma.resources.engine.staleness import staleness
from stemma.resources.purges import Purges
from stemma.resources.scratch import SPILL, Scratch, remove_abandoned
from stemma.resources.warehouse import Warehouse

START_SENSOR = """
mutation Start($selector: SensorSelector!) {
  startSensor(sensorSelector: $selector) { __typename ... on Sensor { sensorState { status } } }
}"""
HISTORY = """
query History($selector: SensorSelector!) {
  runsOrError { ... on Runs { results { runId status tags { key value } } } }
  sensorOrError(sensorSelector: $selector) {
    ... on Sensor { sensorState { ticks(limit: 500) { status error { message } } } }
  }
}"""
SETTLE_SECONDS = 300


class Client:
    """A process of clients.py."""

    def __init__(self, role: str, path: Path, number: int = 0) -> None:
        self.role = role
        command = [sys.executable, clients.__file__, role, str(path), str(number)]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def end(self) -> int:
        """Let it come to its end; returns how often it looked, or wrote."""
        out, errors = self.process.communicate()
        assert self.process.returncode == 0, f"{self.role}: {errors}"
        return int(out)


@contextlib.contextmanager
def started(clients_: list[Client]) -> Iterator[None]:
    """Kill what is left of clients in the end."""
    try:
        yield
    finally:
        for client in clients_:
            client.process.kill()


class Commands(threading.Thread):
    """Runs one command of the command line over and over, each in a process of its own."""

    def __init__(self, corpus: Corpus, *arguments: str) -> None:
        super().__init__(daemon=True)
        self._command = [STEMMA, *arguments, "--config", str(corpus.root / "stemma.toml")]
        self._corpus = corpus
        self._over = threading.Event()
        self.answers: list[subprocess.CompletedProcess[str]] = []
        self.start()

    def run(self) -> None:
        while not self._over.is_set():
            self.answers.append(
                subprocess.run(
                    self._command,
                    capture_output=True,
                    text=True,
                    env=environment_of(self._corpus),
                    check=False,
                )
            )
            time.sleep(0.5)

    def end(self) -> list[str]:
        """Stop after the one under way; returns what they printed."""
        self._over.set()
        self.join()
        for answer in self.answers:
            assert answer.returncode == 0, answer.stderr[-3000:]
        return [answer.stdout for answer in self.answers]


def is_settled(server: Server) -> bool:
    """Tell whether the published corpus is that of the folder, and no run goes on."""
    published = dict(server.corpus.query(clients.VERSIONS))
    if published != clients.versions(server.corpus.docs):
        return False
    return not [run for run in history(server)["runs"] if run["status"] in ("QUEUED", "STARTING", "STARTED")]


def history(server: Server) -> dict[str, list[dict]]:
    """Return Dagster's runs and the sensor's ticks."""
    told = server.ask(HISTORY, selector={**server.repository, "sensorName": "reconcile"})
    return {
        "runs": told["runsOrError"]["results"],
        "ticks": told["sensorOrError"]["sensorState"]["ticks"],
    }


@pytest.mark.timeout(1200)
@pytest.mark.parametrize(
    ("documents", "readers", "seconds", "often"),
    [(40, 4, 0, True), *slow((400, 10, 180, False))],
    ids=["short", "long"],
)
def test_everything_at_once(tmp_path: Path, documents: int, readers: int, seconds: int, often: bool) -> None:
    corpus = Corpus(tmp_path, chunk={"max_tokens": 60}, engine={"workers": 1})
    clients.fill(corpus.docs, documents)
    until = time.monotonic() + seconds
    with serving(corpus, often=often) as server:
        # Before the others start: they leave it too little of two cores to come up in.
        server.wait()
        reading = [Client("stay", corpus.path, number) for number in range(readers)]
        reading += [Client("watch", corpus.path), Client("chart", corpus.path)]
        writer = Client("write", corpus.docs)
        with started([*reading, writer]):
            runs = [Commands(corpus, "run", "--json") for _ in range(2)]
            wait_for(corpus.path.exists, SETTLE_SECONDS)
            queries = Commands(corpus, "sql", "SELECT count(*) FROM corpus.raw", "--format", "json")
            selector = {**server.repository, "sensorName": "reconcile"}
            turned = server.ask(START_SENSOR, selector=selector)["startSensor"]
            assert turned == {"__typename": "Sensor", "sensorState": {"status": "RUNNING"}}
            wait_for(lambda: time.monotonic() > until, seconds + 1)
            told = [json.loads(answer) for run in runs for answer in run.end()]
            assert any(answer["publication"] == "published" for answer in told)
            # The last changes come when nobody runs anything any more.
            assert writer.end() > 10
            wait_for(lambda: is_settled(server), SETTLE_SECONDS)
            assert all(json.loads(answer)[0]["count_star()"] > 0 for answer in queries.end())
            assert all(reader.end() > 1 for reader in reading)
        past = history(server)
        assert {run["status"] for run in past["runs"]} == {"SUCCESS"}
        assert any(tag["key"] == "dagster/sensor_name" for run in past["runs"] for tag in run["tags"])
        assert [tick for tick in past["ticks"] if tick["status"] == "FAILURE"] == []
    assert "Traceback" not in server.log.read_text()
    assert corpus.failed_checks() == []
    assert corpus.differences() == []


def interrupted(corpus: Corpus, dataset: str, act: object) -> None:
    """Run, and in the middle of a dataset, once, `act`."""
    done: list[bool] = []

    def listen(name: str, _done: int, _total: int) -> None:
        if name == dataset and not done:
            done.append(True)
            act()  # type: ignore[operator]

    corpus.run(progress=listen)
    assert done


def test_a_slow_run_does_not_take_back_what_another_has_taken_in(tmp_path: Path) -> None:
    corpus = Corpus(tmp_path)
    corpus.fill(5)
    corpus.run()

    def meanwhile() -> None:
        corpus.write("doc001.txt", sentence("newer", 30))
        corpus.write("late.txt", sentence("late", 30))
        corpus.delete("doc002.txt")
        corpus.run()

    corpus.write("doc001.txt", sentence("new", 30))
    interrupted(corpus, "raw", meanwhile)
    assert corpus.value(f"SELECT count(*) FROM corpus.raw WHERE content = '{sentence('newer', 30)}'") == 1
    assert corpus.count("corpus.raw") == 5
    assert corpus.differences() == []


@pytest.mark.parametrize("dataset", ["embedded", *slow("cleaned", "chunked")])
def test_runs_of_two_settings_never_mix_their_rows(tmp_path: Path, dataset: str) -> None:
    first = {"clean": {"repair": False}, "chunk": {"max_tokens": 20}, "embed": {"model": "hash:64"}}
    other = {"clean": {"repair": True}, "chunk": {"max_tokens": 30}, "embed": {"model": "hash:32"}}
    corpus = Corpus(tmp_path, **first)
    corpus.fill(5, words=80)
    corpus.run()

    def meanwhile() -> None:
        corpus.set(**other)
        corpus.run()
        corpus.set(**first)

    corpus.write("more.txt", sentence("more", 80))
    interrupted(corpus, dataset, meanwhile)
    corpus.run()
    assert corpus.differences() == []


def test_a_file_that_was_away_for_a_moment_is_missed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    corpus = Corpus(tmp_path)
    corpus.fill(5)
    corpus.run()
    new, away = corpus.write("new.txt", sentence("new", 20)), tmp_path / "away"

    def listed(run: Run, purges: Purges) -> raw.Listed:
        found = list_sources(run, purges)
        new.rename(away)
        return found

    list_sources = raw.list_sources
    with monkeypatch.context() as patched:
        patched.setattr(raw, "list_sources", listed)
        corpus.run()
    away.rename(new)
    run = Run("", Setup.of(corpus.config()), Warehouse(corpus.path))
    assert staleness(run).reasons == ("the files of the sources are not those of the last run",)
    run.warehouse.close()
    corpus.run()
    assert corpus.count("corpus.raw") == 6
    assert corpus.differences() == []


SPILLER = """
import sys
from pathlib import Path
from stemma.resources import warehouse
warehouse.MEMORY_BYTES = 100 * 2**20
connection = warehouse.Warehouse(Path(sys.argv[1])).connection
connection.execute("SET threads = 1")
text = "repeat(md5((i + " + sys.argv[2] + ")::VARCHAR), 4)"
connection.execute(f"CREATE TABLE rows AS SELECT i, {text} AS text FROM range(1500000) AS r(i)")
assert connection.execute(f"SELECT count(*) FROM rows WHERE text <> {text}").fetchone() == (0,)
"""


@pytest.mark.slow
def test_two_processes_that_spill_do_not_share_their_files(tmp_path: Path) -> None:
    spillers = [
        subprocess.Popen([sys.executable, "-c", SPILLER, str(tmp_path / "corpus.duckdb"), number])
        for number in ("1", "1000000000")
    ]
    assert [spiller.wait() for spiller in spillers] == [0, 0]
    left = [path.name for path in (tmp_path / "corpus.work").iterdir()]
    # These two died without closing anything.
    assert len(left) == 2, left
    ours = Scratch(tmp_path / "corpus.work", SPILL)
    remove_abandoned(tmp_path / "corpus.work", SPILL)
    assert list((tmp_path / "corpus.work").iterdir()) == [ours.path]
    ours.close()
