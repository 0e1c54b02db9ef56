"""Sources: what the outside world holds, listed in a fixed order and read without tearing."""

import contextlib
import errno
import hashlib
import io
import os
import re
import stat
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from email.utils import parsedate_to_datetime
from pathlib import Path, PurePath
from tempfile import NamedTemporaryFile, SpooledTemporaryFile
from typing import Any, BinaryIO, Protocol
from urllib.parse import unquote, urlsplit

from stemma.config import WILDCARD
from stemma.errors import RetryableError, StemmaError
from stemma.hashing import digest

# Files up to this size are read in one go and hashed from memory.
SMALL_FILE = 8 * 2**20
_CHUNK = 2**20
_ATTEMPTS = 3
_PAUSE_SECONDS = 0.05

_SCHEME = re.compile(r"(?:[a-z0-9]+::)*[a-z][a-z0-9+.-]+://", re.I)
_SKIPPED_FOLDERS = frozenset({"__pycache__", "node_modules"})
_SKIPPED_ENDINGS = (".duckdb", ".duckdb.wal")


class SourceLike(Protocol):
    """What listing needs to know of a source (a `stemma.config.SourceConfig`)."""

    @property
    def name(self) -> str: ...
    @property
    def path(self) -> str: ...
    @property
    def query(self) -> str | None: ...
    @property
    def include(self) -> tuple[str, ...]: ...
    @property
    def exclude(self) -> tuple[str, ...]: ...


@dataclass(frozen=True, slots=True)
class FileEntry:
    """A file as the listing, or a reading, found it.

    Attributes:
        uri: absolute POSIX path of a local file, the URL of any other.
        relative: POSIX path under the source's root; document ids are derived from it.
        size: bytes as stored; None where the file system does not say.
        mtime_ns: time of the last change in nanoseconds since 1970; 0 where it is not known.
        version: what a remote file system tells versions apart by (an ETag, a checksum); empty where it does not.
    """

    uri: str
    relative: str
    size: int | None
    mtime_ns: int
    version: str = ""


@dataclass(frozen=True, slots=True)
class ListingError:
    """Something in a source that is no readable file: the class of the error and one line about it.

    `below` is the relative path, with a slash at the end, of a folder whose files could not be listed.
    """

    uri: str
    error: str
    detail: str
    below: str | None = None


Listing = Iterator[FileEntry | ListingError]


def list_files(source: SourceLike, left_out: Iterable[Path] = ()) -> Listing:
    """Yield the files of a source in the order of their relative paths, and what cannot be read among them.

    Hidden files and folders, `__pycache__`, `node_modules` and DuckDB files are passed over, unless the
    source's path names them itself. So are the files and folders `left_out`: the corpus is no source of itself.
    A symbolic link to a file is followed where it stays inside the root; one to a folder never is.

    A query is listed as one file, whose rows nobody has counted.

    Raises:
        StemmaError: the source's path does not exist or cannot be listed.
    """
    if source.query is not None:
        return iter([FileEntry(f"query:{source.name}", source.name, None, 0)])
    path = local_path(source.path)
    if path is None:
        return _list_remote(source)
    root, selected = _selection(source, path)
    try:
        status = os.stat(root)
    except OSError as error:
        raise _not_listable(source, error) from error
    if not stat.S_ISDIR(status.st_mode):
        return iter([_entry_of_file(root, status)])
    try:
        os.scandir(root).close()
    except OSError as error:
        raise _not_listable(source, error) from error
    return iter(_Walk(root, selected, left_out))


def takes_in(source: SourceLike, file: Path) -> bool:
    """Tell whether a local file, by its absolute path, is one that a source lists where it is there."""
    path = local_path(source.path) if source.query is None else None
    if path is None:
        return False
    root, selected = _selection(source, path)
    return str(file) == root or (
        file.is_relative_to(root) and selected.wanted(file.relative_to(root).as_posix())
    )


def _selection(source: SourceLike, path: str) -> tuple[str, "_Selector"]:
    """Return the file or folder that a source's local path or glob begins at, and what is wanted of it."""
    path = os.path.abspath(os.path.expanduser(path))
    if os.path.lexists(path) or not WILDCARD.search(path):
        return path, _selector(source.include, source.exclude)
    root, pattern = _split_glob(path)
    return root, _selector(source.include, source.exclude, pattern)


