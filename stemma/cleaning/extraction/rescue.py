"""Headings, code, tables, lists and quotations that belong to what the block model keeps.

The model weighs each block by itself and its neighbours, and drops what is short or no prose: a heading, a
table, a line of code amid paragraphs that it keeps. Those carry the structure that retrieval goes by, so they
are taken back by what is kept around them. Measured on the pages of `benchmarks/extraction.py`, c4 in the
cross-validation: headings 0.868 -> 0.911, table rows 0.834 -> 0.900, code 0.863 -> 0.960, list items
0.730 -> 0.748, for a word-F1 of 0.857 -> 0.858; held-out 0.918 -> 0.919, c1 0.954 -> 0.951, whose texts have no
titles.
"""

from collections.abc import Iterable
from itertools import accumulate

from stemma.cleaning.extraction.page_blocks import FLAG, Page

# Units are kept or left as a whole.
_LISTS = frozenset({"ul", "ol", "dl", "menu"})
_UNITS = _LISTS | {"pre", "table", "blockquote"}
_LEVELS = {"h1": 1, "h2": 2, "h3": 3, "h4": 4, "h5": 5, "h6": 6}
_NEVER = (
    FLAG["nav"] | FLAG["footer"] | FLAG["aside"] | FLAG["dialog"] | FLAG["hidden"] | FLAG["button"]
    | FLAG["noscript"]
)  # fmt: skip
_MAIN = FLAG["main"] | FLAG["article"]

# So much of the prose around a unit is kept; a list or quotation with nothing kept behind it asks for more.
_LEAST_AROUND = 0.5
_LEAST_AT_END = 0.9
_MOSTLY_LINKS = 0.5
# Lists with longer items are lists of posts or teasers (without the limit held-out pages lose 0.003), tables
# with longer cells are layout.
_LONGEST = {"table": 500} | dict.fromkeys(_LISTS, 300)
# A heading belongs to these first blocks of its section (to the whole of it: c1 loses 0.002).
_SECTION_BLOCKS = 2
_LEAST_OF_SECTION = 0.5
_HEADING_CHARACTERS = 200
# The main heading stands in or next to the innermost element that holds this share of the kept text.
_MAIN_SHARE = 0.75


def rescue(page: Page, kept: list[bool]) -> list[bool]:
    """Keep also the structure that belongs to what is kept.

    Args:
        page: the page's blocks.
        kept: for each block whether the model keeps it.

    Returns:
        `kept` with more blocks. A unit (code, data table, list, quotation) is added when most of the prose of the
        element around it is kept; lists and quotations, which boilerplate has too, only between kept blocks or
        at the end of a main element or article that is kept nearly whole. A heading is added when what it
        begins with is kept, a page's only h1 also when it stands in or next to the element that is kept.
    """
    if not any(kept):
        return kept
    return _with_headings(page, _with_units(page, kept))


def _with_units(page: Page, kept: list[bool]) -> list[bool]:
    units = _units(page)
    size = [len(text) for text in page.texts]
    is_prose = [
        units[holder] < 0 and not page.flags[holder] & (FLAG["heading"] | _NEVER) for holder in page.holders
    ]
    prose = _running(s * p for s, p in zip(size, is_prose, strict=True))
    kept_prose = _running(s * (p and k) for s, p, k in zip(size, is_prose, kept, strict=True))
    length, linked, count = _running(size), _running(page.linked), _running(kept)
    more = list(kept)
    # For each element the innermost around it, or itself, that holds prose.
    around: list[int] = []
    for index, (first, last, parent) in enumerate(zip(page.first, page.last, page.parents, strict=True)):
        around.append(index if not index or prose[last] > prose[first] else around[parent])
        if units[index] != index or page.flags[index] & _NEVER:
            continue
        if linked[last] - linked[first] > _MOSTLY_LINKS * (length[last] - length[first]):
            continue
        outer = around[parent]
        begin, end = page.first[outer], page.last[outer]
        all_ = prose[end] - prose[begin]
        share = (kept_prose[end] - kept_prose[begin]) / all_ if all_ else 0.0
        before, behind = count[first] > count[begin], count[end] > count[last]
        if page.elements[index].tag in ("pre", "table"):
            belongs = before or behind
        else:
            # Not at the start: lists there cost held-out pages 0.002 and bring nothing.
            at_end = share >= _LEAST_AT_END and bool(page.flags[outer] & _MAIN)
            belongs = before and (behind or at_end)
        if belongs and share >= _LEAST_AROUND:
            more[first:last] = [True] * (last - first)
    return more


