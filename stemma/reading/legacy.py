"""Encodings of one byte for each character, told apart by the language that the text turns out to be in."""

import re

# Enough for the language and for every letter; it bounds the time at some milliseconds for each file.
_SAMPLE = 3000
_LINE = 1000
# Of the characters beyond ASCII, how many must be letters that the language has.
_MIN_SCORE = 0.8
# What an answer counts that CLD2 is unsure of, next to 1 for a sure one.
_UNSURE = 0.2

# Ties go to the earlier one: the more frequent on the Web, and Windows' before its subset by ISO.
_LATIN = (
    *("cp1252", "cp1250", "cp1254", "cp1257", "iso8859_2", "iso8859_15", "iso8859_16", "iso8859_13"),
    *("iso8859_4", "iso8859_3", "mac_roman", "cp850", "cp437", "cp852", "cp857", "mac_latin2", "cp1258"),
)
_GREEK = ("cp1253", "iso8859_7")
# Letters beyond ASCII in small form, by CLD2's codes: the alphabet, and what the language's own loanwords use.
_ALPHABETS = {
    "af": "áèéêëíîïóôöúû",
    "az": "çəğıöşü",
    "bs": "čćđšž",
    "ca": "àçèéíïòóúü",
    "cs": "áčďéěíňóřšťúůýž",
    "cy": "áàâäéèêëíìîïóòôöúùûüŵýỳŷÿ",
    "da": "æøåéáäö",
    "de": "äöüßéà",
    "en": "éèêëçïöôñàâæœäáåíóúüø",
    "es": "áéíñóúü",
    "et": "äõöüšž",
    "eu": "ñçü",
    "fi": "äöåšž",
    "fo": "áðíóúýæø",
    "fr": "àâæçéèêëîïôœùûüÿ",
    "fy": "âêîôûúéëïöäü",
    "ga": "áéíóú",
    "gd": "àèìòùáéó",
    "gl": "áéíñóúüï",
    "hr": "čćđšž",
    "hu": "áéíóöőúüű",
    "is": "áðéíóúýþæö",
    "it": "àèéìíîòóùú",
    "lb": "äëéöüèêôû",
    "lt": "ąčęėįšųūž",
    "lv": "āčēģīķļņšūžōŗ",
    "mt": "ċġħżàèìòù",
    "nl": "ëïéèóöüáíúêçàôû",
    "nn": "æøåéèêóòôä",
    "no": "æøåéèêóòôä",
    "pl": "ąćęłńóśźż",
    "pt": "áâãàçéêíóôõúü",
    "ro": "ăâîșțşţ",
    "sk": "áäčďéíĺľňóôŕšťúýž",
    "sl": "čšžćđ",
    "sq": "çë",
    "sv": "åäöéàü",
    "tr": "çğıöşüâîûİ",
    "vi": "àáãạảăằắẵặẳâầấẫậẩèéẽẹẻêềếễệểđìíĩịỉòóõọỏôồốỗộổơờớỡợởùúũụủưừứữựửỳýỹỵỷ\u0300\u0301\u0303\u0309\u0323",
    "el": "αβγδεζηθικλμνξοπρσςτυφχψωάέήίόύώϊϋΐΰ",
}
_LETTERS = {code: frozenset(small + small.upper()) for code, small in _ALPHABETS.items()}
# Greek has an accent on nearly every word, which what only looks like Greek letters lacks.
_GREEK_ACCENTS = frozenset("άέήίόύώ")
_MIN_ACCENTS = 0.07
# Letters of names from elsewhere, as texts in any language have them.
_ELSEWHERE = frozenset("áàâäãåçéèêëíìîïñóòôöõøúùûüß")
_NO_LETTERS: frozenset[str] = frozenset()
# What texts in any language use between words; the apostrophe inside them as well.
_PUNCTUATION = frozenset("\u00a0«»‹›„“”‚‘’–—…·•§°©®€£¿¡ªº№×½¼¾²³™،؛؟\u200e\u200f\u200c\u00ad")
_INSIDE_WORDS = frozenset("’·\u00ad\u200c")
_TAG = re.compile(rb"<[^<>]{1,300}>")
_UNPRINTED = re.compile("[\x00-\x1f\x7f-\x9f\ufffd]+")
_BEYOND_ASCII = re.compile(r"[^\x00-\x7f]")