def local_path(path: str) -> str | None:
    """Return the local path that a source's path names, None for a URL of another scheme than file."""
    if not _SCHEME.match(path):
        return path
    return unquote(urlsplit(path).path) if path.lower().startswith("file://") else None


def _not_listable(source: SourceLike, error: OSError) -> StemmaError:
    return StemmaError(f"source {source.name!r}: cannot list {source.path!r}: {error.strerror or error}")


def _entry_of_file(path: str, status: os.stat_result) -> FileEntry | ListingError:
    name = os.path.basename(path)
    if not stat.S_ISREG(status.st_mode):
        return ListingError(_shown(path), "not a file", f"it is {_kind(status.st_mode)}")
    if not _is_utf8(path):
        return ListingError(_shown(path), "name is not UTF-8", "rename the file")
    return FileEntry(PurePath(path).as_posix(), name, status.st_size, _within_64_bits(status.st_mtime_ns))


def _within_64_bits(mtime_ns: int) -> int:
    """Return a time that 64 bits hold: a file system may say one before 1677 or after 2262."""
    return max(-(2**63), min(2**63 - 1, mtime_ns))


def _split_glob(path: str) -> tuple[str, str]:
    """Return the longest folder without wildcards, and the pattern under it."""
    parts = path.split("/")
    count = next(index for index, part in enumerate(parts) if WILDCARD.search(part))
    return "/".join(parts[:count]) or "/", "/".join(parts[count:])


@dataclass(frozen=True, slots=True)
class _Selector:
    """Decides by relative path what belongs to a source: a file is wanted, a folder is entered."""

    wanted: Callable[[str], bool]
    entered: Callable[[str], bool]


def _selector(include: tuple[str, ...], exclude: tuple[str, ...], only: str | None = None) -> _Selector:
    included = _matcher(include) if include else lambda _: True
    excluded = _matcher(exclude) if exclude else lambda _: False
    matches = re.compile(glob_to_regex(only), re.S).fullmatch if only is not None else lambda _: True
    depth = only.count("/") if only is not None and "**" not in only else None
    return _Selector(
        wanted=lambda path: bool(matches(path)) and included(path) and not excluded(path),
        entered=lambda path: (depth is None or path.count("/") < depth) and not excluded(path),
    )


def _matcher(patterns: tuple[str, ...]) -> Callable[[str], bool]:
    """Match any of the patterns: one without a slash at any depth, one of a folder all that is in it."""
    alternatives = (f"(?:{glob_to_regex(_anchored(pattern))})(?:/.*)?" for pattern in patterns)
    expression = re.compile("|".join(alternatives), re.S)
    return lambda path: expression.fullmatch(path) is not None


def _anchored(pattern: str) -> str:
    pattern = pattern.rstrip("/")
    return pattern.lstrip("/") if "/" in pattern else f"**/{pattern}"


def glob_to_regex(pattern: str) -> str:
    """Translate a glob: `*` and `?` stay inside a path segment, `**/` spans any number of them."""
    parts: list[str] = []
    at = 0
    while at < len(pattern):
        if pattern.startswith("**/", at):
            parts.append("(?:.*/)?")
            at += 3
        elif pattern.startswith("**", at):
            parts.append(".*")
            at += 2
        elif pattern[at] == "*":
            parts.append("[^/]*")
            at += 1
        elif pattern[at] == "?":
            parts.append("[^/]")
            at += 1
        elif pattern[at] == "[" and (end := pattern.find("]", at + 2)) > 0:
            chars = pattern[at + 1 : end].replace("\\", "\\\\").replace("[", "\\[")
            parts.append(f"[{'^/' + chars[1:] if chars[0] in '!^' else chars}]")
            at = end + 1
        else:
            parts.append(re.escape(pattern[at]))
            at += 1
    return "".join(parts)


@dataclass(frozen=True, slots=True)
class _Folder:
    """A folder to be gone through; `prefix` is its relative path with a slash at the end."""

    path: str
    prefix: str


class _Walk:
    """Goes through a local folder."""

    def __init__(self, root: str, selected: _Selector, left_out: Iterable[Path]) -> None:
        self._root = root
        self._selected = selected
        self._real_root = os.path.realpath(root)
        self._left_out = {path.name: os.path.realpath(path) for path in left_out}

    def __iter__(self) -> Listing:
        # A stack of our own: folders may be nested deeper than Python recurses.
        stack = [self._scan(_Folder(self._root, ""))]
        while stack:
            item = next(stack[-1], None)
            if item is None:
                stack.pop()
            elif isinstance(item, _Folder):
                stack.append(self._scan(item))
            else:
                yield item

    def _scan(self, folder: _Folder) -> Iterator[FileEntry | ListingError | _Folder]:
        """Yield what is in one folder, in order."""
        try:
            with os.scandir(folder.path) as entries:
                found = sorted(entries, key=_sort_key)
        except OSError as error:
            reason = error.strerror or str(error)
            yield ListingError(_shown(folder.path), "unreadable folder", reason, below=folder.prefix)
            return
        for entry in found:
            item = self._item(entry, folder.prefix + entry.name)
            if item is not None:
                yield item

    def _item(self, entry: os.DirEntry[str], relative: str) -> FileEntry | ListingError | _Folder | None:
        name = entry.name
        if name.startswith(".") or name.endswith(_SKIPPED_ENDINGS):
            return None
        if name in self._left_out and os.path.realpath(entry.path) == self._left_out[name]:
            return None
        is_folder = entry.is_dir(follow_symlinks=False)
        if is_folder and (name in _SKIPPED_FOLDERS or not self._selected.entered(relative)):
            return None
        if not is_folder and not self._selected.wanted(relative):
            return None
        if not _is_utf8(name):
            return ListingError(_shown(entry.path), "name is not UTF-8", "rename it to have it read")
        return _Folder(entry.path, relative + "/") if is_folder else self._file(entry, relative)

    def _file(self, entry: os.DirEntry[str], relative: str) -> FileEntry | ListingError | None:
        try:
            status = entry.stat(follow_symlinks=False)
            if stat.S_ISLNK(status.st_mode):
                return self._link(entry, relative)
        except FileNotFoundError:
            return None  # gone since the folder was listed
        except OSError as error:
            return ListingError(_shown(entry.path), "unreadable file", error.strerror or str(error))
        if not stat.S_ISREG(status.st_mode):
            return ListingError(_shown(entry.path), "not a file", f"it is {_kind(status.st_mode)}")
        return FileEntry(_uri(entry.path), relative, status.st_size, _within_64_bits(status.st_mtime_ns))

    def _link(self, entry: os.DirEntry[str], relative: str) -> FileEntry | ListingError:
        shown = _shown(entry.path)
        try:
            target = os.path.realpath(entry.path, strict=True)
            status = os.stat(target)
        except OSError as error:
            kind = "symlink loop" if error.errno == errno.ELOOP else "broken symlink"
            return ListingError(shown, kind, error.strerror or str(error))
        if os.path.commonpath((target, self._real_root)) != self._real_root:
            return ListingError(shown, "symlink leaves the source", f"it leads to {_shown(target)}")
        if not stat.S_ISREG(status.st_mode):
            return ListingError(shown, "symlink not followed", f"it leads to {_kind(status.st_mode)}")
        return FileEntry(_uri(entry.path), relative, status.st_size, _within_64_bits(status.st_mtime_ns))


def _sort_key(entry: os.DirEntry[str]) -> str:
    """Sort a folder as if its name ended in a slash, which makes the order that of the whole paths."""
    return entry.name + "/" if entry.is_dir(follow_symlinks=False) else entry.name


def _uri(path: str) -> str:
    return path if os.sep == "/" else PurePath(path).as_posix()


def _is_utf8(name: str) -> bool:
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _shown(path: str) -> str:
    """Return a path as valid UTF-8, bytes that are not in backslashes."""
    return path if _is_utf8(path) else os.fsencode(path).decode("utf-8", "backslashreplace")


def _kind(mode: int) -> str:
    kinds = {
        stat.S_IFDIR: "a folder",
        stat.S_IFIFO: "a FIFO",
        stat.S_IFSOCK: "a socket",
        stat.S_IFCHR: "a character device",
        stat.S_IFBLK: "a block device",
    }
    return kinds.get(stat.S_IFMT(mode), "no regular file")


def _list_remote(source: SourceLike) -> Listing:
    """List a URL through fsspec: one file, a folder, or a glob."""
    import fsspec

    try:
        system, path = fsspec.core.url_to_fs(source.path)
        is_web = source.path.lower().startswith("http")
        # A question mark begins the query of an http URL.
        glob = ("*" in path) if is_web else bool(WILDCARD.search(path))
        # On the web everything is a file; an address that ends in a slash is the folder of what its page links to.
        is_folder = is_web and path.endswith("/")
        if not glob and not is_folder and system.isfile(path):
            infos = {path: system.info(path)}
            root = path.rpartition("/")[0]
        elif glob:
            root = _split_glob(path)[0]
            infos = system.glob(path, detail=True)
        else:
            root = path
            system.ls(path, detail=False)
            infos = system.find(path, detail=True)
    except (OSError, ValueError, ImportError) as error:
        raise StemmaError(f"source {source.name!r}: cannot list {source.path!r}: {error}") from error
    return iter(list(_remote_entries(source, system, root.rstrip("/"), infos)))


def _remote_entries(
    source: SourceLike, system: Any, root: str, infos: dict[str, dict[str, Any]]
) -> Iterator[FileEntry]:
    selected = _selector(source.include, source.exclude)
    relatives = {path.removeprefix(root).lstrip("/"): path for path, info in infos.items() if _is_file(info)}
    for relative, path in sorted(relatives.items()):
        parts = relative.split("/")
        hidden = any(part.startswith(".") or part in _SKIPPED_FOLDERS for part in parts)
        if not hidden and not relative.endswith(_SKIPPED_ENDINGS) and selected.wanted(relative):
            info = infos[path]
            uri = _address(source.path, system.unstrip_protocol(path))
            yield FileEntry(uri, relative, info.get("size"), _mtime_ns(info), _version(info))


def _address(source: str, uri: str) -> str:
    """Return a file's URL with what the source's chains behind or before it (`zip://a.csv::s3://…`)."""
    first, chain, rest = source.partition("::")
    if not chain:
        return uri
    return f"{uri}::{rest}" if "://" in first else f"{first}::{uri}"


def _is_file(info: dict[str, Any]) -> bool:
    return info.get("type", "file") == "file"


def _mtime_ns(info: dict[str, Any]) -> int:
    for name in ("mtime", "LastModified", "Last-Modified", "last_modified", "updated", "modified", "created"):
        value = info.get(name)
        if isinstance(value, str):
            value = _parsed_time(value)
        if isinstance(value, datetime):
            return int(value.timestamp() * 10**9)
        if isinstance(value, int | float):
            return int(value * 10**9)
    return 0


def _parsed_time(text: str) -> datetime | None:
    """Parse a time as HTTP or ISO 8601 write it."""
    for parse in (parsedate_to_datetime, datetime.fromisoformat):
        with contextlib.suppress(ValueError, TypeError, IndexError):
            return parse(text)
    return None


def _version(info: dict[str, Any]) -> str:
    """Return what the file system tells versions of a file apart by; empty where it does not."""
    for name in ("ETag", "etag", "generation", "md5Hash", "content_md5", "checksum"):
        value = info.get(name)
        if isinstance(value, str | int) and value:
            return str(value)
    return ""


def open_file(entry: FileEntry) -> BinaryIO:
    """Open a file for reading; a local one must be a regular file, so that nothing blocks for ever.

    Raises:
        OSError: the file is gone, may not be read, or is no file any more.
    """
    if _SCHEME.match(entry.uri):
        import fsspec

        system, path = fsspec.core.url_to_fs(entry.uri)
        return system.open(path, "rb")
    descriptor = os.open(entry.uri, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "not a regular file", entry.uri)
        return io.FileIO(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def read_stable(entry: FileEntry) -> tuple[BinaryIO, bytes, FileEntry]:
    """Open a file and hash it: no change during that goes unseen, nor one while the file is read afterwards.

    Returns:
        The file at its beginning; the first 16 bytes of the SHA-256 of its bytes as stored; the entry with
        size and time as of this reading. A file up to 8 MiB is held in memory; a larger local one checks at
        each read that it is still the one that was hashed; a larger remote one is a temporary copy.

    Raises:
        RetryableError: the file changed each time while it was read (also later, from the file returned).
        OSError: the file is gone, may not be read, or is nothing but a hole (a sparse file).
    """
    attempt = _read_remote if _SCHEME.match(entry.uri) else _read_local
    for number in range(_ATTEMPTS):
        if number:
            time.sleep(_PAUSE_SECONDS)
        result = attempt(entry)
        if result is not None:
            return result
    raise RetryableError(f"{entry.uri}: changed while being read")


def _read_local(entry: FileEntry) -> tuple[BinaryIO, bytes, FileEntry] | None:
    """Read once; None where the file changed meanwhile."""
    raw = open_file(entry)
    try:
        before = os.fstat(raw.fileno())
        found = replace(entry, size=before.st_size, mtime_ns=_within_64_bits(before.st_mtime_ns))
        if before.st_size <= SMALL_FILE:
            data = raw.read(before.st_size + 1)
            stable = len(data) == before.st_size and _unchanged(raw, before)
            raw.close()
            return (io.BytesIO(data), digest(data), found) if stable else None
        _reject_hole(raw, before.st_size, entry.uri)
        file_hash = _hash_stream(raw, before.st_size)
        if not _unchanged(raw, before):
            raw.close()
            return None
        raw.seek(0)
        return io.BufferedReader(_Watched(raw, before, entry.uri), _CHUNK), file_hash, found
    except BaseException:
        raw.close()
        raise


def _unchanged(file: BinaryIO, before: os.stat_result) -> bool:
    now = os.fstat(file.fileno())
    return (now.st_size, now.st_mtime_ns) == (before.st_size, before.st_mtime_ns)


def _reject_hole(file: BinaryIO, size: int, uri: str) -> None:
    """Refuse a sparse file without any data, which would read as gigabytes of NULs."""
    if not hasattr(os, "SEEK_DATA"):
        return
    try:
        os.lseek(file.fileno(), 0, os.SEEK_DATA)
    except OSError as error:
        if error.errno == errno.ENXIO:
            raise OSError(errno.EFBIG, f"a hole of {size} bytes without data", uri) from error
    finally:
        file.seek(0)


def _hash_stream(file: BinaryIO, size: int) -> bytes:
    """Hash `size` bytes and no more: a log that grows faster than we read has no end."""
    state = hashlib.sha256()
    while size > 0 and (chunk := file.read(min(size, _CHUNK))):
        state.update(chunk)
        size -= len(chunk)
    return state.digest()[:16]


class _Watched(io.RawIOBase):
    """A local file that raises RetryableError as soon as it is not the one that was hashed."""

    def __init__(self, file: BinaryIO, before: os.stat_result, uri: str) -> None:
        self._file = file
        self._before = before
        self._uri = uri

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def fileno(self) -> int:
        return self._file.fileno()

    def check(self) -> None:
        """Raise RetryableError if the file is not the one that was hashed."""
        if not _unchanged(self._file, self._before):
            raise RetryableError(f"{self._uri}: changed while being read")

    def readinto(self, buffer: Any) -> int:
        count = self._file.readinto(buffer)  # type: ignore[attr-defined]
        self.check()
        return count

    def close(self) -> None:
        self._file.close()
        super().close()


@contextlib.contextmanager
def path_of(file: BinaryIO) -> Iterator[str]:
    """Give a path by which another process opens the file that `read_stable` returned, while this one has it open.

    Raises RetryableError at the end if the file changed meanwhile.
    """
    with contextlib.ExitStack() as stack:
        if isinstance(file, io.BytesIO):
            copy = stack.enter_context(NamedTemporaryFile())
            copy.write(file.getbuffer())
            copy.flush()
            yield copy.name
        else:
            # By this path Linux opens the very file, also one that has no name any more.
            yield f"/proc/{os.getpid()}/fd/{file.fileno()}"
        watched = getattr(file, "raw", None)
        if isinstance(watched, _Watched):
            watched.check()


def _read_remote(entry: FileEntry) -> tuple[BinaryIO, bytes, FileEntry] | None:
    """Copy once, to memory or a temporary file; None where the length is not the one listed."""
    import fsspec

    state = hashlib.sha256()
    copy = SpooledTemporaryFile(max_size=SMALL_FILE)  # noqa: SIM115
    system, path = fsspec.core.url_to_fs(entry.uri)
    before = system.info(path)
    with system.open(path, "rb") as file:
        while chunk := file.read(_CHUNK):
            state.update(chunk)
            copy.write(chunk)
    size = copy.tell()
    after = system.info(path)
    same = (_mtime_ns(before), _version(before)) == (_mtime_ns(after), _version(after))
    same = same and after.get("size") in (None, size)
    if not same:
        copy.close()
        return None
    copy.seek(0)
    found = replace(entry, size=size, mtime_ns=_mtime_ns(after), version=_version(after))
    return copy, state.digest()[:16], found  # type: ignore[return-value]
