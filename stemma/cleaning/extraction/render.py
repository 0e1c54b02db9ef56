"""From an element tree to Markdown: headings, lists, tables, code and paragraphs.

The text is meant to be searched and read by models, not rendered: `snake_case` stays `snake_case`; emphasis
and links leave only their words. Only a bar inside of a cell is escaped, or the row would have one more. The walk is
a loop, so the depth of a tree is no limit.
"""

import re
from collections.abc import Callable
from typing import Any

# lxml's elements have no types of their own in lxml; an alias says what is meant.
Element = Any

_HEADINGS = {"h1": 1, "h2": 2, "h3": 3, "h4": 4, "h5": 5, "h6": 6}
_BREAKS = frozenset({"br"})
_LISTS = frozenset({"ul", "ol", "dl"})
# What runs on in a line of text. Any other element, an unknown one too, begins a block.
INLINE = frozenset({
    "a", "abbr", "acronym", "b", "bdi", "bdo", "big", "br", "cite", "code", "data", "del", "dfn", "em",
    "font", "i", "img", "ins", "kbd", "mark", "q", "rp", "rt", "ruby", "s", "samp", "small", "span",
    "strike", "strong", "sub", "sup", "time", "tt", "u", "var", "wbr", "picture", "source", "nobr",
})  # fmt: skip
_LINES = frozenset({
    "dt", "dd", "td", "th", "tr", "option", "legend", "summary", "figcaption", "caption", "button", "label",
})  # fmt: skip
_TABLE_PARTS = frozenset({"thead", "tbody", "tfoot", "colgroup", "col"})
# What makes a table row a piece of page layout and not a row of data.
_LAYOUT = ("table", "ul", "ol", "pre", "h1", "h2", "h3", "h4", "h5", "h6")
# What stands in a `<code>` that someone forgot to close, not in code.
_NEVER_IN_CODE = frozenset({"p", "blockquote", *_LAYOUT})
# A longer cell is no datum, but a part of the page.
_MAX_CELL = 500
# Columns that one cell may be said to span, and columns that a cell of a row above may.
_MAX_SPAN = 20
# What documentation writes behind a heading as a link to it.
_PERMALINKS = frozenset({"¶", "#", "§", "\u200b"})
_PERMALINK_CLASS = re.compile(r"headerlink|header-link|anchor|permalink|hash-link")
_CODE_LANGUAGE = re.compile(
    r"\b(?:language|lang|highlight|highlight-source|brush)[-: ]+([A-Za-z][\w+#]{0,19})(?![\w-])"
)

# Two of these side by side, with nothing between, are kept apart by style sheets: a space stands for that.
APART = frozenset({"a", "span", "small", "time"})

_SPACE = re.compile(r"\s+")


def to_markdown(root: Element, skip: Callable[[Element], bool] | None = None) -> str:
    """Render an lxml element as Markdown.

    Args:
        root: the element; it is not changed.
        skip: true for elements to leave out with all that is in them.
    """
    return render(root, skip)[0]


def render(
    root: Element, skip: Callable[[Element], bool] | None = None
) -> tuple[str, list[tuple[int, Element]]]:
    """Render an lxml element as Markdown and say where each block of it comes from.

    Args:
        root: the element; it is not changed.
        skip: true for elements to leave out with all that is in them.

    Returns:
        The text, and for each of its blocks (a paragraph, heading, item, row, code) its first character and
        the element whose text begins there.
    """
    from lxml.etree import iterwalk

    writer = _Writer()
    walker = iterwalk(root, events=("start", "end"))
    for event, element in walker:
        if event == "end":
            writer.close(element)
            if element is not root and element.tail:
                writer.text(element.tail, element.getparent())
        elif (skip is not None and skip(element)) or writer.whole(element):
            walker.skip_subtree()
        else:
            writer.open(element)
            writer.text(element.text, element)
    return writer.result(), writer.starts


