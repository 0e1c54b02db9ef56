"""Small streams: read fully within a limit, put a head back, count what is read."""

import io
from typing import Any, BinaryIO

from stemma.reading.records import MIB, ReadOptions, Unreadable

BUFFER = 256 * 1024


def read_fully(file: BinaryIO, limit: int) -> bytes:
    """Read up to `limit` bytes, without claiming the memory for them beforehand."""
    parts: list[bytes] = []
    left = limit
    while left > 0 and (part := file.read(min(left, MIB))):
        parts.append(part)
        left -= len(part)
    return b"".join(parts)


def read_whole(file: BinaryIO, options: ReadOptions) -> bytes:
    """Return all bytes of a file that stands at its beginning.

    Raises:
        Unreadable: "too large": there are more than `max_file_bytes`.
    """
    data = read_fully(file, options.max_file_bytes + 1)
    if len(data) > options.max_file_bytes:
        detail = f"the file has more than {options.max_file_bytes} bytes and must be read as a whole"
        raise Unreadable("too large", detail)
    return data


def rewound(file: BinaryIO, head: bytes) -> BinaryIO:
    """Return the file at its beginning again, after `head` was read from it."""
    if file.seekable():
        file.seek(0)
        return file
    return io.BufferedReader(_Prefixed(head, file), BUFFER)


class _Prefixed(io.RawIOBase):
    """A stream with the bytes put back that were read from its beginning."""

    def __init__(self, head: bytes, file: BinaryIO) -> None:
        self._head = memoryview(head)
        self._file = file

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if not self._head:
            return self._file.readinto(buffer)  # type: ignore[attr-defined]
        count = min(len(buffer), len(self._head))
        buffer[:count] = self._head[:count]
        self._head = self._head[count:]
        return count


class Counted(io.RawIOBase):
    """Counts the bytes read from a file, and keeps the error that reading it raised."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.count = 0
        self.error: BaseException | None = None

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        try:
            data = self._file.read(size)
        except BaseException as error:
            self.error = error
            raise
        self.count += len(data)
        return data


class Budget:
    """How many bytes may still be expanded of one archive."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._spent = 0

    def spend(self, count: int) -> None:
        """Take `count` bytes; raises `Unreadable` ("too large") where there are not so many left."""
        self._spent += count
        if self._spent > self._limit:
            raise Unreadable("too large", f"the archive expands to more than {self._limit} bytes")


class Metered(io.RawIOBase):
    """A stream that takes what is read of it from a budget."""

    def __init__(self, file: BinaryIO, budget: Budget) -> None:
        self._file = file
        self._budget = budget

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        count = self._file.readinto(buffer)  # type: ignore[attr-defined]
        self._budget.spend(count)
        return count
