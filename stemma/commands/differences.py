"""What differs between two texts, word by word: as parts, and as lines to look at."""

import os
import re
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from difflib import SequenceMatcher
from itertools import pairwise
from typing import NamedTuple

from stemma.commands.output import harmless, say
from stemma.deduplication.tokens import word_spans

# Characters of a text that are compared; and pairs of equal pieces that may be followed up, which the time is in
# proportion to: in all, and at least in each of the places that differ.
COMPARED_CHARACTERS = 200_000
COMPARED_PAIRS = 1_000_000
COMPARED_IN_PLACE = 10_000

# Lines, and sentences within them.
STRETCH = re.compile(r".+?(?:\n+|[.!?]+\s+|[。！？]|\Z)", re.S)

PUNCTUATION = re.compile(r"\S+")
WHITE_SPACE = re.compile(r"\s+")

# What is shown: characters of what is the same beside each change, of a change, of a line, and lines.
CONTEXT_CHARACTERS = 40
SHOWN_CHARACTERS = 300
LINE_CHARACTERS = 800
SHOWN_LINES = 12

SAME, REMOVED, ADDED = "same", "removed", "added"
MARKS = {SAME: ("", ""), REMOVED: ("[-", "-]"), ADDED: ("{+", "+}")}
COLOURS = {SAME: "", REMOVED: "red strike", ADDED: "green"}


class Part(NamedTuple):
    """A stretch of text that both texts have (same), or only the first (removed) or the second (added)."""

    kind: str
    text: str


