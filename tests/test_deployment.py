"""Stemma as deploy/ has it: a real PostgreSQL, code server, webserver and daemon beside each other.

There is no Docker here. What the compose file starts is started as processes, by the compose file's own commands.
"""

import contextlib
import itertools
import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import postgres
import pytest
import yaml
from harness import NOTHING, Corpus
from server import START_SECONDS, STEMMA, STOP_SECONDS, Server, wait_for
from test_graphql import LAUNCH, RUN_SECONDS, STATUS

from stemma.cli import main
from stemma.commands.run import DAGSTER_SETTINGS
from stemma.config import load_config

ROOT = Path(__file__).resolve().parents[1]
DEPLOY = ROOT / "deploy"
COMPOSE = yaml.safe_load((DEPLOY / "docker-compose.yml").read_text(encoding="utf-8"))
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = ("code", "webserver", "daemon", "viewer")
LOCATION = "stemma.definitions"

needs_postgres = pytest.mark.skipif(
    postgres.programs() is None,
    reason="no PostgreSQL server on this machine (apt-get install postgresql): its initdb and postgres are looked for",
)


# -- the files ------------------------------------------------------------------------------------------------------


def test_ports_are_published_on_loopback_only() -> None:
    published = {name: service["ports"] for name, service in SERVICES.items() if "ports" in service}
    assert set(published) == {"webserver", "viewer"}, "not the database, not the code location: it runs code"
    for port in itertools.chain(*published.values()):
        assert re.fullmatch(r"127\.0\.0\.1:\$\{\w+:-\d+\}:3000", port)
    assert COMPOSE["networks"]["inside"]["internal"] is True
    assert {name for name in SERVICES if SERVICES[name]["networks"] == ["inside"]} == {"postgres", "daemon"}


def test_secrets_come_from_the_environment_and_have_no_default() -> None:
    for service in SERVICES.values():
        for name, value in (service.get("environment") or {}).items():
            if "PASSWORD" in name:
                assert re.fullmatch(r"\$\{STEMMA_PG_PASSWORD:\?[^}]+\}", value)
            elif any(word in name for word in ("KEY", "WEBHOOK", "TOKEN", "URL")):
                assert value is None, f"{name} is handed on, not set"
    for file in ("Dockerfile", "dagster.yaml", "workspace.yaml", "config/stemma.toml"):
        text = (DEPLOY / file).read_text(encoding="utf-8")
        for match in re.finditer(r"password\S*\s*[:=]\s*(.+)", text, re.I):
            assert match[1] == "{env: STEMMA_PG_PASSWORD}"
    example = dict(
        line.removeprefix("# ").split("=", 1)
        for line in (DEPLOY / ".env.example").read_text(encoding="utf-8").splitlines()
        if re.fullmatch(r"(# )?[A-Z_]+=.*", line)
    )
    assert {example[name] for name in example if "PASSWORD" in name or "KEY" in name} == {""}
    wanted = set(re.findall(r"\$\{(\w+)", (DEPLOY / "docker-compose.yml").read_text(encoding="utf-8")))
    handed = {name for name, value in SERVICES["code"]["environment"].items() if value is None}
    assert set(example) == wanted | handed | {"COMPOSE_PROJECT_NAME"}
    assert "/deploy/.env" in (ROOT / ".gitignore").read_text(encoding="utf-8").splitlines()


def test_only_the_code_location_has_documents_and_corpus() -> None:
    mounted = {name: [v.split(":") for v in service.get("volumes", [])] for name, service in SERVICES.items()}
    assert {name for name, volumes in mounted.items() if volumes} == {"postgres", "code"}
    places = {
        volume[-2] if volume[-1] == "ro" else volume[-1]: volume[-1] == "ro" for volume in mounted["code"]
    }
    assert places == {
        "/srv/config": True,
        "/srv/documents": True,
        "/srv/corpus": False,
        "/srv/cache": False,
    }
    config = load_config(DEPLOY / "config" / "stemma.toml")
    assert [source.path for source in config.sources] == ["/srv/documents"]
    assert str(config.warehouse.path) == "/srv/corpus/corpus.duckdb"
    assert all(volume[0] in COMPOSE["volumes"] for volume in mounted["postgres"])


