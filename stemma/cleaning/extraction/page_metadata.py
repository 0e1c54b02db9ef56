"""What a web page says of itself: title, author, day of publication, language, and hints at its kind.

Read from `<meta>`, JSON-LD, microdata and a few conventions, from the page alone: nothing is fetched, and no
clock is asked whether a date can be true.
"""

import html
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import date
from itertools import accumulate
from typing import Any

from stemma.cleaning.extraction.page_blocks import Element

# A page's JSON-LD is a few kilobytes; what is longer or deeper is not worth the risk.
_MAX_JSON_CHARACTERS = 500_000
_MAX_JSON_DEPTH = 50
_MAX_JSON_OBJECTS = 5_000

_ARTICLE_TYPES = (
    "article",
    "posting",
    "report",
    "webpage",
    "recipe",
    "qapage",
    "howto",
    "question",
    "review",
)
# Meta elements by name or property, the more dependable first.
_TITLE_NAMES = ("og:title", "twitter:title", "dc.title", "citation_title")
_AUTHOR_NAMES = (
    "author", "article:author", "parsely-author", "sailthru.author", "dc.creator", "dcterms.creator",
    "citation_author", "byl", "og:article:author", "cxenseparse:author", "twitter:creator",
)  # fmt: skip
_DATE_NAMES = (
    "article:published_time", "datepublished", "og:published_time", "parsely-pub-date", "sailthru.date",
    "citation_publication_date", "citation_date", "dc.date.issued", "dcterms.created", "dcterms.date",
    "dc.date", "pubdate", "publishdate", "publish-date", "publish_date", "article.published", "date",
    "cxenseparse:recs:publishtime", "og:article:published_time", "article:published",
)  # fmt: skip
_SEPARATOR = re.compile(r"\s+[|–—\-·•»«:/]+\s+|\s*\|\s*|\s+::\s+")
_LANGUAGE = re.compile(r"[a-z]{2,3}(-[a-z0-9]{2,8})*")
_ISO_DATE = re.compile(r"(?<!\d)((?:19|20)\d\d)[-/.]?([01]\d)[-/.]?([0-3]\d)(?!\d)")
_URL_DATE = re.compile(r"/((?:19|20)\d\d)[/-]([01]?\d)[/-]([0-3]?\d)(?:/|-|$)")
_DAY_FIRST = re.compile(
    r"(?<!\d)([0-3]?\d)(?:st|nd|rd|th|er|\.)?\s+(?:de\s+|of\s+)?([^\W\d]{3,10})\.?,?\s+(?:de\s+)?((?:19|20)\d\d)(?!\d)"
)
_MONTH_FIRST = re.compile(r"\b([^\W\d]{3,10})\.?\s+([0-3]?\d)(?:st|nd|rd|th)?,?\s+((?:19|20)\d\d)(?!\d)")
_DOTTED_DATE = re.compile(r"(?<!\d)([0-3]?\d)\.([01]?\d)\.((?:19|20)\d\d)(?!\d)")
# How the names of the months begin in English, German, French, Spanish, Italian, Portuguese and Dutch.
_MONTHS = {
    beginning: number
    for number, beginnings in enumerate(
        [
            ("jan", "jän", "ene", "gen"), ("feb", "fév", "fev"), ("mar", "mär", "mrz", "maa"),
            ("apr", "avr", "abr"), ("may", "mai", "mag", "mei"), ("jun", "juin", "giu"), ("jul", "juil", "lug"),
            ("aug", "aoû", "ago"), ("sep", "set"), ("oct", "okt", "ott", "out"), ("nov",),
            ("dec", "dez", "déc", "dic"),
        ],
        start=1,
    )
    for beginning in beginnings
}  # fmt: skip
_BY = re.compile(r"^\s*(?:written\s+by|posted\s+by|by|von|par|por|di|door|av)\s*:?\s+", re.IGNORECASE)
_MAX_AUTHOR_CHARACTERS = 100
_MAX_TITLE_CHARACTERS = 1000


@dataclass(frozen=True)
class PageMetadata:
    """What a page says of itself.

    Attributes:
        title: its title without the site's name, None when it has none.
        author: its author or authors, separated by commas.
        published: the day of publication.
        language: a lower-case language tag.
        article: the text of the article as its JSON-LD has it.
        hints: what kind of page it says it is, numbers for the block model.
    """

    title: str | None = None
    author: str | None = None
    published: date | None = None
    language: str | None = None
    article: str | None = None
    hints: dict[str, float] = field(default_factory=dict)


def read_metadata(root: Element) -> PageMetadata:
    """Read what a page, an lxml tree with its `<head>`, says of itself."""
    metas = _metas(root)
    objects = list(_json_objects(root))
    articles = [item for item in objects if _is_article(item)]
    return PageMetadata(
        title=_title(root, metas),
        author=_author(root, metas, articles),
        published=_published(root, metas, articles),
        language=_language(root, metas),
        article=max((_text(item.get("articleBody")) for item in articles), key=len, default="") or None,
        hints=_hints(metas, objects),
    )


