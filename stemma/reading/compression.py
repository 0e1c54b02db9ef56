"""Compressed files as streams: gzip, bzip2, xz and Zstandard by their magic bytes, with limits on what comes out."""

import bz2
import io
import lzma
import zlib
from collections.abc import Callable
from typing import Any, BinaryIO, Protocol

from stemma.reading.records import MIB, ReadOptions, Unreadable
from stemma.reading.streams import BUFFER, Counted

MAGIC = {b"\x1f\x8b\x08": "gzip", b"BZh": "bzip2", b"\xfd7zXZ\x00": "xz", b"\x28\xb5\x2f\xfd": "zstd"}
_MAGICS = tuple(MAGIC)
_LONGEST_MAGIC = max(map(len, MAGIC))
EXTENSIONS = (".gz", ".gzip", ".bz2", ".xz", ".zst", ".zstd")
# Archives that say in one ending that they are compressed as well.
_TAR_ENDINGS = {".tgz": ".tar", ".tbz2": ".tar", ".txz": ".tar", ".tzst": ".tar"}

# Below this an expansion ratio says nothing: a page of blanks is no bomb.
FREE_BYTES = 16 * MIB
# `xz -9` needs 65 MiB to decompress; a header may claim gigabytes. (zstd refuses windows over 128 MiB itself.)
XZ_MEMORY = 128 * MIB


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
    for end, instead in (_TAR_ENDINGS | dict.fromkeys(EXTENSIONS, "")).items():
        if lowered.endswith(end):
            return name[: -len(end)] + instead
    return name


class _Members:
    """The bytes of a compressed file, member after member."""

    def __init__(self, file: Counted, kind: str) -> None:
        self._file = file
        self._kind = kind
        self._decompressor: Decompressor | None = None
        self._input = b""
        self._any = False
        self.junk = False

    def read(self, limit: int) -> bytes:
        """Return the next 1 to `limit` bytes, or none at the end of the last member."""
        while True:
            if self._decompressor is None and not self._open_member():
                return b""
            decompressor = self._decompressor
            assert decompressor is not None
            if decompressor.needs_input and not self._input:
                self._input = self._file.read(BUFFER)
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
        while len(self._input) < _LONGEST_MAGIC and (more := self._file.read(BUFFER)):
            self._input = (self._input + more).lstrip(b"\0")
        if not self._input:
            return False
        if compression(self._input) != self._kind:
            if self._any:
                # As gzip -d does: what came before is whole, by its own checksum.
                self.junk = True
                return False
            raise Unreadable(f"damaged {self._kind}", f"what follows its end is not {self._kind}")
        self._decompressor = _DECOMPRESSORS[self._kind]()
        self._any = True
        return True


class _Zstandard:
    """The bytes of a zstd file, frame after frame, by Arrow's codec."""

    def __init__(self, file: Counted) -> None:
        import pyarrow as pa

        self._file = file
        self._stream = pa.CompressedInputStream(pa.PythonFile(file, mode="r"), "zstd")

    def read(self, limit: int) -> bytes:
        """Return the next 1 to `limit` bytes, or none at the end of the last frame."""
        try:
            return self._stream.read(limit)
        except (OSError, SystemError) as error:
            # Arrow has its own words for what the file itself raised.
            if self._file.error is not None:
                raise self._file.error from None
            if "Truncated" in str(error):
                raise Unreadable("truncated zstd", "the compressed data ends too early") from error
            raise Unreadable("damaged zstd", _one_line(error)) from error


class Decompressed(io.RawIOBase):
    """The decompressed bytes of a stream, member after member.

    Raises `Unreadable` while it is read: "truncated gzip" where the stream ends too early, "damaged gzip"
    where it is wrong, "too large" where it expands beyond the limits of the options.
    """

    def __init__(self, file: BinaryIO, kind: str, options: ReadOptions) -> None:
        self._file = Counted(file)
        self._kind = kind
        self._options = options
        self._source = _Zstandard(self._file) if kind == "zstd" else _Members(self._file, kind)
        self._bytes_out = 0

    @property
    def junk(self) -> bool:
        """Does something else follow the last member, where reading ended?"""
        return isinstance(self._source, _Members) and self._source.junk

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        try:
            output = self._source.read(len(buffer))
        except (zlib.error, OSError, lzma.LZMAError, EOFError) as error:
            if error is self._file.error:
                raise
            raise Unreadable(f"damaged {self._kind}", _one_line(error)) from error
        self._bytes_out += len(output)
        self._check_limits()
        buffer[: len(output)] = output
        return len(output)

    def _check_limits(self) -> None:
        limit = expansion_limit(self._file.count, self._options)
        if self._bytes_out > limit:
            raise Unreadable("too large", f"{self._file.count} compressed bytes expand to more than {limit}")


def expansion_limit(size: int, options: ReadOptions) -> int:
    """Return how many bytes may come of `size` compressed ones."""
    return min(options.max_expanded_bytes, max(FREE_BYTES, size * options.max_expansion))


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
