"""Main text and metadata of a web page: its blocks of text, kept or dropped by a model, as Markdown."""

import html
import re
from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING

from stemma.cleaning.extraction import Extraction, Origin
from stemma.cleaning.extraction.block_model import keep_blocks
from stemma.cleaning.extraction.page_blocks import FLAG, NEVER_SHOWN, Page, read_page, words_of_name
from stemma.cleaning.extraction.page_metadata import PageMetadata, read_metadata
from stemma.cleaning.extraction.render import Element, render
from stemma.cleaning.extraction.rescue import rescue

if TYPE_CHECKING:
    from lxml.etree import _Element

PROFILES = ("default", "fast")

# libxml2 silently leaves out what lies deeper.
_MAX_PARSED_DEPTH = 2048
# The model keeps a kilobyte for each block; a page with more (a book, or hostile) is read by rules.
_MAX_MODELLED_BLOCKS = 50_000
# On pages with less text there is too little for a model to go by: what is no boilerplate by its element is kept.
_SHORT_PAGE_CHARACTERS = 500
# A text this much longer than what is visible comes from data in the page (JSON-LD), which its scripts show.
_EMBEDDED_RATIO = 1.5

# By rules: short blocks that are links are dropped, and the main element counts when it holds so much text.
_SHORT_BLOCK_CHARACTERS = 60
_MOSTLY_LINKS = 0.8
_MAIN_SHARE = 0.5
# Words in the names of elements that hold boilerplate; without them 0.794 instead of 0.803 on a quarter of
# the pages that the model learned from.
_BOILERPLATE_NAMES = frozenset(
    {"sidebar", "footer", "nav", "navbar", "navigation", "menu", "breadcrumb", "breadcrumbs", "widget"}
    | {"share", "sharing", "social", "related", "recommended", "newsletter", "subscribe", "comments"}
    | {"cookie", "cookies", "consent", "banner", "promo", "advert", "ad", "ads", "popup", "modal"}
)
_BOILERPLATE = (
    FLAG["nav"] | FLAG["footer"] | FLAG["aside"] | FLAG["header"] | FLAG["dialog"] | FLAG["hidden"]
    | FLAG["button"] | FLAG["noscript"]
)  # fmt: skip

# libxml2 takes quadratic time for the attributes of one tag (60,000: 35 s); real tags have fewer than 100.
_LONG_TAG = re.compile(r"<([a-zA-Z][^\s/<>]*)\s[^<>]{5000,}+>")
_MAX_ATTRIBUTES = 500

_SCRIPT_OR_COMMENT = re.compile(
    r"<(script|style)\b.*?(?:</\1|\Z)|<!--.*?(?:-->|\Z)", re.DOTALL | re.IGNORECASE
)
_TAG = re.compile(r"<[a-zA-Z/!?][^<>]*>?")


def extract_html(content: str, *, profile: str = "default") -> Extraction:
    """Extract a page's main text as Markdown, where each block of it stands, and what the page says of itself.

    Args:
        content: the page, decoded; what it declares as its encoding does not count.
        profile: "default" lets the block model choose and adds the headings, code, tables and lists that belong
            to its choice; "fast" keeps what is no boilerplate by its element
            (`<nav>`, `<footer>`, …) or its links.

    Returns:
        The text; a page of navigation, header and footer alone gives "". The origins' places are the paths of
        elements as XPath has them, "/html/body/main/p[2]".

    Raises:
        ValueError: an unknown profile.
    """
    if profile not in PROFILES:
        raise ValueError(f"unknown profile {profile!r} (known: {', '.join(PROFILES)})")
    content = _LONG_TAG.sub(_without_attributes, content.replace("\x00", ""))
    root = _parse(content)
    if root is None:
        return Extraction("", None, 0)
    metadata = read_metadata(root)
    body = root.find("body")
    if body is None:
        return _extraction("", metadata, 0)
    if _is_deeper(root, _MAX_PARSED_DEPTH):
        text = _strip_tags(content)
        return _extraction(text, metadata, len(text))
    page = read_page(body)
    visible = sum(map(len, page.texts)) + 2 * max(len(page.texts) - 1, 0)
    if metadata.article is not None and len(metadata.article) > _EMBEDDED_RATIO * visible:
        return _extraction(metadata.article, metadata, visible)
    text, starts = _render_kept(page, _choose(page, metadata, profile))
    return _extraction(text, metadata, visible, _origins(starts))


def _extraction(
    text: str, metadata: PageMetadata, visible: int, origins: tuple[Origin, ...] = ()
) -> Extraction:
    return Extraction(
        text,
        metadata.title,
        visible,
        author=metadata.author,
        published=metadata.published,
        language=metadata.language,
        origins=origins,
    )


def _without_attributes(tag: re.Match[str]) -> str:
    return f"<{tag[1]}>" if len(tag[0].split()) > _MAX_ATTRIBUTES else tag[0]


