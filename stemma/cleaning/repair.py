"""Repair of characters and white space: a pure function of the text, linear in its length."""

import re
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache

import numpy as np

from stemma.codepoints import CODE_POINTS


@dataclass(frozen=True)
class Repaired:
    """A repaired text, and whether more than white space was changed in it."""

    text: str
    changed: bool


def repair(text: str) -> Repaired:
    """Repair mojibake, Unicode form, invisible characters and white space.

    In this order: line ends become a newline; mojibake is decoded (ftfy); terminal escapes, control,
    invisible and direction characters, Unicode tags and non-characters are removed, lone surrogates become
    U+FFFD; the text is brought to NFC; non-breaking spaces become a space, white space at the end of lines
    goes, three and more newlines become two, and the ends are stripped. Letters, quotes and widths stay as
    the author wrote them.
    """
    kinds = _kinds(text)
    if kinds & _REMOVED:
        text = _unify_line_ends(text)
    characters = text
    if kinds & _MOJIBAKE:
        characters = _decode_mojibake(text)
        kinds = _kinds(characters)
    if kinds & _REMOVED:
        characters = without_invisible(characters)
    characters = _compose(characters, has_marks=bool(kinds & _MARK))
    return Repaired(_tidy(characters, has_wide_spaces=bool(kinds & _WIDE_SPACE)), characters != text)


