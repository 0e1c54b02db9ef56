"""Archives: the members of a ZIP or tar file, each to be read as a file of its own; nothing goes to disk."""

import io
import re
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, BinaryIO

from stemma.reading.compression import expansion_limit
from stemma.reading.records import MIB, ReadOptions, Unreadable
from stemma.reading.streams import BUFFER, read_fully

# bzip2 and LZMA members are not read: zipfile decompresses them without a limit on what comes out at a time.
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_ENCRYPTED = 0x1
_ZIP_FAULTS = (
    *(zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError),
    *(struct.error, ValueError, IndexError, OverflowError),
)
# Bytes of the central directory for each member that an archive may have: 46 and the name.
_DIRECTORY_BYTES = 512
_END_OF_DIRECTORY = b"PK\x05\x06"
_LONGEST_END = 22 + 65_535

_TAR_BLOCK = 512
# What a PAX or GNU header says about the next member: its path, hardly ever more.
_MAX_TAR_HEADER = MIB
_PAX_RECORD = re.compile(rb"(\d{1,9}) ([^=\n]+)=")

_SKIPPED = frozenset({"__pycache__", "node_modules", "__MACOSX"})
_DRIVE = re.compile(r"[A-Za-z]:")
_HERE = re.compile(r"\A(?:\./+)+")

# The part that only one kind of Office document has.
_OFFICE_PARTS = {"word/document.xml": "docx", "ppt/presentation.xml": "pptx", "xl/workbook.xml": "xlsx"}
_OTHER_DOCUMENTS = {
    "application/vnd.oasis.opendocument": "an OpenDocument file",
    "application/vnd.sun": "an old StarOffice file",
}


@dataclass(frozen=True)
class Member:
    """One file of an archive.

    `open` returns its content as a stream, which raises `Unreadable` where it is damaged; it may do so itself
    (a member that is encrypted, a link, or whose path leaves the archive).
    """

    path: str
    open: Callable[[], BinaryIO]


def is_hidden(path: str) -> bool:
    """Would a folder's listing pass over a member of this path?"""
    return any(part.startswith(".") or part in _SKIPPED for part in path.split("/"))


def member_path(name: str) -> tuple[str, tuple[str, str] | None]:
    """Return a member's path with slashes, and the error that it is if it leads out of the archive."""
    path = name.replace("\\", "/")
    if path.startswith("/") or _DRIVE.match(path):
        return path, ("path leaves the archive", f"{name!r} is an absolute path")
    if ".." in path.split("/"):
        return path, ("path leaves the archive", f"{name!r} leads to a folder above")
    path = _HERE.sub("", path)
    return path, None if path else ("no name", "the member has no name")


def _refuse(error: tuple[str, str]) -> BinaryIO:
    raise Unreadable(*error)


# ---- ZIP


