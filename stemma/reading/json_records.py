"""JSON Lines and JSON documents as records, streaming: one bad line or element costs that one."""

import re
from collections.abc import Callable, Iterator
from typing import BinaryIO

from stemma.reading.fields import Place, Rows
from stemma.reading.json_parse import parse_object
from stemma.reading.records import MIB, ReadError, ReadOptions, Record, Unreadable

_BLANK = b" \t\r\n"
# What changes the depth, or the way to read on, while a JSON text is split into its elements.
_STRUCTURE = re.compile(rb'["{}\[\],]')
_STRING_END = re.compile(rb'[^"\\]*+(?:\\.[^"\\]*+)*+"', re.S)
Find = Callable[[bytes, int], re.Match[bytes] | None]
_SPACE = re.compile(rb"[ \t\r\n]*")


def read_jsonl(
    file: BinaryIO, rows: Rows, options: ReadOptions, start: int, encoding: str = "utf_8"
) -> Iterator[Record | ReadError]:
    """Yield a record for each line that holds an object; blank lines are passed over.

    A record without an id is named by its line's 0-based number. Lines end at b"\\n" alone: U+2028 and its
    like are text. `start` is where the first line begins (after a byte order mark). The bytes of a line are
    in `encoding`.
    """
    limit = options.max_record_bytes
    position = 0
    while line := file.readline(limit + 1):
        end = start + len(line)
        if len(line) > limit and not line.endswith(b"\n"):
            end += _skip_line(file)
            detail = f"the line has {end - start} bytes, more than {limit}"
            yield ReadError(str(position), start, end, "too large", detail)
        elif content := line.strip(_BLANK):
            content_end = start + len(line.rstrip(b"\r\n"))
            yield _object(content, rows, Place(position, start, content_end), options, encoding)
        start = end
        position += 1


def _skip_line(file: BinaryIO) -> int:
    """Read to the end of the line; return the number of bytes."""
    skipped = 0
    while part := file.readline(MIB):
        skipped += len(part)
        if part.endswith(b"\n"):
            break
    return skipped


def read_json(
    file: BinaryIO, rows: Rows, options: ReadOptions, start: int, encoding: str = "utf_8"
) -> Iterator[Record | ReadError]:
    """Yield the elements of an array, or the objects of a file; one object alone is one document.

    The bytes are in `encoding`: UTF-8, or one of one byte for each character.
    """
    values = Values(file, start, options.max_record_bytes)
    for position, (begin, end, data) in enumerate(values):
        if position == 0 and values.is_last():
            yield _object(data, rows, Place(0, 0, values.size), options, encoding, only=True)
        else:
            yield _object(data, rows, Place(position, begin, end), options, encoding)


def _object(
    data: bytes, rows: Rows, place: Place, options: ReadOptions, encoding: str, only: bool = False
) -> Record | ReadError:
    try:
        fields = parse_object(_as_utf8(data, encoding), options.max_depth)
    except Unreadable as error:
        record = None if only else str(place.position)
        return ReadError(record, place.byte_start, place.byte_end, error.error, error.detail)
    return rows.record(fields, place, only)


def _as_utf8(data: bytes, encoding: str) -> bytes:
    if encoding == "utf_8":
        return data
    try:
        return data.decode(encoding).encode("utf-8", "replace")
    except UnicodeDecodeError as error:
        raise Unreadable("not UTF-8", f"byte {error.start} is not {encoding}") from error


class Values:
    """The values of a JSON text, unparsed, as (start, end, bytes): an array's elements, or values in a row.

    Only brackets and strings are looked at, so that a value with a fault inside does not hide the next.
    Raises `Unreadable` where the text ends inside a value ("truncated JSON"), something follows the array
    ("invalid JSON"), or a value is longer than the limit ("too large").
    """

    def __init__(self, file: BinaryIO, start: int, limit: int) -> None:
        self.in_array = False
        self._file = file
        self._limit = limit
        # The window on the file, its offset, and inside it the value's beginning and the place reached.
        self._window = b""
        self._offset = start
        self._begin = 0
        self._at = 0

    @property
    def size(self) -> int:
        """The offset of the end of what was read so far."""
        return self._offset + len(self._window)

    def is_last(self) -> bool:
        """Between two values: does the text, no array, end here?"""
        return not self.in_array and not self._next_byte()

    def __iter__(self) -> Iterator[tuple[int, int, bytes]]:
        self.in_array = self._next_byte() == b"["
        if self.in_array:
            self._at += 1
        while byte := self._next_byte():
            if self.in_array and byte == b"]":
                self._at += 1
                if self._next_byte():
                    raise Unreadable("invalid JSON", "something follows the array")
                return
            self._pass_value()
            value = self._window[self._begin : self._at].rstrip(_BLANK)
            start = self._offset + self._begin
            yield start, start + len(value), value
            if self.in_array and self._next_byte() == b",":
                self._at += 1
        if self.in_array:
            raise Unreadable("truncated JSON", "the array is not closed")

    def _next_byte(self) -> bytes:
        """Pass over white space; return the byte that follows, none at the end of the file."""
        while True:
            match = _SPACE.match(self._window, self._at)
            assert match is not None
            self._begin = self._at = match.end()
            if self._at < len(self._window) or not self._more():
                return self._window[self._at : self._at + 1]

    def _pass_value(self) -> None:
        """Move to the end of the value: a string or brackets that are closed, or whatever a comma ends."""
        depth = 0
        while self._find(_STRUCTURE.search):
            token = self._window[self._at : self._at + 1]
            if depth == 0 and token in b",]}" and self._at > self._begin:
                return
            self._at += 1
            if token == b'"':
                if not self._find(_STRING_END.match, again=True):
                    raise Unreadable("truncated JSON", "the text ends inside a string")
                self._at += 1
            elif token in b"{[":
                depth += 1
            elif token in b"]}":
                depth -= 1
            if depth <= 0:
                return
        if depth:
            raise Unreadable("truncated JSON", "the text ends inside a value")

    def _find(self, find: Find, again: bool = False) -> bool:
        """Move to the last byte of the next match; at the end of the file, return False.

        With `again` the bytes passed without a match are looked at again when more are there.
        """
        while True:
            match = find(self._window, self._at)
            if match is not None:
                self._at = match.end() - 1
                return True
            if not again:
                self._at = len(self._window)
            if len(self._window) - self._begin > self._limit:
                raise Unreadable("too large", f"a value has more than {self._limit} bytes")
            if not self._more():
                return False

    def _more(self) -> bool:
        """Read on, and let go of what stands before the value; False at the end of the file."""
        # A window that doubles keeps the copying linear while one long value is gathered.
        part = self._file.read(max(MIB, len(self._window) - self._begin))
        self._window = self._window[self._begin :] + part
        self._offset += self._begin
        self._at -= self._begin
        self._begin = 0
        return bool(part)
