"""Text of an e-book (EPUB 2 and 3): the chapters in the order of its spine, the whole of each."""

import html
import posixpath
import re
from typing import Any
from urllib.parse import unquote

from stemma.cleaning.extraction.limits import Limits
from stemma.cleaning.extraction.metadata import Metadata, dublin_core
from stemma.cleaning.extraction.package import Package
from stemma.cleaning.extraction.placed_text import Blocks
from stemma.cleaning.extraction.render import Element, to_markdown

_CONTAINER = "META-INF/container.xml"
_ENCRYPTION = "META-INF/encryption.xml"
_ROOTFILE = "{urn:oasis:names:tc:opendocument:xmlns:container}rootfile"
_REFERENCE = "{http://www.w3.org/2001/04/xmlenc#}CipherReference"
_OPF = "{http://www.idpf.org/2007/opf}"
_CHAPTERS = frozenset({"application/xhtml+xml", "text/html", "text/x-oeb1-document"})
_NEVER_SHOWN = frozenset(
    {"head", "script", "style", "template", "iframe", "object", "embed", "svg", "math", "canvas"}
    | {"audio", "video", "button", "input", "select", "textarea"}
)
# XML knows five entities; those that HTML adds are characters before it is parsed.
_ENTITY = re.compile(r"&(?!(?:lt|gt|amp|quot|apos);)[a-zA-Z][a-zA-Z0-9]{1,31};")


# libxml2's HTML parser takes quadratic time for the attributes of one tag; real tags have fewer than 100.
_LONG_TAG = re.compile(r"<[a-zA-Z][^<>]{5000,}+>")
_MAX_ATTRIBUTES = 500


def write_epub(package: Package, limits: Limits) -> tuple[Blocks, Metadata]:
    """Return an e-book's text and metadata; places are the chapters' paths in the archive.

    The navigation document (its table of contents) is left out.

    Raises:
        ValueError: it is broken or encrypted (DRM), or beyond a limit.
    """
    path, opf = _package_document(package)
    chapters = _spine(opf, posixpath.dirname(path))
    if not chapters:
        raise ValueError(f"{path} names no chapters")
    if len(chapters) > limits.max_pages:
        raise ValueError(f"it has {len(chapters)} chapters, more than max_pages={limits.max_pages}")
    _check_encryption(package, chapters)
    blocks = Blocks(limits.max_characters)
    for chapter in chapters:
        data = package.read(chapter)
        if data:
            blocks.add(_chapter_text(data, chapter, limits), chapter)
    return blocks, dublin_core(opf)


def _package_document(package: Package) -> tuple[str, bytes]:
    from defusedxml.ElementTree import fromstring

    container = package.read_xml(_CONTAINER)
    if container is None:
        raise ValueError(f"{_CONTAINER} is missing")
    for rootfile in fromstring(container).iter(_ROOTFILE):
        path = rootfile.get("full-path") or ""
        opf = package.read_xml(path)
        if opf is not None:
            return path, opf
    raise ValueError(f"{_CONTAINER} names no package document")


def _spine(opf: bytes, folder: str) -> list[str]:
    """Return the paths of the chapters in reading order, each once."""
    from defusedxml.ElementTree import fromstring

    root = fromstring(opf)
    items = {item.get("id"): item for item in root.iter(f"{_OPF}item")}
    chapters: dict[str, None] = {}
    for reference in root.iter(f"{_OPF}itemref"):
        item = items.get(reference.get("idref"))
        if item is None or item.get("media-type") not in _CHAPTERS:
            continue
        if "nav" not in (item.get("properties") or "").split():
            href = unquote((item.get("href") or "").partition("#")[0])
            chapters[posixpath.normpath(posixpath.join(folder, href))] = None
    return list(chapters)


def _check_encryption(package: Package, chapters: list[str]) -> None:
    """Fonts may be obfuscated; encrypted chapters cannot be read."""
    from defusedxml.ElementTree import fromstring

    data = package.read_xml(_ENCRYPTION)
    if data is not None:
        encrypted = {unquote(reference.get("URI") or "") for reference in fromstring(data).iter(_REFERENCE)}
        if not encrypted.isdisjoint(chapters):
            raise ValueError("its chapters are encrypted (DRM)")


def _chapter_text(data: bytes, name: str, limits: Limits) -> str:
    root = _parse(data)
    if root is None:
        return ""
    if root.xpath("boolean(/" + "/".join(["*"] * (limits.max_depth + 1)) + ")"):
        raise ValueError(f"{name}: nested deeper than max_depth={limits.max_depth}")
    for element in root.iter("{*}*"):
        element.tag = element.tag.rpartition("}")[2].lower()
    body = root.find("body")
    return to_markdown(root if body is None else body, _is_hidden)


def _parse(data: bytes) -> Element | None:
    """Parse a chapter as the XML that it should be, or else as HTML; an HTML parser misreads `<title/>`."""
    from lxml import etree

    text = re.sub(r"^\s*<\?xml[^>]*>", "", _decode(data))
    source = _ENTITY.sub(lambda match: html.unescape(match[0]), text).encode("utf-8", "replace")
    options: dict[str, Any] = {
        "encoding": "utf-8",
        "remove_comments": True,
        "remove_pis": True,
        "no_network": True,
    }
    try:
        return etree.fromstring(source, etree.XMLParser(resolve_entities=False, load_dtd=False, **options))
    except etree.XMLSyntaxError:
        if any(len(tag[0].split()) > _MAX_ATTRIBUTES for tag in _LONG_TAG.finditer(text)):
            raise ValueError(f"a tag has more than {_MAX_ATTRIBUTES} attributes") from None
        parser = etree.HTMLParser(huge_tree=True, **options)
        return etree.fromstring(source, parser) if source.strip() else None


def _decode(data: bytes) -> str:
    """Decode a chapter: EPUB allows UTF-8 and UTF-16; old books declare other encodings."""
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return data.decode("utf-16", "replace")
    declared = re.match(rb"\s*<\?xml[^>]{0,200}encoding=[\"']([\w.:-]{1,40})", data)
    for encoding in ("utf-8-sig", declared[1].decode("ascii") if declared else "cp1252"):
        try:
            return data.decode(encoding)
        except (UnicodeDecodeError, LookupError):
            continue
    return data.decode("cp1252", "replace")


def _is_hidden(element: Element) -> bool:
    return element.tag in _NEVER_SHOWN or element.get("hidden") is not None
