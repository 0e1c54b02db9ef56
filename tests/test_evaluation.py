"""Measures of chunks: retrieval against labelled spans, topic boundaries, and what chunks say of themselves."""

import json
import random
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stemma.errors import UsageError
from stemma.evaluation import (
    Document,
    Place,
    Question,
    cloze_questions,
    intrinsic_scores,
    mean_scores,
    nearest,
    p_k,
    read_questions,
    retrieval_scores,
    window_diff,
)


def table(chunks: list[tuple[int, int, int]]) -> pa.Table:
    documents, starts, ends = zip(*chunks, strict=True)
    sizes = [end - start for _, start, end in chunks]
    return pa.table({"document": documents, "char_start": starts, "char_end": ends, "tokens": sizes})


def question(*answers: tuple[int, int, int]) -> Question:
    return Question("?", tuple((Place(*answer),) for answer in answers))


def scores(chunks: list[tuple[int, int, int]], asked: Question, found: list[int]) -> dict[str, float]:
    return mean_scores(retrieval_scores(table(chunks), [asked], [found]))


def test_scores_by_hand() -> None:
    chunks = [(0, 0, 10), (0, 10, 20), (0, 20, 40), (1, 0, 10)]
    # Wanted are 8 characters of the first two chunks; retrieved are the second, a wrong one, and another document's.
    assert scores(chunks, question((0, 4, 12)), [1, 2, 3]) == {
        "recall": 2 / 8,
        "precision": 2 / 40,
        "precision_omega": 8 / 20,
        "iou": 2 / 46,
        "tokens": 40,
    }
    assert scores(chunks, question((0, 0, 10)), [0])["iou"] == 1
    assert scores(chunks, question((0, 0, 10)), [3])["recall"] == 0
    assert scores(chunks, question((0, 0, 10)), []) == {
        "recall": 0,
        "precision": 0,
        "precision_omega": 1,
        "iou": 0,
        "tokens": 0,
    }


def test_what_is_retrieved_twice_is_paid_twice() -> None:
    found = scores([(0, 0, 10), (0, 5, 15)], question((0, 0, 15)), [0, 1])
    assert (found["recall"], found["precision"], found["precision_omega"]) == (1, 15 / 20, 1)


def test_an_answer_in_several_places_is_found_in_any() -> None:
    asked = Question("?", ((Place(0, 0, 5), Place(1, 10, 15)),))
    chunks = [(0, 0, 10), (1, 10, 20)]
    for row in (0, 1):
        assert scores(chunks, asked, [row])["recall"] == 1


spans = st.tuples(st.integers(0, 2), st.integers(0, 30), st.integers(1, 12)).map(
    lambda each: (each[0], each[1], each[1] + each[2])
)


@given(chunks=st.lists(spans, min_size=1, max_size=8), answers=st.lists(spans, min_size=1, max_size=4))
@settings(max_examples=200, deadline=None)
def test_scores_are_those_of_counting_characters(
    chunks: list[tuple[int, int, int]], answers: list[tuple[int, int, int]]
) -> None:
    def characters(spans: list[tuple[int, int, int]]) -> list[tuple[int, int]]:
        return [(document, place) for document, start, end in spans for place in range(start, end)]

    found = list(range(0, len(chunks), 2))
    retrieved, wanted = characters([chunks[row] for row in found]), set(characters(answers))
    held = wanted & set(retrieved)
    holding = {
        place for chunk in chunks if wanted & set(characters([chunk])) for place in characters([chunk])
    }
    expected = {
        "recall": len(held) / len(wanted),
        "precision": len(held) / len(retrieved),
        "precision_omega": len(wanted & holding) / len(wanted | holding),
        "iou": len(held) / (len(retrieved) + len(wanted - held)),
        "tokens": len(retrieved),
    }
    assert scores(chunks, question(*answers), found) == pytest.approx(expected)


def test_nearest_are_best_first_and_ties_in_order() -> None:
    chunks = np.array([[0, 1], [1, 0], [1, 0], [0.5, 0.5]], dtype=np.float32)
    assert nearest(np.array([[1, 0]], dtype=np.float32), chunks, 3).tolist() == [[1, 2, 3]]
    assert nearest(np.array([[1, 0]], dtype=np.float32), chunks, 9).shape == (1, 4)


DOCUMENTS = [Document("id-a", "docs/a.md", "One  two\nthree. Four."), Document("id-b", "b.md", "Four. Five")]


def read(tmp_path: Path, *lines: Any) -> list[Question]:
    file = tmp_path / "questions.jsonl"
    file.write_text("".join(f"{line if isinstance(line, str) else json.dumps(line)}\n" for line in lines))
    return read_questions(file, DOCUMENTS)


