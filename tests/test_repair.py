"""Repair of characters and white space, and the maps from repaired text to the text before."""

import gzip
import json
import re
import unicodedata

import ftfy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stemma.cleaning.extraction import Origin
from stemma.cleaning.origins import compose, line_origins, map_origins
from stemma.cleaning.repair import repair


@pytest.fixture(scope="module")
def udhr(shared) -> list[dict]:
    with gzip.open(shared / "data" / "e1_udhr" / "udhr.jsonl.gz", "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


@pytest.mark.parametrize(
    ("broken", "repaired"),
    [
        ("a\r\nb\rc\nd", "a\nb\nc\nd"),
        ("a\u2028b\fc", "a\nb\nc"),
        ("cafÃ© â€“ naÃ¯ve", "café – naïve"),
        ("A\u030angstro\u0308m", "Ångström"),
        ("a\x00b\x07c\td", "abc\td"),
        ("\x1b[31mred\x1b[0m", "red"),
        ("\ufeffri\u00adver\u200bbank\u2060", "riverbank"),
        ("safe\u202etxt.exe\u202c", "safetxt.exe"),
        ("hidden\U000e0041\U000e0042 text", "hidden text"),
        ("non\ufffe\ufdd0\U0001ffffcharacters", "noncharacters"),
        ("one\u00a0two\u202fthree", "one two three"),
        ("a  \nb\t\n\n\n\n\nc", "a\nb\n\nc"),
        ("\n\n  indented stays\n", "  indented stays"),
        ("lone \ud800 surrogate", "lone \ufffd surrogate"),
        ("“curly” ﬁ ｗｉｄｅ &lt;b&gt;", "“curly” ﬁ ｗｉｄｅ &lt;b&gt;"),
        (" \t\u00a0\u200b\n ", ""),
    ],
)
def test_repair(broken, repaired):
    assert repair(broken).text == repaired


@pytest.mark.parametrize(
    "text",
    [
        "می‌خواهم بروم",  # Persian: the non-joiner separates a prefix
        "क्‍ष और क्‌ष",  # Devanagari: both change the shape of the letters
        "ශ්‍රී ලංකාව",  # Sinhala
        "👩‍👩‍👧‍👦 🏳️‍🌈 👩🏽‍🚀",  # families, flags and skin tones are joined emoji
        "ភាសា​ខ្មែរ",  # Khmer: a zero-width space separates words
    ],
)
def test_joiners_stay_where_a_script_needs_them(text):
    assert repair(text).text == unicodedata.normalize("NFC", text)


@pytest.mark.parametrize(
    ("text", "kept"), [("ab\u200dcd", "abcd"), ("ab\u200ccd", "abcd"), ("می\u200c ", "می")]
)
def test_joiners_go_elsewhere(text, kept):
    assert repair(text).text == kept


@given(st.text())
@settings(max_examples=200, deadline=None)
def test_a_repaired_text_is_normal(text):
    repaired = repair(text).text
    assert unicodedata.is_normalized("NFC", repaired)
    assert repaired.encode().decode() == repaired
    assert not re.search(
        r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ufeff\u00ad]|\s\n|\n{3}|\s\Z", repaired.replace("\n\n", "\n")
    )


def test_the_gate_before_ftfy_misses_nothing(udhr):
    settings_of_repair = ftfy.TextFixerConfig(
        unescape_html=False,
        fix_latin_ligatures=False,
        fix_character_width=False,
        uncurl_quotes=False,
        fix_line_breaks=False,
        remove_control_chars=False,
        normalization=None,
    )
    encodings = ("latin-1", "cp1252", "cp1251", "cp1253", "cp437", "mac_roman")
    changed = 0
    for number, document in enumerate(udhr[::24]):
        line = document["text"].split("\n")[0][:300]
        mangled = line.encode().decode(encodings[number % len(encodings)], "replace")
        for text in (line, mangled):
            wanted = ftfy.fix_text(text, settings_of_repair)
            changed += wanted != text
            assert repair(text).text == repair(wanted).text
    assert changed > 100


def test_long_runs_of_marks_are_normalised_all_the_same():
    text = "e" + "\u0301\u0323" * 100
    assert repair(text).text == unicodedata.normalize("NFC", text)


def test_repair_sees_what_stands_between_its_blocks():
    filler = "é" * ((1 << 16) - 1)
    for broken, repaired in (("Ã©", "é"), ("a\u00adb", "ab"), ("x\u00a0y", "x y")):
        assert repair(filler + broken).text == filler + repaired


@pytest.mark.timeout(120)  # seconds; it hangs where the time does not follow the length
@pytest.mark.parametrize(
    "text",
    [
        " " * 1_000_000 + "x",
        "\u00a0" * 500_000 + "x",
        "a \n" * 300_000,
        "x\u200b" * 300_000,
        "Ã©" * 200_000,
        "\x1b[" * 300_000,
        "e" + "\u0301\u0323" * 200_000,
        "\u2028\r\n" * 200_000,
        (" " * 999 + "\n") * 1000 + " " * 1000 + "x",
    ],
    ids=[
        "spaces",
        "wide spaces",
        "line ends",
        "invisible",
        "mojibake",
        "escapes",
        "marks",
        "lines",
        "blank lines",
    ],
)
def test_hostile_text_is_repaired_and_traced_in_time(text):
    line_origins(text, repair(text).text)


