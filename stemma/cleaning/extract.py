"""From content to text, by media type."""

from collections.abc import Callable

from stemma.cleaning.extraction import Extraction
from stemma.cleaning.html import extract_html
from stemma.cleaning.markup import markdown_title, split_front_matter, underlined_title
from stemma.cleaning.pdf import extract_pdf
from stemma.cleaning.texinfo import extract_texinfo


def extract(
    content: str | None, content_bytes: bytes | None, media_type: str, *, max_pages: int
) -> Extraction:
    """Extract the main text and the title of one document.

    Raises:
        ValueError: a PDF is encrypted, broken or longer than `max_pages`, or `content_bytes` is all there is
            of a format that is no PDF.
    """
    essence = media_type.split(";")[0].strip().lower()
    if essence == "application/pdf" and content_bytes is not None:
        return extract_pdf(content_bytes, max_pages=max_pages)
    if content is not None:
        return _EXTRACTORS.get(essence, _as_it_is)(content)
    if content_bytes is not None:
        raise ValueError(f"{media_type}: no text can be extracted from this binary format")
    return Extraction("", None, 0)


def _from_markdown(content: str) -> Extraction:
    title, body = split_front_matter(content)
    return Extraction(body, title or markdown_title(body), len(body))


def _from_restructured_text(content: str) -> Extraction:
    return Extraction(content, underlined_title(content), len(content))


def _from_plain_text(content: str) -> Extraction:
    # Plain text may be anything, a table of dashes too: only a heading on top of it counts as its title.
    return Extraction(content, underlined_title(content, only_at_start=True), len(content))


def _as_it_is(content: str) -> Extraction:
    return Extraction(content, None, len(content))


_EXTRACTORS: dict[str, Callable[[str], Extraction]] = {
    "text/html": extract_html,
    "application/xhtml+xml": extract_html,
    "text/markdown": _from_markdown,
    "text/x-markdown": _from_markdown,
    "text/x-rst": _from_restructured_text,
    "text/prs.fallenstein.rst": _from_restructured_text,
    "text/plain": _from_plain_text,
    "text/x-texinfo": extract_texinfo,
    "application/x-texinfo": extract_texinfo,
}
