"""Scratch folders of one process each, which the others remove once it is dead."""

import contextlib
import fcntl
import os
import shutil
import tempfile
from pathlib import Path

# What DuckDB spills goes into a folder of each connection: in a common one, two processes take each other's files.
SPILL = "spill"
# What an audit rebuilds.
AUDIT = "audit"


class Scratch:
    """A new folder in `parent`, named `prefix-…`, that belongs to this process until it is closed.

    Ownership is a lock on the folder and not a process id, which another container may have as well.
    """

    def __init__(self, parent: Path, prefix: str) -> None:
        while True:
            self.path = Path(tempfile.mkdtemp(prefix=f"{prefix}-", dir=parent))
            descriptor = _lock(self.path)
            # Between its making and its locking somebody may have taken it for abandoned.
            if descriptor is not None and self.path.exists():
                break
            if descriptor is not None:
                os.close(descriptor)
        self._descriptor = descriptor

    def close(self) -> None:
        """Remove the folder and what is in it."""
        shutil.rmtree(self.path, ignore_errors=True)
        os.close(self._descriptor)


def remove_abandoned(parent: Path, prefix: str) -> None:
    """Remove the folders `prefix` and `prefix-…` of `parent` whose process is dead."""
    for folder in parent.glob(f"{prefix}*"):
        descriptor = _lock(folder)
        if descriptor is not None:
            shutil.rmtree(folder, ignore_errors=True)
            os.close(descriptor)


def others_work(parent: Path, prefix: str, ours: Path | None) -> bool:
    """Tell whether another folder `prefix-…` of `parent` than ours belongs to a living process."""
    for folder in parent.glob(f"{prefix}-*"):
        if folder == ours:
            continue
        descriptor = _lock(folder)
        if descriptor is not None:
            os.close(descriptor)
        elif folder.exists():
            return True
    return False


def _lock(folder: Path) -> int | None:
    """Return a descriptor that holds the folder's lock; None where another has it, or there is no such folder."""
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
        else:
            return descriptor
    return None
