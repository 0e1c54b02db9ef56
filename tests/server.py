"""A real server as `stemma ui` starts it, on a free port of loopback."""

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

STEMMA = str(Path(sys.executable).with_name("stemma"))
START_SECONDS = 120
STOP_SECONDS = 30


@dataclass
class Server:
    """A running `stemma ui`."""

    port: int
    corpus: Corpus
    process: subprocess.Popen[bytes]
    log: Path

    def ask(self, query: str, **variables: Any) -> dict[str, Any]:
        """Send a GraphQL query; returns its data."""
        body = json.dumps({"query": query, "variables": variables}).encode()
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}/graphql", body, {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=30) as response:
            answer = json.load(response)
        assert "errors" not in answer, answer
        return answer["data"]

    def answers(self) -> bool:
        """Return whether the server has loaded Stemma's definitions."""
        try:
            return bool(self.ask("{ assetNodes { id } }")["assetNodes"])
        except (OSError, urllib.error.URLError, AssertionError):
            return False


@contextlib.contextmanager
def running(corpus: Corpus) -> Iterator[Server]:
    """Start `stemma ui` for a corpus, wait until it has loaded the definitions, and end it afterwards."""
    corpus.config()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    log = corpus.root / "server.log"
    environment = {name: value for name, value in os.environ.items() if name != "STEMMA_CONFIG"}
    environment["DAGSTER_HOME"] = str(corpus.root / "home")
    command = [STEMMA, "ui", "--config", str(corpus.root / "stemma.toml"), "--port", str(port)]
    with log.open("wb") as out:
        # A session of its own: code servers, daemon and runs are its children and go with it.
        process = subprocess.Popen(
            command, stdout=out, stderr=out, env=environment, cwd=corpus.root, start_new_session=True
        )
    server = Server(port, corpus, process, log)
    try:
        wait_for(lambda: server.answers() or process.poll() is not None, START_SECONDS)
        assert process.poll() is None, log.read_text()[-3000:]
        yield server
    finally:
        stop(process)


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
    """Wait until a condition holds; fails after so many seconds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited {seconds} s in vain"
        time.sleep(0.25)
