"""A text that is put together from blocks, and where each of them comes from."""

import re
from collections.abc import Sequence

from stemma.cleaning.extraction import Origin

_SPACE = re.compile(r"\s+")


class Blocks:
    """Collects blocks of text with their places.

    Args:
        max_characters: limit of all blocks together; `add` raises ValueError beyond it.
    """

    def __init__(self, max_characters: int) -> None:
        self._max_characters = max_characters
        self._parts: list[str] = []
        self._characters = 0
        self._origins: list[Origin] = []

    def add(self, text: str, place: str, *, separator: str = "\n\n") -> None:
        """Append a block, unless there is nothing in it; `separator` goes between it and the one before."""
        if not text.strip():
            return
        if self._parts:
            self._parts.append(separator)
            self._characters += len(separator)
        if not self._origins or self._origins[-1].place != place:
            self._origins.append(Origin(self._characters, place=place))
        self._parts.append(text)
        self._characters += len(text)
        if self._characters > self._max_characters:
            raise ValueError(f"the text has more than max_characters={self._max_characters}")

    @property
    def characters_left(self) -> int:
        """How many more characters there may be."""
        return self._max_characters - self._characters

    @property
    def text(self) -> str:
        """The blocks so far as one text."""
        return "".join(self._parts)

    @property
    def origins(self) -> tuple[Origin, ...]:
        """Where each stretch of it comes from; neighbours of one place are one stretch."""
        return tuple(self._origins)


def one_line(text: str) -> str:
    """Bring a text onto one line."""
    return _SPACE.sub(" ", text).strip()


def table(rows: Sequence[Sequence[str]]) -> str:
    """Write rows of cells as a Markdown table; a table of a single column as lines.

    Empty rows and columns are left out; the first row that is left is the head. Cells are brought onto one
    line; like everywhere in our Markdown nothing is escaped.
    """
    lines = [[one_line(cell) for cell in row] for row in rows]
    lines = [line for line in lines if any(line)]
    width = max(map(len, lines), default=0)
    used = [column for column in range(width) if any(column < len(line) and line[column] for line in lines)]
    cells = [[line[column] if column < len(line) else "" for column in used] for line in lines]
    if len(used) <= 1:
        return "\n".join(line[0] for line in cells)
    written = [f"| {' | '.join(line)} |" for line in cells]
    return "\n".join([written[0], "|" + "---|" * len(used), *written[1:]])
