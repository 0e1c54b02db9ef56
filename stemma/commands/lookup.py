"""stemma lookup: the near-duplicates that a new text has in the corpus."""

import argparse
import io
import itertools
import math
import os
import sys
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb
import numpy as np
import pyarrow as pa

from stemma.commands.output import print_json, say, say_aside, shown
from stemma.commands.published import open_published, rows
from stemma.config import Config, SourceConfig, load_config
from stemma.errors import StemmaError, UsageError
from stemma.hashing import key, uuid_array
from stemma.reading import ReadError, ReadOptions, Record, read

if TYPE_CHECKING:
    from stemma.resources.engine import Run
    from stemma.resources.engine.lookup import Match

# Records of a file that are looked up.
MOST_RECORDS = 20

Row = dict[str, Any]


@dataclass
class New:
    """A new text: where it stands, and its cleaned form or why there is none."""

    uri: str | None
    record: str | None
    title: str | None = None
    text: str = ""
    error: str | None = None


def lookup(options: argparse.Namespace) -> int:
    """Print the documents that are most similar to a text, or to each of the first records of a file.

    Raises UsageError where there is no text, StemmaError where nothing has been published.
    """
    from stemma.resources.engine import Run, Setup
    from stemma.resources.warehouse import Warehouse

    config = load_config(options.config)
    with open_published(config) as published:
        warehouse = Warehouse(config.warehouse.path, waiting=say_aside)
        run = Run(f"lookup-{uuid.uuid4()}", Setup.of(config), warehouse)
        try:
            source = _source_of(config, options.text)
            uri = os.path.abspath(options.text) if _is_file(options.text) else None
            items = _items(options.text, source)
            news = _cleaned(run, items[:MOST_RECORDS], uri)
            answer = _answer(run, published, news, source, options)
            if len(items) > MOST_RECORDS:
                answer["notes"].append(f"only the first {MOST_RECORDS} documents were looked up")
        finally:
            warehouse.close()
    if options.json:
        print_json(answer)
    else:
        _print(answer)
    return 0


# -- the new texts -------------------------------------------------------------------------------------------------


def _is_file(given: str) -> bool:
    # Not pathlib's, which raises for a text that is too long for a name.
    return given != "-" and os.path.isfile(given)


def _is_like_a_path(given: str) -> bool:
    """Tell whether somebody may have meant a file that is not there."""
    return given != "-" and not os.path.exists(given) and not any(map(str.isspace, given)) and "." in given


def _source_of(config: Config, given: str) -> SourceConfig | None:
    """Return the first source that takes a file in, whose settings it is read and judged by."""
    from stemma.resources.sources import takes_in

    if not _is_file(given):
        return None
    file = Path(os.path.abspath(given))
    return next((source for source in config.sources if takes_in(source, file)), None)


def _items(given: str, source: SourceConfig | None) -> list[Record | ReadError]:
    """Read the first documents of a file, of standard input, or the text that was given."""
    from stemma.resources.looking import read_options

    if _is_file(given):
        options = read_options(source) if source is not None else ReadOptions()
        try:
            with open(given, "rb") as file:
                return _first(read(file, Path(given).name, options))
        except OSError as error:
            raise StemmaError(f"{given}: {error.strerror or error}") from error
    if os.path.isdir(given):
        raise UsageError(f"{given}: a folder; name a file, or give the text itself")
    piped = given == "-" or os.path.exists(given)
    data = _piped(given) if piped else given.encode("utf-8", "surrogateescape")
    if not data.strip():
        raise UsageError("nothing to look for: the text is empty")
    return _first(read(io.BytesIO(data), "", ReadOptions(format="auto" if piped else "text")))


def _piped(given: str) -> bytes:
    """Read standard input, or a pipe that has a name: a shell makes one of <(a command)."""
    if given == "-":
        return sys.stdin.buffer.read()
    with open(given, "rb") as pipe:
        return pipe.read()


