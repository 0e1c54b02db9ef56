"""stemma ui: Dagster's web interface and daemon, on loopback."""

import argparse
import os
import shutil
import socket
import sys
from pathlib import Path

import stemma
from stemma.commands.run import prepare_dagster_home
from stemma.config import load_config
from stemma.errors import StemmaError, UsageError


def ui(options: argparse.Namespace) -> int:
    """Replace this process by `dagster dev`, or, read-only, by the webserver alone.

    Raises StemmaError where Dagster's command is missing or the port is taken.
    """
    config = load_config(options.config)
    prepare_dagster_home(config)
    if config.file is not None:
        os.environ["STEMMA_CONFIG"] = str(config.file.absolute())
    name = "dagster-webserver" if options.read_only else "dagster"
    program = _program(name)
    _refuse_taken(options.host, options.port)
    # Dagster looks for modules in its working directory first. In the folder that holds a clone named `stemma` it
    # would take the clone for the package.
    house = Path(stemma.__file__).parents[1]
    arguments = ["-m", "stemma.definitions", "--working-directory", str(house)]
    arguments += ["--host", options.host, "--port", str(options.port)]
    # Viewers need no daemon: schedules and sensors are for whoever may start runs.
    arguments = [*arguments, "--read-only"] if options.read_only else ["dev", *arguments]
    print(
        f"Stemma's assets: http://{options.host}:{options.port} (ready in half a minute; Ctrl-C ends it)",
        flush=True,
    )
    os.execv(program, [program, *arguments])


def _program(name: str) -> str:
    """Return the path of a command of Dagster's, of this environment first."""
    command = Path(sys.executable).with_name(name)
    program = str(command) if command.exists() else shutil.which(name)
    if program is None:
        raise StemmaError(f"the command '{name}' is missing: pip install dagster dagster-webserver")
    return program


def _refuse_taken(host: str, port: int) -> None:
    with socket.socket() as probe:
        try:
            taken = probe.connect_ex((host, port)) == 0
        except OSError as error:
            raise UsageError(f"--host {host}: {error.strerror or error}") from error
        if taken:
            raise StemmaError(f"port {port} of {host} is taken; name another with --port")
