"""Decontamination: exact n-gram matches against evaluation sets, with their evidence."""

import gzip
import json
import random

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stemma.cleaning import decontamination
from stemma.cleaning.decontamination import MATCHES, Match, build_index, contamination, find_contamination

QUESTION = "Which of the two rivers rose first in the spring of that year, and why?"  # 15 words
WORDS = [f"word{number}" for number in range(400)]


def filler(count: int, seed: int = 0) -> str:
    return " ".join(random.Random(seed).choices(WORDS, k=count))


def find(text: str, items: dict[str, str], **parameters) -> list[Match]:
    index = build_index({"quiz": items.items()}, **parameters)
    return find_contamination([text], index)[0]


def test_a_planted_item_is_found_at_its_place():
    before, after = filler(500, 1) + ". ", " " + filler(300, 2)
    (match,) = find(before + QUESTION + after, {"q1": QUESTION, "q2": filler(40, 3)})
    assert match == Match(
        set="quiz",
        item="q1",
        ngram="which of the two rivers rose first in the spring of that year",
        char_start=len(before),
        char_end=len(before) + len(QUESTION) - len(", and why?"),
        matched=3,
        total=3,
    )


def test_a_part_of_an_item_counts_as_a_part():
    words = QUESTION.split()
    (match,) = find(filler(50) + " " + " ".join(words[1:]) + " " + filler(50), {"q1": QUESTION})
    assert (match.matched, match.total) == (2, 3)
    assert match.ngram.startswith("of the two")


def test_twelve_of_thirteen_words_do_not_match():
    words = QUESTION.split()
    assert find(" ".join(words[:12]) + " " + filler(30), {"q1": QUESTION}) == []
    for changed in range(15):
        near = [*words[:changed], "other", *words[changed + 1 :]]
        found = find(" ".join(near), {"q1": QUESTION})
        assert bool(found) == (changed in (0, 1, 13, 14))


@pytest.mark.parametrize(
    "planted",
    [
        QUESTION.upper(),
        QUESTION.replace(" ", "\n  "),
        "“" + QUESTION.replace(" ", " — ").replace("?", "!?…”"),
        QUESTION.replace("first", "ﬁrst"),  # a ligature
        QUESTION.replace("year", "ｙｅａｒ"),  # full width
        QUESTION.replace("rivers", "riv\u00aders"),  # a soft hyphen
    ],
)
def test_case_punctuation_and_unicode_form_do_not_matter(planted):
    text = "«Été» " + filler(30) + " " + planted + " " + filler(30)
    (match,) = find(text, {"q1": QUESTION})
    assert (match.matched, match.total) == (3, 3)
    assert text[match.char_start : match.char_end].casefold().startswith("which")
    assert text[match.char_end - 1].casefold() in ("r", "ｒ")


def test_short_items_match_as_a_whole():
    items = {
        "nine": "a b c d e f g h i",
        "eight": "one two three four five six seven eight",
        "seven": "k l m n o p q",
    }
    text = "x A, b c d e f g h i. One two three four five six seven eight; k l m n o p q"
    assert [(match.item, match.matched, match.total) for match in find(text, items)] == [
        ("nine", 1, 1),
        ("eight", 1, 1),
    ]
    assert find("b c d e f g h i", items) == []
    assert [match.item for match in find(text, items, minimum_words=7)] == ["nine", "eight", "seven"]


def test_scripts_without_spaces_need_twice_as_many_characters():
    item = "日本国憲法は主権が国民に存することを宣言しこの憲法を確定する"
    assert find(item[:25] + "。" + filler(20), {"q": item}) == []
    (match,) = find("序文、" + item[:27] + "。", {"q": item})
    assert (match.char_start, match.char_end, match.matched, match.total) == (3, 29, 2, len(item) - 25)
    thai = "มนุษย์ทั้งหลายเกิดมามีอิสระและเสมอภาคกันในเกียรติศักดิ์และสิทธิ"
    (match,) = find("(" + thai + ")", {"q": thai})
    assert match.char_start == 1


def test_an_item_does_not_reach_over_the_end_of_a_text():
    words = QUESTION.split()
    index = build_index({"quiz": [("q1", QUESTION)]})
    assert find_contamination([" ".join(words[:7]), " ".join(words[7:]), ""], index) == [[], [], []]


def test_what_repeats_counts_once_and_common_ngrams_name_every_item():
    boilerplate = "Read the following passage with care and then choose the best answer from the list below:"
    items = {f"q{number}": f"{boilerplate} {filler(20, number)}" for number in range(50)}
    matches = find((boilerplate + " " + filler(5, 99) + " ") * 20, items)
    assert len(matches) == 50
    assert {(match.matched, match.char_start) for match in matches} == {(4, 0)}
    repeated = "again and " * 30
    (match,) = find(repeated * 3, {"q": repeated})
    assert (match.matched, match.total) == (2, 2)


def test_hashes_only_propose(monkeypatch):
    """With hashes that all agree, only equal words match."""
    monkeypatch.setattr(
        decontamination, "_windows", lambda sums, size: np.zeros(max(0, len(sums.sums) - size), np.uint64)
    )
    assert find(filler(200), {"q1": QUESTION, "q2": filler(30, 9)}) == []
    assert [match.item for match in find(QUESTION, {"q2": filler(30, 9), "q1": QUESTION})] == ["q1"]