def test_questions_have_expected_strings_or_spans(tmp_path: Path) -> None:
    found = read(
        tmp_path,
        {"question": "a", "expected": "two three."},
        "",
        {"question": "b", "expected": ["Four.", "Five"]},
        {"question": "c", "spans": [{"document": "a.md", "start": 0, "end": 3}]},
        {"question": "d", "spans": [{"document": "id-b", "start": 6, "end": 10}]},
    )
    assert found == [
        Question("a", ((Place(0, 5, 15),),)),
        Question("b", ((Place(0, 16, 21), Place(1, 0, 5)), (Place(1, 6, 10),))),
        Question("c", ((Place(0, 0, 3),),)),
        Question("d", ((Place(1, 6, 10),),)),
    ]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "line 2: is not JSON"),
        ("[]", "line 2: must be an object"),
        ({"expected": "Four"}, "line 2: question must be text"),
        ({"question": "a"}, "line 2: give either expected or spans"),
        ({"question": "a", "expected": "x", "spans": []}, "line 2: give either"),
        ({"question": "a", "expected": "x", "answer": 1}, "line 2: there is no key 'answer'"),
        ({"question": "a", "expected": []}, "line 2: expected must be a list that is not empty"),
        ({"question": "a", "expected": [" "]}, "line 2: expected must be text"),
        ({"question": "a", "expected": "six"}, "line 2: 'six' is in none of the 2 documents"),
        ({"question": "a", "spans": [{"document": "a.md"}]}, "line 2: a span has document, start and end"),
        ({"question": "a", "spans": [{"document": "c.md", "start": 0, "end": 1}]}, "names no documents"),
        ({"question": "a", "spans": [{"document": "b.md", "start": 3, "end": 11}]}, "has 10 characters"),
        ({"question": "a", "spans": [{"document": "b.md", "start": True, "end": 2}]}, "must be a span"),
    ],
)
def test_wrong_questions_are_refused_with_their_line(tmp_path: Path, line: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        read(tmp_path, {"question": "a", "expected": "Four."}, line)


def test_a_file_without_questions_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no question"):
        read(tmp_path, "")
    with pytest.raises(UsageError, match="cannot be read"):
        read_questions(tmp_path / "absent", [])


def test_cloze_questions_ask_for_the_rest_of_a_paragraph() -> None:
    words = [
        "rain",
        "stone",
        "river",
        "bread",
        "light",
        "iron",
        "paper",
        "music",
        "silver",
        "garden",
        "winter",
        "harbour",
    ]
    sentences = [f"The sentence about {word} tells what became of {word} later." for word in words]
    paragraphs = [" ".join(sentences[start : start + 3]) for start in range(0, 12, 3)]
    documents = [
        Document("a", "a", "# Title\n\n" + "\n\n".join(paragraphs[:2]) + "\n\nTwo here. Only two.\n"),
        Document("b", "b", "\n\n".join(paragraphs[2:])),
    ]
    questions = cloze_questions(documents, 10)
    assert len(questions) == 4
    assert cloze_questions(documents, 2) == questions[:2]
    for each in questions:
        assert each.text in sentences
        parts = [each.text]
        for ((document, start, end),) in each.answers:
            parts.append(documents[document].text[start:end])
        (paragraph,) = (text for text in paragraphs if each.text in text)
        assert sorted(" ".join(parts).split()) == sorted(paragraph.split())


def test_segmentation_measures() -> None:
    right = [10, 20, 30]
    assert p_k(right, right, 40) == window_diff(right, right, 40) == 0
    # Windows are five units wide, so 35 of them: 15 have a boundary of the right ones; each that is off by one is in
    # one window too few and one too many.
    assert p_k(right, [], 40) == window_diff(right, [], 40) == 15 / 35
    assert p_k(right, [11, 21, 31], 40) == window_diff(right, [11, 21, 31], 40) == 6 / 35
    # Two boundaries for one: P_k sees only the window that reaches further, WindowDiff all that hold both.
    assert p_k(right, [10, 11, 20, 30], 40) == 1 / 35
    assert window_diff(right, [10, 11, 20, 30], 40) == 5 / 35
    draw = random.Random(3)
    for _ in range(20):
        found = draw.sample(range(1, 40), 5)
        assert 0 < p_k(right, found, 40) <= window_diff(right, found, 40) <= 1


def intrinsic(text: str, cuts: list[int]) -> dict[str, float]:
    edges = [0, *cuts, len(text)]
    chunks = [
        {"char_start": start, "char_end": start + len(text[start:end].rstrip()), "tokens": 10}
        for start, end in pairwise(edges)
    ]
    return intrinsic_scores(pa.table({"text": [text], "chunks": [chunks]}))


def test_intrinsic_scores_tell_good_cuts_from_bad() -> None:
    topics = ["ship harbour sails", "dough oven flour", "budget vote minister", "seed soil hedge"]
    sentences = [f"About {topic} they said {topic} again." for topic in topics for _ in range(6)]
    text = " ".join(sentences)
    starts = [text.index(sentences[6 * number]) for number in range(1, 4)]
    good = intrinsic(text, starts)
    shifted = intrinsic(text, [start + 3 * (len(text[start:].split(".")[0]) + 2) for start in starts])
    torn = intrinsic(text, [start + 5 for start in starts])
    assert good == {"chunks": 4, "tokens": 10, "whole": 1, "even": 1, "separation": 1, "score": 1}
    assert shifted["whole"] == 1
    assert shifted["separation"] < 0.3
    assert (torn["whole"], torn["separation"]) == (0, 0.5)
    assert intrinsic_scores(pa.table({"text": [""], "chunks": [[]]}).slice(0, 0))["score"] == 0
