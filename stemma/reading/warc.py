"""Web archives (WARC) as records: one document for each page that a server answered with."""

import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, BinaryIO

from stemma.reading.compression import expansion_limit
from stemma.reading.dates import parse_date
from stemma.reading.encoding import decode, decode_header_bytes
from stemma.reading.fields import Keys
from stemma.reading.formats import looks_like_html
from stemma.reading.records import MIB, ReadError, ReadOptions, Record, Unreadable
from stemma.reading.streams import read_fully

# Other types have no headers of a page, or none of its content (request, metadata, revisit, warcinfo …).
_DOCUMENTS = frozenset({"response", "resource", "conversion"})
_TEXTS = frozenset({"text/html", "application/xhtml+xml", "text/plain", "text/markdown", "text/x-rst"})
_UNKNOWN = frozenset({"", "application/octet-stream", "unknown/unknown"})
_VERSION = re.compile(rb"WARC/\d\.\d+\s*$")
_STATUS = re.compile(rb"HTTP/\d(?:\.\d)? (\d{3})")
_HTTP_HEAD_END = re.compile(rb"\r?\n\r?\n")
_CHARSET = re.compile(r"charset\s*=\s*[\"']?([A-Za-z0-9_.:-]{2,40})", re.I)
_MAX_LINE = 64 * 1024
_MAX_HEADERS = 1000
_MAX_HTTP_HEAD = MIB
# Far beyond what servers apply; each layer may expand anew.
_MAX_ENCODINGS = 3

Headers = dict[str, str]


@dataclass
class _Entry:
    """One WARC record: its position among all, its bytes, its headers (names in small letters) and block."""

    position: int
    start: int
    end: int = 0
    headers: Headers = field(default_factory=dict)
    block: bytes = b""
    error: tuple[str, str] | None = None

    @property
    def key(self) -> str:
        """The page's address, else the record's id, else its position."""
        found = self.headers.get("warc-target-uri") or self.headers.get("warc-record-id", "")
        return found.strip("<> ") or str(self.position)


def read_warc(file: BinaryIO, options: ReadOptions) -> Iterator[Record | ReadError]:
    """Yield a document for each text or PDF that the archive holds: response (with a status of 200 to 299),
    resource and conversion records.

    The key is the page's address (a page that was fetched again gets "#2"); the bytes are those of the whole
    WARC record in the decompressed file. The date is the page's Last-Modified, else the day it was fetched.
    A record that is damaged inside costs itself; one whose frame is, the rest of the file.

    Raises:
        Unreadable: "damaged WARC" or "truncated WARC": what follows cannot be told apart.
    """
    keys = Keys()
    for entry in _entries(file, options):
        try:
            if entry.error is not None:
                raise Unreadable(*entry.error)
            record = _document(entry, options)
        except Unreadable as error:
            yield ReadError(entry.key, entry.start, entry.end, error.error, error.detail)
            continue
        if record is not None:
            record.record = keys.unique(entry.key)
            yield record


def _entries(file: BinaryIO, options: ReadOptions) -> Iterator[_Entry]:
    """Yield the records that may be documents."""
    at = position = 0
    while line := file.readline(_MAX_LINE):
        start, at = at, at + len(line)
        if not line.strip():
            continue
        if not _VERSION.match(line):
            raise Unreadable("damaged WARC", f"no record where one should begin, at byte {start}")
        entry = _Entry(position, start)
        entry.headers, length = _read_headers(file)
        at += length
        size = entry.headers.get("content-length", "")
        if not (size.isascii() and size.isdigit() and len(size) < 19):
            raise Unreadable("damaged WARC", f"the record at byte {start} does not say how long it is")
        entry.end = at = at + int(size)
        _read_block(file, int(size), entry, options)
        if entry.headers.get("warc-type", "").lower() in _DOCUMENTS:
            yield entry
        position += 1


