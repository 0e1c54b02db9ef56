"""Arrow IPC (files, streams, Feather 2) as records, one batch of rows in memory at a time."""

import io
import struct
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, BinaryIO

from stemma.reading.compression import expansion_limit
from stemma.reading.fields import Rows
from stemma.reading.parquet import batch_records, text_columns
from stemma.reading.records import MIB, ReadError, ReadOptions, Record, Unreadable
from stemma.reading.streams import BUFFER, read_fully

if TYPE_CHECKING:
    import pyarrow as pa

_FILE_MAGIC = b"ARROW1\0\0"
_CONTINUATION = b"\xff\xff\xff\xff"
_MAX_METADATA = 16 * MIB
# Of org.apache.arrow.flatbuf: Message.fbs and Schema.fbs.
_DICTIONARY_BATCH, _RECORD_BATCH = 2, 3
_SLICE_ROWS = 256


def read_arrow(file: BinaryIO, rows: Rows, options: ReadOptions) -> Iterator[Record | ReadError]:
    """Yield a record for each row. Columns of bytes are left out; a row has no byte range.

    A file is read as the stream that it holds between its magic and its footer, which is not looked at.

    Raises:
        Unreadable: "damaged Arrow", "truncated Arrow", "too large", "missing text field", or "text field is
            not text".
    """
    import pyarrow as pa

    messages = _Messages(file, options)
    try:
        stream = pa.ipc.open_stream(io.BufferedReader(messages, BUFFER))
        names = dict.fromkeys(text_columns(stream.schema, options))
        columns = [stream.schema.get_all_field_indices(name)[0] for name in names]
        position = 0
        for batch in stream:
            chosen = batch.select(columns)
            _validate(chosen)
            for start in range(0, chosen.num_rows, _SLICE_ROWS):
                yield from batch_records(chosen.slice(start, _SLICE_ROWS), position + start, rows, options)
            position += batch.num_rows
    except (pa.ArrowException, OSError, NotImplementedError, SystemError, ValueError, LookupError) as error:
        # Arrow has its own words for what the stream itself raised.
        if messages.error is not None:
            raise messages.error from None
        raise Unreadable("damaged Arrow", " ".join(str(error).split())) from error


def _validate(batch: "pa.RecordBatch") -> None:
    """Check all offsets and lengths; text that is not UTF-8 is left to the row that holds it."""
    import pyarrow as pa

    for column in batch.columns:
        if pa.types.is_string(column.type):
            column = column.view(pa.binary())
        elif pa.types.is_large_string(column.type):
            column = column.view(pa.large_binary())
        column.validate(full=True)


class _Messages(io.RawIOBase):
    """The bytes of the stream's messages, each looked at before Arrow allocates what it claims to hold."""

    def __init__(self, file: BinaryIO, options: ReadOptions) -> None:
        self._file = file
        self._options = options
        self._pending = memoryview(b"")
        self._ended = False
        self.error: BaseException | None = None
        head = file.read(len(_FILE_MAGIC))
        if head != _FILE_MAGIC:
            self._pending = memoryview(self._message(head))

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if not self._pending and not self._ended:
            try:
                self._pending = memoryview(self._message(read_fully(self._file, 8)))
            except BaseException as error:
                self.error = error
                raise
        count = min(len(buffer), len(self._pending))
        buffer[:count] = self._pending[:count]
        self._pending = self._pending[count:]
        return count

    def _message(self, prefix: bytes) -> bytes:
        """Return the next message whole: prefix, metadata, body; at the end the bytes that mark it."""
        length = int.from_bytes(prefix[4:8], "little")
        if not prefix or (length == 0 and prefix[:4] == _CONTINUATION):
            self._ended = True
            return prefix
        if len(prefix) < 8 or prefix[:4] != _CONTINUATION:
            raise Unreadable("damaged Arrow", "no message where one should begin")
        if length > _MAX_METADATA:
            raise Unreadable("too large", f"a message's metadata have {length} bytes")
        metadata = self._exactly(length)
        try:
            kind, header, body_length = _parse_message(metadata)
        except (struct.error, IndexError) as error:
            raise Unreadable("damaged Arrow", f"a message's metadata make no sense: {error}") from error
        if not 0 <= body_length <= self._options.max_file_bytes:
            detail = f"a batch has {body_length} bytes, more than {self._options.max_file_bytes}"
            raise Unreadable("too large", detail)
        body = self._exactly(body_length)
        if kind in (_DICTIONARY_BATCH, _RECORD_BATCH):
            self._check_expansion(kind, header, body)
        return prefix + metadata + body

    def _exactly(self, length: int) -> bytes:
        data = read_fully(self._file, length)
        if len(data) < length:
            raise Unreadable("truncated Arrow", f"the file ends {length - len(data)} bytes too early")
        return data

    def _check_expansion(self, kind: int, header: "_Table", body: bytes) -> None:
        """Add up the lengths that compressed buffers declare before their bytes."""
        try:
            batch = header.table(1) if kind == _DICTIONARY_BATCH else header
            if batch is None or batch.table(3) is None:
                return
            starts = [start for start, length in batch.pairs(2) if length >= 8]
            expanded = sum(max(0, struct.unpack_from("<q", body, start)[0]) for start in starts)
        except (struct.error, IndexError) as error:
            raise Unreadable("damaged Arrow", f"a batch's metadata make no sense: {error}") from error
        limit = min(self._options.max_file_bytes, expansion_limit(len(body), self._options))
        if expanded > limit:
            raise Unreadable("too large", f"a batch of {len(body)} bytes expands to {expanded}")


class _Table:
    """A table of a flatbuffer (https://flatbuffers.dev/internals): its fields by their number."""

    def __init__(self, data: bytes, at: int) -> None:
        self._data = data
        self._at = at
        self._vtable = at - self._number("<i", at)
        self._fields = self._number("<H", self._vtable) // 2 - 2

    def _number(self, form: str, at: int) -> int:
        if at < 0:
            raise IndexError("an offset is negative")
        return struct.unpack_from(form, self._data, at)[0]

    def _place(self, field: int) -> int | None:
        offset = self._number("<H", self._vtable + 4 + 2 * field) if field < self._fields else 0
        return self._at + offset if offset else None

    def number(self, field: int, form: str) -> int:
        """Return a number, 0 where it is not given."""
        place = self._place(field)
        return 0 if place is None else self._number(form, place)

    def table(self, field: int) -> "_Table | None":
        """Return the table that a field refers to, None where it is not given."""
        place = self._place(field)
        return None if place is None else _Table(self._data, place + self._number("<I", place))

    def pairs(self, field: int) -> list[tuple[int, int]]:
        """Return a vector of structs of two 64-bit numbers."""
        place = self._place(field)
        if place is None:
            return []
        start = place + self._number("<I", place)
        count = self._number("<I", start)
        if count * 16 > len(self._data):
            raise IndexError("a vector is longer than the message")
        return [struct.unpack_from("<qq", self._data, start + 4 + 16 * index) for index in range(count)]


def _parse_message(metadata: bytes) -> tuple[int, _Table, int]:
    """Return a message's kind, its header, and the length of its body."""
    message = _Table(metadata, int.from_bytes(metadata[:4], "little"))
    header = message.table(2)
    if header is None:
        raise IndexError("it has no header")
    return message.number(1, "<B"), header, message.number(3, "<q")
