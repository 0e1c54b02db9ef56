"""Questions whose answers are known: from a file, or made of the documents themselves."""

import hashlib
import json
import re
from collections.abc import Iterable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import numpy as np

from stemma.chunking.boundaries import find_sentences
from stemma.chunking.joined import groups, join
from stemma.chunking.lines import BODY, TEXT, find_lines
from stemma.errors import UsageError
from stemma.evaluation.retrieval import Place, Question

_KEYS = {"question", "expected", "spans"}
_SPAN_KEYS = {"document", "start", "end"}
# A paragraph says something beyond one sentence of it, and the sentence enough to be looked for.
_CLOZE_SENTENCES = 3
_CLOZE_CHARACTERS = 40


class Document(NamedTuple):
    """A cleaned document: its id, where it came from, and its text."""

    document_id: str
    uri: str
    text: str


def read_questions(file: Path, documents: Sequence[Document]) -> list[Question]:
    """Read questions from JSON lines.

    Each line is an object with `question` and either `expected`, a string or a list of strings (white space counts
    as equal to other white space; wherever in the documents one stands is as good), or `spans`, a list of objects
    of `document` (id, uri or the end of one), `start` and `end` (code points of the cleaned text).

    Raises:
        UsageError: the file cannot be read or has no question; or, with the line, a line is not such an object, or
            a string or span is not in the documents.
    """
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{file}: cannot be read: {error}") from error
    reader = _Reader(file, documents)
    questions = [reader.question(number, line) for number, line in enumerate(lines, 1) if line.strip()]
    if not questions:
        raise UsageError(f"{file}: there is no question in it")
    return questions


class _Reader:
    def __init__(self, file: Path, documents: Sequence[Document]) -> None:
        self.file, self.documents = file, documents
        self.numbers = {document.document_id: number for number, document in enumerate(documents)}

    def fail(self, line: int, message: str) -> NoReturn:
        raise UsageError(f"{self.file}, line {line}: {message}")

    def question(self, line: int, text: str) -> Question:
        try:
            row = json.loads(text)
        except (ValueError, RecursionError) as error:
            self.fail(line, f"is not JSON: {error}")
        if not isinstance(row, dict):
            self.fail(line, "must be an object")
        question = row.get("question")
        if not isinstance(question, str) or not question.strip():
            self.fail(line, "question must be text")
        if unknown := sorted(row.keys() - _KEYS):
            self.fail(line, f"there is no key {unknown[0]!r}; there are {', '.join(sorted(_KEYS))}")
        if ("expected" in row) == ("spans" in row):
            self.fail(line, "give either expected or spans")
        key, read = ("expected", self._expected) if "expected" in row else ("spans", self._span)
        value = [row[key]] if isinstance(row[key], str) else row[key]
        if not isinstance(value, list) or not value:
            self.fail(line, f"{key} must be a list that is not empty")
        return Question(question, tuple(read(line, each) for each in value))

    def _expected(self, line: int, value: Any) -> tuple[Place, ...]:
        if not isinstance(value, str) or not value.strip():
            self.fail(line, "expected must be text")
        pattern = re.compile(r"\s+".join(map(re.escape, value.split())))
        places = tuple(
            Place(number, *match.span())
            for number, document in enumerate(self.documents)
            for match in pattern.finditer(document.text)
        )
        if not places:
            self.fail(line, f"{value[:60]!r} is in none of the {len(self.documents):,} documents")
        return places

    def _span(self, line: int, value: Any) -> tuple[Place, ...]:
        if not isinstance(value, dict) or value.keys() != _SPAN_KEYS:
            self.fail(line, "a span has document, start and end")
        name, start, end = value["document"], value["start"], value["end"]
        number = self._number(line, name)
        whole = all(isinstance(place, int) and not isinstance(place, bool) for place in (start, end))
        length = len(self.documents[number].text)
        if not whole or not 0 <= start < end <= length:
            self.fail(line, f"start and end must be a span of the text, which has {length:,} characters")
        return (Place(number, start, end),)

    def _number(self, line: int, name: Any) -> int:
        if not isinstance(name, str) or not name:
            self.fail(line, "document must be text")
        if name in self.numbers:
            return self.numbers[name]
        equal = [number for number, document in enumerate(self.documents) if document.uri == name]
        ending = [
            number for number, document in enumerate(self.documents) if document.uri.endswith(f"/{name}")
        ]
        found = equal or ending
        if len(found) != 1:
            self.fail(line, f"{name!r} names {len(found) or 'no'} documents: give the document_id")
        return found[0]


def cloze_questions(documents: Sequence[Document], count: int) -> list[Question]:
    """Make questions of the documents: a sentence asks for the rest of its paragraph.

    The inverse cloze task (Lee, Chang and Toutanova, 2019). It says how sizes and strategies keep together what
    belongs together, but not how well people's questions are answered, which share fewer words with the text.

    Args:
        documents: with texts in any language.
        count: how many questions at most; those whose sentences have the least hashes.

    Returns:
        The questions, in the order of those hashes. A question's answers are the paragraph before and after its
        sentence; only paragraphs of three sentences or more are asked for.
    """
    found: list[tuple[str, Question]] = []
    first = 0
    for group in groups([document.text for document in documents]):
        found.extend(_group_questions(group, first))
        first += len(group)
    found.sort(key=lambda each: each[0])
    return [question for _, question in found[:count]]


def _group_questions(texts: list[str], first: int) -> Iterable[tuple[str, Question]]:
    joined = join(texts)
    lines = find_lines(joined)
    starts = np.append(lines.heads[lines.after_blank], len(joined.codes))
    kinds = lines.kinds[lines.after_blank]
    sentences = find_sentences(joined)
    for (start, end), kind in zip(pairwise(starts.tolist()), kinds.tolist(), strict=True):
        inside = sentences[np.searchsorted(sentences, start + 1) : np.searchsorted(sentences, end)].tolist()
        if kind not in (TEXT, BODY) or len(inside) + 1 < _CLOZE_SENTENCES:
            continue
        number = int(np.searchsorted(joined.starts, start, side="right")) - 1
        end = start + len(joined.text[start : min(end, int(joined.ends[number]))].rstrip())
        spans = [_trimmed(joined.text, low, high) for low, high in pairwise([start, *inside, end])]
        hashed = [hashlib.sha256(joined.text[low:high].encode()).hexdigest() for low, high in spans]
        chosen = hashed.index(min(hashed))
        low, high = spans[chosen]
        if high - low < _CLOZE_CHARACTERS:
            continue
        offset = int(joined.starts[number])
        rest = [spans[:chosen], spans[chosen + 1 :]]
        answers = tuple(
            (Place(first + number, part[0][0] - offset, part[-1][1] - offset),) for part in rest if part
        )
        yield hashed[chosen], Question(joined.text[low:high], answers)


def _trimmed(text: str, start: int, end: int) -> tuple[int, int]:
    return start, start + len(text[start:end].rstrip())