def without_surrogates(text: str) -> str:
    """Replace lone surrogates, which UTF-8 cannot hold, by U+FFFD."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return _SURROGATE.sub("\ufffd", text)
    return text


def without_invisible(text: str) -> str:
    """Remove control, invisible and direction characters, Unicode tags and non-characters.

    A zero-width joiner, non-joiner or space stays where its script needs it.
    """
    if _REMOVABLE.search(text):
        text = _INVISIBLE.sub("", _remove_controls(text))
        text = _STRAY_ZERO_WIDTH.sub("", text)
    if _BEYOND_BMP.search(text):
        text = _INVISIBLE_BEYOND_BMP.sub("", text)
    return without_surrogates(text)


# What a text holds --------------------------------------------------------------------------------

# One pass over a text says which steps it needs: each would take a pass of its own, at 400 MB/s.
_REMOVED, _WIDE_SPACE, _MARK, _MOJIBAKE = 1, 2, 4, 8
# A character of one of these kinds before one of the kind twice its value may be mojibake.
_LEAD, _CONTINUATION, _BEFORE_SPACE, _SPACE = 16, 32, 64, 128
_KINDS_BLOCK = 1 << 16


def _kinds(text: str) -> int:
    """Return which kinds of characters a text holds, and whether there is what may be mojibake."""
    if text.isascii():
        data = text.encode()
        return _REMOVED if len(data.translate(None, _ASCII_REMOVED)) < len(data) else 0
    found = 0
    for first in range(0, len(text), _KINDS_BLOCK):
        block = text[first : first + _KINDS_BLOCK + 1].encode("utf-32-le", "surrogatepass")
        kinds = _kinds_table().take(np.frombuffer(block, "<u4"))
        found |= int(np.bitwise_or.reduce(kinds))
        pairs = kinds[:-1] << 1
        pairs &= kinds[1:]
        found |= _MOJIBAKE if (pairs & (_CONTINUATION | _SPACE)).any() else 0
    return found


@cache
def _kinds_table() -> np.ndarray:
    """Return the kinds of every code point, as one number each."""
    table = np.zeros(CODE_POINTS, np.uint8)
    table[0xFFFE::0x10000] = table[0xFFFF::0x10000] = table[0xE0000:0xE0080] = _REMOVED
    characters = np.arange(_LAST_MARK, dtype="<u4").tobytes().decode("utf-32-le", "surrogatepass")
    lead, continuation, before_space = _suspicious_characters()
    for kind, pattern in (
        (_REMOVED, f"{_REMOVABLE.pattern}|{_OTHER_LINE_END.pattern}"),
        (_REMOVED | _MOJIBAKE, f"[{_BROKEN}]"),
        (_WIDE_SPACE, r"[^\S\0-\x20]"),
        (_MARK, f"[{_marks(0x300, _LAST_MARK)}]"),
        (_LEAD, f"[{lead}]"),
        (_CONTINUATION, f"[{continuation}]"),
        (_BEFORE_SPACE, f"[{before_space}]"),
        (_SPACE, " "),
    ):
        for match in re.finditer(pattern, characters):
            table[match.start()] |= kind
    return table


# White space --------------------------------------------------------------------------------------

_OTHER_LINE_END = re.compile("[\v\f\u2028\u2029]")
_NON_BREAKING_SPACE = re.compile("[\u00a0\u2007\u202f]")
_SPACE_BEFORE_LINE_END = re.compile(r"\n(?<=[^\S\n]\n)")
_BLANK_LINES = re.compile(r"\n{3,}")


def _unify_line_ends(text: str) -> str:
    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    return _OTHER_LINE_END.sub("\n", text)


def _tidy(text: str, has_wide_spaces: bool) -> str:
    if has_wide_spaces:
        text = _NON_BREAKING_SPACE.sub(" ", text)
    if " \n" in text or "\t\n" in text or (has_wide_spaces and _SPACE_BEFORE_LINE_END.search(text)):
        # Not a substitution: `[ \t]+\n` takes quadratic time on a long run of spaces inside a line.
        text = "\n".join([line.rstrip() for line in text.split("\n")])
    if "\n\n\n" in text:
        text = _BLANK_LINES.sub("\n\n", text)
    return text.strip("\n").rstrip()


# Mojibake -----------------------------------------------------------------------------------------


def _decode_mojibake(text: str) -> str:
    """Let ftfy decode the lines that can hold mojibake: it reads 6 MB/s, the gate before it 100."""
    parts, done = [], 0
    for start in _possible_mojibake(text):
        if start >= done:
            begin = text.rfind("\n", done, start) + 1 or done
            end = text.find("\n", start)
            end = len(text) if end < 0 else end
            parts += [text[done:begin], _fix_line(text[begin:end])]
            done = end
    return "".join([*parts, text[done:]]) if parts else text


def _possible_mojibake(text: str) -> Iterator[int]:
    """Yield the places of sequences for which ftfy could change their line; none reaches beyond it."""
    from ftfy.chardata import UTF8_DETECTOR_RE

    for pair in _suspicious_pair().finditer(text):
        start = pair.start()
        if _undecoded_utf8().match(text, start) or UTF8_DETECTOR_RE.match(text, start):
            yield start


def _fix_line(line: str) -> str:
    from ftfy import TextFixerConfig, fix_text

    return fix_text(
        line,
        TextFixerConfig(
            unescape_html=False,
            fix_latin_ligatures=False,
            fix_character_width=False,
            uncurl_quotes=False,
            fix_line_breaks=False,
            remove_terminal_escapes=False,
            remove_control_chars=False,
            normalization=None,
            explain=False,
        ),
    )


@cache
def _suspicious_pair() -> re.Pattern[str]:
    """Match any lead byte before any continuation byte, as in `_undecoded_utf8`: less exact, and cheaper."""
    lead, continuation, before_space = _suspicious_characters()
    after = f"(?=[{continuation}])|(?<=[{before_space}])(?= )"
    # A class in front is what Python's search can skip to.
    return re.compile(f"[{lead}{_BROKEN}](?:(?<=[{_BROKEN}])|{after})")


@cache
def _suspicious_characters() -> tuple[str, str, str]:
    """Return, for character classes, what lead bytes, bytes after them and bytes before spaces become."""
    from ftfy.chardata import CHARMAP_ENCODINGS

    lead = "".join(_characters(encoding, range(0xC0, 0xF5)) for encoding in CHARMAP_ENCODINGS)
    continuation = "".join(_characters(encoding, range(0x80, 0xC0)) for encoding in CHARMAP_ENCODINGS)
    spaced = [encoding for encoding in CHARMAP_ENCODINGS if _restores_spaces(encoding)]
    before_space = "".join(_characters(encoding, _BYTES_BEFORE_SPACE) for encoding in spaced)
    return lead, continuation + "\x1a\ufffd?", before_space


@cache
def _undecoded_utf8() -> re.Pattern[str]:
    """Match what every text has in it that ftfy changes as a whole.

    ftfy undoes UTF-8 that was read in a single-byte encoding, so there is a character for a lead byte, and
    after it those for its continuation bytes, all in one encoding. A continuation byte may have become a
    space (as in ftfy's ALTERED_UTF8_RE) or been lost (U+FFFD, control 1A or `?`, as in its LOSSY_UTF8_RE).
    Apart from these, C1 controls are read as Windows-1252, and surrogates joined.
    """
    from ftfy.chardata import CHARMAP_ENCODINGS

    sequences = [sequence for encoding in CHARMAP_ENCODINGS for sequence in _utf8_sequences(encoding)]
    return re.compile("|".join([f"[{_BROKEN}]", *sequences]))


_BROKEN = "\x80-\x9f\ud800-\udfff"
# Lead bytes after which ftfy takes a space for a lost A0, whether or not a third byte follows.
_BYTES_BEFORE_SPACE = (0xC2, 0xC3, 0xC5, 0xCE, 0xD0, 0xD9, 0xE2, 0xE3, 0xF0)


def _restores_spaces(encoding: str) -> bool:
    return encoding != "macroman"


def _restores_lost_bytes(encoding: str) -> bool:
    return encoding.startswith("sloppy")


def _utf8_sequences(encoding: str) -> list[str]:
    """Return patterns for two to four bytes of UTF-8 that were read in this encoding."""

    def lead(*byte_values: int) -> str:
        return f"[{_characters(encoding, byte_values)}]"

    rest = _characters(encoding, range(0x80, 0xC0)) + (
        "\x1a\ufffd?" if _restores_lost_bytes(encoding) else ""
    )
    sequences = [
        f"{lead(*range(0xC0, 0xE0))}[{rest}]",
        f"{lead(*range(0xE0, 0xF0))}[{rest}]{{2}}",
        f"{lead(*range(0xF0, 0xF5))}[{rest}]{{3}}",
    ]
    if _restores_spaces(encoding):
        sequences += [
            f"{lead(0xC2, 0xC3, 0xC5, 0xCE, 0xD0, 0xD9)} ",
            f"{lead(0xE2, 0xE3)} [{rest}]",
            f"{lead(0xE0, 0xE1, 0xE2, 0xE3)}[{rest}] ",
            f"{lead(0xF0)}[ {rest}]{{3}}",
        ]
    return sequences


def _characters(encoding: str, byte_values: Iterable[int]) -> str:
    """Return, for a character class, what these bytes are in one of ftfy's encodings."""
    return "".join(re.escape(char) for char in bytes(byte_values).decode(encoding, "ignore"))


# Controls and invisible characters ----------------------------------------------------------------

_TERMINAL_ESCAPE = re.compile("\x1b\\[[0-9;]*[A-Za-z]")
_ASCII_REMOVED = bytes(range(0x09)) + bytes(range(0x0B, 0x20)) + b"\x7f"
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_SURROGATE = re.compile("[\ud800-\udfff]")

# Soft hyphen, direction marks and overrides, word joiner and invisible operators, BOM, annotation marks, the
# deprecated format characters, tags (text that no reader sees), non-characters. Those beyond U+FFFF stand
# apart: Python looks them up in a list, ten times slower than in the bitmap that it makes of the others.
_INVISIBLE = re.compile(
    "[\u00ad\u061c\u200e\u200f\u202a-\u202e\u2060-\u206f\ufdd0-\ufdef\ufeff\ufff9-\ufffb\ufffe\uffff]"
)
# Everything that may have to go, to look for at once.
_REMOVABLE = re.compile(f"{_CONTROL.pattern}|{_INVISIBLE.pattern}|[\u200b-\u200d]".replace("]|[", ""))
_BEYOND_BMP = re.compile("[\U00010000-\U0010ffff]")
_INVISIBLE_BEYOND_BMP = re.compile(
    "[\U000e0000-\U000e007f"
    + "".join(chr(plane + 0xFFFE) + chr(plane + 0xFFFF) for plane in range(0x10000, 0x110000, 0x10000))
    + "]"
)

# Scripts in which a joiner or non-joiner changes how letters are written: Arabic, Syriac, N'Ko and their
# neighbours, the Indic scripts with Tibetan, Mongolian, Myanmar and Khmer.
_JOINING = (
    "\u0600-\u08ff\u0900-\u0dff\u0f00-\u109f\u1780-\u18af\ua840-\ua8ff\ua9e0-\uaaff\ufb50-\ufdcf\ufe70-\ufefc"
)
_EMOJI = "\u00a9\u00ae\u2190-\u21ff\u2300-\u27bf\u2900-\u2bff\U0001f000-\U0001faff"
# Thai, Lao, Myanmar and Khmer write no spaces; there a zero-width space is what separates words.
_UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff"
_STRAY_ZERO_WIDTH = re.compile(
    f"(?<![{_UNSPACED}])\u200b|\u200b(?![{_UNSPACED}])"
    f"|(?<![{_JOINING}])\u200c|\u200c(?![{_JOINING}])"
    f"|(?<![{_JOINING}{_EMOJI}\ufe0f])\u200d|(?<=[{_EMOJI}\ufe0f])\u200d(?![{_EMOJI}])"
)


def _remove_controls(text: str) -> str:
    if "\x1b" in text:
        text = _TERMINAL_ESCAPE.sub("", text)
    return _CONTROL.sub("", text)


# Unicode form -------------------------------------------------------------------------------------

# Unicode's Stream-Safe Text Format (UAX #15, section 13) allows 30 marks in a row.
_STREAM_SAFE_MARKS = 30
_LAST_MARK = 0x1F000


def _compose(text: str, has_marks: bool) -> str:
    """Bring a text to NFC.

    Python orders the marks on a letter by insertion, in quadratic time (40,000 marks: 1.4 s). Long runs,
    which only hostile text has, are put into that same order beforehand.
    """
    if has_marks and _possible_mark_run().search(text):
        text = _mark_run().sub(lambda run: "".join(sorted(run[0], key=unicodedata.combining)), text)
    return unicodedata.normalize("NFC", text)


@cache
def _possible_mark_run() -> re.Pattern[str]:
    """Match what every `_mark_run` matches, and runs beyond U+FFFF: a bitmap and one range, so it is fast."""
    return _run_of(_marks(0x300, 0x10000) + "\U00010000-\U0001efff")


@cache
def _mark_run() -> re.Pattern[str]:
    """Match more combining marks in a row than any real text has."""
    return _run_of(_marks(0x300, _LAST_MARK))


def _marks(start: int, stop: int) -> str:
    return "".join(char for char in map(chr, range(start, stop)) if unicodedata.combining(char))


def _run_of(characters: str) -> re.Pattern[str]:
    # A class of its own in front is what Python's search can skip to.
    return re.compile(f"[{characters}][{characters}]{{{_STREAM_SAFE_MARKS},}}")
