"""Language identification with pycld2 (CLD2)."""

import re

from stemma.cleaning.repair import without_invisible

# Scripts without spaces between words: four letters there say more than two words elsewhere.
_UNSPACED_LETTERS = re.compile("[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff]{4}")
_MIN_WORDS = 3
# Of a long text, its beginning, middle and end decide: that bounds the time it takes.
_SLICE_CHARACTERS = 5_000
# What CLD2 answers where it knows no language: "un", a script ("xx-Yiii"), or one of its jokes ("zzb").
_UNKNOWN = ("un", "xx", "zz")
# CLD2 answers in some codes that ISO 639 has withdrawn or never had.
_CURRENT_CODES = {"iw": "he", "jw": "jv", "blu": "hmn"}


def identify(text: str) -> tuple[str | None, float]:
    """Identify the main language of a text.

    Returns:
        The ISO 639 code in lower case as CLD2 names it (a script may follow: "zh-hant"), None when it is
        unknown, when CLD2 calls its own answer unreliable (on the UDHR nine of ten such answers are wrong) or
        there are fewer than three words; and the share of the text in it, 0 to 1 (0 when unknown).
    """
    if len(text.split(None, _MIN_WORDS)) < _MIN_WORDS and not _UNSPACED_LETTERS.search(text):
        return None, 0.0
    import pycld2

    sample = _sample(text)
    try:
        reliable, _, (best, *_) = pycld2.detect(sample, isPlainText=True)
    except pycld2.error:
        # CLD2 refuses controls, surrogates and non-characters, which only a text that was not repaired has.
        reliable, _, (best, *_) = pycld2.detect(without_invisible(sample), isPlainText=True)
    _, code, percent, _ = best
    if code.startswith(_UNKNOWN) or not reliable:
        return None, 0.0
    return _current(code), percent / 100


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
