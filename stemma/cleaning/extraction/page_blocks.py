"""A web page as blocks of text in document order, each with the element that holds it.

A block is what stands between two borders of block-level elements: a paragraph, a heading, an item, a cell.
Blocks are what the model of `block_model.py` keeps or drops.
"""

import re
from dataclasses import dataclass, field

from stemma.cleaning.extraction.render import APART, INLINE, Element

# Flags that an element hands down to all that stands in it.
_FLAGS = [
    "nav", "header", "footer", "aside", "main", "article", "section", "form", "table", "list", "figure",
    "quote", "pre", "link", "button", "heading", "dialog", "details", "label", "hidden", "body_text",
    "noscript",
]  # fmt: skip
FLAG = {name: 1 << bit for bit, name in enumerate(_FLAGS)}
_TAG_FLAG = {
    **{tag: FLAG[tag] for tag in ("nav", "header", "footer", "aside", "main", "article", "section", "form")},
    **{tag: FLAG[tag] for tag in ("table", "figure", "pre", "button", "dialog", "details", "label")},
    **dict.fromkeys(("ul", "ol", "dl", "menu"), FLAG["list"]),
    **dict.fromkeys(("h1", "h2", "h3", "h4", "h5", "h6"), FLAG["heading"]),
    "blockquote": FLAG["quote"],
    "a": FLAG["link"],
    "noscript": FLAG["noscript"],
}
_ROLE_FLAG = {
    "navigation": FLAG["nav"],
    "banner": FLAG["header"],
    "contentinfo": FLAG["footer"],
    "complementary": FLAG["aside"],
    "main": FLAG["main"],
    "article": FLAG["article"],
    "dialog": FLAG["dialog"],
    "search": FLAG["form"],
}
# What kind of element holds a block, as the model sees it.
KINDS = [
    "other", "p", "div", "li", "cell", "h1", "h2", "h3", "h4", "dt", "dd", "pre", "quote", "caption",
    "button", "label", "section", "span",
]  # fmt: skip
_KIND = {
    **{tag: KINDS.index(tag) for tag in ("p", "div", "li", "h1", "h2", "h3", "h4", "dt", "dd", "pre")},
    **{tag: KINDS.index(tag) for tag in ("button", "label", "section")},
    **dict.fromkeys(("td", "th"), KINDS.index("cell")),
    **dict.fromkeys(("h5", "h6"), KINDS.index("h4")),
    **dict.fromkeys(("figcaption", "caption"), KINDS.index("caption")),
    **dict.fromkeys(("article", "main", "body", "header"), KINDS.index("section")),
    "blockquote": KINDS.index("quote"),
}
NEVER_SHOWN = frozenset({
    "script", "style", "template", "head", "title", "meta", "link", "iframe", "object", "embed", "applet",
    "svg", "math", "canvas", "audio", "video", "map", "select", "datalist", "textarea", "input",
})  # fmt: skip
_WORD_IN_NAME = re.compile(r"[A-Z]?[a-z]{2,}|[A-Z]{2,}")


@dataclass
class Page:
    """The blocks of a page and the block-level elements around them, both in document order.

    Attributes:
        elements: the block-level elements; the first is the body.
        parents: for each, the index of the block-level element around it (0 for the body itself).
        first, last: the range of blocks inside of it.
        flags: what it is and stands in, bits of `FLAG`.
        kinds: index into `KINDS`.
        tables: the index of the innermost table that it is or stands in, -1 outside of tables.
        names: its class and id.
        paths: a number for its tag and class and those of all elements around it.
        texts: the blocks' texts, white space collapsed.
        holders: for each block, the index of the innermost block-level element around it.
        linked: for each block, characters that are links.
        links: for each block, number of links.
        pieces: the text nodes (an element, and whether it is its tail), and for each the block it belongs to.
    """

    elements: list[Element] = field(default_factory=list)
    parents: list[int] = field(default_factory=list)
    first: list[int] = field(default_factory=list)
    last: list[int] = field(default_factory=list)
    flags: list[int] = field(default_factory=list)
    kinds: list[int] = field(default_factory=list)
    tables: list[int] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    paths: list[int] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    holders: list[int] = field(default_factory=list)
    linked: list[int] = field(default_factory=list)
    links: list[int] = field(default_factory=list)
    pieces: list[tuple[Element, bool]] = field(default_factory=list)
    piece_blocks: list[int] = field(default_factory=list)


