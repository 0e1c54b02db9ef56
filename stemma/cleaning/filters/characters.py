"""What the metrics know of each code point: a set of bits."""

import string
from functools import cache

import numpy as np

from stemma.codepoints import CODE_POINTS, Pages

SPACE = 1  # str.isspace: what str.split splits at
LETTER = 2  # str.isalpha
CONTENT = 4  # neither white space nor punctuation
TERMINAL = 8  # ends a sentence
BREAK = 16  # ends a line for str.splitlines, besides the line feed
ENDING = 32  # ends a line that C4 keeps
CLOSING = 64  # may stand between the sign that ends a sentence and the white space behind it

ENDINGS = ".?!\"'"
CLOSINGS = "\"'”’»)]"

# Unicode's Sentence_Terminal (as of version 14) and three Khmer signs: what datatrove's filters take for the end
# of a sentence in any script.
TERMINALS = (
    "21 2e 3f 589 61d-61f 6d4 700-702 7f9 837 839 83d-83e 964-965 104a-104b 1362 1367-1368 166e 1735-1736 "
    "17d4-17d6 17d9-17da 1803 1809 1944-1945 1aa8-1aab 1b5a-1b5b 1b5e-1b5f 1b7d-1b7e 1c3b-1c3c 1c7e-1c7f "
    "203c-203d 2047-2049 2e2e 2e3c 2e53-2e54 3002 a4ff a60e-a60f a6f3 a6f7 a876-a877 a8ce-a8cf a92f a9c8-a9c9 "
    "aa5d-aa5f aaf0-aaf1 abeb fe52 fe56-fe57 ff01 ff0e ff1f ff61 10a56-10a57 10f55-10f59 10f86-10f89 11047-11048 "
    "110be-110c1 11141-11143 111c5-111c6 111cd 111de-111df 11238-11239 1123b-1123c 112a9 1144b-1144c 115c2-115c3 "
    "115c9-115d7 11641-11642 1173c-1173e 11944 11946 11a42-11a43 11a9b-11a9c 11c41-11c42 11ef7-11ef8 11f43-11f44 "
    "16a6e-16a6f 16af5 16b37-16b38 16b44 16e98 1bc9f 1da88"
)
# Punctuation of ASCII and of CCNet (Wenzek et al. 2020), whose full-width one is there for CJK ideographs.
PUNCTUATION = string.punctuation + "«»´–—’“”„…∶━►、。〈〉《》「」【】！％（），．１：；？～"
_BREAKS = "\r\v\f\x1c\x1d\x1e\x85\u2028\u2029"


class Alphabet:
    """The bits of all code points, and their lower case where that is one ASCII character (else 0)."""

    def __init__(self) -> None:
        self.classes = np.zeros(CODE_POINTS, np.uint8)
        self.lower = np.zeros(CODE_POINTS, np.uint8)
        self._terminals = terminals()
        self._punctuation = punctuation()
        self.need = Pages(self._fill).need

    def _fill(self, first: int, last: int) -> None:
        for code in range(first, last):
            character = chr(code)
            self.classes[code] = self._bits(character)
            lowered = character.lower()
            self.lower[code] = ord(lowered) if len(lowered) == 1 and lowered.isascii() else 0

    def _bits(self, character: str) -> int:
        bits = SPACE * character.isspace() | LETTER * character.isalpha()
        bits |= CONTENT * (not character.isspace() and character not in self._punctuation)
        bits |= TERMINAL * (character in self._terminals) | BREAK * (character in _BREAKS)
        return bits | ENDING * (character in ENDINGS) | CLOSING * (character in CLOSINGS)


@cache
def alphabet() -> Alphabet:
    """Return the tables of this process; they are filled where texts need them."""
    return Alphabet()


@cache
def ascii_classes() -> bytes:
    """Return the bits of the first 256 code points, as `bytes.translate` takes them."""
    tables = alphabet()
    tables.need(np.arange(256, dtype=np.uint32))
    return tables.classes[:256].tobytes()


@cache
def terminals() -> frozenset[str]:
    """Return the characters that end a sentence."""
    spans = [span.split("-") for span in TERMINALS.split()]
    return frozenset(chr(code) for span in spans for code in range(int(span[0], 16), int(span[-1], 16) + 1))


@cache
def punctuation() -> frozenset[str]:
    """Return the characters of which a word of punctuation alone consists; control characters are among them."""
    controls = {chr(code) for code in (*range(0x20), *range(0x7F, 0xA0))} - {"\t", "\n"}
    return terminals() | controls | frozenset(PUNCTUATION)
