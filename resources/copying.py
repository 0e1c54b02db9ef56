"""Copies of files: shared blocks where the file system has them, and begun before they are needed."""

import contextlib
import fcntl
import os
import shutil
import threading
from pathlib import Path

# Linux: the copy shares the original's blocks until one of them is written (btrfs, XFS, bcachefs, ZFS).
FICLONE = 0x40049409


def copy_file(source: Path, target: Path) -> None:
    """Copy a file's bytes; the target must not exist or is replaced."""
    with source.open("rb") as original, target.open("wb") as copy:
        with contextlib.suppress(OSError):
            fcntl.ioctl(copy.fileno(), FICLONE, original.fileno())
            return
    shutil.copyfile(source, target)


def sync(path: Path) -> None:
    """Wait until a file's bytes, or a folder's entries, are on disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class EarlyCopy:
    """A copy of a file that is made and synced while other work goes on."""

    def __init__(self, source: Path, target: Path) -> None:
        self.target = target
        self._source = source
        self._identity = _identity(source)
        self._whole = False
        self._thread = threading.Thread(target=self._copy, name="early-copy", daemon=True)
        self._thread.start()

    def _copy(self) -> None:
        # Whatever goes wrong here goes wrong again, and is told, when the copy is made in time.
        with contextlib.suppress(OSError):
            copy_file(self._source, self.target)
            sync(self.target)
            self._whole = True

    def is_good(self) -> bool:
        """Wait for the end, and tell whether the target is a whole copy of what the source is now."""
        self._thread.join()
        with contextlib.suppress(OSError):
            return self._whole and self.target.exists() and _identity(self._source) == self._identity
        return False

    def discard(self) -> None:
        """Remove the copy."""
        self._thread.join()
        # Where nothing can be deleted any more, the next publication does it.
        with contextlib.suppress(OSError):
            self.target.unlink(missing_ok=True)


def _identity(path: Path) -> tuple[int, int, int, int]:
    stat = path.stat()
    return stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns
