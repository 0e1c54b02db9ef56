"""A look at one file of a source: is it as it was, and what is in it if not. Any process on any machine may take it."""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import BinaryIO

from stemma.config import SourceConfig
from stemma.errors import RetryableError
from stemma.incremental.compute import RETRYABLE
from stemma.reading import ReadError, ReadOptions, Record, read
from stemma.resources.queries import QUERY_FORMAT, run_query
from stemma.resources.sources import FileEntry, path_of, read_stable
from stemma.resources.warehouse import first_line
from stemma.resources.workers import Workers

# Parquet, Arrow files and streams, and archives, which may hold any of them.
READ_APART = (b"PAR1", b"ARROW1", b"\xff\xff\xff\xff", b"PK\x03\x04")


@dataclass(frozen=True, slots=True)
class Known:
    """What the state remembers of a file."""

    file_hash: bytes
    reader: str
    uri: str
    size: int | None
    mtime_ns: int
    version: str

    def describes(self, entry: FileEntry) -> bool:
        """Are size, time and version those of the entry?"""
        return (self.size, self.mtime_ns, self.version) == (entry.size, entry.mtime_ns, entry.version)

    def vouches_for(self, entry: FileEntry) -> bool:
        """Does the listing alone say that the file is unchanged? Not without a time or a version."""
        return bool(entry.mtime_ns or entry.version) and self.describes(entry)


@dataclass(frozen=True, slots=True)
class Request:
    """A file that is to be looked at, or a query, and what is known of it.

    `query_folders` are where a query's relative paths start, and where its result is written.
    """

    source: SourceConfig
    reader: str
    entry: FileEntry
    known: Known | None
    query_folders: tuple[Path, Path] | None = None

    @property
    def is_query(self) -> bool:
        """Whether it is the result of a query, which only the run's own process asks for."""
        return self.query_folders is not None


@dataclass(frozen=True, slots=True)
class Seen:
    """What becomes of a look at a file: that it is read, before all that is in it; and how that ended, as the last.

    Attributes:
        kind: `begun`; and at the end `same` (not read, it is as it was), `read`, `put off` (it could not be read now)
            or `unreadable`.
        file_hash, entry: as of this reading.
        error, detail: why not.
        is_passing: whether it was there when it was listed, and no more.
    """

    kind: str
    entry: FileEntry
    file_hash: bytes = b""
    error: str = ""
    detail: str = ""
    is_passing: bool = False

    @property
    def is_last(self) -> bool:
        """Whether nothing more is found in the file."""
        return self.kind != "begun"

    def to_json(self) -> str:
        """Return it as JSON, which `seen_from_json` reads."""
        return json.dumps({**asdict(self), "file_hash": self.file_hash.hex()})


def seen_from_json(text: str) -> Seen:
    """Return what `Seen.to_json` wrote."""
    fields = json.loads(text)
    entry, file_hash = FileEntry(**fields.pop("entry")), bytes.fromhex(fields.pop("file_hash"))
    return Seen(**fields, entry=entry, file_hash=file_hash)


Found = Record | ReadError | Seen


def look_at(request: Request, workers: Workers) -> Iterator[Found]:
    """Yield what is in a file, unless it is as it was; before and after it, what becomes of the look."""
    source, known = request.source, request.known
    try:
        file, file_hash, entry = _open(request)
    except RETRYABLE as error:
        yield _put_off(request.entry, error)
        return
    except OSError as error:
        passing, kind = isinstance(error, FileNotFoundError), type(error).__name__
        detail = error.strerror or first_line(error)
        yield Seen("unreadable", request.entry, error=kind, detail=detail, is_passing=passing)
        return
    with file:
        if known is not None and (known.file_hash, known.reader) == (file_hash, request.reader):
            yield Seen("same", entry, file_hash)
            return
        yield Seen("begun", entry, file_hash)
        try:
            yield from _items(workers, file, entry, source)
        except RETRYABLE as error:
            yield _put_off(entry, error)
        else:
            yield Seen("read", entry, file_hash)


def _put_off(entry: FileEntry, error: BaseException) -> Seen:
    kind = "changing" if isinstance(error, RetryableError) else type(error).__name__
    return Seen("put off", entry, error=kind, detail=first_line(error), is_passing=True)


def read_options(source: SourceConfig) -> ReadOptions:
    """Return how the files of a source are read."""
    return ReadOptions(
        format=source.format if source.query is None else QUERY_FORMAT,
        text_field=source.text_field,
        id_field=source.id_field,
        date_field=source.date_field,
        title_field=source.title_field,
        fields=source.fields,
        labels=source.labels,
    )


def _open(request: Request) -> tuple[BinaryIO, bytes, FileEntry]:
    """Return a file or a query's result at its beginning, with its hash. Raises as `read_stable`, `run_query`."""
    if request.query_folders is None:
        return read_stable(request.entry)
    directory, folder = request.query_folders
    folder.mkdir(parents=True, exist_ok=True)
    file, file_hash = run_query(request.source, directory, folder)
    return file, file_hash, request.entry


def _items(
    workers: Workers, file: BinaryIO, entry: FileEntry, source: SourceConfig
) -> Iterator[Record | ReadError]:
    try:
        for item in _read(workers, file, entry.relative, read_options(source)):
            if source.query is not None:
                # Of the file that the result was written to, which nobody will see.
                item.byte_start = item.byte_end = None
            yield item
    except RETRYABLE:
        raise
    except Exception as error:
        # The reader promises not to raise; if it does, that costs this file and not the run.
        yield ReadError(None, None, None, type(error).__name__, first_line(error))


def _read(workers: Workers, file: BinaryIO, name: str, options: ReadOptions) -> Iterator[Record | ReadError]:
    """Read a file, in a worker process where a large parser of C++ does it."""
    magic = file.read(len(max(READ_APART, key=len)))
    file.seek(0)
    if workers.processes == 0 or not magic.startswith(READ_APART):
        yield from read(file, name, options)
        return
    with path_of(file) as path:
        yield from workers.read(path, name, options)