def _first(items: Iterator[Record | ReadError]) -> list[Record | ReadError]:
    """Return those that are looked up, and one more where there are more."""
    return list(itertools.islice(items, MOST_RECORDS + 1))


def _cleaned(run: "Run", items: Sequence[Record | ReadError], uri: str | None) -> list[New]:
    """Clean what was read as a run would, parsers of untrusted formats in a process of their own."""
    records = [item for item in items if isinstance(item, Record)]
    keys = [key(str(place)) for place in range(len(records))]
    table = pa.table(
        {
            "input_hash": uuid_array(keys),
            "content": pa.array([record.content for record in records], pa.string()),
            "content_bytes": pa.array([record.content_bytes for record in records], pa.binary()),
            "media_type": pa.array([record.media_type for record in records], pa.string()),
        }
    )
    outcomes: dict[bytes, Row] = {}
    for computed in run.workers.run(run.setup.clean, [table], table.num_rows):
        found = computed.rows.select(["input_hash", "text", "title"]).to_pylist()
        outcomes |= {row["input_hash"].bytes: row for row in found}
        outcomes |= {
            failure.input_hash: {"text": None, "title": None, "error": f"{failure.error}: {failure.detail}"}
            for failure in computed.failures
        }
    cleaned = iter(outcomes[each] for each in keys)
    return list(_news(items, cleaned, uri))


def _news(items: Sequence[Record | ReadError], cleaned: Iterator[Row], uri: str | None) -> Iterator[New]:
    for item in items:
        if isinstance(item, ReadError):
            yield New(uri, item.record, error=f"{item.error}: {item.detail}")
            continue
        row = next(cleaned)
        yield New(uri, item.record, item.title or row["title"], row["text"] or "", row.get("error"))


# -- the answer ----------------------------------------------------------------------------------------------------


def _answer(
    run: "Run",
    published: duckdb.DuckDBPyConnection,
    news: Sequence[New],
    source: SourceConfig | None,
    options: argparse.Namespace,
) -> Row:
    from stemma.resources.engine.lookup import compared, indexed, near_layer, why_not_indexed

    settings = run.config.deduplicate
    threshold = settings.threshold if options.threshold is None else options.threshold
    texts = [new.text for new in news]
    reason, layer = why_not_indexed(run), near_layer(run)
    candidates = None if reason else indexed(run, texts, options.k)
    found = compared(published, texts, candidates, most=options.k, shingle_words=settings.shingle_words)
    notes = [f"{reason}: all documents were compared"] if reason else []
    if _is_like_a_path(options.text):
        notes.append("no file has this name: it was looked up as a text")
    if not reason and layer is not None and threshold < layer.threshold:
        notes.append(f"below {layer.threshold:g} some are missed: the index is made for that and more")
    judge = _Judge(run, published, source)
    return {
        "threshold": threshold,
        "index": "none" if reason else "lsh",
        "notes": notes,
        "texts": [
            {
                **{name: getattr(new, name) for name in ("uri", "record", "title", "error")},
                "most_similar": matches[0].similarity if matches else None,
                "matches": judge.rows(new, [match for match in matches if match.similarity >= threshold]),
            }
            for new, matches in zip(news, found, strict=True)
        ],
    }


