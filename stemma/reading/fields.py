"""From the fields of one row or object to a document: which is the text, the key, the date, the title."""

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import date, datetime, time
from decimal import Decimal
from functools import lru_cache
from typing import Any
from uuid import UUID

from stemma.reading.dates import parse_date, path_date
from stemma.reading.encoding import replace_surrogates
from stemma.reading.formats import looks_like_html
from stemma.reading.records import ReadError, ReadOptions, Record

# Tried in this order, first as written here, then without regard to case.
TEXT_FIELDS = (
    "text",
    "content",
    "body",
    "html",
    "raw_content",
    "page_content",
    "raw",
    "markdown",
    "document",
    "article",
    "passage",
    "abstract",
    "description",
    "summary",
    "message",
    "comment",
    "review",
)
ID_FIELDS = ("id", "_id", "uuid", "guid", "key", "doc_id", "docid", "document_id", "url", "uri", "link")
DATE_FIELDS = (
    "date",
    "published",
    "published_at",
    "publish_date",
    "pubdate",
    "created",
    "created_at",
    "timestamp",
    "datetime",
    "time",
    "ts",
    "updated",
    "updated_at",
    "modified",
    "fetched_at",
    "crawled_at",
)
TITLE_FIELDS = ("title", "headline", "subject", "name")
_MARKUP_FIELDS = {"html": "text/html", "markdown": "text/markdown"}


@dataclass(frozen=True)
class Place:
    """Where a row or object stands: its position among the others and its bytes."""

    position: int
    byte_start: int | None = None
    byte_end: int | None = None


class Keys:
    """Gives each document of a file a key of its own: the first keeps it, later ones get "#2", "#3" …"""

    def __init__(self) -> None:
        self._counts: dict[str, int] = {}

    def unique(self, key: str) -> str:
        count = self._counts.get(key, 0) + 1
        self._counts[key] = count
        if count == 1:
            return key
        return self.unique(f"{key}#{count}")


class Rows:
    """Turns the fields of a file's rows or objects into records.

    A row is judged by its own fields, so that a record never depends on its neighbours: only on whether
    one of them bears the same key.
    """

    def __init__(self, path: str, options: ReadOptions, encoding: str | None) -> None:
        self._options = options
        self._encoding = encoding
        self._path_date = path_date(path)
        self._keys = Keys()

    def record(self, fields: Mapping[str, Any], place: Place, only: bool = False) -> Record | ReadError:
        """Return the document in `fields`; with `only`, the file is this one document and needs no key."""
        roles = find_roles(tuple(fields), self._options)
        key = None if only else _key(fields, roles) or str(place.position)
        name = _text_name(fields, roles)
        value = None if name is None else fields[name]
        if name is None or not isinstance(value, str):
            return ReadError(key, place.byte_start, place.byte_end, *_text_error(fields, name, self._options))
        title = None if roles.title is None else fields[roles.title]
        day, date_name = self._date(fields, roles)
        found = {"text": name, "id": roles.id, "date": date_name, "title": roles.title}
        return Record(
            record=None if key is None else self._keys.unique(key),
            byte_start=place.byte_start,
            byte_end=place.byte_end,
            media_type=_media_type(name, value),
            encoding=self._encoding,
            content=replace_surrogates(value),
            document_date=day or self._path_date,
            date_from="field" if day else "path" if self._path_date else None,
            title=replace_surrogates(title) if isinstance(title, str) and title else None,
            metadata=json_able({k: v for k, v in fields.items() if k != name}),
            fields={role: replace_surrogates(field) for role, field in found.items() if field is not None},
        )

    def _date(self, fields: Mapping[str, Any], roles: "Roles") -> tuple[date | None, str | None]:
        """Return the first date in the fields, and the name of its field."""
        for name in roles.dates:
            day = parse_date(fields[name])
            if day is not None:
                return day, name
        return None, None


@dataclass(frozen=True)
class Roles:
    """Which field is what; `dates` are tried in order until one holds a date, `texts` until one holds text."""

    texts: tuple[str, ...]
    id: str | None
    title: str | None
    dates: tuple[str, ...]

    @property
    def text(self) -> str | None:
        """The text's field by its name alone."""
        return self.texts[0] if self.texts else None


@lru_cache(maxsize=256)
def find_roles(names: tuple[str, ...], options: ReadOptions) -> Roles:
    """Return the roles of the fields of these names: as chosen in the options, or guessed by name."""
    texts = tuple(_found(names, TEXT_FIELDS, options.text_field))
    return Roles(
        texts,
        next(_found(names, ID_FIELDS, options.id_field), None),
        next(
            (name for name in _found(names, TITLE_FIELDS, options.title_field) if name not in texts[:1]), None
        ),
        tuple(_found(names, DATE_FIELDS, options.date_field)),
    )


def _found(names: tuple[str, ...], candidates: tuple[str, ...], chosen: str | None) -> Iterator[str]:
    """Yield the chosen name if it is among `names`; without a choice, each candidate that is."""
    if chosen is not None:
        yield from (name for name in names if name == chosen)
        return
    yield from (candidate for candidate in candidates if candidate in names)
    folded = {name.casefold(): name for name in reversed(names) if name not in candidates}
    yield from (folded[candidate] for candidate in candidates if candidate in folded)


def _text_name(fields: Mapping[str, Any], roles: Roles) -> str | None:
    """Return the first field of those guessed that holds text; where all are empty, the first of them."""
    for name in roles.texts:
        value = fields[name]
        if isinstance(value, str):
            if value and not value.isspace():
                return name
        elif value is not None:
            # What holds something else first is an error, as its name would have it.
            break
    return roles.text


def _key(fields: Mapping[str, Any], roles: Roles) -> str | None:
    value = None if roles.id is None else fields[roles.id]
    if value is None or isinstance(value, bool | list | dict):
        return None
    return replace_surrogates(str(value))


def missing_text_field(names: Iterable[str], options: ReadOptions) -> tuple[str, str]:
    """Return error and detail for rows without a text field."""
    shown = ", ".join(repr(name) for name in list(names)[:20]) or "none"
    if options.text_field is not None:
        return "missing text field", f"no field {options.text_field!r}; there are: {shown}"
    return "missing text field", f"no field looks like the text; set text_field to one of: {shown}"


def _text_error(fields: Mapping[str, Any], name: str | None, options: ReadOptions) -> tuple[str, str]:
    if name is None:
        return missing_text_field(fields, options)
    if fields[name] is None:
        return "empty text field", f"the field {name!r} is null"
    return "text field is not text", f"the field {name!r} holds a {type(fields[name]).__name__}"


def _media_type(name: str, value: str) -> str:
    named = _MARKUP_FIELDS.get(name.casefold())
    if named is not None:
        return named
    return "text/html" if looks_like_html(value) else "text/plain"


def json_able(value: Any) -> Any:
    """Return a value as JSON can hold it: dates in ISO form, no NaN, no lone surrogates, no bytes."""
    match value:
        case str():
            return replace_surrogates(value)
        case None | bool() | int():
            return value
        case float():
            return value if math.isfinite(value) else None
        case list() | tuple():
            return [json_able(item) for item in value]
        case dict():
            return {replace_surrogates(str(k)): json_able(v) for k, v in value.items()}
        case date() | datetime() | time():
            return value.isoformat()
        case Decimal() | UUID():
            return str(value)
        case _:
            return None if isinstance(value, bytes) else str(value)