# Where repaired text comes from -------------------------------------------------------------------


def mapped(breakpoints, length: int) -> list[int]:
    """Spell a map out: the source character of each of the first `length` characters."""
    ends = [start for start, _ in breakpoints[1:]] + [length]
    return [
        source + place - start
        for (start, source), end in zip(breakpoints, ends, strict=True)
        for place in range(start, min(end, length))
    ]


@pytest.mark.parametrize(
    ("source", "breakpoints"),
    [
        ("nothing\n\nto repair", ((0, 0),)),
        ("", ((0, 0),)),
        ("\n\n  indented stays\n", ((0, 2),)),
        ("a  \nb\t\n\n\n\n\nc", ((0, 0), (1, 3), (4, 10))),
        ("one\r\ntwo\r\nthree", ((0, 0), (3, 4), (7, 9))),
        ("one\rtwo\u2028three", ((0, 0),)),
        ("\r\n\r\n one \r\n\r\r\n\r\ntwo\r\n", ((0, 4), (5, 15))),
        ("non\u00a0breaking", ((0, 0),)),
        ("\ufeffinvisible\u00ad character", ((0, 1), (9, 11))),
        ("cafÃ© â€“ naÃ¯ve", ((0, 0), (4, 5), (6, 9), (10, 14))),
        ("A\u030angstrom\n \u200b \nunits", ((0, 0), (1, 2), (9, 13))),
        ("\x1b[31mred\x1b[0m alert", ((0, 5), (3, 12))),
    ],
)
def test_line_origins(source, breakpoints):
    assert line_origins(source, repair(source).text) == breakpoints


LINE = st.text(alphabet="abcdefgh .", max_size=12).map(lambda line: "q" + line)
BETWEEN = st.sampled_from(
    [
        "\n",
        "\r\n",
        "\n\n",
        "  \n",
        "\n \n",
        "\n\n\n\n",
        "\r\r",
        "\u00a0\n",
        "\n\u200b\n",
        "\n\ufeff \n",
        "\u200b\n",
    ]
)


@given(st.lists(st.tuples(LINE, BETWEEN), max_size=8))
@settings(max_examples=300, deadline=None)
def test_every_letter_is_mapped_to_itself(lines):
    source = "".join(map("".join, lines))
    repaired = repair(source).text
    places = mapped(line_origins(source, repaired), len(repaired))
    found = [place for place, char in zip(places, repaired, strict=True) if not char.isspace()]
    assert (
        found == [place for place, char in enumerate(source) if char.isalpha() or char == "."][: len(found)]
    )
    assert len(found) == sum(not char.isspace() for char in repaired)


@given(st.one_of(st.text(), st.text(alphabet="ab \t\n\r\v\u200b\u00a0\u2028éÃ©Â\x85\x1b[31m\u0308\ufeff")))
@settings(max_examples=500, deadline=None)
def test_maps_ascend_and_stay_inside_the_source(source):
    repaired = repair(source).text
    breakpoints = line_origins(source, repaired)
    assert breakpoints[0][0] == 0
    assert breakpoints[-1][0] < max(1, len(repaired))
    assert [place for place, _ in breakpoints] == sorted({place for place, _ in breakpoints})
    assert [origin for _, origin in breakpoints] == sorted(origin for _, origin in breakpoints)
    assert breakpoints[-1][1] <= len(source)


def test_origins_of_real_documents(udhr):
    lines = [row["text"] for row in udhr if row["bcp47"] in ("fr", "vi", "hi", "th")]
    source = " \r\n\r\n\r\n".join(lines)
    repaired = repair(source).text
    places = mapped(line_origins(source, repaired), len(repaired))
    first_parts = (unicodedata.normalize("NFD", char)[0] for char in repaired)
    same = sum(char == source[place] for char, place in zip(first_parts, places, strict=True))
    assert same > 0.96 * len(repaired)


MAP = st.lists(st.tuples(st.integers(1, 6), st.integers(0, 6)), max_size=6).map(
    lambda steps: tuple(
        (sum(step[0] for step in steps[:count]), sum(sum(step) for step in steps[:count]))
        for count in range(len(steps) + 1)
    )
)


@given(MAP, MAP)
@settings(max_examples=300, deadline=None)
def test_compose_follows_both_maps(first, second):
    length = 40
    middle = mapped(second, length)
    wanted = [mapped(first, max(middle) + 1)[place] for place in middle]
    assert mapped(compose(first, second, length), length) == wanted
    origins = map_origins(tuple(Origin(*pair) for pair in first), second, length)
    assert mapped([(origin.char_start, origin.source_char) for origin in origins], length) == wanted


def test_origins_that_are_places_move_with_their_text():
    source = "page one\n\n\n\npage two  \n\n\n\n"
    repaired = repair(source).text
    origins = (Origin(0, place="page 1"), Origin(12, place="page 2"), Origin(26, place="page 3"))
    assert map_origins(origins, line_origins(source, repaired), len(repaired)) == (
        Origin(0, place="page 1"),
        Origin(10, place="page 2"),
    )
    # The same place on both sides of an edit is one origin; text before the first has none.
    assert map_origins((Origin(2, place="page 1"),), ((0, 0), (3, 4), (6, 9))) == (Origin(2, place="page 1"),)