@dataclass(frozen=True)
class _Judge:
    """Says of documents what became of them, and whether a run would drop a new text for them."""

    run: "Run"
    published: duckdb.DuckDBPyConnection
    source: SourceConfig | None

    def rows(self, new: New, matches: Sequence["Match"]) -> list[Row]:
        """Return the matches with all that is told of them, in their order."""
        known = {
            row["document_id"]: row
            for row in rows(
                self.published,
                """SELECT document_id, r.uri, r.record, r.source, c.title, c.document_date, m.kept, m.method,
                    k.uri AS kept_uri, k.record AS kept_record, m.cluster_id, m.cluster_size, c.text
                FROM corpus.cleaned AS c JOIN corpus.raw AS r USING (document_id)
                LEFT JOIN lineage.members AS m USING (document_id)
                LEFT JOIN corpus.raw AS k ON k.document_id = m.kept_document_id
                WHERE list_contains(?::UUID[], document_id)""",
                [[match.document_id for match in matches]],
            )
        }
        found = [known[match.document_id] | {"match": match} for match in matches]
        same_words, same_numbers = self._compared([new.text, *(row.pop("text") for row in found)])
        return [
            {
                "rank": place + 1,
                "similarity": match.similarity,
                "of_text": match.of_text,
                "of_document": match.of_document,
                **row,
                "same_words": same_words[place],
                "would_drop": self._would_drop(new, row, match, same_words[place], same_numbers[place]),
            }
            for place, (row, match) in enumerate((row, row.pop("match")) for row in found)
        ]

    def _compared(self, texts: list[str]) -> tuple[list[bool], list[bool]]:
        """Tell of each text but the first whether it has the first one's words, and its numbers."""
        from stemma.deduplication import sign
        from stemma.deduplication.numbers import same_numbers

        hashes = sign(pa.table({"text": pa.array(texts, pa.string())}))["norm_hash"].to_pylist()
        pairs = np.array([(0, place) for place in range(1, len(texts))], np.int64).reshape(-1, 2)
        return [each == hashes[0] for each in hashes[1:]], same_numbers(texts, pairs).tolist()

    def _would_drop(self, new: New, row: Row, match: "Match", same_words: bool, same_numbers: bool) -> bool:
        from stemma.resources.engine.duplicates.layers import document_policy

        settings = self.run.config.deduplicate
        if not row["kept"] or (row["uri"], row["record"]) == (new.uri, new.record):
            return False
        if settings.scope == "source" and self.source is not None and self.source.name != row["source"]:
            return False
        thresholds = document_policy(self.run.setup, self.source.name if self.source else "").thresholds
        if same_words and "exact" in thresholds:
            return True
        comparable = same_numbers or settings.numbers == "ignore"
        return comparable and match.similarity >= thresholds.get("near", math.inf)


def _print(answer: Row) -> None:
    for text in answer["texts"]:
        _print_text(text, answer["threshold"])
    for note in answer["notes"]:
        say(f"({note})")


def _print_text(text: Row, threshold: float) -> None:
    name = _place(text["uri"] or "text", text["record"])
    if text["error"]:
        say(f"{name}: {shown(text['error'])}\n")
        return
    if not text["matches"]:
        most = text["most_similar"]
        rest = f": the most similar has {most:.2f}" if most is not None else ""
        say(f"{name}: no near-duplicate{rest}\n")
        return
    say(f"{name}: similar from {threshold:g} on")
    for row in text["matches"]:
        say(f"{row['rank']}. {row['similarity']:.3f}  {_place(row['uri'], row['record'])}")
        if row["title"] or row["document_date"]:
            say("   " + "  ".join(shown(value) for value in (row["title"], row["document_date"]) if value))
        say(f"   in common {row['of_text']:.0%} of the text, {row['of_document']:.0%} of the document")
        say(f"   {_fate(row)}")
        say(f"   document {row['document_id']}")
        if (row["uri"], row["record"]) == (text["uri"], text["record"]):
            say("   it is this file, as it is in the corpus")
        if row["would_drop"]:
            say("   a run would drop the text for it")
    say()


def _fate(row: Row) -> str:
    family = f", family of {row['cluster_size']:,}" if (row["cluster_size"] or 1) > 1 else ""
    if row["kept"]:
        return f"kept{family}"
    if row["kept"] is None:
        return "not deduplicated yet"
    witness = f" for {_place(row['kept_uri'], row['kept_record'])}" if row["kept_uri"] else ""
    return f"removed ({row['method']}){witness}{family}"


def _place(uri: str | None, record: str | None) -> str:
    return shown(uri if record is None else f"{uri} #{record}")
