"""Language identification with pycld2 (CLD2)."""

import re

from stemma.cleaning.repair import without_invisible

# Scripts without spaces between words: four letters there say more than two words elsewhere.
_UNSPACED_LETTERS = re.compile("[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff]{4}")
_MIN_WORDS = 3
# Enough to decide, and an upper bound for the time that one document takes.
_SAMPLE_CHARACTERS = 100_000
_UNKNOWN = "un"
# CLD2 answers in codes that ISO 639 has withdrawn.
_CURRENT_CODES = {"iw": "he", "jw": "jv", "in": "id", "blu": "hmn"}


def identify(text: str) -> tuple[str | None, float]:
    """Identify the main language of a text.

    Returns:
        The ISO 639 code in lower case as CLD2 names it (a script may follow: "zh-hant"), None when it is
        unknown or there are fewer than three words; and the share of the text in it, 0 to 1 (0 when unknown).
    """
    if len(text.split(None, _MIN_WORDS)) < _MIN_WORDS and not _UNSPACED_LETTERS.search(text):
        return None, 0.0
    import pycld2

    # CLD2 refuses controls, surrogates and non-characters; a repaired text has none.
    sample = without_invisible(text[:_SAMPLE_CHARACTERS])
    _, _, (best, *_) = pycld2.detect(sample, isPlainText=True)
    _, code, percent, _ = best
    if code == _UNKNOWN:
        return None, 0.0
    return _CURRENT_CODES.get(code, code.lower()), percent / 100
