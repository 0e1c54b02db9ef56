"""The memo: results by content, in immutable Arrow files that need no lock.

`memo/<stage>/<recipe>/<n>-<id>.arrow`, a segment, holds rows of (input_hash, the stage's outputs, error, detail), and
for each column the checksums of its rows. Its metadata index it: all keys, the sizes of its record batches, whether
one of its rows failed, and what it is a segment of, with a checksum of these.
A segment is written beside, synced and renamed, so a crash leaves whole segments only; nobody ever changes
one, so any number of processes read and write at once. The same input may stand in two segments when two runs
computed it side by side: look-ups take the first.

Segments are uncompressed and mapped into memory: what a small change needs of a large memo is read row by row, at
the cost of those rows (the vectors of a 1 % change of 70,000, published: 50 ms; from Parquet's row groups, 300 ms).

Nothing is taken from a segment unchecked: the index when it is read, a row when it is. A damaged segment is moved to
`quarantine/` beside the memo, and what it held is missing from then on (see engine/mending.py).
"""

import contextlib
import functools
import itertools
import json
import math
import os
import re
import shutil
import uuid
import zlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from stemma.errors import StemmaError
from stemma.hashing import UUID, stored_keys
from stemma.resources.checksums import row_checksums
from stemma.resources.handing import execute_over

SUFFIX = ".arrow"
# Merging starts past this many segments of about the same size, so that a stage's look-up opens a few dozen files
# at most.
MERGE_SEGMENTS = 8
# Segments of this size are left alone: rewriting them would cost more than opening them.
LARGE_SEGMENT_BYTES = 128 * 1024 * 1024
# What one record batch holds: read at once when a segment is read as a whole, and where only some of its rows are
# wanted, a third of a millisecond for itself.
BATCH_ROWS = 65_536
BATCH_BYTES = 32 * 1024 * 1024
# From this share of a segment's rows on it is read from beginning to end instead of row by row.
SCANNED_SHARE = 0.25
# Segments kept mapped at a time, each with an open file.
MAPPED_SEGMENTS = 256
# What a process has written itself, up to so many bytes, it need not read and check when it asks for that next.
WRITTEN_BYTES = 4 * 1024 * 1024
# A process that has taken no more rows than these keeps its segments mapped: to let go of the pages, 16 of them for a
# row at most, takes as long as to read some.
ROWS_LEFT_MAPPED = 20_000
# Names the segments that a merge has replaced.
RETIRED = "retired.txt"
# Where damaged segments are moved to, beside the memo.
QUARANTINE = "quarantine"
# The column that results are found by.
KEY = "input_hash"
# Added to a column's name: the column of its rows' checksums.
CHECKSUM = "~crc32"
# How Arrow, NumPy and JSON say that they do not understand what they were given.
DAMAGE = (pa.ArrowException, ValueError, KeyError, IndexError, TypeError, OverflowError, OSError)

ERROR_FIELDS = (pa.field("error", pa.string()), pa.field("detail", pa.string()))
# Where rows are: what `Segments.locate` gives.
PLACES = pa.schema(
    [
        pa.field(KEY, UUID),
        pa.field("filename", pa.string()),
        pa.field("file_row_number", pa.int64()),
        *ERROR_FIELDS,
    ]
)
# DuckDB knows no number of rows of a stream, and would build the hash table of a join of all bodies; nor can it
# push a join's filter on UUIDs into one.
AS_WRITTEN = "join_order,build_side_probe_side,join_filter_pushdown"
# No statement here has a part twice, and to look for one takes a tenth of the time that a small one is planned in.
UNUSED = "common_subplan"

# By so many of their bits keys are told apart at first.
PREFIX_BITS = 20
_NO_PREFIXES = np.empty(0, np.uint32)

Result = TypeVar("Result")


def quoted(text: str) -> str:
    """Quote a string as a SQL literal."""
    return "'" + text.replace("'", "''") + "'"


@contextlib.contextmanager
def joined_as_written(connection: duckdb.DuckDBPyConnection) -> Iterator[None]:
    """Carry out joins as they are written: the relation of `Segments.bodies` on the left streams past the right."""
    connection.execute(f"SET disabled_optimizers = '{AS_WRITTEN},{UNUSED}'")
    try:
        yield
    finally:
        # Of a transaction that has failed nothing can be said any more; who rolls it back calls `join_as_usual`.
        with contextlib.suppress(duckdb.TransactionException):
            join_as_usual(connection)


def join_as_usual(connection: duckdb.DuckDBPyConnection) -> None:
    """Let DuckDB order joins as it sees fit."""
    connection.execute(f"SET disabled_optimizers = '{UNUSED}'")