def test_windows_hash_the_same_words_alike_wherever_they_stand():
    hashes = np.random.default_rng(1).integers(0, 2**63, 50, np.uint64)
    twice = np.concatenate([hashes[:5], hashes, hashes])
    windows = decontamination._windows(decontamination._sums(twice), 13)
    assert (windows[5:43] == windows[55:93]).all()
    assert len(set(windows[5:55].tolist())) == 50


def test_sets_keep_their_names():
    index = build_index({"b": [("1", QUESTION)], "a": [("1", QUESTION), ("2", "too short")]})
    (matches,) = find_contamination([QUESTION], index)
    assert [(match.set, match.item) for match in matches] == [("a", "1"), ("b", "1")]
    assert index.totals.tolist() == [3, 3, 0]


def test_the_digest_follows_the_items_and_the_numbers():
    digests = {
        build_index(sets, **parameters).digest
        for sets, parameters in [
            ({"a": [("1", QUESTION)]}, {}),
            ({"b": [("1", QUESTION)]}, {}),
            ({"a": [("2", QUESTION)]}, {}),
            ({"a": [("1", QUESTION + " x")]}, {}),
            ({"a": [("1", QUESTION)]}, {"ngram_words": 10}),
            ({"a": [("1", QUESTION)]}, {"minimum_words": 9}),
        ]
    }
    assert len(digests) == 6


@pytest.mark.parametrize("parameters", [{"minimum_words": 0}, {"ngram_words": 7}])
def test_impossible_numbers_of_words_are_errors(parameters):
    with pytest.raises(ValueError, match="minimum_words"):
        build_index({}, **parameters)


def test_the_stage_returns_its_schema_in_row_order():
    index = build_index({"quiz": [("q1", QUESTION)]})
    table = pa.table({"text": ["nothing here", QUESTION, "", "é " + QUESTION]})
    found = contamination(table, model=index)
    assert found.schema.equals(MATCHES)
    assert [len(matches) for matches in found["matches"].to_pylist()] == [0, 1, 0, 1]
    assert found["matches"][1][0]["ngram"].as_py().startswith("which of")
    assert contamination(table.slice(0, 0), model=index).schema.equals(MATCHES)
    assert contamination(table, model=build_index({}))["matches"].to_pylist() == [[]] * 4
    with pytest.raises(ValueError, match="null"):
        contamination(pa.table({"text": pa.array([None], pa.string())}), model=index)
    with pytest.raises(ValueError, match="other numbers"):
        contamination(table, ngram_words=8, model=index)


def by_hand(text: str, item: str, size: int) -> int:
    """Count the distinct runs of words of the item that the text has."""
    words, wanted = text.split(), item.split()
    size = min(size, len(wanted))
    runs = {tuple(words[start : start + size]) for start in range(len(words) - size + 1)}
    return len(runs & {tuple(wanted[start : start + size]) for start in range(len(wanted) - size + 1)})


SMALL = st.lists(st.sampled_from(["a", "b", "é", "中"]), max_size=25).map(" ".join)


@given(st.lists(SMALL, min_size=1, max_size=6), st.lists(SMALL, min_size=1, max_size=6))
@settings(max_examples=200, deadline=None)
def test_matches_are_those_found_by_hand(texts, items):
    index = build_index(
        {"s": [(str(number), item) for number, item in enumerate(items)]}, ngram_words=4, minimum_words=2
    )
    for text, matches in zip(texts, find_contamination(texts, index), strict=True):
        wanted = {
            str(number): by_hand(text, item, 4) for number, item in enumerate(items) if len(item.split()) >= 2
        }
        assert {match.item: match.matched for match in matches} == {
            item: count for item, count in wanted.items() if count
        }
        for match in matches:
            assert text[match.char_start : match.char_end] == match.ngram
            assert text.find(match.ngram) <= match.char_start


def test_questions_planted_in_real_documents(shared):
    with gzip.open(shared / "data" / "d2_xquad" / "xquad.en.jsonl.gz", "rt", encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    with gzip.open(
        shared / "data" / "b4_licence_clusters" / "docs.jsonl.gz", "rt", encoding="utf-8"
    ) as lines:
        texts = [json.loads(line)["text"] for line in lines][:200]
    index = build_index({"xquad": [(row["doc_id"], row["context"]) for row in rows]})
    assert find_contamination(texts, index) == [[]] * len(texts)
    planted = [
        f"{text[:500]}\n\n{row['context']}\n\n{text[500:]}" for text, row in zip(texts, rows, strict=False)
    ]
    for row, text, (match, *_) in zip(rows, planted, find_contamination(planted, index), strict=False):
        assert (match.item, match.matched) == (row["doc_id"], match.total)
        assert text[match.char_start :].startswith(row["context"].lstrip(" \"'([")[:20])


@pytest.mark.timeout(120)  # seconds; it hangs where the time does not follow the length
@pytest.mark.parametrize(
    "text",
    ["a " * 500_000, "x" * 2_000_000, "中" * 500_000, "é" * 1_000_000, QUESTION * 20_000],
    ids=range(5),
)
def test_hostile_texts_are_quick(text):
    items = {"q1": QUESTION, "a": "a " * 50, "han": "中" * 50, "twice": QUESTION * 3}
    find(text, items)
