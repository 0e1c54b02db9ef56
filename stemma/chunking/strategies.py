"""The ways to choose cuts: spans that touch at most so many tokens and miss only white space."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from stemma.chunking.boundaries import (
    BLOCK,
    LINE,
    PARAGRAPH,
    SECTION,
    SENTENCE,
    Boundaries,
    find_boundaries,
    find_sentences,
)
from stemma.chunking.characters import CLAUSE, FULL_STOP, WHITE, breakable
from stemma.chunking.joined import Joined, Positions
from stemma.chunking.lines import Lines, find_lines
from stemma.chunking.similarity import cohesion
from stemma.chunking.tokens import TokenIndex

Span = tuple[int, int]
Levels = npt.NDArray[np.uint8]

# What a cut costs, in percent of what an empty chunk would: the stronger the boundary, the less.
_CUT_COST = {LINE: 60, SENTENCE: 20, BLOCK: 8, PARAGRAPH: 0, SECTION: 0}
# What a cut costs where both sides have all their words in common, and how many sentences of a side are compared.
_COHESION_COST = 150
_COHESION_BLOCK = 4


class Sizes(NamedTuple):
    """How large chunks may be, in tokens.

    Attributes:
        most: no chunk has more.
        target: what `structure` and `semantic` aim at, so that a cut can wait for a good boundary.
        overlap: tokens at most that a chunk repeats of the one before.
    """

    most: int
    target: int
    overlap: int

    @property
    def budget(self) -> int:
        """What is left of a chunk for what the one before does not have."""
        return self.most - self.overlap


@dataclass(frozen=True, eq=False)
class Layout:
    """Joined texts with their tokens; what one strategy needs and another doesn't is found when asked for."""

    joined: Joined
    tokens: TokenIndex

    @cached_property
    def lines(self) -> Lines:
        return find_lines(self.joined)

    @cached_property
    def sentence_starts(self) -> Positions:
        return find_sentences(self.joined)

    @cached_property
    def boundaries(self) -> Boundaries:
        return find_boundaries(self.joined, self.lines, self.sentence_starts)

    @cached_property
    def clause_starts(self) -> Positions:
        """Where something follows a comma, colon or the like, with white space between except in CJK."""
        flags = self.joined.flags
        after_clause = (flags[self.joined.word_starts - 2] & CLAUSE) != 0
        spaceless = np.flatnonzero((flags[:-1] & CLAUSE != 0) & (self.joined.codes[:-1] > 0x2000)) + 1
        spaceless = spaceless[(flags[spaceless] & (WHITE | CLAUSE | FULL_STOP)) == 0]
        return np.union1d(self.joined.word_starts[after_clause], spaceless)

    @cached_property
    def levels(self) -> list[Positions]:
        """Where paragraphs, lines, sentences and words start."""
        lines = self.lines
        return [lines.heads[lines.after_blank], lines.heads, self.sentence_starts, self.joined.word_starts]

    def cut_before(self, start: int, limit: int) -> int:
        """Return the last position after `start`, at most `limit`, that tears no grapheme if there is one."""
        window = np.arange(max(start + 1, limit - 64), limit + 1)
        whole = window[breakable(self.joined.codes, self.joined.flags, window)]
        return int(whole[-1]) if len(whole) else limit


CutCosts = Callable[[Layout, Positions, Levels], Positions]


def structure(layout: Layout, sizes: Sizes) -> list[Span]:
    """Pack each section by the cheapest cuts: strong boundaries, and sizes near the target.

    The choice is a shortest path over the boundaries of a section, so that an edit moves the cuts near it
    and no others. What is too long between two boundaries is cut by its content alone (`_cut_by_content`).
    """
    return _packed(layout, sizes, _costs_by_strength)


def semantic(layout: Layout, sizes: Sizes) -> list[Span]:
    """Pack as `structure` does, but a cut costs the more, the more words both sides have in common.

    Compared are a few sentences on each side (`cohesion`) and no statistic of the document, so that an edit moves
    only the cuts near it. Rows of tables and lines of code cost what they do for `structure`.
    """
    return _packed(layout, sizes, _costs_by_cohesion)


def recursive(layout: Layout, sizes: Sizes) -> list[Span]:
    """Cut at paragraphs, then lines, sentences, words and characters, filling each chunk from the left.

    The method of LangChain's RecursiveCharacterTextSplitter.
    """
    levels = layout.levels
    spans: list[Span] = []
    for start, end in _documents(layout):
        cuts = [start, *_fill(layout, start, end, levels, sizes.budget)]
        spans.extend(_overlapping(layout, cuts, sizes.overlap))
    return spans


