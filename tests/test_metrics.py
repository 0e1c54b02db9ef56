"""Metrics: known values, the same in any batch and order, and those of a plain implementation on odd texts."""

import re
from collections import Counter

import numpy as np
import pyarrow as pa
import pytest
from harness import examples
from hypothesis import given, settings
from hypothesis import strategies as st
from real_texts import real_texts

from stemma.cleaning.filters import repetition, text_blocks
from stemma.cleaning.filters.characters import punctuation, terminals
from stemma.cleaning.filters.metrics import COUNTS, METRICS, RATIOS, measure
from stemma.cleaning.filters.stop_words import STOP_WORDS

SENTENCE = "The river rose in the night and by morning the lower fields had become a lake. "


def one(text: str, language: str | None = None) -> dict[str, float]:
    return measure([text], [language]).to_pylist()[0]


def test_every_metric_by_hand():
    text = "- the river ...\n- the river ...\n\n1234 and more words, that end here.\n# 99"
    assert one(text, "en") == {
        "characters": 73,
        "words": 17,
        "non_symbol_words": 12,
        "lines": 4,
        "stop_words": 3,
        "language_stop_words": 3,
        "c4_kept_lines": 1,
        "c4_sentences": 1,
        "c4_lorem_ipsum_lines": 0,
        "c4_curly_bracket_lines": 0,
        "c4_kept_lines_any_ending": 3,
        "c4_sentences_any_ending": 3,
        "c4_lorem_ipsum_lines_any_ending": 0,
        "c4_curly_bracket_lines_any_ending": 0,
        "javascript_lines": 0,
        "policy_lines": 0,
        "citation_lines": 0,
        "mean_word_length": (2 * 8 + 4 + 3 + 4 + 6 + 4 + 3 + 5 + 2) / 12,
        "hash_to_word_ratio": 1 / 17,
        "ellipsis_to_word_ratio": 2 / 17,
        "newline_to_word_ratio": 4 / 17,
        "alpha_word_fraction": 10 / 17,
        "unique_word_fraction": 13 / 17,
        "bullet_line_fraction": 2 / 5,
        "ellipsis_line_fraction": 2 / 5,
        "terminal_punctuation_line_fraction": 3 / 4,
        "short_line_fraction": 3 / 4,
        "repeated_character_fraction": 15 / 69,
        "kept_terminal_punctuation_line_fraction": 1,
        "kept_short_line_fraction": 2 / 3,
        "kept_repeated_character_fraction": 15 / 65,
        "kept_newline_to_word_ratio": 2 / 15,
        "duplicate_line_fraction": 1 / 4,
        "duplicate_line_character_fraction": 15 / 73,
        "duplicate_paragraph_fraction": 0,
        "duplicate_paragraph_character_fraction": 0,
        "top_2_gram_character_fraction": 2 * len("- the") / 73,
        "top_3_gram_character_fraction": 2 * len("- the river") / 73,
        "top_4_gram_character_fraction": 2 * len("- the river ...") / 73,
        **{f"duplicate_{size}_gram_character_fraction": 0 for size in range(5, 11)},
    }


def test_paragraphs_and_n_grams_by_hand():
    text = "one two three four five six\n\n\nseven\n\none two three four five six\n\nseven"
    scores = one(text)
    assert scores["duplicate_paragraph_fraction"] == 2 / 4
    assert scores["duplicate_paragraph_character_fraction"] == (27 + 5) / len(text)
    assert scores["duplicate_line_fraction"] == 2 / 4
    assert scores["duplicate_5_gram_character_fraction"] == len("onetwothreefourfive") / len(text)
    assert scores["duplicate_7_gram_character_fraction"] == len("onetwothreefourfivesixseven") / len(text)
    assert scores["duplicate_8_gram_character_fraction"] == 0
    # After an n-gram that occurred before, reading goes on behind it.
    assert one("a a a a a a a a a a a")["duplicate_5_gram_character_fraction"] == 10 / 21
    assert one("a a a a")["top_2_gram_character_fraction"] == 9 / 7


