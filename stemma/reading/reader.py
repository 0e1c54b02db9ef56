"""`read`: one file of any format into records and errors."""

import io
from collections.abc import Iterator
from typing import BinaryIO

from stemma.reading.compression import compression, decompress, stem
from stemma.reading.delimited import read_delimited, sniff_delimiter, text_encoding
from stemma.reading.encoding import byte_order_mark, wide_encoding
from stemma.reading.fields import Rows
from stemma.reading.formats import HEAD, MEDIA_TYPES, detect_format, extension_format
from stemma.reading.json_records import read_json, read_jsonl
from stemma.reading.parquet import read_parquet
from stemma.reading.records import MIB, ReadError, ReadOptions, Record, Unreadable
from stemma.reading.text import read_pdf, read_text

DEFAULTS = ReadOptions()

Results = Iterator[Record | ReadError]


def read(file: BinaryIO, name: str, options: ReadOptions = DEFAULTS) -> Results:
    """Yield the documents of a file, in order, streaming; an empty file is one document without content.

    Bad content never raises: what cannot be read comes as a `ReadError`, and the rest follows. A
    `ReadError` whose record is None speaks of the file, or of what is left of it.

    Args:
        file: seekable, standing at its beginning. Errors of its own (OSError,
            RetryableError) pass through.
        name: the file's name or its path in the source; extension and date are taken from it.
        options: see `ReadOptions`.
    """
    try:
        yield from _read(file, name, options)
    except Unreadable as error:
        yield ReadError(None, None, None, error.error, error.detail)


def _read(file: BinaryIO, name: str, options: ReadOptions) -> Results:
    head = _read_fully(file, HEAD)
    kind = compression(head)
    if kind is not None:
        if options.format == "auto" and extension_format(name) is not None:
            raise Unreadable("unsupported format", f"it is {kind}-compressed, which its name does not say")
        file.seek(0)
        head = _read_fully(decompress(file, kind, options), HEAD)
    file.seek(0)
    # Decompressing the head twice is cheaper than a stream that can be put back.
    stream = file if kind is None else decompress(file, kind, options)
    yield from _read_content(stream, head, stem(name), options)


def _read_content(file: BinaryIO, head: bytes, name: str, options: ReadOptions) -> Results:
    """Read a file without compression, which stands at its beginning and starts with `head`."""
    if not head:
        yield read_text(b"", "text", name)
        return
    kind = detect_format(head, name) if options.format == "auto" else options.format
    if kind in MEDIA_TYPES:
        yield read_text(_whole(file, head, options), kind, name)
    elif kind == "pdf":
        yield read_pdf(_whole(file, head, options), name)
    elif kind == "parquet":
        seekable = file if file.seekable() else io.BytesIO(_whole(file, head, options))
        yield from read_parquet(seekable, Rows(name, options, None), options)
    elif len(head) < HEAD and not head.strip(b" \t\r\n\xef\xbb\xbf"):
        yield read_text(head, "text", name)
    else:
        yield from _read_rows(file, head, kind, name, options)


def _read_rows(file: BinaryIO, head: bytes, kind: str, name: str, options: ReadOptions) -> Results:
    """Read the formats that hold one document in each row."""
    wide = wide_encoding(head)
    if wide is not None:
        yield from _read_wide_rows(file, head, wide, kind, name, options)
        return
    skip, _ = byte_order_mark(head)
    if kind in ("csv", "tsv"):
        encoding = text_encoding(head)
        if b"\r" in head and b"\n" not in head:
            # Lines end as they did on the first Macintosh; the bytes keep their places.
            file = io.BytesIO(_whole(file, head, options).replace(b"\r", b"\n"))
            head = head.replace(b"\r", b"\n")
        delimiter = "\t" if kind == "tsv" else sniff_delimiter(head[skip:].decode(encoding, "replace"))
        file.read(skip)
        yield from read_delimited(file, Rows(name, options, encoding), options, skip, encoding, delimiter)
        return
    file.read(skip)
    rows = Rows(name, options, "utf_8")
    yield from (read_jsonl if kind == "jsonl" else read_json)(file, rows, options, skip)


def _read_wide_rows(
    file: BinaryIO, head: bytes, encoding: str, kind: str, name: str, options: ReadOptions
) -> Results:
    """Read rows in UTF-16 or UTF-32, where no byte range can be named: the splitters work on UTF-8."""
    data = _whole(file, head, options)
    text = data[byte_order_mark(data)[0] :].decode(encoding, "replace").encode("utf-8")
    for result in _read_rows(io.BytesIO(text), text[:HEAD], kind, name, options):
        result.byte_start = result.byte_end = None
        if isinstance(result, Record):
            result.encoding = encoding
        yield result


def _whole(file: BinaryIO, head: bytes, options: ReadOptions) -> bytes:
    """Return all bytes of the file, which stands at its beginning; raises where there are too many."""
    data = head if len(head) < HEAD else _read_fully(file, options.max_file_bytes + 1)
    if len(data) > options.max_file_bytes:
        detail = f"the file has more than {options.max_file_bytes} bytes and must be read as a whole"
        raise Unreadable("too large", detail)
    return data


def _read_fully(file: BinaryIO, limit: int) -> bytes:
    """Read up to `limit` bytes, without claiming the memory for them beforehand."""
    parts: list[bytes] = []
    left = limit
    while left > 0 and (part := file.read(min(left, MIB))):
        parts.append(part)
        left -= len(part)
    return b"".join(parts)
