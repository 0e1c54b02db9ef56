"""What C4 (Raffel et al. 2020, section 2.2) keeps of a text, line by line.

C4 keeps lines of at least three words, none of more than a thousand characters, that end a sentence, and that
name neither JavaScript nor the phrases of policies and cookie notices; it drops a page that says "lorem ipsum",
holds a curly bracket, or has fewer than five sentences left. The order of the tests, and that citation marks
such as [1] are taken out of a line before its characters are looked at, are as in datatrove. FineWeb keeps lines
with any ending: the metrics of both are kept.
"""

import re
from typing import NamedTuple

import numpy as np

from stemma.cleaning.filters.characters import CLOSING, CLOSINGS, ENDING, ENDINGS, TERMINAL, terminals
from stemma.cleaning.filters.text_blocks import Block, Spans, running, totals

SHORTEST_LINE = 3
LONGEST_WORD = 1000
ELLIPSIS = "..."
LOREM_IPSUM, JAVASCRIPT = "lorem ipsum", "javascript"
POLICY = ("terms of use", "privacy policy", "cookie policy", "uses cookies", "use of cookies", "use cookies")
CITATION = re.compile(r"\[\d*\]|\[edit\]|\[citation needed\]")
# The same and more in lower case, where digits that are not ASCII have become 0.
_CITATION_IN_BYTES = re.compile(rb"\[[\d\0]*\]|\[edit\]|\[citation needed\]")


class LineFacts(NamedTuple):
    """Booleans (but for the number of sentences) for each line, after citations are taken out."""

    is_whole: np.ndarray
    ends_sentence: np.ndarray
    has_lorem_ipsum: np.ndarray
    has_javascript: np.ndarray
    has_curly_bracket: np.ndarray
    has_policy: np.ndarray
    has_citation: np.ndarray
    sentences: np.ndarray

    @property
    def is_clean(self) -> np.ndarray:
        """What may be kept, but for a curly bracket and policies."""
        return ~self.has_lorem_ipsum & ~self.has_javascript

    @property
    def is_kept(self) -> np.ndarray:
        """The lines that are kept with any ending."""
        return self.is_whole & self.is_clean & ~self.has_curly_bracket & ~self.has_policy


def count_sentences(line: str) -> int:
    """Count the sentences of a line: one, and one more for each word before the last that ends a sentence.

    A word ends a sentence with a terminal sign of any script, which one closing quote or bracket may follow.
    Abbreviations end sentences too.
    """
    return 1 + sum(map(_ends_sentence, line.split()[:-1]))


def _ends_sentence(word: str) -> bool:
    return (word[-2] if len(word) > 1 and word[-1] in CLOSINGS else word[-1]) in terminals()


def c4_metrics(facts: LineFacts, bounds: np.ndarray) -> dict[str, np.ndarray]:
    """Return, for each text, what C4 finds in its lines, of which the texts have those between the bounds.

    Lines are tested in the order of the names in `LineFacts`; a line counts for the first test that stops it.
    """
    metrics = {
        "javascript_lines": totals(facts.has_javascript, bounds),
        "policy_lines": totals(facts.has_policy, bounds),
        "citation_lines": totals(facts.has_citation, bounds),
    }
    for suffix, tested in (("", facts.is_whole & facts.ends_sentence), ("_any_ending", facts.is_whole)):
        is_kept = tested & facts.is_kept
        metrics |= {
            f"c4_lorem_ipsum_lines{suffix}": totals(tested & facts.has_lorem_ipsum, bounds),
            f"c4_curly_bracket_lines{suffix}": totals(
                tested & facts.is_clean & facts.has_curly_bracket, bounds
            ),
            f"c4_kept_lines{suffix}": totals(is_kept, bounds),
            f"c4_sentences{suffix}": totals(facts.sentences * is_kept, bounds),
        }
    return metrics