def test_what_c4_leaves_by_hand():
    lines = [
        "Enough words stand here. Two sentences do.",
        "Too short.",
        "This line does not end its sentence",
        "This one mentions JavaScript somewhere.",
        "Read our privacy policy before you go on.",
        "A claim that is well known.[1]",
        "Nothing is left of [edit] here ...",
        "x" * 1001 + " makes this line too long.",
        'He said "stop!" and went away.',
    ]
    scores = one("\n".join(lines))
    assert scores["c4_kept_lines"] == 3
    assert scores["c4_sentences"] == 2 + 1 + 2
    assert scores["c4_kept_lines_any_ending"] == 5
    assert scores["c4_sentences_any_ending"] == 2 + 1 + 1 + 1 + 2
    assert scores["javascript_lines"] == scores["policy_lines"] == 1
    assert scores["citation_lines"] == 2
    assert scores["kept_terminal_punctuation_line_fraction"] == 4 / 5
    assert scores["kept_short_line_fraction"] == 3 / 5
    assert scores["kept_newline_to_word_ratio"] == 4 / (7 + 7 + 6 + 6 + 6)
    assert one("Here stands lorem[2] ipsum as filler.")["c4_lorem_ipsum_lines"] == 1
    assert one("Here stands Lorem Ipsum as filler")["c4_lorem_ipsum_lines"] == 0
    assert one("Here stands Lorem Ipsum as filler")["c4_lorem_ipsum_lines_any_ending"] == 1
    assert one("if (this) { then that. }")["c4_curly_bracket_lines_any_ending"] == 1
    assert one("if (this) { then that.")["c4_curly_bracket_lines"] == 1


def test_stop_words_are_those_of_the_language():
    text = "der Hund und die Katze sind in dem Haus of the Baskervilles"
    assert one(text, "de")["language_stop_words"] == 5
    assert one(text, "en")["language_stop_words"] == one(text, "de")["stop_words"] == 2
    assert one(text, None)["language_stop_words"] == one(text, "xx")["language_stop_words"] == 0
    assert one(text, "de-at")["language_stop_words"] == 5
    assert measure([text]).to_pylist()[0]["language_stop_words"] == 0
    assert one("The AND thee")["stop_words"] == 0
    for language, words in STOP_WORDS.items():
        assert one(words, language)["language_stop_words"] == len(set(words.split())), language


def test_an_empty_text_is_all_zero_and_nothing_is_infinite():
    assert set(one("").values()) == {0}
    odd = ["\n", " \t ", "…", "\x00", "\ud800", "#", ".", "a", "\u2028", "{" * 10, "[1]", "\r\n\r\n"]
    for column in measure(odd).flatten():
        assert column.null_count == 0
        assert np.isfinite(column.to_numpy()).all()


def test_the_type_says_what_comes_out():
    names = [field.name for field in METRICS]
    assert measure([]).type == measure(["a", "b"]).type == METRICS
    assert len(measure([])) == 0
    assert names == [*COUNTS, *RATIOS]
    assert len(set(names)) == len(names) == 45
    assert {str(field.type) for field in METRICS} == {"int64", "double"}


@pytest.fixture(scope="module")
def mixed_texts(shared) -> list[str]:
    found = real_texts(shared)
    chosen = [text for name in ("pages", "files", "licences") for text in found[name][::6]]
    return [*chosen, *found["declarations"][::200], *found["paragraphs"][::50], "", "\n", "word"]


def test_rows_do_not_depend_on_batch_order_or_block(mixed_texts, monkeypatch):
    languages = ["en", "de", None] * len(mixed_texts)
    languages = languages[: len(mixed_texts)]
    together = measure(mixed_texts, languages)
    backwards = measure(mixed_texts[::-1], languages[::-1])
    assert backwards.take(list(range(len(mixed_texts) - 1, -1, -1))).equals(together)
    alone = [measure([text], [language]) for text, language in zip(mixed_texts, languages, strict=True)]
    assert pa.concat_arrays(alone).equals(together)
    monkeypatch.setattr(text_blocks, "BLOCK_CHARACTERS", 5_000)
    assert measure(mixed_texts, languages).equals(together)


def test_keys_that_agree_in_their_upper_bits_are_told_apart(mixed_texts, monkeypatch):
    texts, keys = mixed_texts[::4], repetition._keys
    wanted = measure(texts)
    monkeypatch.setattr(repetition, "_keys", lambda *hashed: keys(*hashed) & np.uint64(0xFF_FFFF_FFFF))
    assert measure(texts).equals(wanted)


# A plain implementation ---------------------------------------------------------------------------