def _verbatim(element: Element) -> str:
    """Return the text of an element with its white space, breaks and the borders of blocks as newlines."""
    from lxml.etree import iterwalk

    parts: list[str] = []
    for event, inner in iterwalk(element, events=("start", "end")):
        if inner is not element and (inner.tag in _BREAKS if event == "start" else inner.tag not in INLINE):
            parts.append("\n")
        if text := inner.text if event == "start" else inner.tail if inner is not element else None:
            parts.append(text)
    return "".join(parts)


def _inline(element: Element) -> str:
    """Return the text of an element on one line."""
    from lxml.etree import iterwalk

    parts: list[str] = []
    side_by_side = False
    for event, inner in iterwalk(element, events=("start", "end")):
        tag = inner.tag
        if tag not in INLINE or tag in _BREAKS or (event == "start" and side_by_side and tag in APART):
            parts.append(" ")
        text = inner.text if event == "start" else inner.tail if inner is not element else None
        if text:
            parts.append(text)
        side_by_side = event == "end" and tag in APART and not text
    return " ".join("".join(parts).split())


class _Writer:
    """Collects text; breaks between blocks are remembered and written before the next text.

    No line that it writes ends in white space: what is written keeps its place in the result.
    """

    def __init__(self) -> None:
        self.starts: list[tuple[int, Element]] = []
        self._parts: list[str] = []
        self._length = 0
        self._newlines = 0
        self._prefix = ""
        self._ends_in_space = False
        self._side_by_side = False
        # One entry for each open list: the number of its last item, None where items bear no number.
        self._lists: list[int | None] = []
        self._table_begins = False
        # For each column of the open table, in how many rows more a cell of a row above stands.
        self._spanned: dict[int, int] = {}

    def open(self, element: Element) -> None:
        tag = element.tag
        if self._side_by_side and tag in APART and not self._newlines and not self._ends_in_space:
            self._write(" ", element)
        self._side_by_side = False
        if tag in _BREAKS:
            self._break(1)
        elif tag in _LISTS:
            self._break(1 if self._lists else 2)
            self._lists.append(_number(element, "start", 1) - 1 if tag == "ol" else None)
        elif tag == "li":
            self._open_item()
        elif tag in _HEADINGS:
            self._break(2)
            self._prefix = "#" * _HEADINGS[tag] + " "
        else:
            if tag == "table":
                self._table_begins = True
                self._spanned.clear()
            self._break(_break_around(tag))

    def close(self, element: Element) -> None:
        tag = element.tag
        if tag in _LISTS and self._lists:
            self._lists.pop()
            self._break(1 if self._lists else 2)
        elif tag in _HEADINGS:
            self._prefix = ""
            self._break(2)
        elif tag == "li":
            self._prefix = ""
            self._break(1)
        elif tag not in _BREAKS:
            self._break(_break_around(tag))
        self._side_by_side = tag in APART

    def whole(self, element: Element) -> bool:
        """Write an element in one piece where its kind asks for it (code, a row of data)."""
        tag = element.tag
        if tag == "code" and any(child.tag in _NEVER_IN_CODE for child in element):
            return False
        if tag == "pre" or (tag == "code" and "\n" in _verbatim(element).strip()):
            self._write_code(element)
        elif tag == "code":
            self.text(f"`{text}`" if (text := _inline(element)) else None, element)
        elif tag == "a":
            return _is_permalink(element)
        elif tag == "tr" and next(element.iter(*_LAYOUT), None) is None:
            return self._write_row(element)
        else:
            return False
        return True

    def text(self, text: str | None, element: Element) -> None:
        if not text:
            return
        self._side_by_side = False
        collapsed = _SPACE.sub(" ", text)
        if self._newlines or not self._parts or self._ends_in_space:
            collapsed = collapsed.lstrip(" ")
        if collapsed:
            self._write(collapsed, element)

    def result(self) -> str:
        return "".join(self._parts).rstrip()

    def _break(self, newlines: int) -> None:
        # Items stay together: a paragraph inside of one begins no more than a line.
        self._newlines = max(self._newlines, min(newlines, 1) if self._lists else newlines)

    def _write(self, text: str, element: Element) -> None:
        if self._newlines and self._parts:
            kept = self._parts[-1].rstrip()
            self._length += self._newlines - len(self._parts[-1]) + len(kept)
            self._parts[-1] = kept + "\n" * self._newlines
        if self._newlines or not self._parts:
            self.starts.append((self._length, element))
        self._parts.append(self._prefix + text)
        self._length += len(self._parts[-1])
        self._newlines, self._prefix, self._ends_in_space = 0, "", text.endswith(" ")

    def _write_code(self, element: Element) -> None:
        code = "\n".join(line.rstrip() for line in _verbatim(element).split("\n")).strip("\n")
        if code:
            fence = "````" if "```" in code else "```"
            self._newlines = 2
            self._write(f"{fence}{_language(element)}\n{code}\n{fence}", element)
        self._newlines = 2

    def _write_row(self, row: Element) -> bool:
        cells = self._cells(row)
        if max(map(len, cells), default=0) > _MAX_CELL:
            return False
        if any(cells):
            self._break(1)
            self._write(f"| {' | '.join(cells)} |" if len(cells) > 1 else cells[0], row)
            if self._table_begins and len(cells) > 1:
                self._parts.append("\n|" + "---|" * len(cells))
                self._length += len(self._parts[-1])
            self._table_begins = False
            self._break(1)
        return True

    def _cells(self, row: Element) -> list[str]:
        """Return the texts of a row's cells, with an empty one where a cell of a row above stands."""
        spanned, self._spanned = self._spanned, {}
        cells: list[str] = []

        def pass_spanned() -> None:
            while left := spanned.pop(len(cells), 0):
                if left > 1:
                    self._spanned[len(cells)] = left - 1
                cells.append("")

        for cell in row:
            pass_spanned()
            for text in _cell(cell):
                if (rows := _number(cell, "rowspan", 1)) > 1 and len(cells) < _MAX_SPAN:
                    self._spanned[len(cells)] = rows - 1
                cells.append(text)
        pass_spanned()
        return cells

    def _open_item(self) -> None:
        self._break(1)
        number = self._lists[-1] if self._lists else None
        if number is not None:
            self._lists[-1] = number + 1
        marker = "- " if number is None else f"{number + 1}. "
        self._prefix = "  " * (len(self._lists) - 1) + marker