def _read_headers(file: BinaryIO) -> tuple[Headers, int]:
    """Read headers up to the blank line; return them with the number of bytes."""
    lines: list[bytes] = []
    length = 0
    while line := file.readline(_MAX_LINE):
        length += len(line)
        if not line.strip(b"\r\n"):
            return _headers(lines), length
        lines.append(line)
        if len(lines) > _MAX_HEADERS:
            raise Unreadable("damaged WARC", f"a record has more than {_MAX_HEADERS} headers")
    raise Unreadable("truncated WARC", "the file ends inside the headers of a record")


def _headers(lines: list[bytes]) -> Headers:
    """Return headers by name, the first of each; a line that begins with a blank continues the one before."""
    found: list[tuple[str, list[str]]] = []
    for line in lines:
        text = decode_header_bytes(line.rstrip(b"\r\n"))
        if text[:1] in (" ", "\t") and found:
            found[-1][1].append(text.strip())
            continue
        name, _, value = text.partition(":")
        found.append((name.strip().lower(), [value.strip()]))
    headers: Headers = {}
    for name, values in found:
        headers.setdefault(name, " ".join(values))
    return headers


def _read_block(file: BinaryIO, size: int, entry: _Entry, options: ReadOptions) -> None:
    """Read a record's block; one that is too large is passed over."""
    if size > options.max_record_bytes:
        entry.error = ("too large", f"the record has {size} bytes, more than {options.max_record_bytes}")
        left = size
        while left and (part := file.read(min(left, MIB))):
            left -= len(part)
    else:
        entry.block = read_fully(file, size)
        left = size - len(entry.block)
    if left:
        raise Unreadable("truncated WARC", f"the file ends inside the record at byte {entry.start}")


def _document(entry: _Entry, options: ReadOptions) -> Record | None:
    """Return the document in a record, None where it is none: an image, a redirection, a missing page."""
    if entry.key.startswith("metadata:"):
        return None  # what the crawler says of itself
    http: Headers = {}
    payload, declared = entry.block, entry.headers.get("content-type", "")
    if declared.startswith("application/http"):
        status, http, payload = _split_http(entry.block)
        if not 200 <= status < 300:
            return None
        declared = http.get("content-type", "")
    elif entry.headers.get("warc-type", "").lower() == "response":
        return None  # of DNS or another protocol
    media_type = declared.split(";")[0].strip().lower()
    if media_type not in _TEXTS and media_type != "application/pdf" and media_type not in _UNKNOWN:
        return None
    data = _decoded(payload, http, options)
    record = _record(data, media_type, declared)
    if record is None:
        return None
    record.byte_start, record.byte_end = entry.start, entry.end
    record.metadata = _metadata(entry.headers, http)
    _date(record, entry.headers, http)
    return record


def _record(data: bytes, media_type: str, declared: str) -> Record | None:
    if data.startswith(b"%PDF-"):
        return Record(None, None, None, "application/pdf", content_bytes=data)
    if media_type == "application/pdf":
        raise Unreadable("unsupported format", "it is said to be a PDF and is none")
    if not data.strip():
        return None
    charset = _CHARSET.search(declared)
    content, encoding = decode(
        data, declared="html" in media_type or not media_type, charset=charset and charset[1]
    )
    is_html = looks_like_html(content)
    if media_type in _UNKNOWN:
        if not is_html:
            return None
        media_type = "text/html"
    elif media_type == "text/plain" and is_html:
        media_type = "text/html"
    return Record(None, None, None, media_type, encoding=encoding, content=content)


def _metadata(warc: Headers, http: Headers) -> dict[str, Any]:
    metadata = {
        "uri": warc.get("warc-target-uri", "").strip("<> "),
        "warc_record_id": warc.get("warc-record-id", "").strip("<> "),
        "warc_date": warc.get("warc-date"),
        "content_type": http.get("content-type"),
        "content_language": http.get("content-language"),
        "last_modified": http.get("last-modified"),
    }
    return {name: value for name, value in metadata.items() if value}


def _date(record: Record, warc: Headers, http: Headers) -> None:
    for value, place in ((http.get("last-modified"), "last_modified"), (warc.get("warc-date"), "warc_date")):
        record.document_date = parse_date(value)
        if record.document_date is not None:
            record.date_from = place
            return


# ---- HTTP


