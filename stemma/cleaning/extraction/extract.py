"""From content to text, by media type."""

from collections.abc import Callable

from stemma.cleaning.extraction import Extraction, Origin
from stemma.cleaning.extraction.html import extract_html
from stemma.cleaning.extraction.limits import DEFAULT_LIMITS, Limits
from stemma.cleaning.extraction.markup import markdown_title, split_front_matter, underlined_title
from stemma.cleaning.extraction.office import extract_office
from stemma.cleaning.extraction.pdf import extract_pdf
from stemma.cleaning.extraction.texinfo import extract_texinfo

_AS_IN_SOURCE = (Origin(0, source_char=0),)


def extract(
    content: str | None,
    content_bytes: bytes | None,
    media_type: str,
    *,
    limits: Limits = DEFAULT_LIMITS,
    html_profile: str = "default",
) -> Extraction:
    """Extract the main text, the title and the metadata of one document.

    Args:
        content: its decoded text, None for a binary format.
        content_bytes: the bytes of a binary format.
        media_type: what it is; parameters such as a charset do not matter.
        limits: what a document of a binary format may cost.
        html_profile: how the main text of a web page is found.

    Raises:
        ValueError: a document of a binary format is encrypted, broken or beyond a limit, or there is no way to
            extract text from it.
    """
    essence = media_type.split(";")[0].strip().lower()
    if content_bytes is not None and essence == "application/pdf":
        return extract_pdf(
            content_bytes,
            max_pages=limits.max_pages,
            max_characters=limits.max_characters,
            max_expansion=limits.max_expansion,
        )
    if content_bytes is not None and essence in OFFICE:
        return extract_office(content_bytes, OFFICE[essence], limits=limits)
    if content is not None and essence in _HTML:
        return extract_html(content, profile=html_profile)
    if content is not None:
        return _EXTRACTORS.get(essence, _as_it_is)(content)
    if content_bytes is not None:
        raise ValueError(f"{media_type}: no text can be extracted from this binary format")
    return Extraction("", None, 0)


def _from_markdown(content: str) -> Extraction:
    title, body = split_front_matter(content)
    origin = Origin(0, source_char=len(content) - len(body))
    return Extraction(body, title or markdown_title(body), len(body), origins=(origin,))


def _from_restructured_text(content: str) -> Extraction:
    return Extraction(content, underlined_title(content), len(content), origins=_AS_IN_SOURCE)


def _from_plain_text(content: str) -> Extraction:
    # Plain text may be anything, a table of dashes too: only a heading on top of it counts as its title.
    return Extraction(
        content, underlined_title(content, only_at_start=True), len(content), origins=_AS_IN_SOURCE
    )


def _as_it_is(content: str) -> Extraction:
    return Extraction(content, None, len(content), origins=_AS_IN_SOURCE)


OFFICE = {
    "application/vnd.openxmlformats-officedocument.wordprocessingml.document": "docx",
    "application/vnd.openxmlformats-officedocument.presentationml.presentation": "pptx",
    "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet": "xlsx",
    "application/epub+zip": "epub",
}

_HTML = frozenset({"text/html", "application/xhtml+xml"})
_EXTRACTORS: dict[str, Callable[[str], Extraction]] = {
    "text/markdown": _from_markdown,
    "text/x-markdown": _from_markdown,
    "text/x-rst": _from_restructured_text,
    "text/prs.fallenstein.rst": _from_restructured_text,
    "text/plain": _from_plain_text,
    "text/x-texinfo": extract_texinfo,
    "application/x-texinfo": extract_texinfo,
}