def test_the_image_is_made_of_what_is_there() -> None:
    lines = re.sub(r"\\\n\s*", "", (DEPLOY / "Dockerfile").read_text(encoding="utf-8")).splitlines()
    steps = [shlex.split(line, posix=True) for line in lines if line and not line.startswith("#")]
    copied = [
        path for step in steps if step[0] == "COPY" and "--from=build" not in step for path in step[1:-1]
    ]
    ignored = (DEPLOY / "Dockerfile.dockerignore").read_text(encoding="utf-8").split()
    for path in copied:
        assert (ROOT / path).exists(), path
        assert f"!{path}" in ignored, f"the builder does not get {path}"
    assert {line[1:] for line in ignored if line.startswith("!")} == set(copied)
    packages = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]
    assert {path.partition("/")[0] for path in packages["package-dir"].values()} <= set(copied)
    assert all(":" in step[1] and "latest" not in step[1] for step in steps if step[0] == "FROM")
    assert [step[1] for step in steps if step[0] == "USER"] == ["10001:10001"]
    (command,) = (line for line in lines if line.startswith("CMD "))
    assert json.loads(command.removeprefix("CMD ")) == SERVICES["code"]["command"]


def test_all_that_goes_into_the_image_is_pinned() -> None:
    made = subprocess.run(
        [sys.executable, DEPLOY / "requirements.py", "postgres", "openlineage"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    )
    wanted = {re.split(r"[^\w-]", line)[0] for line in made.stdout.splitlines()}
    lock = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    pinned = {name.lower() for name in re.findall(r"^([\w.-]+)==", lock, re.M)}
    assert wanted > {"dagster", "dagster-postgres", "openlineage-python"}
    assert {name.lower() for name in wanted} <= pinned
    assert "psycopg2-binary" in pinned


def test_the_instance_has_the_settings_of_every_other() -> None:
    """Deployed or not, and in the repository's own DAGSTER_HOME: one and the same, but for what Postgres is for."""
    deployed = yaml.safe_load((DEPLOY / "dagster.yaml").read_text(encoding="utf-8"))
    ours = yaml.safe_load(DAGSTER_SETTINGS)
    assert {name: deployed[name] for name in ours} == ours
    assert set(deployed) - set(ours) == {"storage", "run_launcher", "run_monitoring", "run_retries"}
    given = deployed["storage"]["postgres"]["postgres_db"]
    assert {name: value for name, value in given.items() if "env" not in value} == {
        "scheme": "postgresql+psycopg2"
    }
    assert {value["env"] for value in given.values() if "env" in value} == {
        name for name in SERVICES["code"]["environment"] if name.startswith("STEMMA_PG_")
    }


def compose_command() -> list[str]:
    """Return Docker's compose in one of its two forms; skips where neither is there. Neither needs an engine here."""
    for command in (["docker", "compose"], ["docker-compose"]):
        if (
            shutil.which(command[0])
            and not subprocess.run([*command, "version"], capture_output=True).returncode
        ):
            return command
    pytest.skip("no docker compose on this machine: its own reading of the file is not compared")


def test_docker_compose_reads_the_file(tmp_path: Path) -> None:
    command = [
        *compose_command(),
        "--file",
        str(DEPLOY / "docker-compose.yml"),
        "--profile",
        "viewer",
        "config",
    ]
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path)}
    refused = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=tmp_path)
    assert refused.returncode != 0
    assert "set it in deploy/.env" in refused.stderr, "without a password nothing starts"
    environment |= {"STEMMA_PG_PASSWORD": "not-a-default", "STEMMA_DOCUMENTS": str(tmp_path)}
    told = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, cwd=tmp_path)
    read = yaml.safe_load(told.stdout)["services"]
    assert set(read) == set(SERVICES)
    for name in OURS:
        assert read[name]["environment"]["STEMMA_PG_PASSWORD"] == "not-a-default"
        assert read[name]["command"] == SERVICES[name]["command"]


