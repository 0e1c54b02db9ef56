"""Files that are one document: plain text, Markdown, reStructuredText, HTML, Texinfo; PDF, Office, e-books."""

import re
from itertools import islice

from stemma.reading.dates import parse_date, path_date
from stemma.reading.encoding import decode
from stemma.reading.formats import BINARY_MEDIA_TYPES, MEDIA_TYPES
from stemma.reading.records import Record

_FRONT_MATTER = re.compile(r"(?:---|\+\+\+)[ \t]*\r?\n")
_FENCE = re.compile(r"^(?:---|\.\.\.|\+\+\+)[ \t]*\r?$", re.M)
_ENTRY = re.compile(r"^([A-Za-z][\w-]{0,60})[ \t]*[:=][ \t]*(\S[^\n]*)$", re.M)
_MAX_ENTRIES = 100
# Front matter is short; a thematic break at the top of a book is not its beginning.
_MAX_FRONT_MATTER = 16 * 1024


def read_text(data: bytes, kind: str, path: str) -> Record:
    """Return a text file as one document; `kind` is a key of `formats.MEDIA_TYPES`."""
    content, encoding = decode(data, declared=kind == "html" or data.startswith(b"<?xml"))
    record = _whole_file(data, MEDIA_TYPES[kind], path)
    record.content = content
    record.encoding = encoding
    if kind == "markdown":
        entries = front_matter(content)
        day = parse_date(entries.get("date"))
        record.title = entries.get("title") or None
        record.metadata |= {name: value for name, value in entries.items() if name not in ("title", "date")}
        if day is not None:
            record.document_date = day
            record.date_from = "front_matter"
    return record


def read_binary(data: bytes, kind: str, path: str) -> Record:
    """Return a PDF, Office file or e-book as one document; cleaning parses its bytes."""
    record = _whole_file(data, BINARY_MEDIA_TYPES[kind], path)
    record.content_bytes = data
    return record


def _whole_file(data: bytes, media_type: str, path: str) -> Record:
    day = path_date(path)
    return Record(None, 0, len(data), media_type, document_date=day, date_from="path" if day else None)


def front_matter(content: str) -> dict[str, str]:
    """Return the simple `key: value` lines of YAML or TOML front matter, keys in small letters.

    Nothing is interpreted: no anchors, no tags, no nesting.
    """
    opening = _FRONT_MATTER.match(content)
    if opening is None:
        return {}
    closing = _FENCE.search(content, opening.end(), opening.end() + _MAX_FRONT_MATTER)
    if closing is None:
        return {}
    values: dict[str, str] = {}
    for match in islice(_ENTRY.finditer(content, opening.end(), closing.start()), _MAX_ENTRIES):
        values.setdefault(match[1].lower(), _unquote(match[2].rstrip()))
    return values


def _unquote(value: str) -> str:
    if len(value) > 1 and value[0] == value[-1] and value[0] in "'\"":
        return value[1:-1]
    return value