def _split_http(block: bytes) -> tuple[int, Headers, bytes]:
    """Return status, headers and body of an HTTP response."""
    end = _HTTP_HEAD_END.search(block, 0, _MAX_HTTP_HEAD)
    head = block[: end.start()] if end else block[:_MAX_HTTP_HEAD]
    status = _STATUS.match(head)
    if status is None:
        raise Unreadable("damaged HTTP", "the response has no status line")
    lines = head.split(b"\n")[1:]
    return int(status[1]), _headers(lines[:_MAX_HEADERS]), block[end.end() :] if end else b""


def _decoded(body: bytes, http: Headers, options: ReadOptions) -> bytes:
    """Return the content of a body: chunks joined, compression undone within the limits."""
    if http.get("transfer-encoding", "").lower().endswith("chunked"):
        body = _joined_chunks(body)
    encodings = [name.strip() for name in http.get("content-encoding", "").lower().split(",")]
    if len(encodings) > _MAX_ENCODINGS:
        raise Unreadable("unsupported format", f"the page is compressed {len(encodings)} times")
    limit = min(options.max_record_bytes, expansion_limit(len(body), options))
    for encoding in reversed(encodings):
        body = _decompressed(body, encoding, limit)
    return body


def _joined_chunks(body: bytes) -> bytes:
    """Join the chunks of a body. One that is not chunked stays as it is: crawlers write what they joined."""
    joined = bytearray()
    at = 0
    while (end := body.find(b"\n", at, at + 1024)) >= 0:
        digits = body[at:end].split(b";")[0].strip()
        if not re.fullmatch(rb"[0-9A-Fa-f]{1,8}", digits):
            break
        size = int(digits, 16)
        if size == 0:
            return bytes(joined)
        joined += body[end + 1 : end + 1 + size]
        at = end + 1 + size
        # The line end behind a chunk.
        at += 2 if body.startswith(b"\r\n", at) else 1
    if not joined:
        return body
    if at < len(body):
        raise Unreadable("damaged HTTP", "a chunk's length is no number")
    raise Unreadable("truncated HTTP", "the last chunk is missing")


def _decompressed(body: bytes, encoding: str, limit: int) -> bytes:
    if encoding in ("", "identity", "none"):
        return body
    if encoding in ("gzip", "x-gzip"):
        # Crawlers that undo the compression keep the header.
        return _inflated(body, 31, limit) if body.startswith(b"\x1f\x8b") else body
    if encoding == "deflate":
        return _inflated(body, 15 if body[:1] == b"\x78" else -15, limit)
    if encoding == "br":
        return _brotli(body, limit)
    raise Unreadable("unsupported format", f"the page is compressed as {encoding[:40]!r}")


def _inflated(body: bytes, window: int, limit: int) -> bytes:
    state = zlib.decompressobj(window)
    try:
        output = state.decompress(body, limit + 1)
    except zlib.error as error:
        raise Unreadable("damaged HTTP", f"the page's compression is damaged: {error}") from error
    if len(output) > limit:
        raise Unreadable("too large", f"the page expands to more than {limit} bytes")
    if not state.eof:
        raise Unreadable("truncated HTTP", "the page's compressed content ends too early")
    return output


def _brotli(body: bytes, limit: int) -> bytes:
    try:
        import brotli
    except ImportError:
        raise Unreadable("unsupported format", "the page is compressed with Brotli: install brotli") from None
    state = brotli.Decompressor()
    parts: list[bytes] = []
    size = 0
    try:
        part = state.process(body, output_buffer_limit=MIB)
        while part or not state.is_finished():
            parts.append(part)
            size += len(part)
            if size > limit:
                raise Unreadable("too large", f"the page expands to more than {limit} bytes")
            if not part and state.can_accept_more_data():
                raise Unreadable("truncated HTTP", "the page's compressed content ends too early")
            if state.is_finished():
                break
            part = state.process(b"", output_buffer_limit=MIB)
    except brotli.error as error:
        raise Unreadable("damaged HTTP", f"the page's compression is damaged: {error}") from error
    return b"".join(parts)