@pytest.mark.parametrize("port", [None, "9"], ids=["no variables", "no server"])
def test_what_is_missing_is_one_clear_line(
    port: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    corpus = Corpus(tmp_path)
    corpus.fill(1)
    corpus.config()
    shutil.copy(DEPLOY / "dagster.yaml", tmp_path)
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    for name in ("HOST", "PORT", "DATABASE", "USER", "PASSWORD"):
        monkeypatch.delenv(f"STEMMA_PG_{name}", raising=False)
        if port:
            monkeypatch.setenv(f"STEMMA_PG_{name}", {"HOST": "127.0.0.1", "PORT": port}.get(name, "x"))
    assert main(["run", "--quiet", "--config", str(tmp_path / "stemma.toml")]) == 1
    (told,) = capsys.readouterr().err.splitlines()
    assert told.startswith(f"stemma: Dagster's history cannot be opened by {tmp_path / 'dagster.yaml'}: ")
    assert ("the environment has no STEMMA_PG_DATABASE, STEMMA_PG_HOST" in told) == (port is None)
    assert not corpus.path.exists()


# -- the processes --------------------------------------------------------------------------------------------------

HOLDING = '''
"""A way of chunking that waits for as long as there is a file "hold" beside this one."""

import time
from pathlib import Path


def whole(text, max_tokens, overlap):
    while Path(__file__).with_name("hold").exists():
        time.sleep(0.05)
    return [(0, len(text))]
'''


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class Stack:
    """Services of the compose file as processes, on a database and a corpus."""

    corpus: Corpus
    database: postgres.Postgres
    ports: dict[str, int]
    environment: dict[str, str]
    running: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def command(self, service: str, command: list[str] | None = None) -> list[str]:
        """Return a service's command, or another of its container, for this machine: programs, ports, addresses."""
        words = command or SERVICES[service]["command"]
        program = str(Path(sys.executable).with_name(words[0]))
        changed = {
            "--host=0.0.0.0": "--host=127.0.0.1",
            "--port=4000": f"--port={self.ports['code']}",
            "--port=3000": f"--port={self.ports.get(service)}",
            "--workspace=/opt/dagster/workspace.yaml": f"--workspace={self.corpus.root / 'workspace.yaml'}",
        }
        return [program, *(changed.get(word, word) for word in words[1:])]

    def start(self, service: str) -> None:
        """Start a service as its container would."""
        with (self.corpus.root / f"{service}.log").open("ab") as out:
            self.running[service] = subprocess.Popen(
                self.command(service),
                stdout=out,
                stderr=out,
                env=self.environment,
                cwd=self.corpus.root,
                start_new_session=True,
            )

    def log(self, service: str) -> str:
        return (self.corpus.root / f"{service}.log").read_text()[-3000:]

    def is_healthy(self, service: str) -> bool:
        """Return what the service's own health check says."""
        assert self.running[service].poll() is None, self.log(service)
        test = SERVICES[service]["healthcheck"]["test"][1:]
        if test[0] == "python":
            code = test[2].replace(":3000", f":{self.ports[service]}")
            command = [sys.executable, "-c", code]
        else:
            command = self.command(service, test)
        return not subprocess.run(
            command, env=self.environment, cwd=self.corpus.root, capture_output=True
        ).returncode

    def kill(self, service: str) -> None:
        """End a container as a machine that goes down does: at once, with all processes in it."""
        process = self.running.pop(service)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    def server(self, service: str) -> Server:
        """Return the webserver of a service, to be asked through GraphQL."""
        log = self.corpus.root / f"{service}.log"
        return Server(self.ports[service], self.corpus, self.running[service], log, LOCATION)

    def stop(self) -> None:
        """End all services as Docker does."""
        for process in self.running.values():
            process.send_signal(signal.SIGTERM)
        for process in self.running.values():
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(STOP_SECONDS)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Database, code server, webserver, viewer and daemon."""
    corpus = Corpus(tmp_path_factory.mktemp("deployed"), chunk={"strategy": "holding:whole"})
    corpus.fill(4, words=40)
    corpus.config()
    (corpus.root / "holding.py").write_text(HOLDING)
    home = corpus.root / "home"
    home.mkdir()
    # Looked at more often than once a minute, since a test waits for it.
    settings = (DEPLOY / "dagster.yaml").read_text(encoding="utf-8")
    assert "poll_interval_seconds: 60" in settings
    (home / "dagster.yaml").write_text(
        settings.replace("poll_interval_seconds: 60", "poll_interval_seconds: 1")
    )
    ports = {name: free_port() for name in ("code", "webserver", "viewer")}
    workspace = yaml.safe_load((DEPLOY / "workspace.yaml").read_text(encoding="utf-8"))
    (location,) = workspace["load_from"]
    assert location["grpc_server"] == {"host": "code", "port": 4000, "location_name": LOCATION}
    location["grpc_server"] |= {"host": "127.0.0.1", "port": ports["code"]}
    (corpus.root / "workspace.yaml").write_text(yaml.safe_dump(workspace))
    with postgres.running() as database:
        environment = {name: value for name, value in os.environ.items() if name != "STEMMA_CONFIG"}
        environment |= database.environment
        environment |= {"DAGSTER_HOME": str(home), "STEMMA_CONFIG": str(corpus.root / "stemma.toml")}
        started = Stack(corpus, database, ports, environment)
        try:
            # In the order of depends_on.
            started.start("code")
            wait_for(lambda: started.is_healthy("code"), START_SECONDS)
            for service in ("webserver", "viewer", "daemon"):
                started.start(service)
            for service in ("webserver", "viewer"):
                started.server(service).wait()
            yield started
        finally:
            started.stop()


def status(server: Server, run_id: str) -> str:
    return str(server.ask(STATUS, id=run_id)["runOrError"]["status"])


def launch(server: Server) -> str:
    """Launch the job in a webserver; returns the run's id."""
    told = server.ask(
        LAUNCH, params={"selector": {**server.repository, "jobName": "corpus"}, "runConfigData": {}}
    )
    assert told["launchRun"]["__typename"] == "LaunchRunSuccess", told
    return str(told["launchRun"]["run"]["runId"])


def wait_until(stack: Stack, run_id: str, wanted: str) -> None:
    def reached() -> bool:
        now = status(stack.server("webserver"), run_id)
        assert now == wanted or now not in ("SUCCESS", "FAILURE", "CANCELED"), f"{now}: {stack.log('code')}"
        return now == wanted

    wait_for(reached, RUN_SECONDS)


@pytest.fixture(scope="module")
def run_id(stack: Stack) -> str:
    """The first run, launched in the webserver, which the daemon takes from the queue and the code server works on."""
    run_id = launch(stack.server("webserver"))
    wait_until(stack, run_id, "SUCCESS")
    return run_id


@needs_postgres
def test_a_run_and_all_that_it_tells_land_in_postgres(stack: Stack, run_id: str) -> None:
    assert stack.corpus.query("SELECT DISTINCT run_id FROM lineage.runs") == [(run_id,)]
    rows = stack.database.rows
    assert rows("SELECT status FROM runs WHERE run_id = %s", run_id) == [("SUCCESS",)]
    made = (
        "SELECT asset_key FROM event_logs WHERE run_id = %s AND dagster_event_type = 'ASSET_MATERIALIZATION'"
    )
    assert {json.loads(key)[0] for (key,) in rows(made, run_id)} == set(NOTHING)
    ((checks,),) = rows("SELECT count(*) FROM asset_check_executions WHERE run_id = %s", run_id)
    assert checks > 5
    assert rows("SELECT count(*) FROM daemon_heartbeats WHERE daemon_type = 'SENSOR'") == [(1,)]
    home = stack.corpus.root / "home"
    assert not list(home.rglob("*.db")), "nothing beside it in SQLite"
    wait_for(lambda: stack.is_healthy("daemon"), START_SECONDS)
    assert all(stack.is_healthy(name) for name in ("code", "webserver", "viewer"))


SENSOR = """
mutation Start($selector: SensorSelector!) {
  startSensor(sensorSelector: $selector) { __typename ... on Sensor { id } }
}"""
TICKS = """
SELECT t.status FROM job_ticks AS t JOIN instigators AS i USING (selector_id)
WHERE i.instigator_body LIKE '%%"reconcile"%%'"""


@needs_postgres
def test_ticks_of_sensors_land_in_postgres(stack: Stack, run_id: str) -> None:
    server = stack.server("webserver")
    started = server.ask(SENSOR, selector={**server.repository, "sensorName": "reconcile"})
    assert started["startSensor"]["__typename"] == "Sensor", started
    wait_for(lambda: stack.database.rows(TICKS), START_SECONDS)
    wait_for(lambda: stack.database.rows(TICKS)[0][0] != "STARTED", START_SECONDS)
    assert stack.database.rows(TICKS)[0] == ("SKIPPED",), "the corpus is up to date"


@needs_postgres
def test_viewers_see_everything_and_start_nothing(stack: Stack, run_id: str) -> None:
    viewer = stack.server("viewer")
    nodes = viewer.ask("{ assetNodes { assetKey { path } assetMaterializations(limit: 1) { runId } } }")[
        "assetNodes"
    ]
    seen = {node["assetKey"]["path"][0]: node["assetMaterializations"] for node in nodes}
    assert seen["embedded"] == [{"runId": run_id}]
    params = {"selector": {**viewer.repository, "jobName": "corpus"}, "runConfigData": {}}
    assert viewer.ask(LAUNCH, params=params)["launchRun"]["__typename"] == "UnauthorizedError"


@pytest.mark.slow
@needs_postgres
def test_the_command_line_carries_on_from_there(stack: Stack, run_id: str) -> None:
    """`stemma run` in the container of the code location, or wherever DAGSTER_HOME is the same."""
    told = subprocess.run(
        [STEMMA, "run", "--json"],
        env=stack.environment,
        cwd=stack.corpus.root,
        check=True,
        capture_output=True,
        text=True,
    )
    second = json.loads(told.stdout)
    assert {name: counts["rows_computed"] for name, counts in second["datasets"].items()} == NOTHING
    ended = dict(stack.database.rows("SELECT run_id, status FROM runs"))
    assert ended == {run_id: "SUCCESS", second["run_id"]: "SUCCESS"}
    assert status(stack.server("webserver"), second["run_id"]) == "SUCCESS"
    old = "UPDATE runs SET create_timestamp = create_timestamp - interval '3 days' WHERE run_id = %s"
    stack.database.rows(old, run_id)
    compact = [STEMMA, "compact", "--history-days", "2"]
    subprocess.run(compact, env=stack.environment, cwd=stack.corpus.root, check=True, capture_output=True)
    assert stack.database.rows("SELECT run_id FROM runs") == [(second["run_id"],)]
    assert stack.database.rows("SELECT count(*) FROM event_logs WHERE run_id = %s", run_id) == [(0,)]


@needs_postgres
@pytest.mark.slow
def test_a_run_that_dies_with_its_container_is_failed_and_retried(stack: Stack, run_id: str) -> None:
    """Nobody is left to say that it died: run monitoring finds it by its silence, and a retry goes on."""
    hold = stack.corpus.root / "hold"
    hold.touch()
    stack.corpus.fill(2, words=40, folder="late")
    killed = launch(stack.server("webserver"))
    begun = "SELECT 1 FROM event_logs WHERE run_id = %s AND dagster_event_type = 'STEP_START' AND step_key = 'chunked'"
    wait_for(lambda: stack.database.rows(begun, killed), RUN_SECONDS)
    stack.kill("code")
    hold.unlink()
    stack.start("code")
    wait_for(lambda: stack.is_healthy("code"), START_SECONDS)
    assert status(stack.server("webserver"), killed) == "STARTED", "nobody knows yet"
    # A quarter of an hour goes by.
    stack.database.rows(
        """UPDATE event_logs SET event = regexp_replace(event, '"timestamp": [0-9.]+', '"timestamp": 1.0')
        WHERE run_id = %s""",
        killed,
    )
    wait_until(stack, killed, "FAILURE")
    retries = "SELECT run_id FROM run_tags WHERE key = 'dagster/parent_run_id' AND value = %s"
    wait_for(lambda: stack.database.rows(retries, killed), RUN_SECONDS)
    ((retry,),) = stack.database.rows(retries, killed)
    wait_until(stack, retry, "SUCCESS")
    assert stack.corpus.count("corpus.raw") == 6
    assert stack.corpus.differences() == []
