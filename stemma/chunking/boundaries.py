"""Where a text may be cut, and how much is lost by cutting there."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from stemma.chunking.characters import CLOSER, FULL_STOP, LOWER, STOP, UPPER, WHITE, WORD
from stemma.chunking.joined import Joined, Positions
from stemma.chunking.lines import BODY, CODE, HEADING, ITEM, ROW, TEXT, UNDERLINE, Lines

# From weak to strong. LINE is a row of a table or a line of code; where a paragraph goes on it is NEVER.
NEVER, LINE, SENTENCE, BLOCK, PARAGRAPH, SECTION = range(6)

_LONGEST_ABBREVIATION = 3
_LONGEST_SENTENCE_END = 4  # stops, quotes and brackets, as in `?!")`
_SECTION_JOINER = " > "


@dataclass(frozen=True, eq=False)
class Boundaries:
    """Places to cut joined texts, in order: none inside a table row, a line of code or a heading.

    Attributes:
        positions: where the next chunk would start; never white space.
        levels: LINE to SECTION for each.
        section_starts: where a heading begins that follows something else than a heading.
        sections: the heading path from there on, joined by " > ".
    """

    positions: Positions
    levels: npt.NDArray[np.uint8]
    section_starts: Positions
    sections: list[str]


def find_boundaries(joined: Joined, lines: Lines, sentence_starts: Positions) -> Boundaries:
    """Find the boundaries of joined texts; `sentence_starts` are those of `find_sentences`."""
    section_starts, sections = _find_sections(joined, lines)
    levels = _line_levels(lines)
    levels[np.isin(lines.heads, section_starts)] = SECTION
    line_of_sentence = np.searchsorted(lines.heads, sentence_starts, side="right") - 1
    in_prose = ~np.isin(lines.kinds[line_of_sentence], (ROW, CODE, HEADING, UNDERLINE))
    sentence_starts, line_of_sentence = sentence_starts[in_prose], line_of_sentence[in_prose]
    at_head = lines.heads[line_of_sentence] == sentence_starts
    heads_of_sentences = line_of_sentence[at_head & (lines.kinds[line_of_sentence] != BODY)]
    levels[heads_of_sentences] = np.maximum(levels[heads_of_sentences], SENTENCE)
    inside = sentence_starts[~at_head]
    kept = levels != NEVER
    positions = np.concatenate((lines.heads[kept], inside))
    levels = np.concatenate((levels[kept], np.full(len(inside), SENTENCE, dtype=np.uint8)))
    order = np.argsort(positions, kind="stable")
    return Boundaries(positions[order], levels[order], section_starts, sections)


def find_sentences(joined: Joined) -> Positions:
    """Return where sentences start that follow another one, in order.

    A stop counts before white space, unless a lower-case letter follows or it ends what looks like an
    abbreviation, an initial or a list number: up to three characters, the first a capital or a digit, or a
    single one. The stops of scripts without spaces count everywhere.
    """
    flags = joined.flags
    stops = np.flatnonzero(flags & (STOP | FULL_STOP))
    after = stops + 1
    for _ in range(_LONGEST_SENTENCE_END):
        after += (flags[np.minimum(after, len(flags) - 1)] & (STOP | FULL_STOP | CLOSER)) != 0
    inside = after < len(flags) - 1
    stops, after = stops[inside], after[inside]
    at_white = (flags[after] & WHITE) != 0
    next_word = np.append(joined.word_starts, len(flags) - 1)[np.searchsorted(joined.word_starts, after)]
    following = np.where(at_white, next_word, after)
    ends = at_white & ((flags[following] & LOWER) == 0) & ~_abbreviated(joined, stops)
    ends |= (flags[stops] & FULL_STOP) != 0
    found = np.unique(following[ends])
    return found[(flags[found] & WHITE) == 0]


def _abbreviated(joined: Joined, stops: Positions) -> npt.NDArray[np.bool_]:
    in_word = (joined.flags & WORD) != 0
    found = np.zeros(len(stops), dtype=bool)
    letters_only = joined.codes[stops] == ord(".")
    for length in range(1, _LONGEST_ABBREVIATION + 1):
        first = np.maximum(stops - length, 0)
        letters_only = letters_only & in_word[first]
        capital = (joined.flags[first] & UPPER) != 0
        found |= letters_only & (capital | (length == 1)) & ~in_word[np.maximum(first - 1, 0)]
    return found


def _line_levels(lines: Lines) -> npt.NDArray[np.uint8]:
    kinds = lines.kinds
    before = np.concatenate((np.array([TEXT], dtype=np.uint8), kinds))[:-1]
    levels = np.where(lines.after_blank, PARAGRAPH, NEVER).astype(np.uint8)
    block_ends = (kinds == TEXT) & ((before == ROW) | (before == CODE))
    levels[block_ends & ~lines.after_blank] = BLOCK
    in_block = (kinds == ROW) & (before == ROW)
    levels[in_block] = LINE
    starts_block = ((kinds == ROW) & ~in_block & ~lines.after_blank) | (kinds == ITEM)
    levels[starts_block] = BLOCK
    levels[kinds == CODE] = np.where(lines.after_blank[kinds == CODE], SENTENCE, LINE)
    levels[kinds == HEADING] = PARAGRAPH
    levels[kinds == UNDERLINE] = NEVER
    levels[kinds == BODY] = NEVER
    return levels


def _find_sections(joined: Joined, lines: Lines) -> tuple[Positions, list[str]]:
    """Return where sections start and their paths; a run of headings with nothing between is one start."""
    starts: list[int] = []
    paths: list[str] = []
    stack: list[tuple[int, str]] = []
    firsts = lines.heads[[heading.first_line for heading in lines.headings]]
    documents = (np.searchsorted(joined.starts, firsts, side="right") - 1).tolist()
    previous_document, previous_line = -1, -1
    for heading, first, document in zip(lines.headings, firsts.tolist(), documents, strict=True):
        same_document = document == previous_document
        stack = [each for each in stack if each[0] < heading.depth] if same_document else []
        stack.append((heading.depth, heading.title))
        path = _SECTION_JOINER.join(title for _, title in stack if title)
        if same_document and heading.first_line == previous_line + 1:
            paths[-1] = path
        else:
            starts.append(first)
            paths.append(path)
        previous_document, previous_line = document, heading.last_line
    return np.array(starts, dtype=np.intp), paths