def _units(page: Page) -> list[int]:
    """Return for each element the outermost unit that it is or stands in, -1 outside of units."""
    longest = [0] * len(page.elements)
    for text, holder in zip(page.texts, page.holders, strict=True):
        longest[holder] = max(longest[holder], len(text))
    layout = set()
    for index in range(len(page.elements) - 1, 0, -1):
        parent = page.parents[index]
        longest[parent] = max(longest[parent], longest[index])
        if page.tables[index] == index:
            layout.add(page.tables[parent])
    units: list[int] = []
    for index, (element, parent) in enumerate(zip(page.elements, page.parents, strict=True)):
        unit = units[parent] if index else -1
        if unit < 0 and (tag := element.tag) in _UNITS and index not in layout:
            unit = index if longest[index] <= _LONGEST.get(tag, longest[index]) else -1
        units.append(unit)
    return units


def _with_headings(page: Page, kept: list[bool]) -> list[bool]:
    length = _running(len(text) for text in page.texts)
    text = _running(len(text) * keep for text, keep in zip(page.texts, kept, strict=True))
    more = list(kept)
    main = _main_heading(page, text)
    outer = _outer(page)
    # By level, the block at which a section of that level that began before ends.
    ends = [len(kept)] * (len(_LEVELS) + 1)
    for index in range(len(page.elements) - 1, -1, -1):
        first, last = page.first[index], page.last[index]
        level = _LEVELS.get(page.elements[index].tag)
        if level is None or first == last:
            continue
        end = min(ends[level], page.last[outer[index]], last + _SECTION_BLOCKS)
        ends[level:] = [first] * len(ends[level:])
        if page.flags[index] & _NEVER or length[last] - length[first] > _HEADING_CHARACTERS:
            continue
        kept_text, all_text = text[end] - text[last], length[end] - length[last]
        if index == main or (end > last and kept_text >= _LEAST_OF_SECTION * all_text):
            more[first:last] = [True] * (last - first)
    return more


def _outer(page: Page) -> list[int]:
    """Return for each element the innermost one around it that goes on after it."""
    outer: list[int] = []
    for last, parent in zip(page.last, page.parents, strict=True):
        outer.append(parent if not outer or page.last[parent] > last else outer[parent])
    return outer


def _main_heading(page: Page, text: list[int]) -> int:
    """Return the page's only h1 if it is in or next to the element that is kept, else -1."""
    ranges = list(zip(page.first, page.last, strict=True))
    found = [i for i, (a, b) in enumerate(ranges) if a < b and page.elements[i].tag == "h1"]
    if len(found) != 1:
        return -1
    # In document order the last that holds so much is the innermost.
    kept = max(i for i, (a, b) in enumerate(ranges) if text[b] - text[a] >= _MAIN_SHARE * text[-1])
    around = page.parents[kept]
    inside = page.first[around] <= page.first[found[0]] < page.last[around]
    # A site's own header bears its name.
    flags = page.flags[found[0]]
    return found[0] if inside and (flags & _MAIN or not flags & FLAG["header"]) else -1


def _running(values: Iterable[int]) -> list[int]:
    """Return the sums of the values before each block, and of all: the sum of a range is one difference."""
    return list(accumulate(values, initial=0))
