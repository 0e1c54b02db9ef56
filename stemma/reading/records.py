"""What reading yields: a `Record` for each document, a `ReadError` for each thing that could not be read."""

from dataclasses import dataclass, field
from datetime import date
from typing import Any

from stemma.errors import UsageError

MIB = 2**20

# The names that `ReadOptions.format` takes.
FORMATS = (
    *("auto", "text", "markdown", "rst", "html", "texinfo", "pdf", "docx", "pptx", "xlsx", "epub"),
    *("jsonl", "json", "csv", "tsv", "parquet", "arrow", "warc", "mbox", "eml"),
)
Label = str | int | float | bool


@dataclass(slots=True)
class Record:
    """One document as it stands in its file.

    Attributes:
        record: key or 0-based position in the file; None where the file is one document. In an archive it
            begins with the member's path: "docs/a.md", "docs/a.jsonl#key".
        byte_start: first byte in the decompressed file, or in the archive's member; None where bytes cannot
            be named (Parquet, Arrow, UTF-16).
        byte_end: byte after the last one.
        media_type: for example text/plain, text/markdown, text/x-rst, text/html, text/x-texinfo,
            application/pdf.
        encoding: Python's name of the encoding that the content was decoded from; None for binary formats.
        content: the decoded text, valid UTF-8 (no lone surrogates); control characters are kept.
        content_bytes: the bytes of a binary format, which cleaning parses.
        document_date: the day that the document bears.
        date_from: where that was found: "field", "front_matter", "header" (of a mail), "last_modified" or
            "warc_date" (of a web archive), "path"; None without a date.
        title: the document's own title, where a field, header or front matter holds one.
        metadata: the other fields, JSON-able (no NaN, no infinity, no lone surrogates).
        fields: which field of a row or object was taken for what, chosen or guessed: for example
            {"text": "body", "id": "url"}; empty where the document has no fields.
        labels: the labels of `ReadOptions`, by their unified names.
    """

    record: str | None
    byte_start: int | None
    byte_end: int | None
    media_type: str
    encoding: str | None = None
    content: str | None = None
    content_bytes: bytes | None = None
    document_date: date | None = None
    date_from: str | None = None
    title: str | None = None
    metadata: dict[str, Any] = field(default_factory=dict)
    fields: dict[str, str] = field(default_factory=dict)
    labels: dict[str, Any] = field(default_factory=dict)


@dataclass(slots=True)
class ReadError:
    """What could not be read: a record, or (record None) the file or the rest of it.

    Attributes:
        record: key or 0-based position in the file; None for the file.
        byte_start: first byte in the decompressed file, where known.
        byte_end: byte after the last one, where known.
        error: the class of the error, such as "invalid JSON" or "truncated gzip".
        detail: one clear line.
    """

    record: str | None
    byte_start: int | None
    byte_end: int | None
    error: str
    detail: str


@dataclass(frozen=True)
class ReadOptions:
    """How a file is read; part of the recipe of everything that comes of it.

    Attributes:
        format: "auto", or one of `FORMATS`.
        text_field: the field that holds a record's text; None guesses by name (see `stemma.reading.fields`).
        id_field: the field that holds a record's key; None guesses by name.
        date_field: the field that holds a record's date; None guesses by name.
        title_field: the field that holds a record's title; None guesses by name.
        fields: (label, field) pairs: what the field of the metadata holds becomes that label.
        labels: (label, value) pairs for documents without such a field.
        max_record_bytes: limit for one record of a JSONL, JSON, CSV, Parquet, Arrow, WARC or mbox file.
        max_file_bytes: limit for what must be held in memory as a whole: a text, a PDF, a batch of Arrow rows.
        max_expansion: limit of decompressed to compressed bytes, beyond the first 16 MiB.
        max_expanded_bytes: limit of decompressed bytes.
        max_depth: limit for the nesting of JSON values and of the parts of a mail.
        max_members: limit for the members of an archive, and for the parts of a mail.

    Raises:
        UsageError: the format is unknown or a limit is not positive.
    """

    format: str = "auto"
    text_field: str | None = None
    id_field: str | None = None
    date_field: str | None = None
    title_field: str | None = None
    fields: tuple[tuple[str, str], ...] = ()
    labels: tuple[tuple[str, Label], ...] = ()
    max_record_bytes: int = 64 * MIB
    max_file_bytes: int = 256 * MIB
    max_expansion: int = 200
    max_expanded_bytes: int = 64 * 1024 * MIB
    max_depth: int = 100
    max_members: int = 10_000

    def __post_init__(self) -> None:
        if self.format not in FORMATS:
            raise UsageError(f"unknown format {self.format!r}; one of {', '.join(FORMATS)}")
        for name, value in vars(self).items():
            if name.startswith("max_") and value < 1:
                raise UsageError(f"{name} must be positive, not {value}")


class Unreadable(Exception):
    """The file, or the rest of it, cannot be read; `read` turns it into a `ReadError`."""

    def __init__(self, error: str, detail: str) -> None:
        super().__init__(error, detail)
        self.error = error
        self.detail = detail
