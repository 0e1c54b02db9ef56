"""Evaluation sets: the items of benchmarks that a corpus must not hold, read from files."""

import csv
import hashlib
import io
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stemma.errors import UsageError
from stemma.reading.json_parse import parse_object
from stemma.reading.records import Unreadable

MAX_BYTES = 1024 * 2**20
_MAX_DEPTH = 20
_ID_FIELDS = ("id", "_id", "uuid", "task_id", "question_id", "key")


@dataclass(frozen=True)
class EvaluationSet:
    """A file of items, not read yet.

    Attributes:
        name: the file's name without its endings.
        path: where it is.
        fields: the fields of an item to look for; none: all that hold text.
    """

    name: str
    path: Path
    fields: tuple[str, ...] = ()

    def digest(self) -> str:
        """Return the SHA-256 of the file, which with `fields` decides its items. Raises UsageError."""
        try:
            with self.path.open("rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise UsageError(f"[clean.decontaminate] sets: {self.path}: {error.strerror or error}") from error

    def items(self) -> list[tuple[str, str]]:
        """Return (id, text) of each item; the id is its own, else its number in the file, from 0.

        JSONL, JSON (an array), Parquet, CSV and TSV by the file's ending; any other file is text, a line an item.

        Raises:
            UsageError: the file cannot be read, names file, row and reason; or no item holds text.
        """
        try:
            if self.path.stat().st_size > MAX_BYTES:
                raise UsageError(f"[clean.decontaminate] sets: {self.path}: more than {MAX_BYTES} bytes")
            found = list(self._items())
        except (OSError, ValueError, csv.Error) as error:
            raise UsageError(f"[clean.decontaminate] sets: {self.path}: {error}") from error
        except Unreadable as error:
            raise UsageError(
                f"[clean.decontaminate] sets: {self.path}: {error.error}: {error.detail}"
            ) from error
        if not found:
            raise UsageError(f"[clean.decontaminate] sets: {self.path}: no item holds text")
        return found

    def _items(self) -> Iterator[tuple[str, str]]:
        for number, row in enumerate(self._rows()):
            text = "\n".join(self._texts(row))
            if text.strip():
                yield (
                    next((str(row[name]) for name in _ID_FIELDS if row.get(name) is not None), str(number)),
                    text,
                )

    def _texts(self, row: Mapping[str, Any]) -> Iterator[str]:
        names = self.fields or [name for name in row if name not in _ID_FIELDS]
        for name in names:
            yield from _strings(row.get(name))

    def _rows(self) -> Iterable[Mapping[str, Any]]:
        match self.path.suffix.lower():
            case ".jsonl" | ".ndjson":
                return self._json_lines()
            case ".json":
                return self._json_array()
            case ".parquet":
                return self._parquet()
            case ".csv" | ".tsv" as suffix:
                return csv.DictReader(
                    io.StringIO(self._text(), newline=""), delimiter="\t" if suffix == ".tsv" else ","
                )
        return ({"text": line} for line in self._text().splitlines())

    def _text(self) -> str:
        return self.path.read_text(encoding="utf-8-sig")

    def _json_lines(self) -> Iterator[Mapping[str, Any]]:
        for number, line in enumerate(self.path.read_bytes().split(b"\n"), 1):
            if line.strip():
                try:
                    yield parse_object(line, _MAX_DEPTH)
                except Unreadable as error:
                    raise Unreadable(error.error, f"line {number}: {error.detail}") from error

    def _json_array(self) -> Iterable[Mapping[str, Any]]:
        try:
            rows = json.loads(self._text())
        except RecursionError as error:
            raise Unreadable("too deep", "its values are nested too deeply") from error
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            raise Unreadable("invalid JSON", "it must be an array of objects")
        return rows

    def _parquet(self) -> Iterator[Mapping[str, Any]]:
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            for batch in pq.ParquetFile(self.path).iter_batches():
                yield from batch.to_pylist()
        except pa.ArrowException as error:
            raise Unreadable("damaged Parquet", " ".join(str(error).split())) from error


def _strings(value: Any) -> Iterator[str]:
    """Yield the texts in a value: itself, or those in a list or an object (the choices of a question)."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _strings(item)
    elif isinstance(value, list):
        for item in value:
            yield from _strings(item)


def evaluation_sets(paths: Iterable[str], fields: tuple[str, ...], directory: Path) -> list[EvaluationSet]:
    """Return the configured sets; two files of one name are told apart by a number."""
    sets: list[EvaluationSet] = []
    for path in paths:
        file = directory / Path(path).expanduser()
        stem = file.name.split(".")[0] or file.name
        taken = {each.name for each in sets}
        name = next(
            each for each in (stem, *(f"{stem}-{number}" for number in range(2, 10**6))) if each not in taken
        )
        sets.append(EvaluationSet(name, file, fields))
    return sets
