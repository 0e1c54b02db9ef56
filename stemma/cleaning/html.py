"""Main text and title of a web page: trafilatura where it finds the content, else the visible text."""

import html
import logging
import re
from typing import TYPE_CHECKING

from stemma.cleaning.extraction import Extraction
from stemma.cleaning.render import Element, to_markdown

if TYPE_CHECKING:
    from lxml.html import HtmlElement

# trafilatura recurses over the tree, and how deep Python lets it depends on who calls: a fixed depth decides.
# Real pages stay below 100 levels. libxml2 silently leaves out what lies deeper than 2048.
_MAX_EXTRACTED_DEPTH = 200
_MAX_PARSED_DEPTH = 2048
# And it takes 40 us an element, so that of a page with more (a book, or hostile) the visible text must do.
_MAX_EXTRACTED_ELEMENTS = 50_000

# Trafilatura has missed the content where it returns less than this share of the text outside boilerplate; of
# a long page no more than so many characters count: most of it may be boilerplate all the same. On pages with
# less text than the last figure it often gives up and returns all of it. Word-F1 on 560 pages of the web
# content extraction benchmark 0.782 -> 0.799, on 104 news articles unchanged at 0.954.
_MIN_SHARE = 0.2
_LONG_PAGE_CHARACTERS = 4000
_SHORT_PAGE_CHARACTERS = 1000
# A text this much longer than what is visible comes from data in the page (JSON-LD), which its scripts show.
_EMBEDDED_RATIO = 1.5
# Some pages put their content into a `<header>`: then there is so much text outside links.
_MIN_PROSE_CHARACTERS = 500

_NEVER_SHOWN = frozenset(
    {"script", "style", "noscript", "template", "head", "title", "meta", "link", "iframe", "object", "embed"}
    | {"applet", "svg", "math", "canvas", "audio", "video", "map"}
    | {"select", "datalist", "textarea", "button", "input"}
)
_BOILERPLATE = frozenset({"nav", "footer", "aside", "header", "menu", "dialog"})

# libxml2 takes quadratic time for the attributes of one tag (60,000: 35 s); real tags have fewer than 100.
_LONG_TAG = re.compile(r"<([a-zA-Z][^\s/<>]*)\s[^<>]{5000,}+>")
_MAX_ATTRIBUTES = 500

_SCRIPT_OR_COMMENT = re.compile(
    r"<(script|style)\b.*?(?:</\1|\Z)|<!--.*?(?:-->|\Z)", re.DOTALL | re.IGNORECASE
)
_TAG = re.compile(r"<[a-zA-Z/!?][^<>]*>?")


def extract_html(content: str) -> Extraction:
    """Extract a page's main text as Markdown, and its title (`<title>`, else the first `<h1>`).

    A function of the page alone: trafilatura's deduplication (a cache across pages), its time-outs and its
    metadata (which look at the clock) stay off. A page of navigation, header and footer alone gives "".
    """
    content = _LONG_TAG.sub(_without_attributes, content.replace("\x00", ""))
    root = _parse(content)
    body = None if root is None else root.find("body")
    if body is None:
        return Extraction("", _title(root), 0)
    if _is_deeper(root, _MAX_PARSED_DEPTH):
        text = _strip_tags(content)
        return Extraction(text, _title(root), len(text))
    visible = to_markdown(body, _is_hidden)
    text = "" if _is_too_big(root) else _main_text(root)
    if len(text) <= _EMBEDDED_RATIO * len(visible):
        text = _choose(text, visible, body)
    return Extraction(text, _title(root), len(visible))


def _without_attributes(tag: re.Match[str]) -> str:
    return f"<{tag[1]}>" if len(tag[0].split()) > _MAX_ATTRIBUTES else tag[0]


def _parse(content: str) -> "HtmlElement | None":
    from lxml.etree import ParserError
    from lxml.html import HTMLParser, document_fromstring

    # The encoding given here wins over any that the page declares: the content is decoded already.
    parser = HTMLParser(encoding="utf-8", huge_tree=True, remove_comments=True, remove_pis=True)
    try:
        return document_fromstring(content.encode("utf-8", "replace"), parser=parser)
    except ParserError:
        # lxml's way to say that a page has no element at all.
        return None


def _is_deeper(root: "HtmlElement", depth: int) -> bool:
    """Tell whether a document has elements at this depth; XPath does it in C, in 0.2 ms."""
    return bool(root.xpath("boolean(/" + "/".join(["*"] * depth) + ")"))


def _is_too_big(root: "HtmlElement") -> bool:
    return _is_deeper(root, _MAX_EXTRACTED_DEPTH) or root.xpath("count(//*)") > _MAX_EXTRACTED_ELEMENTS


def _main_text(root: "HtmlElement") -> str:
    import trafilatura

    logging.getLogger("trafilatura").setLevel(logging.CRITICAL)
    _mark_code(root)
    document = trafilatura.bare_extraction(
        root,
        output_format="markdown",
        include_comments=False,
        include_tables=True,
        include_links=False,
        deduplicate=False,
        with_metadata=False,
    )
    # `body` is an attribute of the Document; its other form, a dict, is only for `as_dict=True`.
    return "" if document is None or isinstance(document, dict) else to_markdown(document.body)


def _mark_code(root: "HtmlElement") -> None:
    """Put the text of each `<pre>` into a `<code>`: trafilatura takes a bare one for a quotation."""
    for block in root.iter("pre"):
        if block.find(".//code") is None:
            code = block.makeelement("code")
            code.text, block.text = block.text, None
            code.extend(list(block))
            block.append(code)


def _choose(text: str, visible: str, body: Element) -> str:
    """Choose between trafilatura's text and that outside boilerplate."""
    outside = _without_boilerplate(body)
    if not outside:
        return text if len(_without_links(body)) >= _MIN_PROSE_CHARACTERS else ""
    missed = len(text) < _MIN_SHARE * min(len(outside), _LONG_PAGE_CHARACTERS)
    return outside if missed or len(visible) < _SHORT_PAGE_CHARACTERS else text


def _without_boilerplate(body: Element) -> str:
    """Return the text of the page's one main element or else its one article; failing that, of its body."""
    containers = body.xpath(".//main | .//*[@role='main']") or body.xpath(".//article")
    text = to_markdown(containers[0], _is_boilerplate) if len(containers) == 1 else ""
    return text or to_markdown(body, _is_boilerplate)


def _without_links(body: Element) -> str:
    return to_markdown(body, lambda element: element.tag == "a" or _is_hidden(element))


def _is_boilerplate(element: Element) -> bool:
    return element.tag in _BOILERPLATE or _is_hidden(element)


def _is_hidden(element: Element) -> bool:
    return (
        element.tag in _NEVER_SHOWN
        or element.get("hidden") is not None
        or "display:none" in (element.get("style") or "").replace(" ", "").lower()
    )


def _strip_tags(content: str) -> str:
    """Return the words of a page that no parser can hold, a line for each run of text."""
    text = _TAG.sub("\n", _SCRIPT_OR_COMMENT.sub("\n", content))
    return "\n".join(" ".join(line.split()) for line in html.unescape(text).split("\n") if line.strip())


def _title(root: "HtmlElement | None") -> str | None:
    for path in (".//head/title", ".//title", ".//h1"):
        element = None if root is None else root.find(path)
        if element is not None and (title := " ".join("".join(element.itertext()).split())):
            return title
    return None
