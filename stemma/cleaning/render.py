"""From an element tree to Markdown: headings, lists, tables, code and paragraphs, nothing escaped.

The text is meant to be searched and read by models, not rendered: `snake_case` stays `snake_case`; emphasis
and links leave only their words. The walk is a loop, so the depth of a tree is no limit.
"""

import re
from collections.abc import Callable
from typing import Any

# lxml's elements have no types of their own in lxml; an alias says what is meant.
Element = Any

# HTML's vocabulary and, of trafilatura's, head, item, row, cell, quote and lb.
_HEADINGS = {"h1": 1, "h2": 2, "h3": 3, "h4": 4, "h5": 5, "h6": 6}
_BREAKS = frozenset({"br", "lb"})
_LISTS = frozenset({"ul", "ol", "dl", "list"})
_ITEMS = frozenset({"li", "item"})
_ROWS = frozenset({"tr", "row"})
_LINES = frozenset({"dt", "dd", "td", "th", "cell", "option", "legend", "summary", "figcaption", "caption"})
_PARAGRAPHS = frozenset(
    {
        "p",
        "div",
        "section",
        "article",
        "main",
        "body",
        "header",
        "footer",
        "aside",
        "nav",
        "address",
        "center",
    }
    | {
        "blockquote",
        "quote",
        "figure",
        "details",
        "fieldset",
        "form",
        "hr",
        "table",
        "hgroup",
        "search",
        "dialog",
    }
)
# What makes a table row a piece of page layout and not a row of data.
_LAYOUT = ("table", "ul", "ol", "list", "pre", "h1", "h2", "h3", "h4", "h5", "h6", "head")

_SPACE = re.compile(r"\s+")


def to_markdown(root: Element, skip: Callable[[Element], bool] | None = None) -> str:
    """Render an lxml element (HTML, or the body that trafilatura returns) as Markdown.

    Args:
        root: the element; it is not changed.
        skip: true for elements to leave out with all that is in them.
    """
    from lxml.etree import iterwalk

    writer = _Writer()
    walker = iterwalk(root, events=("start", "end"))
    for event, element in walker:
        if event == "end":
            writer.close(element)
            if element is not root:
                writer.text(element.tail)
        elif (skip is not None and skip(element)) or writer.whole(element):
            walker.skip_subtree()
        else:
            writer.open(element)
            writer.text(element.text)
    return writer.result()


def _verbatim(element: Element) -> str:
    """Return the text of an element with its white space, breaks as newlines."""
    from lxml.etree import iterwalk

    parts = []
    for event, inner in iterwalk(element, events=("start", "end")):
        if event == "start":
            parts.append("\n" if inner.tag in _BREAKS else inner.text or "")
        elif inner is not element:
            parts.append(inner.tail or "")
    return "".join(parts)


def _inline(element: Element) -> str:
    return _SPACE.sub(" ", _verbatim(element)).strip()


class _Writer:
    """Collects text; breaks between blocks are remembered and written before the next text."""

    def __init__(self) -> None:
        self._parts: list[str] = []
        self._newlines = 0
        self._prefix = ""
        self._ends_in_space = False
        # One entry for each open list: the number of its last item, None where items bear no number.
        self._lists: list[int | None] = []
        self._table_begins = False

    def open(self, element: Element) -> None:
        tag = element.tag
        if tag in _BREAKS:
            self._break(1)
        elif tag in _LISTS:
            self._break(1 if self._lists else 2)
            self._lists.append(0 if tag == "ol" or element.get("rend") == "ol" else None)
        elif tag in _ITEMS:
            self._open_item(element)
        elif (level := _heading_level(element)) is not None:
            self._break(2)
            self._prefix = "#" * level + " "
        else:
            self._table_begins = self._table_begins or tag == "table"
            self._break(_break_around(tag))

    def close(self, element: Element) -> None:
        tag = element.tag
        if tag in _LISTS and self._lists:
            self._lists.pop()
            self._break(1 if self._lists else 2)
        elif _heading_level(element) is not None:
            self._prefix = ""
            self._break(2)
        elif tag in _ITEMS:
            self._prefix = ""
            self._break(1)
        elif tag not in _BREAKS:
            self._break(_break_around(tag))

    def whole(self, element: Element) -> bool:
        """Write an element in one piece where its kind asks for it (code, a row of data)."""
        tag = element.tag
        if tag == "pre" or (tag == "code" and "\n" in (code := _verbatim(element)).strip()):
            self._write_code(_verbatim(element) if tag == "pre" else code)
        elif tag == "code":
            self.text(f"`{text}`" if (text := _inline(element)) else None)
        elif tag == "quote" and len(element) == 0 and "\n" in (element.text or "").strip():
            self._write_block(element.text)
        elif tag in _ROWS and next(element.iter(*_LAYOUT), None) is None:
            self._write_row([_inline(cell) for cell in element])
        else:
            return False
        return True

    def text(self, text: str | None) -> None:
        if not text:
            return
        collapsed = _SPACE.sub(" ", text)
        if self._newlines or not self._parts or self._ends_in_space:
            collapsed = collapsed.lstrip(" ")
        if collapsed:
            self._write(collapsed)

    def result(self) -> str:
        return "\n".join(line.rstrip() for line in "".join(self._parts).split("\n")).strip("\n")

    def _break(self, newlines: int) -> None:
        # Items stay together: a paragraph inside of one begins no more than a line.
        self._newlines = max(self._newlines, min(newlines, 1) if self._lists else newlines)

    def _write(self, text: str) -> None:
        if self._parts:
            self._parts.append("\n" * self._newlines)
        self._parts.append(self._prefix + text)
        self._newlines, self._prefix, self._ends_in_space = 0, "", text.endswith(" ")

    def _write_block(self, text: str) -> None:
        block = text.strip("\n").rstrip()
        if block.strip():
            self._newlines = 2
            self._write(block)
        self._newlines = 2

    def _write_code(self, code: str) -> None:
        if code.strip():
            fence = "````" if "```" in code else "```"
            block = code.strip("\n").rstrip()
            self._write_block(f"{fence}\n{block}\n{fence}")

    def _write_row(self, cells: list[str]) -> None:
        if any(cells):
            self._break(1)
            self._write(f"| {' | '.join(cells)} |" if len(cells) > 1 else cells[0])
            if self._table_begins and len(cells) > 1:
                self._break(1)
                self._write("|" + "---|" * len(cells))
            self._table_begins = False
            self._break(1)

    def _open_item(self, element: Element) -> None:
        self._break(1)
        if (element.get("rend") or "").startswith(("dt", "dd")):
            return
        number = self._lists[-1] if self._lists else None
        if number is not None:
            self._lists[-1] = number + 1
        marker = "- " if number is None else f"{number + 1}. "
        self._prefix = "  " * (len(self._lists) - 1) + marker


def _heading_level(element: Element) -> int | None:
    """Return 1 to 6 for a heading, else None; trafilatura writes `<head rend="h2">`."""
    if element.tag == "head":
        return _HEADINGS.get(element.get("rend") or "")
    return _HEADINGS.get(element.tag)


def _break_around(tag: str) -> int:
    if tag in _PARAGRAPHS:
        return 2
    return 1 if tag in _LINES or tag in _ROWS else 0
