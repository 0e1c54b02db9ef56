"""What each Unicode code point means to the splitters: one table of flags, looked up for whole arrays.

The table follows `unicodedata` of the running Python, so `unicodedata.unidata_version` belongs to the recipe
of every stage that uses it.
"""

import unicodedata
from functools import cache

import numpy as np
import numpy.typing as npt

from stemma.codepoints import CODE_POINTS, Pages

WHITE = 1  # str.isspace(), the same set that str.strip() removes
WORD = 2  # letters, digits and marks of scripts that put spaces between words
SINGLE = 4  # scripts without spaces, and Hangul: each character stands alone
NEWLINE = 8
UPPER = 16  # upper-case letters and digits: what may begin an abbreviation or a list number
LOWER = 32
EXTEND = 64  # stays with the character before it (UAX 29, GB9 and GB9a)
STOP = 128  # ends a sentence if white space follows
FULL_STOP = 256  # ends a sentence whatever follows
CLOSER = 512  # closing quotes and brackets, which belong to the sentence before
CLAUSE = 1024  # ends a clause if white space follows, or in scripts without spaces anyway

ZERO_WIDTH_JOINER = 0x200D
REGIONAL_INDICATORS = (0x1F1E6, 0x1F1FF)

_STOPS = ".!?…‽؟۔;"
_FULL_STOPS = "。！？｡．।॥።፧།༎။។៕៖᠃꓿։\u2029"
_CLOSERS = "\"'”’»›)]}」』）】》〉〕］｝*_`"
_CLAUSES = ",;:—–،؛、，；：､၊፣፤"
_PUNCTUATION = ((_STOPS, STOP), (_FULL_STOPS, FULL_STOP), (_CLOSERS, CLOSER), (_CLAUSES, CLAUSE))
_SPACELESS = (  # first and last code point of blocks written without spaces between words, and of Hangul
    (0x0E00, 0x0EFF),  # Thai, Lao
    (0x0F00, 0x0FFF),  # Tibetan
    (0x1000, 0x109F),  # Myanmar
    (0x1100, 0x11FF),  # Hangul Jamo
    (0x1780, 0x17FF),  # Khmer
    (0x1950, 0x19FF),  # Tai Le, New Tai Lue, Khmer symbols
    (0x1A20, 0x1AAF),  # Tai Tham
    (0x2E80, 0x2FDF),  # CJK and Kangxi radicals
    (0x3040, 0x31FF),  # kana, Bopomofo
    (0x3400, 0x4DBF),  # CJK extension A
    (0x4E00, 0x9FFF),  # CJK unified ideographs
    (0xA000, 0xA4CF),  # Yi
    (0xAC00, 0xD7FF),  # Hangul syllables
    (0xF900, 0xFAFF),  # CJK compatibility ideographs
    (0x20000, 0x323AF),  # CJK extensions B to H
)
# Every range with characters that are not ideographs, Hangul syllables or for private use.
_NAMED = (range(0x3400), range(0xA000, 0xAC00), range(0xF900, 0x20000), range(0xE0000, 0xE0200))
_WORD_CATEGORIES = frozenset(("Lu", "Ll", "Lt", "Lm", "Lo", "Mn", "Mc", "Me", "Nd", "Nl", "No"))
_EXTENDING_CATEGORIES = frozenset(("Mn", "Mc", "Me"))
_EXTENDING_CHARACTERS = frozenset((0x200C, ZERO_WIDTH_JOINER, 0x0E33, 0x0EB3, *range(0x1F3FB, 0x1F400)))
_TRAILING_JAMO = range(0x1160, 0x1200)
_EMOJI_TAGS = range(0xE0020, 0xE0080)


class _FlagTable:
    """The flags of every code point, filled in page by page."""

    def __init__(self) -> None:
        self.flags = np.zeros(CODE_POINTS, dtype=np.uint16)
        for first, last in _SPACELESS:
            self.flags[first : last + 1] = SINGLE
        self.pages = Pages(self._fill)

    def _fill(self, first: int, last: int) -> None:
        for codes in _NAMED:
            for code in range(max(first, codes.start), min(last, codes.stop)):
                self.flags[code] = _flags(code, spaceless=self.flags[code] == SINGLE)
        for characters, flag in _PUNCTUATION:
            for character in characters:
                if first <= ord(character) < last:
                    self.flags[ord(character)] |= flag


@cache
def _flag_table() -> _FlagTable:
    return _FlagTable()


def flags_of(codes: npt.NDArray[np.uint32]) -> npt.NDArray[np.uint16]:
    """Return the flags of each code point of an array."""
    table = _flag_table()
    table.pages.need(codes)
    return table.flags[codes]


def _flags(code: int, *, spaceless: bool) -> int:
    character = chr(code)
    if character.isspace():
        return WHITE | (NEWLINE if character in "\n\u2028\u2029" else 0)
    category = unicodedata.category(character)
    flags = 0
    if category in _WORD_CATEGORIES or character == "_":
        flags = SINGLE if spaceless else WORD
    if category in ("Lu", "Lt", "Nd"):
        flags |= UPPER
    elif category == "Ll":
        flags |= LOWER
    if category in _EXTENDING_CATEGORIES or code in _EXTENDING_CHARACTERS:
        flags |= EXTEND
    if code in _TRAILING_JAMO or code in _EMOJI_TAGS:
        flags |= EXTEND
    return flags


def code_points(text: str) -> npt.NDArray[np.uint32]:
    """Return the code points of a text as an array, one entry for each character."""
    return np.frombuffer(text.encode("utf-32-le"), dtype=np.uint32)


def breakable(
    codes: npt.NDArray[np.uint32], flags: npt.NDArray[np.uint16], positions: npt.NDArray[np.intp]
) -> npt.NDArray[np.bool_]:
    """Tell at which positions a text may be cut without tearing a grapheme apart.

    Covers combining marks, ZWJ sequences, emoji modifiers and tags, and pairs of regional indicators
    (UAX 29, rules GB9, GB9a, GB11 and GB12 simplified to a look at two neighbours).
    """
    first, last = REGIONAL_INDICATORS
    here, before = codes[positions], codes[positions - 1]
    in_flag = (here >= first) & (here <= last) & (before >= first) & (before <= last)
    return ((flags[positions] & EXTEND) == 0) & (before != ZERO_WIDTH_JOINER) & ~in_flag
