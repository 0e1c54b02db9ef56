"""Where repaired text comes from: maps from its characters to those of the text before, as breakpoints.

A map is a tuple of breakpoints (char_start, source_char), both ascending: from there on both texts run side by
side, character by character, until the next breakpoint.
"""

import re
from bisect import bisect_right
from collections.abc import Iterator, Sequence

from stemma.cleaning.extraction import Origin
from stemma.cleaning.repair import repair

Breakpoints = tuple[tuple[int, int], ...]

_LINE_END = re.compile("\r\n|[\n\r\v\f\u2028\u2029]")
_SPACES = re.compile(r"\s*")
# What no repair removes, if no terminal escape is near.
_LASTING = re.compile("[0-9A-Za-z]")
# An edit in a line replaces up to 12 characters by up to 3; after it, so many in a row are the same again.
_LONGEST_EDIT = 12
_LONGEST_REPLACEMENT = 3
_SAME_AGAIN = (4, 2, 1)
# So many edits of a line are looked for (10 µs each): more has only a hostile one.
_EDITS_OF_A_LINE = 500


def line_origins(source: str, repaired: str) -> Breakpoints:
    """Map a text that `stemma.cleaning.repair.repair` returned to the text that it was given.

    Repair works line by line and drops blank lines and the ends of lines, so the lines with text are paired
    in order. In a line with edits there is a breakpoint after each that changed its length. Where edits lie so
    close that nothing between them stayed the same (a line that was mojibake throughout), the stretch between
    the first and the last of them runs side by side as well as it can. All other characters equal those that
    they are mapped to, but for those exchanged one by one (a space for a non-breaking one, a line end for
    white space before it).
    """
    if "\r\n" in source:
        unified = source.replace("\r\n", "\n").replace("\r", "\n")
        return compose(_double_line_ends(source), line_origins(unified, repaired), len(repaired))
    if source == repaired:
        return ((0, 0),)
    found: list[tuple[int, int]] = []
    for place, origin in _stretches(source, repaired):
        if not found or (place < len(repaired) and found[-1][1] - found[-1][0] != origin - place):
            if found and found[-1][0] == place:
                found.pop()
            found.append((place, origin))
    return tuple(found) or ((0, 0),)


def _double_line_ends(source: str) -> Breakpoints:
    """Map a text in which each CR LF became one newline: that comes from the LF."""
    ends = enumerate(match.start() for match in re.finditer("\r\n", source))
    found = [(place - number, place + 1) for number, place in ends]
    return tuple(found) if found[0][0] == 0 else ((0, 0), *found)


def compose(first: Breakpoints, second: Breakpoints, length: int | None = None) -> Breakpoints:
    """Join two maps: `second` leads from the last text to the one between, `first` from there to the source.

    `length` is that of the last text: breakpoints that would lie at its end or beyond are left out.
    """
    if second == ((0, 0),):
        return (first[0], *(pair for pair in first[1:] if length is None or pair[0] < length))
    starts = [char_start for char_start, _ in first]
    found: list[tuple[int, int]] = []
    for place, index, offset in _overlay(starts, second, length):
        origin = first[index][1] + offset
        if not found or found[-1][1] - found[-1][0] != origin - place:
            found.append((place, origin))
    return tuple(found)


def map_origins(
    origins: tuple[Origin, ...], breakpoints: Breakpoints, length: int | None = None
) -> tuple[Origin, ...]:
    """Return the origins of extracted text as those of the text that `breakpoints` map to it.

    `length` is that of the text that was made: origins that would lie at its end or beyond are left out.
    """
    starts = [origin.char_start for origin in origins]
    found: list[Origin] = []
    for place, index, offset in _overlay(starts, breakpoints, length):
        origin = origins[index]
        source_char = None if origin.source_char is None else origin.source_char + offset
        if not found or not _continues(found[-1], place, source_char, origin.place):
            found.append(Origin(place, source_char, origin.place))
    return tuple(found)


def _continues(last: Origin, char_start: int, source_char: int | None, place: str | None) -> bool:
    """Tell whether a stretch goes on where the last one, which reaches up to it, would lead anyway."""
    if source_char is None or last.source_char is None:
        return source_char == last.source_char and place == last.place
    return source_char - char_start == last.source_char - last.char_start and place == last.place