@dataclass(frozen=True)
class Index:
    """What a segment's metadata say: its keys as binary(16), rows of its batches, whether any row failed."""

    keys: pa.Array
    sizes: list[int]
    failed: bool

    @functools.cached_property
    def prefixes(self) -> np.ndarray:
        """The first bits of the keys."""
        return _prefixes(self.keys)


# What of the memo is to stay: by (stage, recipe) the schema of the outputs, and keys as binary(16).
Live = Mapping[tuple[str, str], tuple[pa.Schema, pa.Array]]


class LostError(StemmaError):
    """The memo has not what the state says that it has; `engine/mending.py` computes it anew."""


class DamagedError(LostError):
    """A segment is not what was written; it has been moved away."""


@dataclass(frozen=True)
class Damage:
    """A damaged segment: where it stood, where it is now (None: it could not be moved), and what is wrong with it."""

    path: Path
    moved_to: Path | None
    reason: str

    def __str__(self) -> str:
        moved = f"moved to {self.moved_to}" if self.moved_to else "delete it"
        return f"{self.path}: a damaged file of the memo ({self.reason}); {moved}"


@dataclass(frozen=True)
class _Open:
    """A segment that is read, and those of its batches that are at hand: views of a mapped file, or just written."""

    reader: pa.ipc.RecordBatchFileReader | None
    batches: dict[int, pa.RecordBatch] = field(default_factory=dict)


class Mapped:
    """Segments that this process looks into, by path: their indexes in memory, their bodies mapped.

    `damaged` has those that turned out not to be what was written, `missing` those that went while they were read.
    """

    def __init__(self, quarantine: Path) -> None:
        self.damaged: list[Damage] = []
        self.missing: list[Path] = []
        self._quarantine = quarantine
        self._open: dict[Path, _Open] = {}
        self._index: dict[Path, Index] = {}
        self._written: Path | None = None
        self._rows_taken = 0

    def keep_written(self, path: Path, index: Index, batches: list[pa.RecordBatch]) -> None:
        """Answer for a segment that this process has just written from memory, until it writes the next."""
        if self._written is not None:
            self._open.pop(self._written, None)
        self._written = path
        self._index[path] = index
        self._open[path] = _Open(None, dict(enumerate(batches)))

    def batches(
        self,
        path: Path,
        names: list[str] | None = None,
        wanted: np.ndarray | None = None,
        *,
        mapped: bool = False,
    ) -> Iterator[pa.RecordBatch]:
        """Yield batches of a segment: all there are, or those that are `wanted`; mapped into memory, or read.

        They have the columns `names` with their checksums, or all; mapped ones always all. Raises DamagedError
        where the segment is damaged.
        """
        with self.watched(path):
            sizes = self.index(path).sizes
            at_hand = mapped or (path == self._written and path in self._open)
            source = self._mapped(path) if at_hand else _Open(_opened(path, names))
        for number in range(len(sizes)) if wanted is None else wanted.tolist():
            batch = source.batches.get(number)
            if batch is None:
                assert source.reader is not None
                with self.watched(path):
                    batch = source.reader.get_batch(number)
                    batch.validate()
                    if batch.num_rows != sizes[number]:
                        raise ValueError("it has not the rows that its index says")
                if mapped:
                    source.batches[number] = batch
            yield batch

    def _mapped(self, path: Path) -> _Open:
        if path not in self._open:
            while len(self._open) >= MAPPED_SEGMENTS:
                del self._open[next(iter(self._open))]
            self._open[path] = _Open(pa.ipc.open_file(pa.memory_map(str(path))))
        return self._open[path]

    def checked(
        self, path: Path, batch: pa.RecordBatch, names: list[str], rows: np.ndarray | None = None
    ) -> None:
        """Compare these rows of a segment's batch with their checksums. Raises DamagedError where they differ."""
        with self.watched(path):
            if rows is None:
                rows = np.arange(batch.num_rows)
            self._rows_taken += len(rows)
            for name in names:
                found = batch.schema.get_field_index(name + CHECKSUM)
                # What was just written has none, nor have segments of an earlier version.
                if found >= 0:
                    expected = batch.column(found).to_numpy()[rows]
                    if not np.array_equal(row_checksums(batch.column(name), rows), expected):
                        raise ValueError(f"the checksum of a row of {name} is wrong")

    def index(self, path: Path) -> Index:
        """Return the index of a segment. Raises DamagedError where it is damaged."""
        if path not in self._index:
            with self.watched(path):
                reader = self._mapped(path).reader
                assert reader is not None
                self._index[path] = _index_of(path, reader.schema)
        return self._index[path]

    @contextlib.contextmanager
    def watched(self, path: Path) -> Iterator[None]:
        """Move a segment away, and raise DamagedError, where what is read of it makes no sense."""
        try:
            yield
        except DAMAGE as error:
            if (isinstance(error, OSError) and error.errno is not None) or _is_short_of_memory(error, path):
                # It is not there, or cannot be read at all: that says nothing of what was written.
                raise
            reason = str(error).split("\n")[0] or type(error).__name__
            damage = Damage(path, self._set_aside(path), reason)
            self.damaged.append(damage)
            self._open.pop(path, None)
            self._index.pop(path, None)
            raise DamagedError(str(damage)) from error

    def _set_aside(self, path: Path) -> Path | None:
        target = self._quarantine / "-".join((*path.parts[-3:-1], path.name))
        try:
            self._quarantine.mkdir(exist_ok=True)
            os.replace(path, target)
        except OSError:
            return None
        return target

    def unmap(self) -> None:
        """Let go of the bodies, if many were taken: pages read of a mapped file count as this process's memory."""
        if self._rows_taken > ROWS_LEFT_MAPPED:
            self._open.clear()
            self._rows_taken = 0

    def clear(self) -> None:
        """Let go of all."""
        self._open.clear()
        self._index.clear()