def differences(before: str, after: str) -> list[Part]:
    """Return what makes `after` of `before`: parts in order, cut between words and punctuation.

    White space alone makes no difference. The first 200,000 characters of each are compared: line by line and
    sentence by sentence first, then word by word where these differ. A stretch whose words repeat too often
    to be compared in bounded time is removed and added as a whole. Raises UnicodeEncodeError on lone
    surrogates.
    """
    cut = max(len(before), len(after)) > COMPARED_CHARACTERS
    before, after = before[:COMPARED_CHARACTERS], after[:COMPARED_CHARACTERS]
    parts: list[Part] = []
    stretches = list(_aligned(STRETCH.findall(before), STRETCH.findall(after), COMPARED_PAIRS))
    pairs = max(COMPARED_PAIRS // max(len(stretches), 1), COMPARED_IN_PLACE)
    for kind, old, new in stretches:
        if kind == SAME:
            parts.append(Part(SAME, "".join(new)))
            continue
        for inner, old_words, new_words in _aligned(_words("".join(old)), _words("".join(new)), pairs):
            if inner == SAME:
                parts.append(Part(SAME, "".join(new_words)))
            else:
                parts += [Part(REMOVED, "".join(old_words))] if old_words else []
                parts += [Part(ADDED, "".join(new_words))] if new_words else []
    parts = _merged(parts)
    # Where a text was cut, its end lacks what the other still has.
    while cut and parts and parts[-1].kind != SAME:
        parts.pop()
    return parts


def _words(text: str) -> list[str]:
    """Cut a text before each word, of any script, and each run of punctuation; the pieces make up the text."""
    starts, stops = (places.tolist() for places in word_spans(text))
    cuts = {0, len(text), *starts}
    for stop, start in zip([0, *stops], [*starts, len(text)], strict=True):
        cuts.update(match.start() for match in PUNCTUATION.finditer(text, stop, start))
    return [text[start:stop] for start, stop in pairwise(sorted(cuts))]


def _aligned(
    before: Sequence[str], after: Sequence[str], pairs: int
) -> Iterator[tuple[str, Sequence[str], Sequence[str]]]:
    """Yield runs of pieces that are the same but for white space, and those that are not (kind "")."""
    old, new = ([" ".join(piece.split()) for piece in pieces] for pieces in (before, after))
    first, last = _common_ends(old, new)
    if first:
        yield SAME, before[:first], after[:first]
    matcher = _matcher(old[first : len(old) - last], new[first : len(new) - last], pairs)
    for kind, a, b, c, d in matcher.get_opcodes() if matcher else ():
        yield SAME if kind == "equal" else "", before[first + a : first + b], after[first + c : first + d]
    if matcher is None:
        yield "", before[first : len(old) - last], after[first : len(new) - last]
    if last:
        yield SAME, before[-last:], after[-last:]


def _common_ends(old: Sequence[str], new: Sequence[str]) -> tuple[int, int]:
    """Count the pieces that both begin with, and those that both end with after these."""
    shorter = min(len(old), len(new))
    first = next((place for place in range(shorter) if old[place] != new[place]), shorter)
    rest = shorter - first
    last = next((place for place in range(rest) if old[-1 - place] != new[-1 - place]), rest)
    return first, last


def _matcher(old: Sequence[str], new: Sequence[str], pairs: int) -> SequenceMatcher[str] | None:
    """Return what aligns the two, None where that takes too long; what is frequent is left out only to avoid it."""
    counts, others = Counter(old), Counter(new)
    for autojunk in (False, True):
        matcher = SequenceMatcher(None, old, new, autojunk=autojunk)
        compared = counts.keys() - matcher.bpopular  # type: ignore[attr-defined]
        if sum(counts[piece] * others[piece] for piece in compared) <= pairs:
            return matcher
    return None


def _merged(parts: Sequence[Part]) -> list[Part]:
    """Join neighbours of one kind; of a run of changes, all that was removed comes before what was added."""
    merged: list[Part] = []
    removed = added = ""
    for part in (*parts, Part(SAME, "")):
        if part.kind != SAME:
            removed += part.text if part.kind == REMOVED else ""
            added += part.text if part.kind == ADDED else ""
            continue
        merged += [Part(kind, text) for kind, text in ((REMOVED, removed), (ADDED, added)) if text.strip()]
        removed = added = ""
        if merged and merged[-1].kind == SAME:
            merged[-1] = Part(SAME, merged[-1].text + part.text)
        elif part.text:
            merged.append(part)
    return merged


def excerpts(parts: Sequence[Part]) -> list[list[Part]]:
    """Return the changes with a little of the text around them, as lines of shown text.

    What is left out is shown as "…", white space as single spaces, control characters as "�". Changes that are
    near to each other stand on one line.
    """
    lines: list[list[Part]] = [[]]
    for place, part in enumerate(parts):
        text = visible(part.text)
        if part.kind != SAME:
            lines[-1].append(Part(part.kind, _shortened(text)))
            continue
        is_short = len(text) <= 2 * CONTEXT_CHARACTERS
        is_full = sum(len(each.text) for each in lines[-1]) > LINE_CHARACTERS
        if is_short and not is_full and 0 < place < len(parts) - 1:
            lines[-1].append(Part(SAME, text))
            continue
        if place > 0:
            lines[-1].append(Part(SAME, text if is_short else _begin(text) + " …"))
        if place < len(parts) - 1:
            lines.append([Part(SAME, text if is_short else "… " + _end(text))])
    return [line for line in lines if any(part.kind != SAME for part in line)]


def _begin(text: str) -> str:
    head = text[:CONTEXT_CHARACTERS]
    return head.rpartition(" ")[0] or head


def _end(text: str) -> str:
    tail = text[-CONTEXT_CHARACTERS:]
    return tail.partition(" ")[2] or tail


def _shortened(text: str) -> str:
    if len(text) <= SHOWN_CHARACTERS:
        return text
    half = SHOWN_CHARACTERS // 2
    return f"{text[:half].rstrip()} … {text[-half:].lstrip()}"


def visible(text: str) -> str:
    """Return a text on one line, with "�" for what a terminal could take for more than a character."""
    return "".join(character if character.isprintable() else "�" for character in WHITE_SPACE.sub(" ", text))


def wants_colour(choice: str) -> bool:
    """Tell whether to use colours: `choice` is always, never, or auto (on a terminal, unless NO_COLOR is set)."""
    if choice != "auto":
        return choice == "always"
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def print_differences(parts: Sequence[Part], *, colour: bool) -> None:
    """Print the changes with their surroundings, in colours or with the marks [-removed-] and {+added+}."""
    lines = excerpts(parts)
    for line in lines[:SHOWN_LINES]:
        if colour:
            _print_coloured(line)
        else:
            say("    " + "".join(map(_marked, line)).strip())
    if len(lines) > SHOWN_LINES:
        say(f"    … and {len(lines) - SHOWN_LINES} more places (--json shows all)")


def _marked(part: Part) -> str:
    """Put a part between its marks; white space at its ends stays outside."""
    text = part.text.strip(" ")
    opening, closing = MARKS[part.kind]
    return part.text.replace(text, f"{opening}{text}{closing}") if text else part.text


def _print_coloured(line: Sequence[Part]) -> None:
    from rich.console import Console
    from rich.text import Text

    console = Console(force_terminal=True, no_color=False, color_system="standard", highlight=False)
    console.print(
        Text.assemble("    ", *((harmless(part.text), COLOURS[part.kind]) for part in line)), soft_wrap=True
    )
