"""`read`: one file of any format into records and errors."""

import io
from collections.abc import Iterable, Iterator
from typing import BinaryIO

from stemma.reading.archives import Member, Zip, tar_members
from stemma.reading.arrow import read_arrow
from stemma.reading.compression import Decompressed, compression, expansion_limit, stem
from stemma.reading.delimited import read_delimited, sniff_delimiter
from stemma.reading.encoding import (
    byte_order_mark,
    has_one_byte_characters,
    text_encoding,
    wide_encoding,
)
from stemma.reading.fields import Keys, Rows
from stemma.reading.formats import (
    BINARY_MEDIA_TYPES,
    HEAD,
    MEDIA_TYPES,
    detect_format,
    extension_format,
    is_package,
    is_tar,
    is_zip,
)
from stemma.reading.json_records import read_json, read_jsonl
from stemma.reading.mail import read_mail, read_mbox
from stemma.reading.parquet import read_parquet
from stemma.reading.records import ReadError, ReadOptions, Record, Unreadable
from stemma.reading.streams import BUFFER, Budget, Metered, read_fully, read_whole, rewound
from stemma.reading.text import read_binary, read_text
from stemma.reading.warc import read_warc

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
        for result in _read(file, name, options, None):
            if isinstance(result, Record) and (options.labels or options.fields):
                result.labels = _labels(result, options)
            yield result
    except Unreadable as error:
        yield ReadError(None, None, None, error.error, error.detail)


def _labels(record: Record, options: ReadOptions) -> dict[str, object]:
    """Return the labels of a document: what its fields hold, else the constants."""
    found = {label: record.metadata.get(name) for label, name in options.fields}
    return dict(options.labels) | {label: value for label, value in found.items() if value is not None}


def _read(file: BinaryIO, name: str, options: ReadOptions, archive: Budget | None) -> Results:
    """Read a file, or a member of an archive, whose budget `archive` then is."""
    head = read_fully(file, HEAD)
    size = file.seek(0, io.SEEK_END) if archive is None else 0
    file = rewound(file, head)
    unpacked = None
    kind = compression(head)
    if kind is not None:
        if options.format == "auto" and extension_format(name) is not None:
            raise Unreadable("unsupported format", f"it is {kind}-compressed, which its name does not say")
        unpacked = Decompressed(file, kind, options)
        file = io.BufferedReader(unpacked, BUFFER)
        if archive is not None:
            file = io.BufferedReader(Metered(file, archive), BUFFER)
        head = read_fully(file, HEAD)
        file = rewound(file, head)
    name = stem(name)
    if is_zip(head):
        yield from _read_zip(file, name, options, archive)
    elif is_tar(head):
        _refuse_nested(archive)
        budget = Budget(expansion_limit(size, options))
        yield from _read_members(tar_members(file, options), options, budget)
    else:
        yield from _read_content(file, head, name, options)
    if unpacked is not None and unpacked.junk:
        yield ReadError(None, None, None, f"damaged {kind}", f"what follows its end is not {kind}")


def _read_zip(file: BinaryIO, name: str, options: ReadOptions, archive: Budget | None) -> Results:
    data = None if file.seekable() and archive is None else read_whole(file, options)
    opened = Zip(file if data is None else io.BytesIO(data), options)
    kind = opened.document_kind()
    if kind is not None:
        if options.format not in ("auto", kind):
            raise Unreadable("unsupported format", f"it is a document of the format {kind}")
        if data is None:
            file.seek(0)
            data = read_whole(file, options)
        yield read_binary(data, kind, name)
        return
    _refuse_nested(archive)
    if is_package(name):
        raise Unreadable("unsupported format", "it is a program or a package in a ZIP archive")
    size = file.seek(0, io.SEEK_END) if data is None else len(data)
    yield from _read_members(opened.members(), options, Budget(expansion_limit(size, options)))


def _refuse_nested(archive: Budget | None) -> None:
    if archive is not None:
        raise Unreadable("unsupported format", "it is an archive inside an archive")


