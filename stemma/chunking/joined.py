"""Many texts laid end to end, so that numpy looks at all of them at once."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from stemma.chunking.characters import WHITE, code_points, flags_of

# Texts are kept apart, and from the ends, by a blank line: whatever looks at two neighbours of a character
# finds white space there and never another text.
SEPARATOR = "\n\n"
# Arrays of a quarter of a million entries stay in the processor's cache.
_GROUP_CHARACTERS = 1 << 18

Positions = npt.NDArray[np.intp]


@dataclass(frozen=True, eq=False)
class Joined:
    """Texts joined by `SEPARATOR`; every position below counts code points of `text`.

    Attributes:
        texts: the texts, as given.
        text: all of them, with a separator before, between and after.
        starts: where each text begins.
        ends: where each text ends.
        codes: code points of `text`.
        flags: flags of those code points (`stemma.chunking.characters`).
        word_starts: positions that hold no white space and follow white space.
    """

    texts: Sequence[str]
    text: str
    starts: Positions
    ends: Positions
    codes: npt.NDArray[np.uint32]
    flags: npt.NDArray[np.uint16]
    word_starts: Positions

    def first_words(self) -> Positions:
        """Return the first position of each text that is not white space, or its end if there is none."""
        index = np.searchsorted(self.word_starts, self.starts)
        found = np.append(self.word_starts, len(self.codes))[index]
        return np.minimum(found, self.ends)


def join(texts: Sequence[str]) -> Joined:
    """Join texts. They must hold no lone surrogates (UnicodeEncodeError)."""
    text = SEPARATOR + SEPARATOR.join(texts) + SEPARATOR
    lengths = np.fromiter((len(each) for each in texts), dtype=np.intp, count=len(texts))
    ends = np.cumsum(lengths + len(SEPARATOR))
    codes = code_points(text)
    flags = flags_of(codes)
    white = (flags & WHITE) != 0
    word_starts = np.flatnonzero(white[:-1] & ~white[1:]) + 1
    return Joined(texts, text, ends - lengths, ends, codes, flags, word_starts)


def groups(texts: Sequence[str]) -> Iterator[list[str]]:
    """Cut a sequence of texts into runs short enough to be worked on as one array."""
    group: list[str] = []
    size = 0
    for text in texts:
        if group and size + len(text) > _GROUP_CHARACTERS:
            yield group
            group, size = [], 0
        group.append(text)
        size += len(text)
    if group:
        yield group
