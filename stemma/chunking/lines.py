"""What the lines of Markdown, reStructuredText, wikis and plain text are: headings, items, rows, code."""

import re
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from stemma.chunking.characters import NEWLINE, UPPER
from stemma.chunking.joined import Joined, Positions

TEXT, ITEM, ROW, CODE, FENCE, HEADING, UNDERLINE, BODY = range(8)  # BODY: the first line below a heading

_SPECIAL = np.zeros(0x80, dtype=bool)
_SPECIAL[[ord(character) for character in "#`~=-^\"'*+<>:._|"]] = True
_ATX = re.compile(r"(#{1,6})(?:[ \t]+(.*?))??(?:[ \t]+#+)?[ \t]*$")
# MediaWiki: as many signs on either side as the heading is deep; some corpora put spaces between them.
_WIKI = re.compile(r"(=(?: ?=){0,5})[ \t]*([^=\s](?:.*[^=\s])?)[ \t]*(=(?: ?=){0,5})[ \t]*$")
_UNDERLINE = re.compile(r"([=\-~^\"'`*+#<>:._])\1{2,}[ \t]*$")
_FENCE = re.compile(r"(`{3,}|~{3,})([^`]*)$")
_LIST_ITEM = re.compile(r"(?:[-*+•‣◦]|\(?(?:\d{1,3}|[A-Za-z]|#)[.)])[ \t]+\S")
_BULLETS = np.array([ord(character) for character in "•‣◦"], dtype=np.uint32)
_MAX_TITLE = 200
_MAX_MARKDOWN_INDENT = 3


@dataclass
class Heading:
    """A heading of one text: the lines it takes, its depth (1 for the top) and its title."""

    first_line: int
    last_line: int
    depth: int
    title: str


@dataclass(frozen=True, eq=False)
class Lines:
    """The lines that are not blank, of all joined texts.

    Attributes:
        heads: the first position of each line that is not white space.
        ends: where each line ends.
        indents: characters of white space before the head.
        after_blank: whether a blank line, or nothing at all, comes before.
        kinds: one of the kinds above for each.
        headings: in order.
    """

    heads: Positions
    ends: Positions
    indents: Positions
    after_blank: npt.NDArray[np.bool_]
    kinds: npt.NDArray[np.uint8]
    headings: list[Heading]


def find_lines(joined: Joined) -> Lines:
    """Find the lines of joined texts and say what each is."""
    newlines = np.flatnonzero(joined.flags & NEWLINE)
    line_of_word = np.searchsorted(newlines, joined.word_starts)
    is_head = np.diff(line_of_word, prepend=0) > 0
    heads, numbers = joined.word_starts[is_head], line_of_word[is_head]
    lines = Lines(
        heads=heads,
        ends=newlines[numbers],
        indents=heads - newlines[numbers - 1] - 1,
        after_blank=np.diff(numbers, prepend=0) > 1,
        kinds=np.full(len(heads), TEXT, dtype=np.uint8),
        headings=[],
    )
    first_lines = np.searchsorted(heads, joined.starts)
    document_of_line = np.searchsorted(joined.starts, heads, side="right") - 1
    reader = _Reader(joined, lines)
    for line in _special_lines(joined, heads):
        document = int(document_of_line[line])
        if document != reader.document:
            last_line = first_lines[document + 1] if document + 1 < len(first_lines) else len(heads)
            reader.begin(document, int(first_lines[document]), int(last_line))
        reader.read(line)
    reader.finish()
    _mark_bodies(lines, document_of_line)
    return lines


def _special_lines(joined: Joined, heads: Positions) -> list[int]:
    """Return the lines whose first character lets them be something else than plain text."""
    codes = joined.codes[heads]
    special = _SPECIAL[np.minimum(codes, 0x7F)] & (codes < 0x80)
    special |= np.isin(codes, _BULLETS)
    numbered = (
        ((joined.flags[heads] & UPPER) != 0) | (codes == ord("(")) | ((codes >= 0x61) & (codes <= 0x7A))
    )
    for distance in (1, 2, 3):
        after = joined.codes[np.minimum(heads + distance, len(joined.codes) - 1)]
        special |= numbered & ((after == ord(".")) | (after == ord(")")))
    return np.flatnonzero(special).tolist()