class Zip:
    """A ZIP file whose directory has been read and found bearable.

    Raises:
        Unreadable: "damaged zip", or "too large": too many members, or they claim to expand too far.
    """

    def __init__(self, file: BinaryIO, options: ReadOptions) -> None:
        self._options = options
        self._size = file.seek(0, io.SEEK_END)
        _check_directory(file, self._size, options)
        file.seek(0)
        try:
            self._zip = zipfile.ZipFile(file)
        except _ZIP_FAULTS as error:
            raise Unreadable("damaged zip", _one_line(error)) from error
        self._members = self._zip.infolist()
        if len(self._members) > options.max_members:
            detail = f"the archive has {len(self._members)} members, more than {options.max_members}"
            raise Unreadable("too large", detail)
        # zipfile never gives out more of a member than its directory declares.
        self._checked([info for info in self._members if not _is_bomb(info, options)])

    def _checked(self, members: list[zipfile.ZipInfo]) -> None:
        declared = sum(info.file_size for info in members)
        limit = expansion_limit(self._size, self._options)
        if declared > limit:
            detail = f"{self._size} bytes of archive expand to {declared}, more than {limit}"
            raise Unreadable("too large", detail)

    def document_kind(self) -> str | None:
        """Return "docx", "pptx", "xlsx" or "epub" where the archive is such a document, None where it is none.

        Raises:
            Unreadable: it is a document that nothing here can read, or it claims to expand too far.
        """
        names = {info.filename for info in self._members}
        kind = next((kind for part, kind in _OFFICE_PARTS.items() if part in names), None)
        if kind is None or "[Content_Types].xml" not in names:
            kind = self._declared_kind(names)
        if kind is not None:
            # The library that parses it sees all members, a bomb among them too.
            self._checked(self._members)
            if any(
                info.compress_type not in _METHODS or info.flag_bits & _ENCRYPTED for info in self._members
            ):
                raise Unreadable("unsupported format", "parts of the document are encrypted or not deflated")
        return kind

    def _declared_kind(self, names: set[str]) -> str | None:
        if "mimetype" not in names:
            if "[Content_Types].xml" in names and "_rels/.rels" in names:
                raise Unreadable("unsupported format", "an Office document of another kind")
            return None
        info = self._zip.getinfo("mimetype")
        if _zip_error(info, self._options) is not None:
            return None
        try:
            declared = self._open(info).read(100).decode("ascii", "replace").strip()
        except Unreadable:
            return None
        for start, description in _OTHER_DOCUMENTS.items():
            if declared.startswith(start):
                raise Unreadable("unsupported format", f"it is {description}")
        return "epub" if declared == "application/epub+zip" else None

    def members(self) -> Iterator[Member]:
        """Yield the members in the directory's order, without folders and what is hidden."""
        for info in self._members:
            path, error = member_path(info.filename)
            if info.filename.endswith(("/", "\\")) or (error is None and is_hidden(path)):
                continue
            error = error or _zip_error(info, self._options)
            yield Member(path, partial(_refuse, error) if error else partial(self._open, info))

    def _open(self, info: zipfile.ZipInfo) -> BinaryIO:
        try:
            return io.BufferedReader(_ZipStream(self._zip.open(info)), BUFFER)
        except _ZIP_FAULTS as error:
            raise Unreadable("damaged zip", _one_line(error)) from error


def _is_bomb(info: zipfile.ZipInfo, options: ReadOptions) -> bool:
    return info.file_size > expansion_limit(info.compress_size, options)


def _zip_error(info: zipfile.ZipInfo, options: ReadOptions) -> tuple[str, str] | None:
    mode = info.external_attr >> 16
    if stat.S_ISLNK(mode):
        return "symlink not followed", "the member is a symbolic link"
    if stat.S_IFMT(mode) and not stat.S_ISREG(mode):
        return "not a file", "the member is no regular file"
    if info.flag_bits & _ENCRYPTED:
        return "encrypted", "the member is encrypted"
    if info.compress_type not in _METHODS:
        return "unsupported format", f"the member is compressed by method {info.compress_type} of ZIP"
    if _is_bomb(info, options):
        return "too large", f"{info.compress_size} compressed bytes expand to {info.file_size}"
    return None


def _check_directory(file: BinaryIO, size: int, options: ReadOptions) -> None:
    """Refuse a directory that would fill the memory, before zipfile reads it."""
    start = max(0, size - _LONGEST_END - 20 - 56)
    file.seek(start)
    tail = read_fully(file, size - start)
    at = tail.rfind(_END_OF_DIRECTORY)
    if at < 0 or len(tail) < at + 22:
        raise Unreadable("damaged zip", "the archive has no directory at its end")
    length = int.from_bytes(tail[at + 12 : at + 16], "little")
    if length == 0xFFFFFFFF:
        length = _zip64_directory(file, tail[max(0, at - 20) : at])
    if length > options.max_members * _DIRECTORY_BYTES:
        raise Unreadable("too large", f"the archive's directory has {length} bytes")


def _zip64_directory(file: BinaryIO, locator: bytes) -> int:
    if not locator.startswith(b"PK\x06\x07") or len(locator) < 20:
        raise Unreadable("damaged zip", "the archive's directory cannot be found")
    file.seek(min(int.from_bytes(locator[8:16], "little"), 2**62))
    return int.from_bytes(file.read(56)[40:48], "little")