@dataclass
class _NewSegment:
    """A segment that is being written: where to, and where it stands once it is whole."""

    temporary: Path
    path: Path


class Segments:
    """The memo of one stage under one recipe."""

    def __init__(self, folder: Path, outputs: pa.Schema, mapped: Mapped) -> None:
        self.folder = folder
        self.schema = pa.schema([pa.field(KEY, UUID), *outputs, *ERROR_FIELDS])
        self._mapped = mapped

    def files(self) -> list[Path]:
        """Return the segments, oldest first."""
        try:
            found = os.listdir(self.folder)
        except (FileNotFoundError, NotADirectoryError):
            return []
        retired = self._retired()
        return [self.folder / name for name in sorted(found) if name.endswith(SUFFIX) and name not in retired]

    def append(self, rows: pa.Table) -> pa.Table:
        """Commit rows (columns as in `schema`) as one segment; durable when this returns.

        Returns their places, with the columns that `locate` gives.
        """
        place = ""
        if rows.num_rows:
            self.folder.mkdir(parents=True, exist_ok=True)
            table = rows.cast(self.schema).combine_chunks()
            rows_each = min(BATCH_ROWS, max(1, BATCH_BYTES * rows.num_rows // max(rows.nbytes, 1)))
            batches = table.to_batches(max_chunksize=rows_each)
            index = Index(
                stored_keys(table[KEY]),
                [batch.num_rows for batch in batches],
                rows["error"].null_count < rows.num_rows,
            )
            with (
                self._new_segment() as segment,
                self._writer(segment.temporary, _bytes_of(index.keys), index.sizes, index.failed) as writer,
            ):
                for batch in batches:
                    writer.write_batch(_with_sums(batch))
            if rows.nbytes <= WRITTEN_BYTES:
                self._mapped.keep_written(segment.path, index, batches)
            place = segment.path.name
        names = pa.array([place] * rows.num_rows, pa.string())
        numbers = pa.array(range(rows.num_rows), pa.int64())
        return pa.table([rows[KEY], names, numbers, rows["error"], rows["detail"]], schema=PLACES)

    def keys(self) -> pa.ChunkedArray:
        """Return all keys, as binary(16)."""
        return self._retrying(lambda: _all_keys([self._mapped.index(path) for path in self.files()]))

    def locate(self, connection: duckdb.DuckDBPyConnection, keys: str, into: str) -> bool:
        """Make the table `into` (input_hash, filename, file_row_number, error, detail).

        It has one row for each distinct input_hash of the relation `keys` that the memo knows. Returns whether any of
        these has failed.
        """
        places = self._located(connection, keys)
        execute_over(connection, places, f"CREATE OR REPLACE TABLE {into} AS SELECT * FROM arriving")
        return has_failed(places)

    def _located(self, connection: duckdb.DuckDBPyConnection, keys: str) -> pa.Table:
        wanted = connection.execute(f"SELECT input_hash FROM {keys}").to_arrow_table()
        if not wanted.num_rows:
            return PLACES.empty_table()
        return self._retrying(lambda: self._places(pc.unique(stored_keys(wanted[KEY]))))

    def scan(self, keys: pa.Array, names: list[str]) -> Iterator[tuple[np.ndarray, pa.RecordBatch]]:
        """Yield the columns `names` of what the memo knows of keys (binary(16)), batch by batch as it has them.

        Each with the numbers (int64) of its rows' keys; a key that stands there twice has two rows.
        """
        distinct = keys.dictionary_encode()
        files, file, numbers, codes = self._retrying(lambda: self._find(distinct.dictionary))
        row_of_code = np.full(len(distinct.dictionary), -1, np.int64)
        row_of_code[codes] = np.arange(len(codes))
        row_of = row_of_code[distinct.indices.to_numpy()]
        order = np.argsort(row_of, kind="stable")
        wanted = {files[code]: numbers[file == code] for code in np.unique(file).tolist()}
        start = 0
        for batch in _Rows(self._mapped, wanted, self.schema, names).batches():
            first, last = np.searchsorted(row_of, [start, start + batch.num_rows], sorter=order)
            which = order[first:last]
            rows = row_of[which] - start
            start += batch.num_rows
            yield which, batch.take(pa.array(rows)) if len(rows) > batch.num_rows else batch

    def fetch(self, keys: pa.Array, names: list[str]) -> tuple[pa.Table, np.ndarray]:
        """Return the columns `names` of what the memo knows of keys (binary(16)), all at once.

        And for each key the number of its row (int64); -1 where the memo does not know it.
        """
        places = np.full(len(keys), -1, np.int64)
        batches, count = [], 0
        for which, batch in self.scan(keys, names):
            places[which] = np.arange(count, count + batch.num_rows)
            batches.append(batch)
            count += batch.num_rows
        schema = pa.schema([self.schema.field(name) for name in names])
        return pa.Table.from_batches(batches, schema), places

    def _places(self, wanted: pa.Array) -> pa.Table:
        files, file, numbers, codes = self._find(wanted)
        errors = _no_errors(len(codes))
        if any(self._mapped.index(path).failed for path in files):
            errors = pa.concat_tables(
                [_no_errors(0)]
                + [self._errors(files[code], numbers[file == code]) for code in np.unique(file).tolist()]
            )
        names = pa.array([path.name for path in files], pa.string()).take(pa.array(file))
        keys = pa.ExtensionArray.from_storage(UUID, wanted.take(pa.array(codes)))
        return pa.table([keys, names, pa.array(numbers), *errors.columns], schema=PLACES)

    def _find(self, wanted: pa.Array) -> tuple[list[Path], np.ndarray, np.ndarray, np.ndarray]:
        """Return the segments, and of each key that is known, in their order: its segment, its row there, which it is.

        A key that stands twice is found where it stands first.
        """
        files = self.files()
        indexes = [self._mapped.index(path) for path in files]
        rows, codes = _found(indexes, wanted)
        ends = np.cumsum([0, *(len(index.keys) for index in indexes)], dtype=np.int64)
        file = np.searchsorted(ends, rows, side="right") - 1
        return files, file, rows - ends[file], codes

    def _errors(self, path: Path, rows: np.ndarray) -> pa.Table:
        """Return the columns error and detail of rows of a segment."""
        if not self._mapped.index(path).failed:
            return _no_errors(len(rows))
        names = [field.name for field in ERROR_FIELDS]
        batches = list(self._mapped.batches(path, mapped=True))
        for batch in batches:
            self._mapped.checked(path, batch, names)
        return pa.Table.from_batches([batch.select(names) for batch in batches]).take(pa.array(rows))

    def bodies(self, connection: duckdb.DuckDBPyConnection, located: str, columns: str) -> str:
        """Return a SQL relation of `columns` for the rows that `locate` put into the table `located`.

        It is a stream that may be read several times. Put it on the left of a join, within `joined_as_written`.
        """
        places = connection.execute(
            f"SELECT filename, file_row_number FROM {located} ORDER BY ALL"
        ).to_arrow_table()
        return self._relation(connection, places, columns)

    def find_bodies(self, connection: duckdb.DuckDBPyConnection, keys: str, columns: str) -> str:
        """Return such a relation for the keys (input_hash) of the relation `keys`, without those that failed."""
        places = self._located(connection, keys)
        return self._relation(connection, places.filter(pc.is_null(places["error"])), columns)

    def _relation(self, connection: duckdb.DuckDBPyConnection, places: pa.Table, columns: str) -> str:
        """Register the rows at these places, which are in order."""
        names = places["filename"].combine_chunks().dictionary_encode()
        numbers, codes = places["file_row_number"].to_numpy(), names.indices.to_numpy()
        rows = {
            self.folder / name: numbers[codes == code]
            for code, name in enumerate(names.dictionary.to_pylist())
        }
        wanted = [field.name for field in self.schema if re.search(rf"\b{field.name}\b", columns)]
        relation = f"bodies_{self.folder.parent.name}"
        connection.register(relation, _Rows(self._mapped, rows, self.schema, wanted))
        return f"(SELECT {columns} FROM {relation})"

    def merge(self) -> int:
        """Merge segments of about the same size where there are many; return how many were merged.

        So a row is written anew only as often as the memo grows `MERGE_SEGMENTS`-fold. The merged ones are retired:
        nobody finds them from now on, and the next merge deletes them. Until then a process that has found them
        already can read them.
        """
        tiers: dict[int, list[Path]] = {}
        for path in self.files():
            size = path.stat().st_size
            if size < LARGE_SEGMENT_BYTES:
                tiers.setdefault(int(math.log(max(size, 1), MERGE_SEGMENTS)), []).append(path)
        crowded = [paths for paths in tiers.values() if len(paths) > MERGE_SEGMENTS]
        if not crowded:
            return 0
        gone = self._retired()
        for paths in crowded:
            self._merge(paths)
        merged = [path.name for paths in crowded for path in paths]
        listing = self.folder / f".{uuid.uuid4().hex}.tmp"
        listing.write_text("\n".join(merged), encoding="utf-8")
        os.replace(listing, self.folder / RETIRED)
        for name in gone:
            (self.folder / name).unlink(missing_ok=True)
        return len(merged)

    def _merge(self, paths: list[Path]) -> None:
        """Write a segment of the rows of others."""
        indexes = [self._mapped.index(path) for path in paths]
        keys = b"".join(_bytes_of(index.keys) for index in indexes)
        groups = list(_grouped(zip(indexes, (path.stat().st_size for path in paths), strict=True)))
        failed = any(index.failed for index in indexes)
        with (
            self._new_segment(max(path.stat().st_mtime for path in paths)) as segment,
            self._writer(segment.temporary, keys, [sum(sizes) for sizes in groups], failed) as writer,
        ):
            batches = self._all_batches(paths)
            for sizes in groups:
                together = pa.Table.from_batches(itertools.islice(batches, len(sizes))).combine_chunks()
                (batch,) = together.to_batches()
                writer.write_batch(batch)

    def _all_batches(self, paths: list[Path]) -> Iterator[pa.RecordBatch]:
        """Yield all rows of segments as they are stored, checked."""
        for path in paths:
            for batch in self._mapped.batches(path):
                self._mapped.checked(path, batch, self.schema.names)
                # Segments of an earlier version have no checksums.
                yield (
                    batch.select(_stored(self.schema).names)
                    if _has_sums(batch)
                    else _with_sums(batch.select(self.schema.names))
                )

    def keep_only(self, keys: pa.Array, *, before: float = math.inf) -> int:
        """Write segments anew without the rows of other keys than these (binary(16)); return how many rows went.

        Segments whose newest row was written at the time `before` (seconds since 1970) or later stay as they are.
        Nobody else may work with the memo meanwhile. Killed in between, it leaves rows twice or rows that should have
        gone, and whoever begins again ends as it should.
        """
        removed = 0
        retired = self._retired()
        for path in sorted(self.folder.iterdir()):
            if path.suffix != SUFFIX or path.name in retired:
                # A half-written segment, one that a merge has replaced, or the list of these.
                path.unlink()
                continue
            if path.stat().st_mtime >= before:
                continue
            index = self._mapped.index(path)
            live = pc.is_in(index.keys, keys).to_numpy(zero_copy_only=False)
            if not live.all():
                self._rewrite(path, index, live)
                removed += int((~live).sum())
        return removed

    def _rewrite(self, path: Path, index: Index, live: np.ndarray) -> None:
        """Put a segment with some of the rows of another into its place."""
        if live.any():
            ends = np.cumsum(index.sizes)
            parts = np.split(live, ends[:-1])
            kept = _bytes_of(index.keys.filter(pa.array(live)))
            sizes = [int(part.sum()) for part in parts if part.any()]
            with (
                self._new_segment(path.stat().st_mtime) as segment,
                self._writer(segment.temporary, kept, sizes, index.failed) as writer,
            ):
                batches = self._mapped.batches(path)
                for part, batch in zip(parts, batches, strict=True):
                    if part.any():
                        self._mapped.checked(path, batch, self.schema.names, np.flatnonzero(part))
                        chosen = batch.filter(pa.array(part)).select(self.schema.names)
                        writer.write_batch(_with_sums(chosen))
        path.unlink()

    def check(self) -> int:
        """Check all rows of all segments, of whatever schema; return how many are damaged, and moved away now."""
        found = 0
        for path in self.files():
            try:
                for batch in self._mapped.batches(path):
                    names = [name for name in batch.schema.names if not name.endswith(CHECKSUM)]
                    self._mapped.checked(path, batch, names)
            except DamagedError:
                found += 1
        return found

    def _writer(self, path: Path, keys: bytes, sizes: list[int], failed: bool) -> pa.RecordBatchFileWriter:
        index = {
            b"keys": keys,
            b"batches": json.dumps(sizes).encode(),
            b"failed": json.dumps(failed).encode(),
            b"of": _owner(path),
        }
        schema = _stored(self.schema)
        index[b"index"] = _index_checksum(schema, index)
        return pa.ipc.new_file(str(path), schema.with_metadata(index))

    def _retired(self) -> set[str]:
        try:
            return set((self.folder / RETIRED).read_text(encoding="utf-8").split("\n"))
        except FileNotFoundError:
            return set()

    @contextlib.contextmanager
    def _new_segment(self, written: float | None = None) -> Iterator[_NewSegment]:
        """Give a place for a segment, whose rows were written now or before (seconds since 1970)."""
        temporary = self.folder / f".{uuid.uuid4().hex}.tmp"
        segment = _NewSegment(temporary, temporary)
        try:
            yield segment
            with temporary.open("rb") as file:
                os.fsync(file.fileno())
            if written is not None:
                os.utime(temporary, (written, written))
            segment.path = self.folder / f"{_sequence(self.files()):08d}-{uuid.uuid4().hex[:12]}{SUFFIX}"
            os.replace(temporary, segment.path)
        finally:
            temporary.unlink(missing_ok=True)

    @staticmethod
    def _retrying(look: Callable[[], Result]) -> Result:
        # Another process may merge segments between our listing them and opening them.
        for _attempt in range(2):
            with contextlib.suppress(FileNotFoundError):
                return look()
        return look()


class _Rows:
    """Rows of segments as a stream (Arrow's PyCapsule interface), made anew each time it is asked for."""

    def __init__(
        self, mapped: Mapped, rows: Mapping[Path, np.ndarray], schema: pa.Schema, names: list[str]
    ) -> None:
        """Take the numbers of the rows of each segment, in order."""
        self._mapped = mapped
        self._rows = rows
        self.schema = pa.schema([schema.field(name) for name in names])
        self._stored = [name for name in names if name != KEY]

    def __arrow_c_stream__(self, requested_schema: object = None) -> Any:
        reader = pa.RecordBatchReader.from_batches(self.schema, self.batches())
        return reader.__arrow_c_stream__(requested_schema)

    def batches(self) -> Iterator[pa.RecordBatch]:
        """Yield the rows, file by file."""
        for path, rows in self._rows.items():
            yield from self._of_file(path, rows)

    def _of_file(self, path: Path, rows: np.ndarray) -> Iterator[pa.RecordBatch]:
        try:
            yield from self._rows_of_file(path, rows)
        except FileNotFoundError:
            # DuckDB, which asked for the rows, would tell of it in words alone.
            self._mapped.missing.append(path)
            raise

    def _rows_of_file(self, path: Path, rows: np.ndarray) -> Iterator[pa.RecordBatch]:
        index = self._mapped.index(path)
        starts = np.concatenate([[0], np.cumsum(index.sizes, dtype=np.int64)])
        wanted, first = np.unique(np.searchsorted(starts, rows, side="right") - 1, return_index=True)
        many = len(rows) >= SCANNED_SHARE * starts[-1]
        batches = self._mapped.batches(path, self._stored, wanted, mapped=not many)
        for number, batch, part in zip(wanted, batches, np.split(rows, first[1:]), strict=True):
            chosen = part - starts[number]
            self._mapped.checked(path, batch, self._stored, chosen)
            found = batch.select(self._stored)
            if len(part) < batch.num_rows:
                found = found.take(pa.array(chosen))
            yield self._with_keys(found, index, part) if KEY in self.schema.names else found

    def _with_keys(self, batch: pa.RecordBatch, index: Index, rows: np.ndarray) -> pa.RecordBatch:
        """Return a batch with its keys: the index has them at hand, and checked."""
        columns = {name: batch.column(name) for name in self._stored}
        columns[KEY] = pa.ExtensionArray.from_storage(UUID, index.keys.take(pa.array(rows)))
        return pa.RecordBatch.from_arrays([columns[name] for name in self.schema.names], schema=self.schema)


def _grouped(segments: Iterable[tuple[Index, int]]) -> Iterator[list[int]]:
    """Yield the sizes of the batches that are to become one; `segments` are their indexes and bytes.

    A batch is taken for as many bytes as its rows are of its segment. So those of a group are together no more than
    `BATCH_BYTES` and what is in two segments, far from the 2 GiB that a column of strings can hold.
    """
    group: list[int] = []
    bytes_together = 0.0
    for index, size in segments:
        bytes_each = size / max(sum(index.sizes), 1)
        for rows in index.sizes:
            if group and (sum(group) + rows > BATCH_ROWS or bytes_together + rows * bytes_each > BATCH_BYTES):
                yield group
                group, bytes_together = [], 0.0
            group.append(rows)
            bytes_together += rows * bytes_each
    if group:
        yield group


def _opened(path: Path, names: list[str] | None) -> pa.ipc.RecordBatchFileReader:
    """Open a segment to be read, not mapped: pages of a mapped file count as this process's memory."""
    file = pa.OSFile(str(path))
    reader = pa.ipc.open_file(file)
    if names is None:
        return reader
    fields = [reader.schema.get_field_index(name) for name in _with_checksums(names, reader.schema)]
    return pa.ipc.open_file(file, options=pa.ipc.IpcReadOptions(included_fields=fields))


def _index_of(path: Path, schema: pa.Schema) -> Index:
    metadata = schema.metadata
    if b"index" in metadata and metadata[b"index"] != _index_checksum(schema, metadata):
        raise ValueError("the checksum of its index is wrong")
    if metadata.get(b"of", _owner(path)) != _owner(path):
        raise ValueError(f"it belongs to {metadata[b'of'].decode('utf-8', 'replace')}")
    keys, sizes = metadata[b"keys"], json.loads(metadata[b"batches"])
    array = pa.Array.from_buffers(pa.binary(16), len(keys) // 16, [None, pa.py_buffer(keys)])
    return Index(array, sizes, metadata[b"failed"] == b"true")


def _is_short_of_memory(error: Exception, path: Path) -> bool:
    """Tell whether memory was missing, and not asked for by a damaged length: no part is larger than its file."""
    asked = re.search(r"of size (\d+)", str(error)) if isinstance(error, MemoryError) else None
    return isinstance(error, MemoryError) and not (asked and int(asked[1]) > path.stat().st_size)


def _owner(path: Path) -> bytes:
    """Return the stage and the recipe of a segment, by which a file that strayed is known."""
    return "/".join(path.parts[-3:-1]).encode()


def _index_checksum(schema: pa.Schema, index: Mapping[bytes, bytes]) -> bytes:
    found = zlib.crc32("\n".join(f"{field.name} {field.type} {field.nullable}" for field in schema).encode())
    for name in (b"keys", b"batches", b"failed", b"of"):
        found = zlib.crc32(index.get(name, b""), found)
    return str(found).encode()


def _with_sums(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Return a batch with the checksums of its columns' rows behind them."""
    rows = np.arange(batch.num_rows)
    sums = [pa.array(row_checksums(column, rows), pa.uint32()) for column in batch.columns]
    return pa.RecordBatch.from_arrays([*batch.columns, *sums], schema=_stored(batch.schema))


def _has_sums(batch: pa.RecordBatch) -> bool:
    return any(name.endswith(CHECKSUM) for name in batch.schema.names)


def _stored(schema: pa.Schema) -> pa.Schema:
    """Return the schema that rows are stored with: with the checksums of each column."""
    return pa.schema([*schema, *(pa.field(name + CHECKSUM, pa.uint32()) for name in schema.names)])


def _with_checksums(names: list[str], schema: pa.Schema) -> list[str]:
    known = set(schema.names)
    missing = set(names) - known
    if missing:
        raise ValueError(f"it has no column {min(missing)}")
    return [*names, *(name + CHECKSUM for name in names if name + CHECKSUM in known)]


def _found(indexes: list[Index], wanted: pa.Array) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows of the indexes, in order, whose keys are in `wanted`, where they are first; and which they are.

    Keys are hashes, so a few of their bits tell most of them apart: a million keys are looked through for a thousand
    in 5 ms, where Arrow's own look-up of each takes 17.
    """
    likely = np.zeros(1 << PREFIX_BITS, bool)
    likely[_prefixes(wanted)] = True
    prefixes = np.concatenate([_NO_PREFIXES, *(index.prefixes for index in indexes)])
    rows = np.flatnonzero(likely.take(prefixes))
    found = pc.index_in(_all_keys(indexes).take(pa.array(rows)), wanted).combine_chunks()
    known = np.flatnonzero(found.is_valid().to_numpy(zero_copy_only=False))
    codes = found.take(pa.array(known)).to_numpy()
    first = np.full(len(wanted), -1, np.int64)
    first[codes[::-1]] = np.arange(len(codes))[::-1]
    first = np.sort(first[first >= 0])
    return rows[known][first], codes[first]


def _prefixes(keys: pa.Array) -> np.ndarray:
    """Return some bits of each key (binary(16))."""
    halves = np.frombuffer(keys.buffers()[1] or b"", np.uint64)[2 * keys.offset :][: 2 * len(keys)]
    return (halves[::2] >> np.uint64(64 - PREFIX_BITS)).astype(np.uint32)


def _bytes_of(keys: pa.Array) -> bytes:
    """Return keys (binary(16)) one after the other."""
    buffer = keys.buffers()[1]
    return b"" if buffer is None else buffer[16 * keys.offset :][: 16 * len(keys)].to_pybytes()


def has_failed(places: pa.Table) -> bool:
    """Tell whether any of the inputs at these places (see PLACES) has failed."""
    return places["error"].null_count < places.num_rows


def _all_keys(indexes: list[Index]) -> pa.ChunkedArray:
    return pa.chunked_array([index.keys for index in indexes], pa.binary(16))


def _no_errors(count: int) -> pa.Table:
    return pa.table([pa.nulls(count, pa.string())] * 2, schema=pa.schema(ERROR_FIELDS))


def _sequence(files: list[Path]) -> int:
    return int(files[-1].name.split("-")[0]) + 1 if files else 0


class Memo:
    """All stages' segments below one folder."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.quarantine = root.with_name(QUARANTINE)
        self._mapped = Mapped(self.quarantine)

    @property
    def damaged(self) -> list[Damage]:
        """The segments that this process has found damaged."""
        return self._mapped.damaged

    def take_missing(self) -> bool:
        """Tell whether a segment went while it was read, since this was last asked."""
        missing, self._mapped.missing = self._mapped.missing, []
        return bool(missing)

    def check(self) -> list[Damage]:
        """Check every row of every segment; returns those that are damaged, which are moved away."""
        before = len(self.damaged)
        for stage, recipe, _folder in self.recipes():
            self.segments(stage, recipe, pa.schema([])).check()
        return self.damaged[before:]

    def segments(self, stage: str, recipe: str, outputs: pa.Schema) -> Segments:
        """Return the segments of a stage under a recipe; the folder is made with the first of them."""
        return Segments(self.root / stage / recipe, outputs, self._mapped)

    def recipes(self) -> Iterator[tuple[str, str, Path]]:
        """Yield (stage, recipe, folder) of all that the memo holds."""
        for stage in sorted(self.root.iterdir()) if self.root.is_dir() else ():
            for folder in sorted(stage.iterdir()):
                yield stage.name, folder.name, folder

    def keep_only(self, live: Live, *, before: float = math.inf, used: Collection[str] = frozenset()) -> int:
        """Drop what was written before a time and is not live, but nothing of the recipes in `used`.

        Of a recipe that is live other keys go, of all other recipes everything. Returns how many rows went of those
        that are live. Nobody else may work with the memo meanwhile. Raises StemmaError where a segment is damaged.
        """
        self._mapped.clear()
        removed = 0
        for stage, recipe, folder in self.recipes():
            if (stage, recipe) in live:
                outputs, keys = live[stage, recipe]
                removed += self.segments(stage, recipe, outputs).keep_only(keys, before=before)
            elif recipe not in used:
                newest = max((path.stat().st_mtime for path in folder.iterdir()), default=0.0)
                if newest < before:
                    shutil.rmtree(folder)
        # A deleted file takes its space until nobody has it mapped.
        self._mapped.clear()
        return removed

    def empty_quarantine(self, before: float) -> None:
        """Delete the damaged segments that were put aside before a time (seconds since 1970)."""
        for path in self.quarantine.iterdir() if self.quarantine.is_dir() else ():
            if path.stat().st_ctime < before:
                path.unlink()

    def size_bytes(self) -> int:
        """Return the bytes on disk."""
        return sum(path.stat().st_size for path in self.root.rglob(f"*{SUFFIX}"))

    def unmap(self) -> None:
        """Let go of the segments that are mapped into memory; what they hold is still known."""
        self._mapped.unmap()

    def close(self) -> None:
        """Let go of the segments that are mapped into memory, and of what they hold."""
        self._mapped.clear()
