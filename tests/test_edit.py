"""Short texts a few characters apart: compared forms, candidates, edit ratios, and numbers that differ."""

import csv
import gzip
import random
from collections import Counter
from itertools import combinations

import numpy as np
import pyarrow as pa
import pytest
from harness import examples
from hypothesis import given, settings
from hypothesis import strategies as st
from sentences import SENTENCES
from test_containment import Pairs, array, proposed
from test_deduplication import kind, words_in_plain_python

from stemma.deduplication.candidates import candidate_pairs
from stemma.deduplication.edit import (
    EDIT,
    compared_forms,
    edit_bands,
    edit_buckets,
    edit_scores,
    lowest_jaccard,
    plausible_edit,
    sign_edit,
)
from stemma.deduplication.numbers import same_numbers

TEXTS = st.text(
    st.one_of(
        st.sampled_from("".join(SENTENCES.values())),
        st.characters(codec="utf-8", max_codepoint=0x2FFFF, exclude_categories=["Cs", "Cn"]),
        st.sampled_from("ab 12中文ไทย"),
    ),
    max_size=30,
)


def form_in_plain_python(text: str) -> str:
    """The words, with a space between two unless one of them needs none."""
    form = ""
    before = ""
    for word in words_in_plain_python(text):
        is_apart = before and kind(before[0]) != "solo" and kind(word[0]) != "solo"
        form += f" {word}" if is_apart else word
        before = word
    return form


def distance_in_plain_python(a: str, b: str) -> int:
    """Levenshtein's distance by Wagner and Fischer's table."""
    above = list(range(len(b) + 1))
    for row, left in enumerate(a, 1):
        line = [row]
        for column, right in enumerate(b, 1):
            line.append(min(above[column] + 1, line[-1] + 1, above[column - 1] + (left != right)))
        above = line
    return above[-1]


def ratio_in_plain_python(a: str, b: str) -> float:
    a, b = form_in_plain_python(a), form_in_plain_python(b)
    return 1 - distance_in_plain_python(a, b) / max(len(a), len(b)) if a or b else 0.0


def signed(texts: list[str], **parameters: int) -> pa.Table:
    return sign_edit(pa.table({"text": pa.array(texts, pa.string())}), **parameters)


def found_pairs(texts: list[str], threshold: float) -> dict[tuple[int, int], float]:
    """The way from texts to verified pairs."""
    table = signed(texts)
    pairs = array(
        {(min(pair), max(pair)) for pair in proposed(edit_buckets(table, threshold=threshold), texts)}
    )
    pairs = pairs[plausible_edit(table, pairs, threshold)]
    scores = edit_scores(texts, pairs)
    is_close = scores >= threshold
    return dict(zip(map(tuple, pairs[is_close].tolist()), scores[is_close].tolist(), strict=True))


def edited(text: str, edits: int, choose: random.Random) -> str:
    characters = list(text)
    for place in sorted(choose.sample(range(len(characters)), edits), reverse=True):
        other = choose.choice([character for character in text if character != " "])
        characters[place : place + choose.choice([0, 1, 1])] = choose.choice([[other], [other], []])
    return "".join(characters)


