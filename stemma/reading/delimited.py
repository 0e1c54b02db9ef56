"""CSV and TSV as records, with the exact bytes of each; a bad row costs that row."""

import csv
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import BinaryIO

from stemma.reading.fields import Place, Rows, find_roles, missing_text_field
from stemma.reading.records import MIB, ReadError, ReadOptions, Record, Unreadable

_DELIMITERS = (",", "\t", ";", "|")
# Stands for "one column": a character that no text has.
_NO_DELIMITER = "\x1f"
_SNIFFED_ROWS = 100
# A quote that is never closed swallows rows up to the record limit before it is found out, and they are read
# again. A file that makes us read more than this again is given up.
_MAX_REREAD = 512 * MIB


@dataclass(slots=True)
class _Line:
    start: int
    end: int
    data: bytes


@dataclass(slots=True)
class _Row:
    """A row as the csv module read it; cells is None where it could not, and error says why."""

    start: int
    end: int
    cells: list[str] | None
    error: tuple[str, str] = ("", "")


def read_delimited(
    file: BinaryIO, rows: Rows, options: ReadOptions, start: int, encoding: str, delimiter: str
) -> Iterator[Record | ReadError]:
    """Yield a record for each row under the header.

    A row without an id is named by its 0-based number. A row with fewer cells than the header, or with more
    that are not empty, is an error: nobody knows which of its cells is the text.

    Raises:
        Unreadable: the header has no text field, or its quotes make no sense.
    """
    csv.field_size_limit(max(csv.field_size_limit(), options.max_record_bytes))
    reader = _Reader(file, start, encoding, delimiter, options.max_record_bytes)
    header = next(reader, None)
    if header is None:
        return
    if header.cells is None:
        raise Unreadable(*header.error)
    names = _column_names(header.cells)
    text_name = find_roles(tuple(names), options).text
    if text_name is None and len(names) == 1 and options.text_field is None:
        names = ["text"]
    elif text_name is None:
        raise Unreadable(*missing_text_field(names, options))
    for position, row in enumerate(reader):
        yield _record(row, names, rows, Place(position, row.start, row.end))


def sniff_delimiter(text: str) -> str:
    """Return the delimiter that cuts most of the first rows into as many cells as the header has."""
    # Not splitlines, which also splits at U+2028 and its like.
    lines = [line + "\n" for line in text.split("\n")]
    if len(lines) > 1:
        lines.pop()
    scores = [(_agreement(lines, delimiter), -rank) for rank, delimiter in enumerate(_DELIMITERS)]
    best, rank = max(scores)
    return _DELIMITERS[-rank] if best else _NO_DELIMITER


def _agreement(lines: list[str], delimiter: str) -> float:
    try:
        rows = list(islice(csv.reader(lines, delimiter=delimiter), _SNIFFED_ROWS))
    except csv.Error:
        return 0.0
    rows = [row for row in rows if row]
    if not rows or len(rows[0]) < 2:
        return 0.0
    return sum(len(row) == len(rows[0]) for row in rows) / len(rows)


def _column_names(cells: list[str]) -> list[str]:
    """Return the header's names, made distinct: unnamed and repeated ones get a number."""
    names: list[str] = []
    for number, cell in enumerate(cells, 1):
        name = cell.strip() or f"column_{number}"
        names.append(name if name not in names else f"{name}#{number}")
    return names


def _record(row: _Row, names: list[str], rows: Rows, place: Place) -> Record | ReadError:
    if row.cells is None:
        return ReadError(str(place.position), row.start, row.end, *row.error)
    cells = row.cells
    while len(cells) > len(names) and not cells[-1]:
        cells.pop()
    if len(cells) != len(names):
        detail = f"{len(cells)} cells under {len(names)} columns"
        return ReadError(str(place.position), row.start, row.end, "wrong number of cells", detail)
    return rows.record(dict(zip(names, cells, strict=True)), place)


class _Reader:
    """The rows of a delimited file, by the csv module, which is fed line by line so that bytes are known."""

    def __init__(self, file: BinaryIO, start: int, encoding: str, delimiter: str, limit: int) -> None:
        self._encoding = encoding
        self._delimiter = delimiter
        self._limit = limit
        self._source = _lines(file, start, limit)
        self._pending: deque[_Line] = deque()
        self._taken: list[_Line] = []
        self._reread = 0
        self._rows = self._csv_rows()

    def __iter__(self) -> "_Reader":
        return self

    def __next__(self) -> _Row:
        """Return the next row that is not blank; one that cannot be read is a row without cells."""
        while True:
            self._taken = []
            try:
                cells = next(self._rows)
            except StopIteration:
                if not self._taken:
                    raise
                return self._give_up_line(("too large", f"the row has more than {self._limit} bytes"))
            except UnicodeDecodeError as error:
                return self._give_up_line(("not UTF-8", f"byte {error.start} is not {error.encoding}"))
            except csv.Error as error:
                open_quote = "unexpected end of data" in str(error)
                detail = "a quote opens here and is never closed" if open_quote else str(error)
                return self._give_up_line(("unbalanced quote" if open_quote else "invalid CSV", detail))
            if cells:
                return _Row(self._taken[0].start, _content_end(self._taken[-1]), cells)

    def _csv_rows(self) -> Iterator[list[str]]:
        return csv.reader(self._feed(), delimiter=self._delimiter, strict=True)

    def _feed(self) -> Iterator[str]:
        """Give the csv module its next line; nothing where the row has grown beyond the limit."""
        while True:
            line = self._pending.popleft() if self._pending else next(self._source, None)
            if line is None:
                return
            self._taken.append(line)
            if line.end - self._taken[0].start > self._limit:
                return
            yield line.data.decode(self._encoding)

    def _give_up_line(self, error: tuple[str, str]) -> _Row:
        """Count the row's first line as bad, unless it makes sense by itself, and read on behind it."""
        first, *others = self._taken
        self._pending.extendleft(reversed(others))
        self._reread += sum(len(line.data) for line in others)
        if self._reread > _MAX_REREAD:
            raise Unreadable("invalid CSV", "too many quotes are never closed")
        self._rows = self._csv_rows()
        return _Row(first.start, _content_end(first), self._lenient(first), error)

    def _lenient(self, line: _Line) -> list[str] | None:
        """Read a line with sloppy quotes, such as `"a" b,c`, where each quote that opens also closes."""
        if line.data.count(b'"') % 2 or line.end - line.start > self._limit:
            return None
        try:
            rows = list(csv.reader([line.data.decode(self._encoding)], delimiter=self._delimiter))
        except (csv.Error, UnicodeDecodeError):
            return None
        return rows[0] if len(rows) == 1 else None


def _content_end(line: _Line) -> int:
    return line.start + len(line.data.rstrip(b"\r\n"))


def _lines(file: BinaryIO, start: int, limit: int) -> Iterator[_Line]:
    """Yield lines with their ends; a line over the limit comes without its content."""
    while data := file.readline(limit + 1):
        end = start + len(data)
        if len(data) > limit:
            while not data.endswith(b"\n") and (data := file.readline(MIB)):
                end += len(data)
            data = b""
        yield _Line(start, end, data)
        start = end