def line_facts(block: Block, lines: Spans, first: np.ndarray, last: np.ndarray) -> LineFacts:
    """Judge the lines (those of `str.splitlines`), given the numbers of their words."""
    has_long_word = _flags(lines, block.words.starts[block.words.lengths > LONGEST_WORD])
    facts = LineFacts(
        is_whole=(last - first >= SHORTEST_LINE) & ~has_long_word,
        ends_sentence=_line_endings(block, first, last),
        has_lorem_ipsum=_naming(block, lines, LOREM_IPSUM),
        has_javascript=_naming(block, lines, JAVASCRIPT),
        has_curly_bracket=_naming(block, lines, "{"),
        has_policy=_naming(block, lines, *POLICY),
        has_citation=np.zeros(len(first), bool),
        sentences=_sentences(block, first, last),
    )
    _take_out_citations(block, lines, facts)
    return facts


def _line_endings(block: Block, first: np.ndarray, last: np.ndarray) -> np.ndarray:
    """Say of each line whether, without white space around it, it ends as ENDINGS and not as ELLIPSIS."""
    filled = np.flatnonzero(first < last)
    words = last[filled] - 1
    ends = block.words.ends[words]
    is_ending = np.zeros(len(first), bool)
    is_ending[filled] = np.bitwise_and(block.classes[ends - 1], ENDING) > 0
    is_ending[filled] &= ~ending_in_dots(block, words)
    return is_ending


def ending_in_dots(block: Block, words: np.ndarray) -> np.ndarray:
    """Say of each of these words whether it ends in three full stops."""
    starts, ends = block.words.starts[words], block.words.ends[words]
    is_ending = ends - starts >= len(ELLIPSIS)
    for back in range(1, len(ELLIPSIS) + 1):
        is_ending &= block.codes[ends - back] == ord(ELLIPSIS[-back])
    return is_ending


def _sentences(block: Block, first: np.ndarray, last: np.ndarray) -> np.ndarray:
    words = block.words
    signs = words.ends - 1
    is_closed = (np.bitwise_and(block.classes[signs], CLOSING) > 0) & (words.lengths > 1)
    ended = running(np.bitwise_and(block.classes[signs - is_closed], TERMINAL) > 0)
    return 1 + ended[np.maximum(last - 1, first)] - ended[first]


def _naming(block: Block, lines: Spans, *phrases: str) -> np.ndarray:
    """Say of each line whether it holds one of the phrases, which are in lower case and span no line break."""
    places = [place for phrase in phrases for place in _find(block.lower, phrase.encode("ascii"))]
    return _flags(lines, np.array(places, np.int64))


def _find(data: bytes, phrase: bytes) -> list[int]:
    places = []
    place = data.find(phrase)
    while place >= 0:
        places.append(place)
        place = data.find(phrase, place + 1)
    return places


def _flags(lines: Spans, places: np.ndarray) -> np.ndarray:
    """Mark the lines that hold these places."""
    flags = np.zeros(len(lines.starts), bool)
    flags[np.searchsorted(lines.starts, places, side="right") - 1] = True
    return flags


def _take_out_citations(block: Block, lines: Spans, facts: LineFacts) -> None:
    """Judge the lines with citations again, without them."""
    if b"[" not in block.lower:
        return
    places = np.array([found.start() for found in _CITATION_IN_BYTES.finditer(block.lower)], np.int64)
    for number in np.flatnonzero(_flags(lines, places)).tolist():
        text = int(np.searchsorted(lines.bounds, number, side="right")) - 1
        origin = block.bounds[text]
        line = block.texts[text][lines.starts[number] - origin : lines.ends[number] - origin].strip()
        kept = CITATION.sub("", line)
        lowered = kept.lower()
        facts.has_citation[number] = kept != line
        facts.ends_sentence[number] = kept.endswith(tuple(ENDINGS)) and not kept.endswith(ELLIPSIS)
        facts.has_lorem_ipsum[number] = LOREM_IPSUM in lowered
        facts.has_javascript[number] = JAVASCRIPT in lowered
        facts.has_policy[number] = any(phrase in lowered for phrase in POLICY)
        facts.sentences[number] = count_sentences(kept)
