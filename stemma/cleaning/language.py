"""Language identification with pycld2 (CLD2), and a second opinion from py3langid where it is unsure."""

import re
from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING

from stemma.cleaning.repair import without_invisible

if TYPE_CHECKING:
    from py3langid.langid import LanguageIdentifier

# Scripts without spaces between words, or with marks of their own there (Tibetan, Ethiopic): four letters
# say more than two words elsewhere.
_UNSPACED_LETTERS = re.compile("[\u0e00-\u109f\u1200-\u137f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff]{4}")
_MIN_WORDS = 3
# Of a long text, its beginning, middle and end decide: that bounds the time it takes.
_SLICE_CHARACTERS = 5_000
# What CLD2 answers where it knows no language: "un", a script ("xx-Yiii"), or one of its jokes ("zzb").
_UNKNOWN = ("un", "xx", "zz")
# CLD2 answers in some codes that ISO 639 has withdrawn or never had.
_CURRENT_CODES = {"iw": "he", "jw": "jv", "blu": "hmn"}
# py3langid reads 4 MB/s, and 200 characters are enough for it. On the rows of the UDHR where CLD2 is unsure
# (97 of 2,207 in languages that both know), its answers of this probability are right in 52 of 56; every
# second one below is wrong, and they would name a language for twice as many rows in unknown ones.
_SECOND_CHARACTERS = 200
_SECOND_PROBABILITY = 0.7


def identify_all(texts: Sequence[str]) -> list[tuple[str | None, float]]:
    """Identify the main language of each text, as `identify` does."""
    return [identify(text) for text in texts]


def identify(text: str) -> tuple[str | None, float]:
    """Identify the main language of a text.

    Returns:
        The ISO 639 code in lower case as CLD2 names it (a script may follow: "zh-hant"), and the share of the
        text in it, 0 to 1. Where CLD2 knows no language or calls its answer unreliable (on the UDHR nine of
        ten such answers are wrong), the code and the probability that py3langid gives, if that is at least
        0.7 and CLD2 knows the language at all. None and 0 where that fails too, or there are fewer than three
        words.
    """
    if len(text.split(None, _MIN_WORDS)) < _MIN_WORDS and not _UNSPACED_LETTERS.search(text):
        return None, 0.0
    import pycld2

    sample = _sample(text)
    try:
        reliable, _, (best, *_) = pycld2.detect(sample, isPlainText=True)
    except (pycld2.error, UnicodeEncodeError):
        # CLD2 refuses controls, surrogates and non-characters, which only a text that was not repaired has.
        reliable, _, (best, *_) = pycld2.detect(without_invisible(sample), isPlainText=True)
    _, code, percent, _ = best
    if code.startswith(_UNKNOWN) or not reliable:
        return _second_opinion(sample)
    return _current(code), percent / 100


@cache
def known_languages() -> frozenset[str]:
    """Return the codes that `identify` can answer."""
    import pycld2

    return frozenset(_current(code) for _, code in pycld2.LANGUAGES if not code.startswith(_UNKNOWN))


def _current(code: str) -> str:
    return _CURRENT_CODES.get(code, code.lower())


def _sample(text: str) -> str:
    if len(text) <= 3 * _SLICE_CHARACTERS:
        return text
    middle = (len(text) - _SLICE_CHARACTERS) // 2
    slices = (text[:_SLICE_CHARACTERS], text[middle : middle + _SLICE_CHARACTERS], text[-_SLICE_CHARACTERS:])
    return "\n".join(slices)


def _second_opinion(sample: str) -> tuple[str | None, float]:
    middle = max(0, len(sample) - _SECOND_CHARACTERS) // 2
    code, probability = _identifier().classify(sample[middle : middle + _SECOND_CHARACTERS])
    if probability < _SECOND_PROBABILITY or code not in known_languages():
        return None, 0.0
    # Rounded, because processors add floating-point numbers in different orders.
    return code, round(probability, 3)


@cache
def _identifier() -> "LanguageIdentifier":
    """Load py3langid's model, once it is needed: 1 s, 110 MB."""
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
