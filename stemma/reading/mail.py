"""Mail: one message (eml) or many in a row (mbox) as documents.

The parts are split here and not by the standard library's parser, whose time grows with the square of hostile
headers and with lines times nesting; it still reads the headers, cut to a length at which that does not matter.
"""

import binascii
import quopri
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import date
from email.errors import MessageError
from email.header import decode_header
from email.message import Message
from email.parser import BytesHeaderParser
from email.utils import parsedate_to_datetime
from typing import Any, BinaryIO

from stemma.reading.dates import parse_date, path_date
from stemma.reading.encoding import decode, decode_header_bytes
from stemma.reading.fields import Keys
from stemma.reading.records import MIB, ReadError, ReadOptions, Record, Unreadable

# The line that begins a message in an mbox file: RFC 4155, and what mailing list archives make of it.
_FROM_LINE = re.compile(rb"From [^\n]{1,200}\d\d:\d\d[^\n]{0,60}\n")
_QUOTED_FROM = re.compile(rb"^>(?=>*From )", re.M)
_HEADERS_END = re.compile(rb"\r?\n\r?\n")
_LINE_FEED = 0x0A
# What the standard library calls the charset of bytes in a header that name none.
_RAW = "unknown-8bit"
_CONTINUATION = re.compile(rb"\r?\n(?=[ \t])")
_MAX_HEADERS = 64 * 1024
_MAX_PART_HEADERS = 8 * 1024
_MAX_VALUE = 2000
# Who wrote to whom, and which list it went to; all else is transport.
_KEPT = {"from": "from", "to": "to", "cc": "cc", "list-id": "list_id", "in-reply-to": "in_reply_to"}


def read_mail(data: bytes, path: str, options: ReadOptions) -> Record:
    """Return a message as one document.

    Its text is that of the text/plain parts, else of the text/html parts, without attachments: those are
    listed in the metadata, with forwarded messages among them. The title is the subject, the date the header's,
    else the path's.

    Raises:
        Unreadable: "too deep" or "too large": parts are nested or repeated beyond the limits.
    """
    headers = _headers(data[:_MAX_HEADERS], _MAX_HEADERS)
    parts = _Parts(data, options)
    parts.add(0, len(data), headers, 0)
    media_type = "text/plain" if parts.plain or not parts.html else "text/html"
    texts = parts.plain or parts.html
    record = Record(None, 0, len(data), media_type, encoding=_encoding(texts))
    record.content = "\n\n".join(text for text, _encoding in texts)
    record.title = _value(headers, "subject") or None
    day, day_of_path = _date(headers), path_date(path)
    record.document_date = day or day_of_path
    record.date_from = "header" if day else "path" if day_of_path else None
    record.metadata = _metadata(headers, parts.attachments)
    return record


def read_mbox(file: BinaryIO, path: str, options: ReadOptions) -> Iterator[Record | ReadError]:
    """Yield each message as a document: its key is its Message-ID, else its position; its bytes are those
    behind the line that begins with "From ".

    Raises:
        Unreadable: "unsupported format": there is no such line.
    """
    keys = Keys()
    position = -1
    for position, (start, end, data) in enumerate(_messages(file, options.max_record_bytes)):
        if data is None:
            detail = f"the message has {end - start} bytes, more than {options.max_record_bytes}"
            yield ReadError(str(position), start, end, "too large", detail)
            continue
        try:
            record = read_mail(_QUOTED_FROM.sub(b"", data), path, options)
        except Unreadable as error:
            yield ReadError(str(position), start, end, error.error, error.detail)
            continue
        record.record = keys.unique(record.metadata.get("message_id") or str(position))
        record.byte_start, record.byte_end = start, end
        yield record
    if position < 0:
        raise Unreadable("unsupported format", "no line of the file begins a message")


def _messages(file: BinaryIO, limit: int) -> Iterator[tuple[int, int, bytes | None]]:
    """Yield (start, end, bytes) of each message; without the bytes where there are more than `limit`."""
    data = bytearray()
    start = at = size = 0
    begun, after_blank = False, True
    while line := file.readline(MIB):
        if after_blank and line.startswith(b"From ") and _FROM_LINE.match(line):
            if begun:
                yield start, start + size, bytes(data) if size <= limit else None
            begun, size, start = True, 0, at + len(line)
            data.clear()
        elif begun:
            size += len(line)
            if size <= limit:
                data += line
        at += len(line)
        after_blank = not line.strip(b"\r\n")
    if begun:
        yield start, start + size, bytes(data) if size <= limit else None


# ---- parts


@dataclass
class _Parts:
    """Gathers the texts and the attachments of a message, part by part.

    A part is a stretch of the message's bytes and never a copy: a hundred nested ones hold nothing twice.
    """

    data: bytes
    options: ReadOptions
    plain: list[tuple[str, str]] = field(default_factory=list)
    html: list[tuple[str, str]] = field(default_factory=list)
    attachments: list[dict[str, Any]] = field(default_factory=list)
    count: int = 0

    def add(self, start: int, end: int, headers: Message, depth: int) -> None:
        """Add the part whose headers and body stand from `start` to `end`."""
        self.count += 1
        if depth > self.options.max_depth:
            raise Unreadable("too deep", f"parts are nested more than {self.options.max_depth} deep")
        if self.count > self.options.max_members:
            raise Unreadable("too large", f"the message has more than {self.options.max_members} parts")
        body = _body_start(self.data, start, end)
        is_multipart = headers.get_content_maintype() == "multipart"
        boundary = _parameter(headers.get_boundary) if is_multipart else None
        if not boundary:
            self._add_leaf(self.data[body:end], headers)
            return
        for part, part_end in _split(self.data, body, end, boundary.encode("utf-8", "surrogateescape")):
            head = self.data[part : min(part_end, part + _MAX_PART_HEADERS)]
            self.add(part, part_end, _headers(head, _MAX_PART_HEADERS), depth + 1)

    def _add_leaf(self, body: bytes, headers: Message) -> None:
        kind = headers.get_content_type()
        name = _text(_parameter(headers.get_filename) or "")
        is_text = kind in ("text/plain", "text/html") or headers.get_content_maintype() == "multipart"
        if is_text and not name and headers.get_content_disposition() != "attachment":
            text = _decoded(body, headers)
            if text[0].strip():
                (self.html if kind == "text/html" else self.plain).append(text)
        elif body.strip():
            size = len(_content(body, headers))
            self.attachments.append({"name": name or None, "media_type": kind, "bytes": size})