def _metas(root: Element) -> dict[str, str]:
    """Return the first content of each `<meta>`, by its lower-case property, name, itemprop or http-equiv."""
    metas: dict[str, str] = {}
    for element in root.iter("meta"):
        content = " ".join((element.get("content") or "").split())
        for attribute in ("property", "name", "itemprop", "http-equiv"):
            if content and (name := element.get(attribute)):
                metas.setdefault(name.strip().lower(), content)
    return metas


def _json_objects(root: Element) -> Iterator[dict[str, Any]]:
    """Yield the objects of a page's JSON-LD, outer before inner ones."""
    queue: list[Any] = []
    for script in root.iter("script"):
        if "ld+json" in (script.get("type") or "").lower():
            queue.append(_parse_json(script.text or ""))
    for seen, value in enumerate(queue):
        if seen >= _MAX_JSON_OBJECTS:
            return
        if isinstance(value, list):
            queue.extend(value)
        elif isinstance(value, dict):
            yield value
            queue.extend(inner for inner in value.values() if isinstance(inner, (dict, list)))


def _parse_json(text: str) -> Any:
    if len(text) > _MAX_JSON_CHARACTERS:
        return None
    depths = accumulate(1 if bracket in "[{" else -1 for bracket in re.findall(r"[\[\]{}]", text))
    if max(depths, default=0) > _MAX_JSON_DEPTH:
        return None
    try:
        return json.loads(text, strict=False)
    except ValueError:
        return None


def _types(item: dict[str, Any]) -> list[str]:
    types = item.get("@type")
    return [str(name).lower() for name in (types if isinstance(types, list) else [types]) if name]


def _is_article(item: dict[str, Any]) -> bool:
    return any(kind in name for name in _types(item) for kind in _ARTICLE_TYPES)


def _text(value: Any) -> str:
    return " ".join(html.unescape(value).split()) if isinstance(value, str) else ""


def _element_text(element: Element | None) -> str:
    return "" if element is None else " ".join("".join(element.itertext()).split())


# Title --------------------------------------------------------------------------------------------


def _title(root: Element, metas: dict[str, str]) -> str | None:
    """The part of `<title>` that an `<h1>` repeats, else the title that the page has for others to show."""
    element = root.find(".//head/title")
    whole = _element_text(root.find(".//title") if element is None else element)[:_MAX_TITLE_CHARACTERS]
    headings = [text for heading in list(root.iter("h1"))[:5] if (text := _element_text(heading))]
    shared = next((metas[name] for name in _TITLE_NAMES if name in metas), "")[:_MAX_TITLE_CHARACTERS]
    for heading in headings:
        if heading in (whole, shared) or heading in _parts(whole):
            return heading
    return _without_site(shared or whole, metas) or (headings[0] if headings else None)


def _parts(title: str) -> list[str]:
    """Return what a title begins with, up to each separator, and what it ends with where that is most of it."""
    cuts = [match.span() for match in _SEPARATOR.finditer(title)]
    return [title[:start] for start, _ in cuts] + [title[end:] for _, end in cuts if end < len(title) / 2]


def _without_site(title: str, metas: dict[str, str]) -> str:
    """Cut the site's name off a title: what it says it is, or else the short last part after a bar."""
    site = metas.get("og:site_name", "").lower()
    cuts = [match.span() for match in _SEPARATOR.finditer(title)]
    if not cuts:
        return title
    start, end = cuts[-1]
    last, rest = title[end:], title[:start]
    if site and (last.lower() == site or last.lower().removeprefix("www.") == site):
        return rest
    if site and title[: cuts[0][0]].lower() == site:
        return title[cuts[0][1] :]
    if len(rest) > 2 * len(last) and len(last.split()) <= 4:
        return rest
    return title


# Author -------------------------------------------------------------------------------------------


def _author(root: Element, metas: dict[str, str], articles: list[dict[str, Any]]) -> str | None:
    found = [name for item in articles for name in _names(item.get("author"))]
    if found:
        return ", ".join(dict.fromkeys(found[:5]))
    for name in _AUTHOR_NAMES:
        if (author := _as_author(metas.get(name, ""))) is not None:
            return author
    for element in root.xpath(_AUTHOR_PATH)[:_MAX_BYLINES]:
        if _names_author(element) and (author := _as_author(_element_text(element))) is not None:
            return author
    return None


_AUTHOR_PATH = (
    "//*[@itemprop='author' or @rel='author' or contains(@class, 'author') or contains(@class, 'byline')]"
)
_AUTHOR_CLASSES = frozenset(
    {"author", "author-name", "byline", "post-author", "entry-author", "article-author"}
)
_MAX_BYLINES = 20


def _names_author(element: Element) -> bool:
    if element.get("itemprop") == "author" or element.get("rel") == "author":
        return True
    return not _AUTHOR_CLASSES.isdisjoint((element.get("class") or "").lower().split())