def short_texts(count: int, seed: int) -> list[str]:
    """Parts of sentences in many scripts, most of them with a few edits."""
    choose = random.Random(seed)
    texts: list[str] = []
    while len(texts) < count:
        if texts and choose.random() < 0.7:
            text = choose.choice(texts)
            texts.append(edited(text, choose.randrange(min(len(text) // 8, 3) + 1), choose))
        else:
            words = " ".join(choose.sample(list(SENTENCES.values()), 2)).split()
            choose.shuffle(words)
            texts.append(" ".join(words)[: choose.randrange(1, 45)])
        if not form_in_plain_python(texts[-1]):
            texts.pop()
    return list(dict.fromkeys(texts))


# --- what is compared


@settings(max_examples=examples(300), deadline=None)
@given(st.lists(TEXTS, max_size=4))
def test_compared_forms_equal_plain_python(texts):
    expected = [form_in_plain_python(text) for text in texts]
    assert compared_forms(texts) == expected
    assert compared_forms(texts, max_characters=9) == [form if len(form) <= 9 else "" for form in expected]


def test_compared_forms_have_spaces_where_their_script_has_them():
    texts = [
        "Don’t STOP",
        "中文，自由 abc漢 a b",
        "ที่ นี่ kg",
        "葛\U000e0100城 か\u3099",
        "\U00020000\U00010400X",
        "…",
    ]
    forms = ["don t stop", "中文自由abc漢a b", "ที่นี่kg", "葛城が", "\U00020000\U00010428x", ""]
    assert compared_forms(texts) == forms


# --- signatures


def test_signing_does_not_depend_on_the_batch_or_the_writing():
    texts = [*short_texts(200, seed=2), *SENTENCES.values(), "", "?", "x", "long " * 60, "größe " * 100_000]
    together = signed(texts).to_pylist()
    assert together == [row for text in texts for row in signed([text]).to_pylist()]
    assert together == signed(texts[::-1]).to_pylist()[::-1]
    assert together == signed([f"¡{text.replace(' ', ' — ')}!" for text in texts]).to_pylist()
    chunks = pa.chunked_array([texts[:7], [], texts[7:]], pa.large_string())
    assert sign_edit(pa.table({"text": chunks})).to_pylist() == together


def test_texts_that_are_long_or_empty_have_no_signature():
    texts = ["", "!", "…", "x", "x" * 256, "x" * 257, "中" * 256, "中" * 257, "\U00020000" * 256]
    table = signed(texts)
    assert table.schema == signed([]).schema == EDIT
    assert table["characters"].to_pylist() == [None, None, None, 1, 256, None, 256, None, 256]
    assert table["signature"].is_valid().to_pylist() == table["characters"].is_valid().to_pylist()
    assert edit_buckets(signed(["", "!"])).keys.tolist() == []
    with pytest.raises(ValueError, match="null"):
        sign_edit(pa.table({"text": ["a", None]}))


def test_repeated_trigrams_count():
    """A text of one letter is not like a longer one, though both have the same trigrams."""
    table = signed(["a" * 20, "a" * 40, "a" * 19])
    rows = [np.frombuffer(signature, "<u4") for signature in table["signature"].to_pylist()]
    assert (rows[0] == rows[1]).mean() < 0.7
    assert (rows[0] == rows[2]).mean() > 0.7


# --- candidates


def trigrams_in_plain_python(text: str) -> Counter:
    padded = f"\0\0{text}\0\0"
    return Counter(padded[start : start + 3] for start in range(len(padded) - 2))


@settings(max_examples=examples(200), deadline=None)
@given(st.text("abcd ", min_size=1, max_size=60), st.integers(1, 12), st.randoms(use_true_random=False))
def test_no_pair_is_below_the_lowest_jaccard(text, edits, choose):
    other = edited(f"z{text}", min(edits, len(text)), choose)
    ratio = 1 - distance_in_plain_python(f"z{text}", other) / max(len(text) + 1, len(other))
    if ratio > 2 / 3:
        a, b = trigrams_in_plain_python(f"z{text}"), trigrams_in_plain_python(other)
        assert (a & b).total() / (a | b).total() >= lowest_jaccard(ratio)


@pytest.mark.parametrize("threshold", [0.8, 0.85, 0.9, 0.95, 0.99, 1.0])
def test_bands_find_a_pair_at_the_lowest_jaccard(threshold):
    bands, rows = edit_bands(threshold)
    assert 2 <= bands <= 160 // rows
    assert 1 - (1 - lowest_jaccard(threshold) ** rows) ** bands >= 0.945


def test_thresholds_without_a_lowest_jaccard_are_refused():
    for threshold in (2 / 3, 0.5, 1.1):
        with pytest.raises(ValueError, match="above 2/3"):
            edit_bands(threshold)


@pytest.mark.parametrize("threshold", [0.85, 0.9, 0.95])
def test_short_texts_of_all_scripts_precision_and_recall(threshold):
    texts = short_texts(350, seed=11)
    forms = [form_in_plain_python(text) for text in texts]
    counts = [Counter(form) for form in forms]
    truth = {}
    for a, b in combinations(range(len(texts)), 2):
        longer = max(len(forms[a]), len(forms[b]))
        fewest = longer - (counts[a] & counts[b]).total()
        if 1 - fewest / longer >= threshold:
            truth[a, b] = ratio_in_plain_python(texts[a], texts[b])
    truth = {pair: ratio for pair, ratio in truth.items() if ratio >= threshold}
    found = found_pairs(texts, threshold)
    assert len(truth) > 50
    assert found.items() <= truth.items()
    assert len(found) >= 0.99 * len(truth)


@pytest.mark.parametrize("language", ["en", "ja", "ru"])
def test_sentences_recall_at_the_threshold(shared, language):
    """Sentences with as many edits as the ratio allows, among all the others."""
    with gzip.open(
        shared / "data" / "b3_stsb_multi" / f"stsb-{language}-dev.csv.gz", "rt", encoding="utf-8"
    ) as lines:
        texts = list(dict.fromkeys(compared_forms([row[0] for row in csv.reader(lines)])))
    choose = random.Random(5)
    copies = [edited(text, int(len(text) * 0.1 + 1e-9), choose) for text in texts if len(text) <= 256]
    both = list(dict.fromkeys([*texts, *copies]))
    place = {text: number for number, text in enumerate(both)}
    truth: Pairs = {
        tuple(sorted((place[text], place[copy])))
        for text, copy in zip(texts, copies, strict=False)
        if text != copy and ratio_in_plain_python(text, copy) >= 0.9
    }
    found = found_pairs(both, 0.9)
    assert len(truth) > 1000
    assert len(truth & found.keys()) >= 0.99 * len(truth)


@pytest.mark.parametrize("text", SENTENCES.values(), ids=SENTENCES)
def test_one_edit_in_every_script(text):
    texts = [text, f"{text}x", text[: len(text) // 2] + "x" + text[len(text) // 2 :], "something else"]
    ratios = {(a, b): ratio_in_plain_python(texts[a], texts[b]) for a, b in combinations(range(4), 2)}
    assert found_pairs(texts, 0.9) == {pair: ratio for pair, ratio in ratios.items() if ratio >= 0.9}
    assert (0, 1) in found_pairs(texts, 0.85)


def test_plausible_pairs_keep_every_pair_that_reaches_the_threshold():
    texts = short_texts(300, seed=3)
    pairs = array([*combinations(range(len(texts)), 2)])
    scores = edit_scores(texts, pairs)
    for threshold in (0.85, 0.9):
        plausible = plausible_edit(signed(texts), pairs, threshold)
        assert plausible[scores >= threshold].all()
        assert plausible.mean() < 0.05
    assert plausible_edit(signed(["", *texts]), pairs + 1, 0.9).tolist() == plausible.tolist()
    assert plausible_edit(signed(texts), pairs[:0], 0.9).tolist() == []


def template_pairs(template: str, count: int) -> int:
    buckets = edit_buckets(signed([template.format(number) for number in range(count)]))
    assert np.bincount(buckets.rows).tolist() == [40] * count
    assert buckets.asks.all()
    assert not buckets.rank.any()
    return len(candidate_pairs(buckets.keys, buckets.rows, witnesses=2))


def test_fifty_thousand_texts_of_a_template_have_a_linear_number_of_pairs():
    assert template_pairs("an invoice", 50_000) == 2 * 50_000 - 3
    template = "invoice {:05} of the customer, to be paid in a month"
    assert template_pairs(template, 50_000) < 3 * template_pairs(template, 25_000)


# --- ratios


@settings(max_examples=examples(200), deadline=None)
@given(st.lists(TEXTS, min_size=2, max_size=4))
def test_ratios_equal_plain_python(texts):
    pairs = [(a, b) for a in range(len(texts)) for b in range(len(texts))]
    expected = [ratio_in_plain_python(texts[a], texts[b]) for a, b in pairs]
    assert edit_scores(texts, array(pairs)).tolist() == expected


@pytest.mark.parametrize("length", [10, 20, 40, 123, 256])
def test_ratios_at_the_threshold_reach_it(length):
    longer = "".join(chr(0x4E00 + place) for place in range(length))
    for edits in range(1, length // 4):
        texts = [longer, longer[edits:]]
        ratio = 1 - edits / length
        assert edit_scores(texts, array([(0, 1)])).tolist() == [ratio]
        assert plausible_edit(signed(texts), array([(0, 1)]), ratio).all()


def test_ratios_of_no_pairs_and_of_no_words():
    assert edit_scores(["a"], array([])).tolist() == []
    assert edit_scores(["", "!", "a"], array([(0, 1), (0, 2), (2, 2)])).tolist() == [0, 0, 1]


# --- numbers


@pytest.mark.parametrize(
    ("a", "b", "same"),
    [
        ("Invoice 17", "Invoice 18", False),
        ("Invoice 17", "INVOICE: ‘17’", True),
        ("the 3 of 4", "of 4 the 3", True),
        ("2024-01-02", "2024-02-01", False),
        ("1 and 1 and 2", "1 and 2 and 2", False),
        ("model a1", "model b1", False),
        ("no number", "no numbers", True),
        ("", "!", True),
        ("", "7", False),
        ("²", "2", True),
        ("½", "⅓", False),
        ("صفحة ٣", "صفحة ٤", False),
        ("पृष्ठ १२", "पृष्ठ १३", False),
        ("ราคา ๑๒ บาท", "ราคา ๒๑ บาท", False),
        ("第二十三条", "第三十二条", False),
        ("第三条", "本第三条", True),
        ("𝟛 times", "3 times", True),
    ],
)
def test_numbers_of_a_pair(a, b, same):
    assert same_numbers([a, b, "unlike 99"], array([(0, 1), (1, 0), (0, 2)])).tolist() == [same, same, False]


def test_numbers_of_many_texts_of_all_scripts():
    """One block holds texts of ASCII alone, another the rest; the same numbers are the same in both."""
    texts = ["17 bottles", "17 Flaschen für Zürich", "siebzehn", "18 bottles", "17 17", *SENTENCES.values()]
    pairs = array([(0, 1), (0, 3), (0, 4), (1, 3), (2, 5)])
    assert same_numbers(texts, pairs).tolist() == [True, False, False, False, True]
    assert same_numbers(texts, array([])).tolist() == []
