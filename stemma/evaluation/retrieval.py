"""How well retrieved chunks cover the spans that answer a question, counted in characters.

The measures of Smith and Troynikov, "Evaluating Chunking Strategies for Retrieval" (Chroma, 2024). Two differences:
a chunk that only touches a span does not count as holding some of it, and a span may have several places.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

MEASURES = ("recall", "precision", "precision_omega", "iou", "tokens")

Span = tuple[int, int]


class Place(NamedTuple):
    """Where an answer stands: the document's number, and code points of its text."""

    document: int
    start: int
    end: int


@dataclass(frozen=True)
class Question:
    """A question with its answers, all of which are wanted; each has one place or several that are as good."""

    text: str
    answers: tuple[tuple[Place, ...], ...]


def retrieval_scores(
    chunks: pa.Table, questions: Sequence[Question], retrieved: Iterable[Sequence[int]]
) -> pa.Table:
    """Score what was retrieved for each question.

    Args:
        chunks: with the columns document (the number that `Place` names), char_start, char_end and tokens (int).
        questions: no answer is empty.
        retrieved: for each question the rows of the chunks found.

    Returns:
        A row for each question: recall (share of the answers that the chunks hold), precision (share of the chunks'
        characters that are answers), precision_omega (the same if exactly all chunks were retrieved that hold some
        of an answer, with what no chunk holds counted as retrieved for nothing), iou (answers retrieved over all
        that was retrieved or wanted), all float64 from 0 to 1, and tokens (int64, of the chunks retrieved).
        Precision and iou count a character as often as it was retrieved. Of an answer's places the one counts of
        which most was retrieved; for precision_omega the first.
    """
    documents, starts, ends, tokens = (
        chunks[name].to_numpy().astype(np.int64) for name in ("document", "char_start", "char_end", "tokens")
    )
    line = _Line(documents, ends, questions)
    starts, ends = line.place(documents, starts), line.place(documents, ends)
    rows = []
    for question, found in zip(questions, retrieved, strict=True):
        chosen = np.asarray(found, dtype=np.intp)
        spans = list(zip(starts[chosen].tolist(), ends[chosen].tolist(), strict=True))
        places = [[line.span(place) for place in answer] for answer in question.answers]
        best = [max(each, key=lambda span: _common([span], _union(spans))) for each in places]
        held, wanted = _common(_union(best), _union(spans)), _length(_union(best))
        paid = _length(spans)
        omega = _precision_omega(_union([each[0] for each in places]), starts, ends)
        rows.append(
            (
                held / wanted,
                held / paid if paid else 0.0,
                omega,
                held / (paid + wanted - held),
                int(tokens[chosen].sum()),
            )
        )
    columns = zip(*rows, strict=True) if rows else [()] * len(MEASURES)
    types = [pa.float64()] * 4 + [pa.int64()]
    return pa.table(
        {name: pa.array(column, kind) for name, column, kind in zip(MEASURES, columns, types, strict=True)}
    )


def mean_scores(scores: pa.Table) -> dict[str, float]:
    """Return the mean of each measure over the questions; of none, 0."""
    return {name: pc.mean(scores[name]).as_py() or 0.0 for name in MEASURES}


def nearest(
    questions: npt.NDArray[np.float32], chunks: npt.NDArray[np.float32], k: int
) -> npt.NDArray[np.intp]:
    """Return the rows of the `k` chunks nearest to each question by the dot product, best first, ties by row."""
    return np.argsort(-(questions @ chunks.T), axis=1, kind="stable")[:, :k]


class _Line:
    """All documents laid end to end on one line, so that a span is two numbers."""

    def __init__(
        self, documents: npt.NDArray[np.int64], ends: npt.NDArray[np.int64], questions: Sequence[Question]
    ) -> None:
        places = [place for question in questions for answer in question.answers for place in answer]
        numbers = np.concatenate((documents, [place.document for place in places])).astype(np.int64)
        lengths = np.zeros(int(numbers.max(initial=-1)) + 1, dtype=np.int64)
        np.maximum.at(
            lengths, numbers, np.concatenate((ends, [place.end for place in places])).astype(np.int64)
        )
        self.offsets = np.cumsum(lengths) - lengths

    def place(
        self, documents: npt.NDArray[np.int64], positions: npt.NDArray[np.int64]
    ) -> npt.NDArray[np.int64]:
        return self.offsets[documents] + positions

    def span(self, place: Place) -> Span:
        offset = int(self.offsets[place.document])
        return offset + place.start, offset + place.end


def _precision_omega(wanted: list[Span], starts: npt.NDArray[np.int64], ends: npt.NDArray[np.int64]) -> float:
    holding = np.zeros(len(starts), dtype=bool)
    for start, end in wanted:
        holding |= (starts < end) & (ends > start)
    spans = list(zip(starts[holding].tolist(), ends[holding].tolist(), strict=True))
    return _common(wanted, _union(spans)) / _length(_union(spans + wanted))


def _union(spans: Iterable[Span]) -> list[Span]:
    """Return sorted spans that do not touch each other."""
    union: list[Span] = []
    for start, end in sorted(spans):
        if union and start <= union[-1][1]:
            union[-1] = (union[-1][0], max(end, union[-1][1]))
        else:
            union.append((start, end))
    return union


def _common(first: list[Span], second: list[Span]) -> int:
    """Return how many positions are in both of two unions."""
    return sum(max(0, min(a[1], b[1]) - max(a[0], b[0])) for a in first for b in second)


def _length(spans: list[Span]) -> int:
    return sum(end - start for start, end in spans)