def read_page(body: Element) -> Page:
    """Read a page's blocks in one walk over the tree."""
    from lxml.etree import iterwalk

    reader = _Reader()
    walker = iterwalk(body, events=("start", "end"))
    for event, element in walker:
        tag = element.tag
        if event == "start":
            if tag in NEVER_SHOWN:
                walker.skip_subtree()
                continue
            if tag not in INLINE:
                reader.code_depth += tag == "pre"
                reader.open(element, tag)
            else:
                reader.open_inline(tag)
            if element.text:
                reader.add(element, element.text, False)
        else:
            if tag in NEVER_SHOWN:
                pass
            elif tag not in INLINE:
                reader.code_depth -= tag == "pre"
                reader.close()
            else:
                reader.close_inline(tag)
            if element.tail and element is not body:
                reader.add(element, element.tail, True)
    return reader.page


class _Reader:
    """Gathers text up to the next border of a block."""

    def __init__(self) -> None:
        self.page = Page()
        self.parts: list[str] = []
        self.link_depth = 0
        self.block_links = 0
        self.code_depth = 0
        self.side_by_side = False
        self._linked = 0
        self._open: list[int] = []
        self._path_numbers: dict[tuple[int, str, str], int] = {}

    def open(self, element: Element, tag: str) -> None:
        if self.parts:
            self._finish()
        page = self.page
        parent = self._open[-1] if self._open else 0
        flags = (page.flags[parent] if self._open else 0) | _TAG_FLAG.get(tag, 0)
        name = ""
        if element.attrib:
            get = element.get
            name = f"{get('class', '')} {get('id', '')}"
            if (role := get("role")) is not None:
                flags |= _ROLE_FLAG.get(role, 0)
            if get("itemprop") == "articleBody":
                flags |= FLAG["body_text"]
            if is_hidden(element):
                flags |= FLAG["hidden"]
        key = (page.paths[parent] if self._open else -1, tag, name)
        page.paths.append(self._path_numbers.setdefault(key, len(self._path_numbers)))
        self._open.append(len(page.elements))
        page.elements.append(element)
        page.parents.append(parent)
        page.first.append(len(page.texts))
        page.last.append(0)
        page.flags.append(flags)
        page.kinds.append(_KIND.get(tag, 0))
        page.names.append(name)
        outer_table = page.tables[parent] if page.tables else -1
        page.tables.append(len(page.tables) if tag == "table" else outer_table)

    def open_inline(self, tag: str) -> None:
        if tag == "br" or (self.side_by_side and tag in APART and not self.code_depth):
            self.parts.append(" ")
        if tag == "a":
            self.link_depth += 1
            self.block_links += 1
        elif tag == "code":
            self.code_depth += 1
        self.side_by_side = False

    def close_inline(self, tag: str) -> None:
        if tag == "a":
            self.link_depth -= 1
        elif tag == "code":
            self.code_depth -= 1
        self.side_by_side = tag in APART

    def close(self) -> None:
        if self.parts:
            self._finish()
        self.page.last[self._open.pop()] = len(self.page.texts)

    def add(self, element: Element, text: str, is_tail: bool) -> None:
        self.parts.append(text)
        self.side_by_side = False
        if not text.isspace():
            self.page.pieces.append((element, is_tail))
            self.page.piece_blocks.append(len(self.page.texts))
            if self.link_depth:
                self._linked += len(text)

    def _finish(self) -> None:
        text = " ".join("".join(self.parts).split())
        if text:
            page = self.page
            page.texts.append(text)
            page.holders.append(self._open[-1])
            page.linked.append(min(self._linked, len(text)))
            page.links.append(self.block_links)
        self.parts.clear()
        self._linked = self.block_links = 0


def is_hidden(element: Element) -> bool:
    """Tell whether the element's own attributes hide it."""
    style = element.get("style")
    return (
        element.get("hidden") is not None
        or (style is not None and "display:none" in style.replace(" ", "").lower())
        or element.get("aria-hidden") == "true"
    )


def words_of_name(name: str) -> frozenset[str]:
    """Split an element's class and id into words: "postBody entry-content" has post, body, entry, content."""
    return frozenset(word.lower() for word in _WORD_IN_NAME.findall(name[:300]))
