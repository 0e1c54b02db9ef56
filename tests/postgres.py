"""A PostgreSQL server of our own, for as long as a test needs it: on loopback, with a password, as another user."""

import contextlib
import os
import pwd
import secrets
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

START_SECONDS = 60
# Where packages put what is not on PATH: Debian, Fedora, Homebrew.
PLACES = ("/usr/lib/postgresql/*/bin", "/usr/pgsql-*/bin", "/opt/homebrew/opt/postgresql*/bin")
# It will not run as root; a test in a container often does.
UNPRIVILEGED = ("postgres", "nobody")


@dataclass(frozen=True)
class Postgres:
    """A running server with an empty database; `environment` is what deploy/dagster.yaml asks for."""

    environment: dict[str, str]

    def rows(self, query: str, *parameters: Any) -> list[tuple[Any, ...]]:
        """Run a query; returns its rows, if it has any."""
        import psycopg2

        told = self.environment
        connection = psycopg2.connect(
            host=told["STEMMA_PG_HOST"],
            port=told["STEMMA_PG_PORT"],
            dbname=told["STEMMA_PG_DATABASE"],
            user=told["STEMMA_PG_USER"],
            password=told["STEMMA_PG_PASSWORD"],
        )
        try:
            with connection, connection.cursor() as cursor:
                cursor.execute(query, parameters)
                return list(cursor.fetchall()) if cursor.description else []
        finally:
            connection.close()


def programs() -> Path | None:
    """Return the folder with initdb and postgres, the newest; None where there is none."""
    on_path = [Path(found).resolve().parent for name in ("postgres",) if (found := shutil.which(name))]
    found = [
        *on_path,
        *(folder for place in PLACES for folder in sorted(Path("/").glob(place[1:]), reverse=True)),
    ]
    return next((f for f in found if (f / "initdb").exists() and (f / "postgres").exists()), None)


def unprivileged() -> dict[str, Any]:
    """Return how a process is started that may not be root's: nothing, unless we are."""
    if os.getuid() != 0:
        return {}
    users = {user.pw_name: user for user in pwd.getpwall()}
    user = next(users[name] for name in UNPRIVILEGED if name in users)
    return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}


@contextlib.contextmanager
def running() -> Iterator[Postgres]:
    """Start a server in a folder of its own, and end it."""
    folder = programs()
    assert folder is not None
    # Paths of sockets are short, and the user must get through to the folder.
    root = Path(tempfile.mkdtemp(prefix="stemma-pg-", dir="/tmp"))
    started = unprivileged()
    if started:
        os.chown(root, started["user"], started["group"])
    password = secrets.token_hex(16)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = None
    try:
        (root / "password").write_text(password)
        initdb = [
            folder / "initdb",
            "--auth=scram-sha-256",
            "--username=dagster",
            "--encoding=UTF8",
            "--no-sync",
        ]
        initdb += ["--locale=C", f"--pwfile={root / 'password'}", f"--pgdata={root / 'data'}"]
        subprocess.run(initdb, check=True, capture_output=True, cwd=root, **started)
        settings = {
            "listen_addresses": "127.0.0.1",
            "port": port,
            "unix_socket_directories": root,
            "fsync": "off",
            "max_connections": 100,
        }
        command = [folder / "postgres", "-D", root / "data"]
        command += [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        with (root / "log").open("wb") as log:
            server = subprocess.Popen(command, stdout=log, stderr=log, cwd=root, **started)
        told = {
            "HOST": "127.0.0.1",
            "PORT": port,
            "DATABASE": "postgres",
            "USER": "dagster",
            "PASSWORD": password,
        }
        postgres = Postgres({f"STEMMA_PG_{name}": str(value) for name, value in told.items()})
        _wait(server, postgres, root / "log")
        yield postgres
    finally:
        if server is not None:
            server.terminate()
            server.wait(30)
        shutil.rmtree(root, ignore_errors=True)


def _wait(server: subprocess.Popen[bytes], postgres: Postgres, log: Path) -> None:
    import psycopg2

    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            postgres.rows("SELECT 1")
            return
        except psycopg2.OperationalError:
            assert server.poll() is None, log.read_text()[-2000:]
            assert time.monotonic() < deadline, log.read_text()[-2000:]
            time.sleep(0.1)