def _overlay(
    starts: Sequence[int], breakpoints: Breakpoints, length: int | None
) -> Iterator[tuple[int, int, int]]:
    """Cut the stretches of a map where those of the map before it begin, at `starts`.

    Yields for each piece its place, which of those stretches it is in, and how far from that one's start.
    """
    for number, (place, middle) in enumerate(breakpoints):
        following = breakpoints[number + 1][0] if number + 1 < len(breakpoints) else length
        index = bisect_right(starts, middle) - 1
        if index >= 0:
            yield place, index, middle - starts[index]
        for later in range(index + 1, len(starts)):
            moved = place + starts[later] - middle
            if following is not None and moved >= following:
                break
            yield moved, later, 0


def _stretches(source: str, repaired: str) -> Iterator[tuple[int, int]]:
    """Yield where stretches begin in the repaired text and in the source; more of them than need be."""
    place = origin = 0
    while place < len(repaired):
        same = _common(repaired, place, source, origin)
        if place + same == len(repaired):
            yield place, origin
            return
        # Both stand at the start of a line, and do so again after the last line that is the same.
        start = max(place, repaired.rfind("\n", place, place + same) + 1)
        gap = _after_gap(source, origin + same, repaired, place + same, start)
        if gap or start > place:
            yield place, origin
        place, origin = gap or (start, origin + start - place)
        if gap:
            if place > start:
                yield place - 1, origin - 1
            continue
        end = _LINE_END.search(source, origin)
        line_end, next_line = (end.start(), end.end()) if end else (len(source), len(source))
        line = source[origin:line_end]
        stop = _index(repaired, "\n", place)
        if place < stop and _is_blank(line):
            if next_line == origin:
                return  # cannot be: the repaired text has a line more
            origin = next_line
            continue
        for step, before in _line_stretches(line.rstrip(), repaired[place:stop]):
            yield place + step, origin + before
        if end:
            yield stop, next_line - 1
        place, origin = stop + 1, next_line


def _after_gap(source: str, origin: int, repaired: str, place: int, start: int) -> tuple[int, int] | None:
    """Find where the next line starts on both sides, if the sides differ in white space between lines only."""
    if not source[origin : origin + 1].isspace():
        return None
    if repaired[start:place].isspace():
        origin, place = origin - (place - start), start
    end, stop = _after_spaces(source, origin), _after_spaces(repaired, place)
    line = repaired.rfind("\n", place, stop) + 1 or place
    if line == place and place != start:
        return None
    origin = end - (stop - line)
    # Up to the next character: what looks like space may be mojibake.
    return (line, origin) if source[origin : end + 1] == repaired[line : stop + 1] else None


def _after_spaces(text: str, place: int) -> int:
    spaces = _SPACES.match(text, place)
    return spaces.end() if spaces else place


def _line_stretches(line: str, repaired: str) -> Iterator[tuple[int, int]]:
    """Yield where stretches begin in a repaired line and in the line before."""
    place = origin = 0
    for _ in range(_EDITS_OF_A_LINE):
        yield place, origin
        same = _common(repaired, place, line, origin)
        place, origin = place + same, origin + same
        edit = _edit(repaired, place, line, origin)
        if edit is None:
            break
        place, origin = place + edit[0], origin + edit[1]
        if place >= len(repaired):
            return
    same = _common(repaired[place:][::-1], 0, line[origin:][::-1], 0)
    yield len(repaired) - same, len(line) - same


def _edit(repaired: str, place: int, line: str, origin: int) -> tuple[int, int] | None:
    """Find how many characters of each side the edit at a place takes, None where it is a longer one."""
    edits = []
    for same in _SAME_AGAIN:
        for new in range(min(_LONGEST_REPLACEMENT, len(repaired) - place) + 1):
            after = repaired[place + new : place + new + same]
            if after:
                old = line.find(after, origin, origin + _LONGEST_EDIT + same) - origin
            else:
                old = len(line) - origin
            if 0 <= old <= _LONGEST_EDIT:
                edits.append((new + old - same, new, old))
        if edits and min(edits)[0] < 0:
            break  # near enough
    return min(edits)[1:] if edits else None


def _is_blank(line: str) -> bool:
    """Tell whether nothing of a line is left after repair."""
    if "\x1b" not in line and _LASTING.search(line):
        return False
    return not line.strip(" \t") or not repair(line).text


def _index(text: str, part: str, start: int) -> int:
    found = text.find(part, start)
    return len(text) if found < 0 else found


def _common(first: str, at: int, second: str, start: int) -> int:
    """Return how many characters are the same from these places on: by ever longer slices, then halves."""
    same, step, grows = 0, 64, True
    while step:
        ours = first[at + same : at + same + step]
        if ours and ours == second[start + same : start + same + step]:
            same += len(ours)
        else:
            grows = False
        step = step * 2 if grows else step // 2
    return same