def _names(value: Any) -> list[str]:
    """Return the names in the author of a JSON-LD object: a name, an object with one, or a list of these."""
    values = value if isinstance(value, list) else [value]
    names = [_text(item.get("name") if isinstance(item, dict) else item) for item in values[:5]]
    return [name for name in names if _as_author(name)]


def _as_author(text: str) -> str | None:
    name = _BY.sub("", text).strip(" ,|·•-")
    if not name or len(name) > _MAX_AUTHOR_CHARACTERS or len(name.split()) > 12:
        return None
    return None if name.startswith(("http://", "https://", "@", "www.")) or name.isdigit() else name


# Date ---------------------------------------------------------------------------------------------


def _published(root: Element, metas: dict[str, str], articles: list[dict[str, Any]]) -> date | None:
    stated = [metas[name] for name in _DATE_NAMES if name in metas]
    stated += [_text(item.get("datePublished")) for item in articles]
    stated += [_text(item.get("dateCreated") or item.get("uploadDate")) for item in articles]
    for text in stated:
        if (day := parse_day(text)) is not None:
            return day
    for element in _dated_elements(root):
        value = element.get("datetime") or element.get("content") or _element_text(element)[:60]
        if (day := parse_day(value)) is not None:
            return day
    return _day_of_address(root, metas)


def _dated_elements(root: Element) -> list[Element]:
    """Return the elements that may date a page: those that say so first, then any time, that of articles first."""
    times = list(root.iter("time"))[:_MAX_TIMES]
    said = [time for time in times if time.get("pubdate") or _PUBLISHED.search(time.get("class") or "")]
    inside = [time for time in times if next(time.iterancestors("article"), None) is not None]
    named = [
        element for element in root.xpath(_DATED_PATH)[:_MAX_TIMES] if element.tag not in ("body", "time")
    ]
    # Of many times on a page, most are those of its comments, reviews or other pages.
    few = times if len(times) <= _FEW_TIMES else []
    return [*root.xpath("//*[@itemprop='datePublished']")[:3], *said, *inside[:3], *few, *named[:_FEW_TIMES]]


_DATED_PATH = (
    "//*[contains(@class, 'date') or contains(@class, 'publish') or contains(@class, 'posted')"
    " or contains(@class, 'meta') or contains(@class, 'byline')]"
)
_MAX_TIMES = 20
_FEW_TIMES = 5
_PUBLISHED = re.compile("publish|entry-date")


def parse_day(text: str) -> date | None:
    """Return the first day that a text names: 2024-05-01, 20240501, 1.5.2024, 1 May 2024, May 1st, 2024."""
    text = text[:200]
    if (match := _ISO_DATE.search(text)) is not None:
        return _day(match[1], match[2], match[3])
    if (match := _DOTTED_DATE.search(text)) is not None:
        return _day(match[3], match[2], match[1])
    for match in _DAY_FIRST.finditer(text):
        if (month := _month(match[2])) is not None:
            return _day(match[3], month, match[1])
    for match in _MONTH_FIRST.finditer(text):
        if (month := _month(match[1])) is not None:
            return _day(match[3], month, match[2])
    return None


def _month(name: str) -> str | None:
    name = name.lower()
    number = _MONTHS.get(name[:4]) or _MONTHS.get(name[:3])
    return None if number is None else str(number)


def _day(year: str, month: str, day: str) -> date | None:
    try:
        return date(int(year), int(month), int(day))
    except ValueError:
        return None


def _day_of_address(root: Element, metas: dict[str, str]) -> date | None:
    addresses = [link.get("href") or "" for link in root.xpath("//link[@rel='canonical']")[:1]]
    for address in [*addresses, metas.get("og:url", "")]:
        if (match := _URL_DATE.search(address)) is not None:
            return _day(match[1], match[2], match[3])
    return None


# Language and kind --------------------------------------------------------------------------------


def _language(root: Element, metas: dict[str, str]) -> str | None:
    for value in (
        root.get("lang"),
        root.get("xml:lang"),
        root.get("{http://www.w3.org/XML/1998/namespace}lang"),
        metas.get("content-language"),
        metas.get("og:locale"),
        metas.get("dc.language"),
    ):
        tag = (value or "").strip().lower().replace("_", "-").split(",")[0].strip()
        if _LANGUAGE.fullmatch(tag):
            return tag
    return None


def _hints(metas: dict[str, str], objects: list[dict[str, Any]]) -> dict[str, float]:
    kind = metas.get("og:type", "").lower()
    types = [name for item in objects for name in _types(item)]

    def count(*parts: str) -> float:
        return float(sum(any(part in name for part in parts) for name in types))

    return {
        "og_article": float("article" in kind or "blog" in kind),
        "og_product": float("product" in kind),
        "og_site": float("website" in kind),
        "og_none": float(not kind),
        "ld_article": count("article", "blogposting"),
        "ld_product": count("product"),
        "ld_list": count("itemlist", "collectionpage"),
        "ld_forum": count("discussionforum", "qapage", "comment"),
        "ld_faq": count("faqpage"),
        "ld_service": count("service", "software", "localbusiness"),
    }