def fixed(layout: Layout, sizes: Sizes) -> list[Span]:
    """Cut every `most` tokens, each chunk beginning `overlap` tokens before the end of the last."""
    spans: list[Span] = []
    for start, end in _documents(layout):
        done = start
        while done < end:
            begin = max(start, _step_back(layout, done, sizes.overlap)) if sizes.overlap else done
            cut = _window_end(layout, begin, end, sizes.most)
            if cut <= done:
                begin, cut = done, _window_end(layout, done, end, sizes.most)
            spans.append((begin, cut))
            done = cut
    return spans


def limited(layout: Layout, spans: Iterable[Span], most: int) -> list[Span]:
    """Cut what has more than `most` tokens as `recursive` would."""
    result: list[Span] = []
    for start, end in spans:
        result.extend(pairwise([start, *_fill(layout, start, end, layout.levels, most)]))
    return result


def _documents(layout: Layout) -> list[Span]:
    starts, ends = layout.joined.first_words(), layout.joined.ends
    filled = starts < ends
    return list(zip(starts[filled].tolist(), ends[filled].tolist(), strict=True))


def _packed(layout: Layout, sizes: Sizes, costs_of: CutCosts) -> list[Span]:
    positions, levels, forced = _candidates(layout, sizes.budget)
    target = min(sizes.target, sizes.budget)
    costs = (costs_of(layout, positions, levels) * target * target // 100).tolist()
    first = layout.tokens.first(positions).tolist()
    last = layout.tokens.last(positions).tolist()
    places = positions.tolist()
    document_ends = set(layout.joined.ends.tolist())
    spans: list[Span] = []
    for low, high in pairwise(forced):
        if places[low] in document_ends:
            continue
        chosen = _cheapest_cuts(first, last, costs, low, high, sizes.budget, target)
        spans.extend(_overlapping(layout, [places[index] for index in chosen], sizes.overlap))
    return spans


def _candidates(layout: Layout, budget: int) -> tuple[Positions, Levels, list[int]]:
    """Return positions to cut at, how strong each is, and the indices where a cut must be."""
    boundaries, joined = layout.boundaries, layout.joined
    starts = joined.first_words()
    must = np.union1d(np.concatenate((starts, joined.ends)), boundaries.section_starts)
    positions = np.union1d(boundaries.positions, must)
    following = np.append(positions[1:], positions[-1])
    excess = layout.tokens.last(following) - layout.tokens.first(positions) > budget
    excess &= ~np.isin(positions, joined.ends)
    extra: list[int] = []
    for start, end in zip(positions[excess].tolist(), following[excess].tolist(), strict=True):
        extra.extend(_cut_by_content(layout, start, end, budget))
    levels = np.full(len(joined.codes), LINE, dtype=np.uint8)
    levels[boundaries.positions] = boundaries.levels
    positions = np.union1d(positions, np.array(extra, dtype=np.intp))
    return positions, levels[positions], np.searchsorted(positions, must).tolist()


def _costs_by_strength(_layout: Layout, _positions: Positions, levels: Levels) -> Positions:
    costs = np.zeros(SECTION + 1, dtype=np.intp)
    costs[list(_CUT_COST)] = list(_CUT_COST.values())
    return costs[levels]


def _costs_by_cohesion(layout: Layout, positions: Positions, levels: Levels) -> Positions:
    costs = _costs_by_strength(layout, positions, levels)
    units = levels >= SENTENCE
    alike = cohesion(layout.joined, positions[units], _COHESION_BLOCK)
    costs[units] = (alike * _COHESION_COST).astype(np.intp)
    return costs


def _cheapest_cuts(
    first: list[int], last: list[int], costs: list[int], low: int, high: int, budget: int, target: int
) -> list[int]:
    """Return the indices from `low` to `high` of the cuts whose summed cost is least.

    A chunk costs the square of its distance from the target size, a cut what its boundary says. Whole
    numbers, so that every machine decides alike; of equal choices the longest chunk wins.
    """
    best = [0]
    back = [low]
    left = low
    for end in range(low + 1, high + 1):
        while last[end] - first[left] > budget and left < end - 1:
            left += 1
        wanted = last[end] - target
        choices = [
            cost + (wanted - start) * (wanted - start)
            for cost, start in zip(best[left - low :], first[left:end], strict=True)
        ]
        least = min(choices)
        best.append(least + costs[end])
        back.append(left + choices.index(least))
    cuts = [high]
    while cuts[-1] > low:
        cuts.append(back[cuts[-1] - low])
    return cuts[::-1]


def _cut_by_content(layout: Layout, start: int, end: int, budget: int) -> list[int]:
    """Cut a stretch without boundaries where a hash of the characters around is least.

    Within the second half of each budget, at a line if there is one, else a clause, else a space, else
    between characters. The hash ties the cuts to the content and not to the distance from the start, so
    that they find back to the old places after an edit (content-defined chunking, as in LBFS and FastCDC).
    """
    cuts: list[int] = []
    limit = layout.tokens.reach(start, budget, end)
    while limit < end:
        nearest = max(layout.tokens.reach(start, (budget + 1) // 2, end), start + 1)
        start = _content_cut(layout, start, nearest, limit)
        cuts.append(start)
        limit = layout.tokens.reach(start, budget, end)
    return cuts


def _content_cut(layout: Layout, start: int, nearest: int, limit: int) -> int:
    for places in (layout.lines.heads, layout.clause_starts, layout.joined.word_starts):
        low, high = np.searchsorted(places, (nearest, limit + 1))
        if low < high:
            return _least_hash(layout, places[low:high])
    window = np.arange(nearest, limit + 1)
    window = window[breakable(layout.joined.codes, layout.joined.flags, window)]
    return _least_hash(layout, window) if len(window) else layout.cut_before(start, limit)


def _least_hash(layout: Layout, places: Positions) -> int:
    # Two characters to each side at most: further away might lie another text.
    value = np.zeros(len(places), dtype=np.uint32)
    for distance in (-2, -1, 0, 1, 2):
        value = (value ^ layout.joined.codes[places + distance]) * np.uint32(0x9E3779B1)
        value ^= value >> np.uint32(15)
    return int(places[np.argmin(value)])


def _fill(layout: Layout, start: int, end: int, levels: list[Positions], budget: int) -> list[int]:
    """Return the end of each chunk of a span, cut at the first of the levels where that fits."""
    if not levels:
        return _fill_by_characters(layout, start, end, budget)
    low, high = np.searchsorted(levels[0], (start + 1, end))
    places = np.append(levels[0][low:high], end)
    last = layout.tokens.last(places)
    cuts: list[int] = []
    index = 0
    while start < end:
        limit = layout.tokens.first_of(start) + budget
        reached = int(np.searchsorted(last, limit, side="right"))
        if reached > index:
            start = int(places[reached - 1])
            cuts.append(start)
            index = reached
        else:
            cuts.extend(_fill(layout, start, int(places[index]), levels[1:], budget))
            start = int(places[index])
            index += 1
    return cuts


def _fill_by_characters(layout: Layout, start: int, end: int, budget: int) -> list[int]:
    cuts: list[int] = []
    while start < end:
        start = _window_end(layout, start, end, budget)
        cuts.append(start)
    return cuts


def _window_end(layout: Layout, start: int, end: int, budget: int) -> int:
    limit = layout.tokens.reach(start, budget, end)
    return limit if limit == end else layout.cut_before(start, limit)


def _overlapping(layout: Layout, cuts: list[int], overlap: int) -> list[Span]:
    """Return the spans between cuts, each begun `overlap` tokens early if that is inside the span before."""
    spans = list(pairwise(cuts))
    if not overlap:
        return spans
    result = spans[:1]
    for (earliest, _), (start, end) in pairwise(spans):
        early = _step_back(layout, start, overlap)
        result.append((early if early > earliest else start, end))
    return result


def _step_back(layout: Layout, position: int, tokens: int) -> int:
    """Return where the `tokens` tokens before a position begin, moved on to a word or a whole character."""
    index = max(layout.tokens.first_of(position) - tokens, 0)
    earliest = min(int(layout.tokens.marks[index]), position)
    words = layout.joined.word_starts
    word = int(words[np.searchsorted(words, earliest)]) if earliest <= words[-1] else position
    if word < position:
        return word
    window = np.arange(earliest, position + 1)
    whole = window[breakable(layout.joined.codes, layout.joined.flags, window)]
    return int(whole[0]) if len(whole) else position