def plain(text: str) -> dict[str, float]:
    """Compute the metrics (but for C4's) as their definitions read."""
    words, lines = text.split(), [line for line in text.split("\n") if line.strip()]
    solid = [word for word in words if not set(word) <= punctuation()]
    split = text.splitlines()
    gopher_lines, paragraphs = (re.split(pattern, part) if part else [] for pattern, part in splits(text))
    scores = {
        "characters": len(text),
        "words": len(words),
        "non_symbol_words": len(solid),
        "lines": len(lines),
        "stop_words": len(set(words) & set(STOP_WORDS["en"].split())),
        "mean_word_length": ratio(sum(map(len, solid)), len(solid)),
        "hash_to_word_ratio": ratio(text.count("#"), len(words)),
        "ellipsis_to_word_ratio": ratio(text.count("...") + text.count("…"), len(words)),
        "newline_to_word_ratio": ratio(text.count("\n"), len(words)),
        "alpha_word_fraction": ratio(sum(any(map(str.isalpha, word)) for word in words), len(words)),
        "unique_word_fraction": ratio(len(set(words)), len(words)),
        "bullet_line_fraction": ratio(sum(line.lstrip()[:1] in ("•", "-") for line in split), len(split)),
        "ellipsis_line_fraction": ratio(
            sum(line.rstrip().endswith(("...", "…")) for line in split), len(split)
        ),
        "terminal_punctuation_line_fraction": ratio(
            sum(line[-1] in terminals() for line in lines), len(lines)
        ),
        "short_line_fraction": ratio(sum(len(line) <= 30 for line in lines), len(lines)),
        "repeated_character_fraction": ratio(repeated(lines)[1], len(text) - text.count("\n")),
    }
    for name, pieces in (("line", gopher_lines), ("paragraph", paragraphs)):
        number, characters = repeated(pieces)
        scores[f"duplicate_{name}_fraction"] = ratio(number, len(pieces))
        scores[f"duplicate_{name}_character_fraction"] = ratio(characters, len(text))
    for size in range(2, 5):
        grams = Counter(" ".join(words[i : i + size]) for i in range(len(words) - size + 1))
        gram, count = (grams.most_common(1) or [("", 0)])[0]
        scores[f"top_{size}_gram_character_fraction"] = ratio(len(gram) * count, len(text))
    for size in range(5, 11):
        scores[f"duplicate_{size}_gram_character_fraction"] = ratio(read(words, size), len(text))
    return scores


def ratio(part: float, whole: float) -> float:
    return part / whole if whole else 0.0


def splits(text: str) -> list[tuple[str, str]]:
    return [("\n+", text), ("\n{2,}", text.strip())]


def repeated(pieces: list[str]) -> tuple[int, int]:
    again = [piece for number, piece in enumerate(pieces) if piece in pieces[:number]]
    return len(again), sum(map(len, again))


def read(words: list[str], size: int) -> int:
    known, characters, place = set(), 0, 0
    while place <= len(words) - size:
        gram = "".join(words[place : place + size])
        if gram in known:
            characters += len(gram)
            place += size - 1
        known.add(gram)
        place += 1
    return characters


WORD = st.sampled_from(
    ["a", "b", "ab", "c", "the", "é", "#", "...", "....", "…", "-", "•", "1", "11", "한", "."]
)
GAP = st.sampled_from([" ", " ", " ", "\n", "\n\n", " \n", "\t", "\u2028", "\r\n"])
TEXT = st.lists(st.tuples(WORD, GAP).map("".join), max_size=80).map("".join) | st.text(max_size=60)


@settings(max_examples=examples(150), deadline=None)
@given(
    st.lists(st.lists(TEXT, max_size=4).map(lambda parts: "".join(parts * 2)) | TEXT, min_size=1, max_size=5)
)
def test_metrics_are_those_of_the_plain_implementation(texts):
    for text, scores in zip(texts, measure(texts).to_pylist(), strict=True):
        wanted = plain(text)
        assert {name: scores[name] for name in wanted} == wanted


def test_real_texts_have_the_metrics_of_the_plain_implementation(mixed_texts):
    texts = [text[:4000] for text in mixed_texts[::2]]
    for text, scores in zip(texts, measure(texts).to_pylist(), strict=True):
        wanted = plain(text)
        assert {name: scores[name] for name in wanted} == wanted


def test_long_texts_of_one_kind_are_linear_and_right():
    for text in (
        "a " * 200_000,
        "x" * 400_000,
        "\n" * 200_000,
        "ab c " * 50_000,
        "[1] " * 30_000,
        SENTENCE * 3_000,
    ):
        scores = one(text)
        assert scores["words"] == len(text.split())
        assert scores["duplicate_10_gram_character_fraction"] == ratio(read(text.split(), 10), len(text))