def _mark_bodies(lines: Lines, document_of_line: Positions) -> None:
    for heading in lines.headings:
        body = heading.last_line + 1
        if (
            body < len(lines.heads)
            and lines.kinds[body] != HEADING
            and document_of_line[body] == document_of_line[heading.last_line]
        ):
            lines.kinds[body] = BODY


@dataclass
class _Reader:
    """Reads the special lines of one text after another."""

    joined: Joined
    lines: Lines
    document: int = -1
    first_line: int = 0
    last_line: int = 0  # one past
    fence: str = ""
    fence_line: int = 0
    styles: list[str] = field(default_factory=list)

    def begin(self, document: int, first_line: int, last_line: int) -> None:
        self.finish()
        self.document, self.first_line, self.last_line = document, first_line, last_line
        self.styles = []

    def finish(self) -> None:
        """Close what the text left open: a fence without an end reaches to the end (CommonMark 4.5)."""
        if self.fence:
            self.lines.kinds[self.fence_line + 1 : self.last_line] = CODE
            self.fence = ""

    def read(self, line: int) -> None:
        text = self._text(line)
        if self.fence:
            if text.startswith(self.fence) and not text.strip(self.fence[0] + " \t"):
                self.lines.kinds[self.fence_line + 1 : line + 1] = CODE
                self.fence = ""
        elif match := _FENCE.match(text):
            self.fence, self.fence_line = match[1], line
            self.lines.kinds[line] = FENCE
        elif text.startswith("|"):
            self.lines.kinds[line] = ROW
        elif self.lines.indents[line] <= _MAX_MARKDOWN_INDENT and (match := _ATX.match(text)):
            self._add_heading(line, line, len(match[1]), match[2] or "")
        elif text.startswith("=") and (match := _WIKI.match(text)):
            if match[1] == match[3]:
                self._add_heading(line, line, match[1].count("="), match[2])
        elif match := _UNDERLINE.match(text):
            self._read_underline(line, match[1], len(text.rstrip()))
        elif _LIST_ITEM.match(text):
            self.lines.kinds[line] = ITEM

    def _text(self, line: int) -> str:
        return self.joined.text[self.lines.heads[line] : self.lines.ends[line]]

    def _read_underline(self, line: int, character: str, length: int) -> None:
        """Take the line above as a title if it stands alone, or below a line like this one."""
        title_line = line - 1
        if self.lines.after_blank[line] or title_line < self.first_line:
            return
        if self.lines.kinds[title_line] != TEXT or self.lines.indents[line]:
            return
        title = self._text(title_line).strip()
        fits = length >= len(title)
        overlined = (
            not self.lines.after_blank[title_line]
            and title_line > self.first_line
            and fits
            and self._text(title_line - 1).strip() == character * length
        )
        # Markdown (setext) allows two short underlines; reStructuredText asks for the title's length.
        alone = self.lines.after_blank[title_line] and (fits or character in "=-")
        if len(title) > _MAX_TITLE or not (overlined or alone):
            return
        style = character * (2 if overlined else 1)
        if style not in self.styles:
            self.styles.append(style)
        self._add_heading(title_line - overlined, line, self.styles.index(style) + 1, title)

    def _add_heading(self, first_line: int, last_line: int, depth: int, title: str) -> None:
        self.lines.kinds[first_line] = HEADING
        self.lines.kinds[first_line + 1 : last_line + 1] = UNDERLINE
        self.lines.headings.append(
            Heading(first_line, last_line, depth, " ".join(title.split())[:_MAX_TITLE])
        )