class _ZipStream(io.RawIOBase):
    """A member's content, with the library's errors as ours."""

    def __init__(self, file: Any) -> None:
        self._file = file

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        try:
            return self._file.readinto(buffer)
        except _ZIP_FAULTS as error:
            raise Unreadable("damaged zip", _one_line(error)) from error


# ---- tar


def tar_members(file: BinaryIO, options: ReadOptions) -> Iterator[Member]:
    """Yield the members of a tar file as they stand in it, without folders and what is hidden.

    A member must be read before the next one is asked for.

    Raises:
        Unreadable: "damaged tar", "truncated tar", or "too large": too many members.
    """
    count = 0
    for header, content in _tar_headers(file):
        path, error = member_path(header.name)
        if header.isdir() or (error is None and is_hidden(path)):
            continue
        count += 1
        if count > options.max_members:
            raise Unreadable("too large", f"the archive has more than {options.max_members} members")
        error = error or _tar_error(header)
        yield Member(path, partial(_refuse, error) if error else partial(io.BufferedReader, content, BUFFER))


def _tar_error(header: tarfile.TarInfo) -> tuple[str, str] | None:
    if header.issym() or header.islnk():
        return "symlink not followed", f"the member is a link to {header.linkname!r}"
    if header.issparse():
        return "unsupported format", "the member is a sparse file"
    return None if header.isreg() else ("not a file", "the member is no regular file")


def _tar_headers(file: BinaryIO) -> Iterator[tuple[tarfile.TarInfo, "_TarPart"]]:
    """Yield each member's header, with what PAX and GNU headers before it say, and its content."""
    said: dict[str, str] = {}
    while any(block := read_fully(file, _TAR_BLOCK)):
        try:
            header = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
        except tarfile.HeaderError as error:
            kind = "truncated" if len(block) < _TAR_BLOCK else "damaged"
            raise Unreadable(f"{kind} tar", _one_line(error)) from error
        if header.size < 0:
            raise Unreadable("damaged tar", "a member's size is negative")
        if header.type in (b"x", b"g", b"L", b"K"):
            said |= _tar_extension(header, _tar_data(file, header.size))
            continue
        header.name = said.get("path", header.name)
        header.size = _size(said.get("size")) or header.size
        said = {}
        part = _TarPart(file, header.size)
        header.name = header.name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
        yield header, part
        part.skip()


def _tar_data(file: BinaryIO, size: int) -> bytes:
    if size > _MAX_TAR_HEADER:
        raise Unreadable("too large", f"a header of the archive has {size} bytes")
    data = read_fully(file, -(-size // _TAR_BLOCK) * _TAR_BLOCK)
    if len(data) < size:
        raise Unreadable("truncated tar", "the archive ends inside a header")
    return data[:size]


def _tar_extension(header: tarfile.TarInfo, data: bytes) -> dict[str, str]:
    """Return what an extended header says of the next member: its path and size."""
    if header.type == b"L":
        return {"path": data.rstrip(b"\0").decode("utf-8", "surrogateescape")}
    said: dict[str, str] = {}
    at = 0
    while header.type == b"x" and (match := _PAX_RECORD.match(data, at)):
        end = at + int(match[1])
        key = match[2].decode("utf-8", "replace")
        if key in ("path", "size"):
            said[key] = data[match.end() : end - 1].decode("utf-8", "surrogateescape")
        if end <= at:
            break
        at = end
    return said


def _size(text: str | None) -> int:
    return int(text) if text and text.isascii() and text.isdigit() and len(text) < 19 else 0


class _TarPart(io.RawIOBase):
    """One member's content: the next `size` bytes of the archive."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self._file = file
        self._left = size
        self._padding = -size % _TAR_BLOCK

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._file.read(min(len(buffer), self._left))
        if self._left and not data:
            raise Unreadable("truncated tar", f"the archive ends {self._left} bytes too early")
        self._left -= len(data)
        buffer[: len(data)] = data
        return len(data)

    def skip(self) -> None:
        """Pass over what was not read, and the padding."""
        while self._left and (data := self._file.read(min(self._left, MIB))):
            self._left -= len(data)
        if self._left:
            raise Unreadable("truncated tar", f"the archive ends {self._left} bytes too early")
        read_fully(self._file, self._padding)


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
