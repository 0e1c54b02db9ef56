"""Fixtures for every test: the shared corpora, where they are present."""

import inspect
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

from stemma.incremental import recipe

# The same examples in every run, so that a red CI means the change; `make test-slow` looks for new ones.
settings.register_profile("same", derandomize=True)
settings.register_profile("random", derandomize=False)
settings.load_profile("same")

# Where memory has the room, files of tests are kept there: a fifth of the time of a run of a few documents is syncing.
MEMORY = Path("/dev/shm")
ROOM = 8 * 2**30
if "TMPDIR" not in os.environ and os.access(MEMORY, os.W_OK) and shutil.disk_usage(MEMORY).free > ROOM:
    folder = MEMORY / f"stemma-tests-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    os.environ["TMPDIR"] = tempfile.tempdir = str(folder)

# Not the user's own; it stays between runs, so that a model is converted and looked at once.
os.environ.setdefault("STEMMA_CACHE", f"/tmp/stemma-test-cache-{os.getuid()}")

# Files of few but long tests, which are begun first, so that no process is left alone with one in the end.
LONG = (
    "browser",
    "deployment",
    "concurrency",
    "ray",
    "purge",
    "hostile",
    "replay",
    "graphql",
    "crash",
    "equals_rebuild",
    "exactness",
    "dagster",
    "definitions",
    "readers",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files of long tests."""
    items.sort(key=lambda item: item.path.stem.removeprefix("test_") not in LONG)


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """Name a case of bytes by its argument: bytes may differ between two processes (gzip writes the time)."""
    return argname if isinstance(val, bytes) else None


_read_code = recipe._code_facts
_code_read: dict[tuple[Any, ...], dict[str, Any]] = {}


def _remembered_code(*functions: Any) -> dict[str, Any]:
    if functions not in _code_read:
        _code_read[functions] = _read_code(*functions)
    return _code_read[functions]


@pytest.fixture(autouse=True)
def _code_is_read_once(request: pytest.FixtureRequest) -> None:
    """Follow the code that stages reach once a process, where no test patches any: a fifth of a small run."""
    patches = "monkeypatch" in request.fixturenames or "setattr" in inspect.getsource(request.function)
    recipe._code_facts = _read_code if patches else _remembered_code


SHARED = Path(os.environ.get("STEMMA_SHARED", Path(__file__).resolve().parents[2] / "shared"))


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with the real corpora and tools; in CI it must be there."""
    if not (SHARED / "data").is_dir():
        if os.environ.get("CI"):
            # CI clones the project beside shared/, or names the folder in STEMMA_SHARED.
            pytest.skip(f"{SHARED} is absent (set STEMMA_SHARED to the folder that holds data/ and tools/)")
        pytest.skip(f"{SHARED} is absent: this test needs the shared corpora")
    return SHARED