def _read_members(members: Iterable[Member], options: ReadOptions, budget: Budget) -> Results:
    """Read each member as a file of its own; one that cannot be read costs that member."""
    members_keys, keys = Keys(), Keys()
    for member in members:
        path = members_keys.unique(member.path)
        try:
            for result in _read(member.open(), member.path, options, budget):
                result.record = path if result.record is None else f"{path}#{result.record}"
                if isinstance(result, Record):
                    result.record = keys.unique(result.record)
                yield result
        except Unreadable as error:
            yield ReadError(path, None, None, error.error, error.detail)


def _read_content(file: BinaryIO, head: bytes, name: str, options: ReadOptions) -> Results:
    """Read a file without compression, which stands at its beginning and starts with `head`."""
    if not head:
        yield read_text(b"", "text", name)
        return
    kind = detect_format(head, name) if options.format == "auto" else options.format
    if kind in MEDIA_TYPES:
        yield read_text(read_whole(file, options), kind, name)
    elif kind == "pdf":
        yield read_binary(read_whole(file, options), kind, name)
    elif kind in BINARY_MEDIA_TYPES:
        raise Unreadable("unsupported format", f"it is no document of the format {kind}")
    elif kind == "parquet":
        seekable = file if file.seekable() else io.BytesIO(read_whole(file, options))
        yield from read_parquet(seekable, Rows(name, options, None), options)
    elif kind == "arrow":
        yield from read_arrow(file, Rows(name, options, None), options)
    elif kind == "eml":
        yield read_mail(read_whole(file, options), name, options)
    elif kind == "mbox":
        yield from read_mbox(file, name, options)
    elif kind == "warc":
        yield from read_warc(file, options)
    elif len(head) < HEAD and not head.strip(b" \t\r\n\xef\xbb\xbf"):
        yield read_text(head, "text", name)
    else:
        yield from _read_rows(file, head, kind, name, options)


def _read_rows(file: BinaryIO, head: bytes, kind: str, name: str, options: ReadOptions) -> Results:
    """Read the formats that hold one document in each row."""
    wide = wide_encoding(head)
    if wide is not None:
        yield from _read_wide_rows(file, wide, kind, name, options)
        return
    skip, _ = byte_order_mark(head)
    encoding = text_encoding(head, strict=kind in ("jsonl", "json"))
    if kind in ("csv", "tsv"):
        if b"\r" in head and b"\n" not in head:
            # Lines end as they did on the first Macintosh; the bytes keep their places.
            file = io.BytesIO(read_whole(file, options).replace(b"\r", b"\n"))
            head = head.replace(b"\r", b"\n")
        start = head[skip:].decode(encoding, "replace")
        tabs = kind == "tsv" and (options.format == "tsv" or "\t" in start.partition("\n")[0])
        delimiter = "\t" if tabs else sniff_delimiter(start)
        file.read(skip)
        yield from read_delimited(file, Rows(name, options, encoding), options, skip, encoding, delimiter)
        return
    if kind == "json" and encoding != "utf_8" and not has_one_byte_characters(encoding):
        # The second byte of a character may be a bracket or a quote there.
        yield from _read_wide_rows(file, encoding, kind, name, options)
        return
    file.read(skip)
    rows = Rows(name, options, encoding)
    yield from (read_jsonl if kind == "jsonl" else read_json)(file, rows, options, skip, encoding)


def _read_wide_rows(file: BinaryIO, encoding: str, kind: str, name: str, options: ReadOptions) -> Results:
    """Read rows in UTF-16, UTF-32 and the like, where no byte range is named: the splitters work on UTF-8."""
    data = read_whole(file, options)
    text = data[byte_order_mark(data)[0] :].decode(encoding, "replace").encode("utf-8")
    for result in _read_rows(io.BytesIO(text), text[:HEAD], kind, name, options):
        result.byte_start = result.byte_end = None
        if isinstance(result, Record):
            result.encoding = encoding
        yield result
