"""Language identification: CLD2, and py3langid where it is unsure."""

import gzip
import json
import subprocess
import sys
from collections import defaultdict

import pytest
from py3langid.langid import MODEL_FILE, LanguageIdentifier

from stemma.cleaning.language import identify, identify_all, known_languages

PARAGRAPH = "The river rose in the night and by morning the lower fields had become a lake. " * 5


@pytest.fixture(scope="module")
def udhr(shared) -> list[dict]:
    with gzip.open(shared / "data" / "e1_udhr" / "udhr.jsonl.gz", "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


@pytest.mark.parametrize(
    ("text", "language"),
    [
        (PARAGRAPH, "en"),
        ("Das ist ein ganz gewöhnlicher Satz in deutscher Sprache.", "de"),
        ("כל בני אדם נולדו בני חורין ושווים בערכם ובזכויותיהם", "he"),
        ("吾輩は猫である。名前はまだ無い。どこで生れたかとんと見当がつかぬ。", "ja"),
        ("ይህ፡የሰው፡ልጅ፡ሁሉ፡ሲወለድ፡ነጻና፡በክብርና፡በመብትም፡እኩልነት፡ያለው፡ነው።", "am"),
        (
            "Herwekî nasîna weqara pêgirê hemû endamên malbata mirovî û mafên wan",
            "ku",
        ),  # CLD2 knows no answer
        ("two words", None),
        ("", None),
        ("0 1 2 3 4 5 6 7 8 9", None),
        ("xk7 qq zz ab 12 -- ??", None),
        ("for (int i = 0; i < n; i++) { a[i] = b[i] * 2; }", None),
        ("noise \x00\x01 \ufffe in a perfectly ordinary English sentence, which must be read", "en"),
        ("\ud800 a surrogate in a perfectly ordinary English sentence, which must be read", "en"),
    ],
)
def test_language(text, language):
    code, score = identify(text)
    assert code == language
    assert (0.5 < score <= 1) if language else score == 0


def test_identify_all_answers_each_text_on_its_own(udhr):
    texts = [row["text"] for row in udhr[::40]] + ["", "two words"]
    assert identify_all(texts) == [identify(text) for text in texts]
    assert identify_all(texts[::-1]) == identify_all(texts)[::-1]
    assert {code for code, _ in identify_all(texts)} <= known_languages() | {None}


def test_the_second_model_is_loaded_only_where_the_first_is_unsure():
    program = "import sys; from stemma.cleaning.language import identify;"
    program += f"identify({PARAGRAPH!r}); print('py3langid' in sys.modules);"
    program += "identify('Herwekî nasîna weqara pêgirê hemû endamên'); print('py3langid' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", program], text=True).split() == ["False", "True"]


@pytest.mark.timeout(120)  # seconds; it hangs where the time does not follow the length
def test_language_of_a_long_text_takes_no_longer():
    assert identify(PARAGRAPH * 10_000)[0] == "en"


def test_languages_of_the_universal_declaration(udhr):
    common = {
        "en",
        "de",
        "es",
        "it",
        "nl",
        "pl",
        "ru",
        "el",
        "tr",
        "hu",
        "fi",
        "ja",
        "ko",
        "th",
        "he",
        "ar",
        "hi",
    }
    found = [
        identify(row["text"])[0] == row["bcp47"]
        for row in udhr
        if row["bcp47"] in common and len(row["text"]) > 200
    ]
    assert len(found) > 100
    assert sum(found) / len(found) > 0.97


def test_the_languages_of_the_declaration_that_both_models_know(udhr):
    """Rows whose tag is a language alone; `benchmarks/cleaning_steps.py language` has the main scripts too."""
    both = known_languages() & set(LanguageIdentifier.from_model_file(MODEL_FILE).labels)
    right = defaultdict(list)
    for row in udhr:
        if row["bcp47"] in both:
            right[row["bcp47"]].append(identify(row["text"])[0] == row["bcp47"])
    assert len(right) >= 90
    assert sum(sum(rows) / len(rows) for rows in right.values()) / len(right) > 0.965
