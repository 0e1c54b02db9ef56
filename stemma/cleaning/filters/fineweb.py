"""FineWeb's own filter (Penedo et al. 2024): lines that end a sentence, short ones, repeated ones, and line feeds.

FineWeb applies it to what C4's line filter has left, FineWeb2 to the whole text: the metrics of both are kept.
"""

from typing import NamedTuple

import numpy as np

from stemma.cleaning.filters.c4 import CITATION, LineFacts
from stemma.cleaning.filters.characters import TERMINAL, terminals
from stemma.cleaning.filters.repetition import duplicates
from stemma.cleaning.filters.text_blocks import (
    Block,
    Spans,
    block_of,
    ratios,
    running,
    span_hashes,
    totals,
    words_within,
)

SHORT_LINE = 30


class _Lines(NamedTuple):
    """Lines as FineWeb looks at them: their hashes, characters, words, and whether they end a sentence."""

    hashes: np.ndarray
    lengths: np.ndarray
    words: np.ndarray
    is_ended: np.ndarray


def fineweb_metrics(block: Block, hashes: np.ndarray) -> dict[str, np.ndarray]:
    """Return the metrics of the whole texts, given the hashes of their lines."""
    spans, bounds = block.lines, block.lines.bounds
    first, last = words_within(block, spans)
    lines = _Lines(hashes, spans.lengths, last - first, _ending(block, spans.ends))
    feeds = np.diff(bounds) - 1
    counts = [*_counts(lines, bounds), np.diff(block.bounds) - 1 - feeds, feeds, np.diff(block.words.bounds)]
    return {"lines": counts[0], **_named("", counts)}


def kept_spans(
    block: Block, facts: LineFacts, bounds: np.ndarray, first: np.ndarray, last: np.ndarray
) -> Spans:
    """Return the lines that C4 keeps with any ending, without the white space around them."""
    kept = np.flatnonzero(facts.is_kept)
    starts, ends = block.words.starts[first[kept]], block.words.ends[last[kept] - 1]
    return Spans(starts, ends, running(facts.is_kept)[bounds])


def kept_metrics(block: Block, facts: LineFacts, kept: Spans, hashes: np.ndarray) -> dict[str, np.ndarray]:
    """Return the metrics of the lines that C4 keeps with any ending, joined by line feeds.

    Args:
        facts: what is known of all lines.
        kept: those that are kept, and their `hashes`.
    """
    starts = block.words.starts
    words = np.searchsorted(starts, kept.ends) - np.searchsorted(starts, kept.starts)
    lines = _Lines(hashes, kept.lengths, words, _ending(block, kept.ends))
    cited = np.flatnonzero(facts.has_citation[facts.is_kept])
    texts = _without_citations(block, kept, cited, lines)
    feeds = np.maximum(np.diff(kept.bounds) - 1, 0)
    counts = [*_counts(lines, kept.bounds)]
    counts += [totals(lines.lengths, kept.bounds), feeds, totals(lines.words, kept.bounds)]
    for text in texts:
        pieces = [_line(block, kept, place) for place in range(kept.bounds[text], kept.bounds[text + 1])]
        joined = "\n".join(CITATION.sub("", piece) for piece in pieces).strip()
        for count, value in zip(counts, _plain_counts(joined), strict=True):
            count[text] = value
    return _named("kept_", counts)


def _without_citations(block: Block, kept: Spans, cited: np.ndarray, lines: _Lines) -> list[int]:
    """Describe the cited lines anew, without citations; return the texts where one is blank then.

    White space that a citation leaves at the start or the end of a text goes.
    """
    if not len(cited):
        return []
    texts = np.searchsorted(kept.bounds, cited, side="right") - 1
    opens, closes = cited == kept.bounds[texts], cited == kept.bounds[texts + 1] - 1
    changed = []
    for place, opening, closing in zip(cited.tolist(), opens.tolist(), closes.tolist(), strict=True):
        line = CITATION.sub("", _line(block, kept, place))
        line = line.lstrip() if opening else line
        changed.append(line.rstrip() if closing else line)
    small = block_of(changed)
    whole = Spans(small.bounds[:-1], small.bounds[1:] - 1, np.arange(len(changed) + 1))
    (lines.hashes[cited],) = span_hashes(small.codes, whole)
    lines.lengths[cited], lines.words[cited] = whole.lengths, np.diff(small.words.bounds)
    lines.is_ended[cited] = _ending(small, whole.ends)
    return np.unique(texts[lines.words[cited] == 0]).tolist()


def _line(block: Block, kept: Spans, place: int) -> str:
    text = int(np.searchsorted(kept.bounds, place, side="right")) - 1
    origin = block.bounds[text]
    return block.texts[text][kept.starts[place] - origin : kept.ends[place] - origin]


def _ending(block: Block, ends: np.ndarray) -> np.ndarray:
    """Say whether there is a sign that ends a sentence before each of these places."""
    return np.bitwise_and(block.classes[np.maximum(ends - 1, 0)], TERMINAL) > 0


def _counts(lines: _Lines, bounds: np.ndarray) -> list[np.ndarray]:
    """Count the lines with words, those that end a sentence, the short ones, and characters of repeated ones."""
    is_filled = lines.words > 0
    is_short = is_filled & (lines.lengths <= SHORT_LINE)
    _, repeated = duplicates(lines.lengths, lines.hashes, np.flatnonzero(is_filled), bounds)
    return [*(totals(flags, bounds) for flags in (is_filled, is_filled & lines.is_ended, is_short)), repeated]


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


def _named(prefix: str, counts: list[np.ndarray]) -> dict[str, np.ndarray]:
    lines, ended, short, repeated, characters, feeds, words = counts
    return {
        f"{prefix}terminal_punctuation_line_fraction": ratios(ended, lines),
        f"{prefix}short_line_fraction": ratios(short, lines),
        f"{prefix}repeated_character_fraction": ratios(repeated, characters),
        f"{prefix}newline_to_word_ratio": ratios(feeds, words),
    }
