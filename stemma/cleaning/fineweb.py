"""FineWeb's own filter (Penedo et al. 2024): lines that end a sentence, short ones, repeated ones, and line feeds.

FineWeb applies it to what C4's line filter has left, FineWeb2 to the whole text: the metrics of both are kept.
"""

import numpy as np

from stemma.cleaning.blocks import Block, Spans, running, totals, words_within
from stemma.cleaning.c4 import CITATION, LineFacts, line_of
from stemma.cleaning.characters import TERMINAL, terminals
from stemma.cleaning.repetition import duplicates

SHORT_LINE = 30


def fineweb_metrics(block: Block, hashes: np.ndarray) -> dict[str, np.ndarray]:
    """Return the metrics of the whole texts, given the hashes of their lines."""
    lines, bounds = block.lines, block.lines.bounds
    first, last = words_within(block, lines)
    counts = _line_counts(block, lines, hashes, first < last)
    feeds = np.diff(bounds) - 1
    characters = np.diff(block.bounds) - 1 - feeds
    return {"lines": counts[0], **_named("", counts, characters, feeds, np.diff(block.words.bounds))}


def stripped_lines(block: Block, lines: Spans, first: np.ndarray, last: np.ndarray) -> Spans:
    """Return the lines with words, without the white space around them."""
    is_filled = first < last
    starts, ends = block.words.starts[first[is_filled]], block.words.ends[last[is_filled] - 1]
    return Spans(starts, ends, running(is_filled)[lines.bounds])


def kept_metrics(
    block: Block, lines: Spans, facts: LineFacts, stripped: Spans, hashes: np.ndarray, words: np.ndarray
) -> dict[str, np.ndarray]:
    """Return the metrics of the lines that C4 keeps with any ending, joined by line feeds.

    Args:
        lines: those of `str.splitlines`, and `facts` about them.
        stripped: the same without white space around them, but for blank ones, and their `hashes`.
        words: how many words each of `lines` has.
    """
    is_kept = facts.is_kept[words > 0]
    counts = _line_counts(block, stripped, hashes, is_kept)
    characters = totals(stripped.lengths * is_kept, stripped.bounds)
    totals_ = [*counts, characters, np.maximum(counts[0] - 1, 0), totals(words * facts.is_kept, lines.bounds)]
    changed = np.flatnonzero(totals(facts.has_citation & facts.is_kept, lines.bounds))
    for text in changed.tolist():
        places = lines.bounds[text] + np.flatnonzero(
            facts.is_kept[lines.bounds[text] : lines.bounds[text + 1]]
        )
        kept = [CITATION.sub("", line_of(block, lines, place)) for place in places.tolist()]
        for total, value in zip(totals_, _plain_counts("\n".join(kept).strip()), strict=True):
            total[text] = value
    return _named("kept_", totals_[:4], *totals_[4:])


def _line_counts(block: Block, lines: Spans, hashes: np.ndarray, chosen: np.ndarray) -> list[np.ndarray]:
    """Count the chosen lines, those that end a sentence, the short ones, and the characters of repeated ones."""
    signs = block.classes[np.maximum(lines.ends - 1, 0)]
    is_ended = chosen & (np.bitwise_and(signs, TERMINAL) > 0)
    is_short = chosen & (lines.lengths <= SHORT_LINE)
    _, repeated = duplicates(lines, hashes, np.flatnonzero(chosen))
    return [*(totals(flags, lines.bounds) for flags in (chosen, is_ended, is_short)), repeated]


def _plain_counts(text: str) -> list[int]:
    """Return the same of one text, and its characters but for line feeds, line feeds, and words."""
    lines = [line for line in text.split("\n") if line.strip()]
    known: set[str] = set()
    repeated = 0
    for line in lines:
        repeated += len(line) * (line in known)
        known.add(line)
    ended, short = (
        sum(line[-1] in terminals() for line in lines),
        sum(len(line) <= SHORT_LINE for line in lines),
    )
    feeds = text.count("\n")
    return [len(lines), ended, short, repeated, len(text) - feeds, feeds, len(text.split())]


def _named(
    prefix: str, counts: list[np.ndarray], characters: np.ndarray, feeds: np.ndarray, words: np.ndarray
) -> dict[str, np.ndarray]:
    lines, ended, short, repeated = counts
    return {
        f"{prefix}terminal_punctuation_line_fraction": ratios(ended, lines),
        f"{prefix}short_line_fraction": ratios(short, lines),
        f"{prefix}repeated_character_fraction": ratios(repeated, characters),
        f"{prefix}newline_to_word_ratio": ratios(feeds, words),
    }


def ratios(parts: np.ndarray, wholes: np.ndarray) -> np.ndarray:
    """Divide; 0 where there is nothing to divide by."""
    return np.divide(parts, wholes, out=np.zeros(len(parts)), where=wholes > 0)
