"""Compressed files as streams: gzip, bzip2 and xz by their magic bytes, with limits on what comes out."""

import bz2
import io
import lzma
import zlib
from collections.abc import Callable
from typing import BinaryIO, Protocol

from stemma.reading.records import MIB, ReadOptions, Unreadable

MAGIC = {b"\x1f\x8b\x08": "gzip", b"BZh": "bzip2", b"\xfd7zXZ\x00": "xz"}
_MAGICS = tuple(MAGIC)
_LONGEST_MAGIC = max(map(len, MAGIC))
EXTENSIONS = (".gz", ".gzip", ".bz2", ".xz")

# Below this an expansion ratio says nothing: a page of blanks is no bomb.
FREE_BYTES = 16 * MIB
# `xz -9` needs 65 MiB to decompress; a header may claim gigabytes.
XZ_MEMORY = 128 * MIB
CHUNK = 256 * 1024


class Decompressor(Protocol):
    """What bz2 and lzma offer, and `_Gzip` below."""

    @property
    def eof(self) -> bool: ...

    @property
    def unused_data(self) -> bytes: ...

    @property
    def needs_input(self) -> bool: ...

    def decompress(self, data: bytes, max_length: int = ...) -> bytes: ...


class _Gzip:
    """zlib with the interface of bz2 and lzma; checks each member's CRC and length."""

    def __init__(self) -> None:
        self._zlib = zlib.decompressobj(wbits=31)
        self._needs_input = True

    def decompress(self, data: bytes, max_length: int = 0) -> bytes:
        output = self._zlib.decompress(self._zlib.unconsumed_tail + data, max_length)
        # A full buffer may leave output inside zlib although no input is left over.
        self._needs_input = not self._zlib.unconsumed_tail and len(output) < max_length
        return output

    @property
    def needs_input(self) -> bool:
        return self._needs_input

    @property
    def eof(self) -> bool:
        return self._zlib.eof

    @property
    def unused_data(self) -> bytes:
        return self._zlib.unused_data


_DECOMPRESSORS: dict[str, Callable[[], Decompressor]] = {
    "gzip": _Gzip,
    "bzip2": bz2.BZ2Decompressor,
    "xz": lambda: lzma.LZMADecompressor(format=lzma.FORMAT_XZ, memlimit=XZ_MEMORY),
}


def compression(head: bytes) -> str | None:
    """Return the kind of compression that the first bytes of a file show, or None."""
    if not head.startswith(_MAGICS):
        return None
    return next((kind for magic, kind in MAGIC.items() if head.startswith(magic)), None)


def stem(name: str) -> str:
    """Return the file name without the extension of a compressed file."""
    lowered = name.lower()
    return next((name[: -len(end)] for end in EXTENSIONS if lowered.endswith(end)), name)


class Decompressed(io.RawIOBase):
    """The decompressed bytes of a stream, member after member.

    Raises `Unreadable` while it is read: "truncated gzip" where the stream ends too early, "damaged gzip"
    where it is wrong, "too large" where it expands beyond the limits of the options.
    """

    def __init__(self, file: BinaryIO, kind: str, options: ReadOptions) -> None:
        self._file = file
        self._kind = kind
        self._options = options
        self._decompressor: Decompressor | None = None
        self._input = b""
        self._bytes_in = 0
        self._bytes_out = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        try:
            output = self._next(len(buffer))
        except (zlib.error, OSError, lzma.LZMAError, EOFError) as error:
            raise Unreadable(f"damaged {self._kind}", _one_line(error)) from error
        self._bytes_out += len(output)
        self._check_limits()
        buffer[: len(output)] = output
        return len(output)

    def _next(self, limit: int) -> bytes:
        """Return the next 1 to `limit` bytes, or none at the end of the last member."""
        while True:
            if self._decompressor is None and not self._open_member():
                return b""
            decompressor = self._decompressor
            assert decompressor is not None
            if decompressor.needs_input and not self._input:
                self._input = self._read()
                if not self._input:
                    raise Unreadable(f"truncated {self._kind}", "the compressed data ends too early")
            data, self._input = self._input, b""
            output = decompressor.decompress(data, limit)
            if decompressor.eof:
                self._input, self._decompressor = decompressor.unused_data, None
            if output:
                return output

    def _open_member(self) -> bool:
        """Begin the next member; False where the file ends (zero padding, as tapes have it, is skipped)."""
        self._input = self._input.lstrip(b"\0")
        while len(self._input) < _LONGEST_MAGIC and (more := self._read()):
            self._input = (self._input + more).lstrip(b"\0")
        if not self._input:
            return False
        if compression(self._input) != self._kind:
            raise Unreadable(f"damaged {self._kind}", f"what follows its end is not {self._kind}")
        self._decompressor = _DECOMPRESSORS[self._kind]()
        return True

    def _read(self) -> bytes:
        data = self._file.read(CHUNK)
        self._bytes_in += len(data)
        return data

    def _check_limits(self) -> None:
        limit = min(
            self._options.max_expanded_bytes,
            max(FREE_BYTES, self._bytes_in * self._options.max_expansion),
        )
        if self._bytes_out > limit:
            raise Unreadable("too large", f"{self._bytes_in} compressed bytes expand to more than {limit}")


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def decompress(file: BinaryIO, kind: str, options: ReadOptions) -> BinaryIO:
    """Return a buffered stream of the decompressed bytes of `file`; see `Decompressed`."""
    return io.BufferedReader(Decompressed(file, kind, options), CHUNK)