def _parse(content: str) -> "_Element | None":
    # etree's own parser: that of lxml.html asks Python for the class of each element.
    from lxml.etree import HTMLParser, XMLSyntaxError, fromstring

    # The encoding given here wins over any that the page declares: the content is decoded already.
    parser = HTMLParser(encoding="utf-8", huge_tree=True, remove_comments=True, remove_pis=True)
    try:
        return fromstring(content.encode("utf-8", "replace"), parser=parser)
    except XMLSyntaxError:
        # lxml's way to say that a page has no element at all.
        return None


def _is_deeper(root: "_Element", depth: int) -> bool:
    """Tell whether a document has elements at this depth; XPath does it in C, in 0.2 ms."""
    return bool(root.xpath("boolean(/" + "/".join(["*"] * depth) + ")"))


def _choose(page: Page, metadata: PageMetadata, profile: str) -> list[bool]:
    """Say for each block whether it is kept."""
    characters = sum(map(len, page.texts))
    if profile == "fast" or characters < _SHORT_PAGE_CHARACTERS or len(page.texts) > _MAX_MODELLED_BLOCKS:
        return _keep_by_rules(page, links_alone=characters < _SHORT_BLOCK_CHARACTERS)
    return rescue(page, keep_blocks(page, metadata.hints))


def _keep_by_rules(page: Page, *, links_alone: bool) -> list[bool]:
    """Keep what is no boilerplate by its elements or links, of the main element or the articles alone.

    Args:
        page: the page's blocks.
        links_alone: keep short blocks of nothing but links too.
    """
    least = 0 if links_alone else _SHORT_BLOCK_CHARACTERS
    kept = [
        not page.flags[holder] & _BOILERPLATE
        and not (len(text) < least and linked > _MOSTLY_LINKS * len(text))
        for holder, text, linked in zip(page.holders, page.texts, page.linked, strict=True)
    ]
    named = _named_boilerplate(page)
    narrower = [
        [not named[holder] for holder in page.holders],
        *(
            [bool(page.flags[holder] & flag) for holder in page.holders]
            for flag in (FLAG["main"], FLAG["article"])
        ),
    ]
    for inside in narrower:
        both = [keep and within for keep, within in zip(kept, inside, strict=True)]
        if _length(page, both) >= _MAIN_SHARE * _length(page, kept):
            kept = both
    return kept


def _named_boilerplate(page: Page) -> list[bool]:
    """Say for each element whether its class or id, or one around it, names it boilerplate."""
    known: dict[str, bool] = {}
    named: list[bool] = []
    for name, parent in zip(page.names, page.parents, strict=True):
        if name not in known:
            known[name] = not _BOILERPLATE_NAMES.isdisjoint(words_of_name(name))
        # What the body is named says nothing of what is in it.
        named.append(bool(named) and (known[name] or named[parent]))
    return named


def _length(page: Page, kept: Iterable[bool]) -> int:
    return sum(len(text) for text, keep in zip(page.texts, kept, strict=True) if keep)


def _render_kept(page: Page, kept: list[bool]) -> tuple[str, list[tuple[int, Element]]]:
    """Render the blocks that are kept; the text of all others is taken out of the tree."""
    if not any(kept):
        return "", []
    for (element, is_tail), block in zip(page.pieces, page.piece_blocks, strict=True):
        if not kept[block]:
            if is_tail:
                element.tail = None
            else:
                element.text = None
    before = [0]
    for keep in kept:
        before.append(before[-1] + keep)
    empty = {
        element
        for element, first, last in zip(page.elements, page.first, page.last, strict=True)
        if before[first] == before[last]
    }
    return render(page.elements[0], lambda element: element in empty or element.tag in NEVER_SHOWN)


def _origins(starts: list[tuple[int, Element]]) -> tuple[Origin, ...]:
    paths = _Paths()
    return tuple(Origin(start, place=paths.of(element)) for start, element in starts)


class _Paths:
    """Paths of elements as XPath has them; the children of an element are counted once."""

    def __init__(self) -> None:
        self._paths: dict[Element, str] = {}
        self._steps: dict[Element, str] = {}

    def of(self, element: Element) -> str:
        chain = []
        while element is not None and element not in self._paths:
            chain.append(element)
            element = element.getparent()
        path = self._paths[element] if element is not None else ""
        for element in reversed(chain):
            path = self._paths[element] = f"{path}/{self._step(element)}"
        return path

    def _step(self, element: Element) -> str:
        parent = element.getparent()
        if parent is None:
            return element.tag
        if element not in self._steps:
            children = list(parent)
            total = Counter(child.tag for child in children)
            seen: Counter[str] = Counter()
            for child in children:
                seen[child.tag] += 1
                number = f"[{seen[child.tag]}]" if total[child.tag] > 1 else ""
                self._steps[child] = child.tag + number
        return self._steps[element]


def _strip_tags(content: str) -> str:
    """Return the words of a page that no parser can hold, a line for each run of text."""
    text = _TAG.sub("\n", _SCRIPT_OR_COMMENT.sub("\n", content))
    return "\n".join(" ".join(line.split()) for line in html.unescape(text).split("\n") if line.strip())
