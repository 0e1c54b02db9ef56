"""Fixtures for every test: the shared corpora, where they are present."""

import os
from pathlib import Path

import pytest

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