def detect_one_byte(data: bytes) -> str | None:
    """Return the encoding of one byte a character under which the text is best in its language, or None.

    For texts in Latin letters, and Greek. A sample is decoded by each candidate, and CLD2 names the language,
    which the ASCII letters show under every candidate. The score of a candidate is the mean, over its
    characters beyond ASCII, of 1 for letters of that language's alphabet and for well placed punctuation, and
    less than 0 for controls, unassigned bytes, foreign letters, capitals after small letters and symbols
    inside words. None where no candidate has 0.8: several bytes for each character, another script, a
    language that is not in the table, or no language at all.
    """
    sample = _sample(data)
    texts = {name: sample.decode(name, "replace") for name in _LATIN}
    found = {name: _language(text) for name, text in texts.items()}
    votes = dict.fromkeys((code for code, _ in found.values()), 0.0)
    for code, weight in found.values():
        votes[code] += weight
    common = max(votes, key=lambda code: votes[code])
    best, best_score = None, _MIN_SCORE
    for name, text in texts.items():
        code, weight = found[name]
        languages = {common, code} if weight == 1.0 else {common}
        score = max(_score(text, _LETTERS.get(code, _NO_LETTERS)) for code in languages)
        if score > best_score:
            best, best_score = name, score
    return best or _greek(sample)


def _greek(sample: bytes) -> str | None:
    for name in _GREEK:
        text = sample.decode(name, "replace")
        letters = sum(char in _LETTERS["el"] for char in text)
        accents = sum(char in _GREEK_ACCENTS for char in text)
        if accents > _MIN_ACCENTS * letters and _score(text, _LETTERS["el"]) > _MIN_SCORE:
            return name
    return None


def _sample(data: bytes) -> bytes:
    """Return lines that are not all ASCII, without tags; of long ones what follows the first such byte."""
    parts, size = [], 0
    for line in data.split(b"\n"):
        if line.isascii():
            continue
        match = re.search(rb"[\x80-\xff]", line)
        assert match is not None
        start = max(0, match.start() - _LINE // 2)
        part = line[start : start + _SAMPLE]
        parts.append(part)
        size += len(part)
        if size > _SAMPLE:
            break
    return _TAG.sub(b" ", b"\n".join(parts))[:_SAMPLE]


def _language(text: str) -> tuple[str, float]:
    """Return CLD2's code for the language, and 1 where it is sure of it."""
    import pycld2

    try:
        reliable, _, (best, *_) = pycld2.detect(_UNPRINTED.sub(" ", text), isPlainText=True)
    except (pycld2.error, UnicodeEncodeError):
        return "un", 0.0
    if best[1] == "un":
        return "un", 0.0
    return best[1], 1.0 if reliable else _UNSURE


def _score(text: str, letters: frozenset[str]) -> float:
    """Return the mean, over the characters beyond ASCII, of 1 for what is right there, and less for the rest."""
    total, points = 0, 0.0
    for match in _BEYOND_ASCII.finditer(text):
        at = match.start()
        char, before, after = match[0], text[at - 1 : at], text[at + 1 : at + 2]
        total += 1
        if char in letters:
            points += _misplaced(char, before, after) or 1.0
        elif char in _ELSEWHERE:
            continue
        elif char in _PUNCTUATION:
            inside = before.isalpha() and after.isalpha() and char not in _INSIDE_WORDS
            points += -1.0 if inside else 1.0
        elif char == "\ufffd" or "\x80" <= char < "\xa0":
            points -= 4.0
        else:
            points -= 1.0 if char.isalpha() else 2.0
    return points / total if total else 0.0


def _misplaced(char: str, before: str, after: str) -> float:
    """Return what a letter costs that cannot stand there: a capital after a small one, a final sigma before one."""
    if char == "ς" and after.isalpha():
        return -4.0
    return -1.0 if char.isupper() and before.islower() else 0.0