def _split(data: bytes, start: int, end: int, boundary: bytes) -> Iterator[tuple[int, int]]:
    """Yield where the parts stand between the lines that begin with two hyphens and the boundary."""
    mark = b"--" + boundary
    begin: int | None = None
    at = start
    while (found := data.find(mark, at, end)) >= 0:
        at = found + len(mark)
        if found > start and data[found - 1] != _LINE_FEED:
            continue
        line_end = data.find(b"\n", at, min(end, at + _MAX_VALUE))
        line_end = min(end, at + _MAX_VALUE) if line_end < 0 else line_end
        is_last = data.startswith(b"--", at, end)
        if data[at + 2 * is_last : line_end].strip(b" \t\r"):
            continue
        if begin is not None:
            yield begin, max(begin, _before_line_end(data, found))
        begin = at = min(end, line_end + 1)
        if is_last:
            return
    # A message that was cut off has no last boundary.
    if begin is not None:
        yield begin, end


def _before_line_end(data: bytes, at: int) -> int:
    """Return where the line end before `at` begins: it belongs to the boundary and not to the part."""
    if data[at - 1 : at] != b"\n":
        return at
    return at - 2 if data[at - 2 : at - 1] == b"\r" else at - 1


def _body_start(data: bytes, start: int, end: int) -> int:
    """Return where the body begins, after the first blank line."""
    if data.startswith((b"\n", b"\r\n"), start, end):
        return start + (1 if data[start] == _LINE_FEED else 2)
    blank = _HEADERS_END.search(data, start, end)
    return end if blank is None else blank.end()


def _content(body: bytes, headers: Message) -> bytes:
    """Undo the transfer encoding; what cannot be undone stays as it is."""
    encoding = str(headers.get("content-transfer-encoding", "")).strip().lower()
    try:
        if encoding == "base64":
            return binascii.a2b_base64(body)
        if encoding == "quoted-printable":
            return quopri.decodestring(body)
    except ValueError:
        # Padding is missing, most often because the message was cut off.
        usable = re.sub(rb"[^A-Za-z0-9+/]", b"", body)
        return binascii.a2b_base64(usable[: len(usable) // 4 * 4])
    return body


def _decoded(body: bytes, headers: Message) -> tuple[str, str]:
    charset = _parameter(headers.get_content_charset)
    data = _content(body, headers).replace(b"\r\n", b"\n")
    return decode(data, declared=headers.get_content_type() == "text/html", charset=charset)


def _encoding(texts: list[tuple[str, str]]) -> str:
    return texts[0][1] if texts else "utf_8"


# ---- headers


def _headers(head: bytes, limit: int) -> Message:
    """Parse the headers at the beginning of a part, each value cut to a length that nothing legitimate has."""
    if head.startswith((b"\n", b"\r\n")):
        return Message()
    end = _HEADERS_END.search(head)
    block = head[: min(limit, end.start() if end else len(head))]
    lines = [line[:_MAX_VALUE] for line in _CONTINUATION.sub(b"", block).split(b"\n")]
    return BytesHeaderParser().parsebytes(b"\n".join(lines) + b"\n\n")


def _parameter(get: Callable[[], str | None]) -> str | None:
    """Return a header's parameter; None also where the library stumbles over the charset that it names."""
    try:
        return get()
    except (ValueError, LookupError, TypeError):
        return None


def _value(headers: Message, name: str) -> str:
    """Return a header's text on one line, its encoded words decoded; empty where there is none."""
    # Not `get`, which replaces bytes that are not ASCII.
    value = next((value for found, value in headers.raw_items() if found.lower() == name), "")
    return " ".join(_text(value, _parameter(headers.get_content_charset)).split())


def _text(value: str, charset: str | None = None) -> str:
    """Decode the encoded words of RFC 2047 in a value; bytes that none names a charset for are in `charset`."""
    try:
        pieces = decode_header(value)
    except (MessageError, ValueError, binascii.Error):
        pieces = [(value, None)]
    named = ((_bytes(piece), None if name == _RAW else name) for piece, name in pieces)
    return "".join(decode_header_bytes(piece, name or charset) for piece, name in named)


def _bytes(piece: bytes | str) -> bytes:
    return piece.encode("utf-8", "surrogateescape") if isinstance(piece, str) else piece


def _date(headers: Message) -> date | None:
    value = _value(headers, "date")
    try:
        return parsedate_to_datetime(value).date()
    except (ValueError, TypeError, IndexError, OverflowError):
        return parse_date(value)


def _metadata(headers: Message, attachments: list[dict[str, Any]]) -> dict[str, Any]:
    metadata: dict[str, Any] = {name: _value(headers, header) for header, name in _KEPT.items()}
    metadata["date"] = _value(headers, "date")
    metadata["message_id"] = _value(headers, "message-id").strip("<> ")
    metadata["attachments"] = attachments
    return {name: value for name, value in metadata.items() if value}
