"""The user's cache folder: what can be made again. All of it may be deleted at any time."""

import contextlib
import json
import os
from pathlib import Path
from typing import Any

from stemma.hashing import digest

CACHE_VARIABLE = "STEMMA_CACHE"


def cache_folder() -> Path:
    """Return the folder for what can be made again: $STEMMA_CACHE, else stemma in the user's cache folder."""
    named = os.environ.get(CACHE_VARIABLE)
    if named:
        return Path(named).expanduser().absolute()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache").absolute() / "stemma"


def cached(kind: str, name: str) -> dict[str, Any] | None:
    """Return what was kept under a kind and a name, None where nothing was, or something that is damaged."""
    try:
        checksum, _, kept = _file(kind, name).read_bytes().partition(b"\n")
    except (OSError, RuntimeError):
        return None
    return json.loads(kept) if checksum == _checksum(kept) else None


def keep(kind: str, name: str, data: dict[str, Any]) -> None:
    """Keep data under a kind and a name. Where the cache cannot be written to, nothing is kept."""
    with contextlib.suppress(OSError, RuntimeError):
        file = _file(kind, name)
        file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        temporary = file.with_name(f".{file.name}.{os.getpid()}")
        kept = json.dumps(data, separators=(",", ":")).encode()
        temporary.write_bytes(_checksum(kept) + b"\n" + kept)
        os.replace(temporary, file)


def _checksum(kept: bytes) -> bytes:
    return digest(kept).hex().encode()


def _file(kind: str, name: str) -> Path:
    """Return where it is kept: a checksum, and JSON behind it.

    Raises OSError for a name that is no file's, RuntimeError where the user has no home.
    """
    if os.sep in name or name.startswith("."):
        raise OSError(f"{name!r} is not the name of a file")
    return cache_folder() / kind / name
