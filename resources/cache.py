"""The user's cache folder: what can be made again. All of it may be deleted at any time."""

import contextlib
import json
import os
from pathlib import Path
from typing import Any

CACHE_VARIABLE = "STEMMA_CACHE"


def cache_folder() -> Path:
    """Return the folder for what can be made again: $STEMMA_CACHE, else stemma in the user's cache folder."""
    named = os.environ.get(CACHE_VARIABLE)
    if named:
        return Path(named).expanduser().absolute()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache").absolute() / "stemma"


def cached(kind: str, name: str) -> dict[str, Any] | None:
    """Return what was kept under a kind and a name, None where nothing was, or nothing that can be read."""
    try:
        kept = json.loads(_file(kind, name).read_bytes())
    except (OSError, RuntimeError, ValueError):
        return None
    return kept if isinstance(kept, dict) else None


def keep(kind: str, name: str, data: dict[str, Any]) -> None:
    """Keep data under a kind and a name. Where the cache cannot be written to, nothing is kept."""
    with contextlib.suppress(OSError, RuntimeError):
        file = _file(kind, name)
        file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        temporary = file.with_name(f".{file.name}.{os.getpid()}")
        temporary.write_text(json.dumps(data, separators=(",", ":")), encoding="utf-8")
        os.replace(temporary, file)


def _file(kind: str, name: str) -> Path:
    """Raises OSError for a name that is no file's, RuntimeError where the user has no home."""
    if os.sep in name or name.startswith("."):
        raise OSError(f"{name!r} is not the name of a file")
    return cache_folder() / kind / f"{name}.json"
