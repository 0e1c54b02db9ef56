"""A real server, as `stemma ui` starts it, to be asked through GraphQL."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness import Corpus

from stemma.commands.run import DAGSTER_SETTINGS

STEMMA = str(Path(sys.executable).with_name("stemma"))
# For a server that others leave little of two cores.
START_SECONDS = 300
ANSWER_SECONDS = 300
STOP_SECONDS = 30

# Evaluates reconcile as often as Dagster's daemon looks at all, where a test can't wait for a minute.
OFTEN = """
import importlib
importlib.import_module("stemma.sensors.reconcile").INTERVAL_SECONDS = 1
from stemma.definitions import defs
"""


@dataclass
class Server:
    """A running `stemma ui`."""

    port: int
    corpus: Corpus
    process: subprocess.Popen[bytes]
    log: Path
    location: str = "stemma.definitions"

    @property
    def repository(self) -> dict[str, str]:
        """The selector of Stemma's definitions."""
        return {"repositoryName": "__repository__", "repositoryLocationName": self.location}

    def ask(self, query: str, **variables: Any) -> dict[str, Any]:
        """Send a GraphQL query; returns its data."""
        body = json.dumps({"query": query, "variables": variables}).encode()
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}/graphql", body, {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=ANSWER_SECONDS) as response:
            answer = json.load(response)
        assert "errors" not in answer, answer
        return answer["data"]

    def answers(self) -> bool:
        """Return whether the server has loaded Stemma's definitions."""
        try:
            return bool(self.ask("{ assetNodes { id } }")["assetNodes"])
        except (OSError, urllib.error.URLError, AssertionError):
            return False

    def wait(self) -> None:
        """Wait until it answers."""
        wait_for(lambda: self.answers() or self.process.poll() is not None, START_SECONDS)
        assert self.process.poll() is None, self.log.read_text()[-3000:]


@contextlib.contextmanager
def serving(corpus: Corpus, *, often: bool = False) -> Iterator[Server]:
    """Start `stemma ui` for a corpus, its history in `home` beside it; `often` makes reconcile look often.

    It may not answer yet: see `Server.wait`.
    """
    root = corpus.root
    corpus.config()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = environment_of(corpus)
    command = [STEMMA, "ui", "--config", str(root / "stemma.toml"), "--port", str(port)]
    if often:
        (root / "often.py").write_text(OFTEN)
        (root / "home").mkdir()
        (root / "home" / "dagster.yaml").write_text(DAGSTER_SETTINGS)
        environment |= {"STEMMA_CONFIG": str(root / "stemma.toml"), "PYTHONPATH": str(root)}
        dagster = str(Path(STEMMA).with_name("dagster"))
        command = [dagster, "dev", "-m", "often", "--host", "127.0.0.1", "--port", str(port)]
    log = root / "server.log"
    with log.open("wb") as out:
        # A session of its own: code servers, daemon and runs are its children and go with it.
        process = subprocess.Popen(
            command, stdout=out, stderr=out, env=environment, cwd=root, start_new_session=True
        )
    try:
        yield Server(port, corpus, process, log, "often" if often else "stemma.definitions")
    finally:
        stop(process)


@contextlib.contextmanager
def running(corpus: Corpus) -> Iterator[Server]:
    """Start `stemma ui` for a corpus, wait until it answers, and end it afterwards."""
    with serving(corpus) as server:
        server.wait()
        yield server


def environment_of(corpus: Corpus) -> dict[str, str]:
    """Return an environment in which Dagster's history lies beside the corpus."""
    kept = {name: value for name, value in os.environ.items() if name != "STEMMA_CONFIG"}
    return kept | {"DAGSTER_HOME": str(corpus.root / "home")}


def stop(process: subprocess.Popen[bytes]) -> None:
    """End the server as Ctrl-C does, then whatever is left of its process group."""
    if process.poll() is None:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def wait_for(condition: Callable[[], Any], seconds: float) -> None:
    """Wait until the condition holds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited {seconds} s in vain"
        time.sleep(0.25)