def _cell(cell: Element) -> list[str]:
    """Return a cell's text on one line, with an empty cell for each further column that it spans."""
    columns = min(_number(cell, "colspan", 1), _MAX_SPAN)
    return [_inline(cell).replace("|", "\\|"), *[""] * (columns - 1)]


def _number(element: Element, name: str, default: int) -> int:
    """Return an attribute that is a whole number of up to three digits, else the default."""
    value = element.get(name, "").strip()
    return int(value) if value.isascii() and value.isdigit() and len(value) <= 3 else default


def _is_permalink(link: Element) -> bool:
    return (
        len(link) == 0
        and (link.text or "").strip() in _PERMALINKS
        and _PERMALINK_CLASS.search(link.get("class") or "") is not None
    )


def _language(element: Element) -> str:
    """Return the language that the class of a `<pre>`, of its `<code>` or of what is around it names."""
    for candidate in (element, element.find(".//code"), element.getparent()):
        if candidate is not None and (match := _CODE_LANGUAGE.search(candidate.get("class") or "")):
            return match[1].lower()
    return ""


def _break_around(tag: object) -> int:
    # The tag of an entity that was not expanded is a function.
    if not isinstance(tag, str) or tag in INLINE or tag in _TABLE_PARTS:
        return 0
    return 1 if tag in _LINES else 2
