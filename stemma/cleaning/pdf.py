"""Text and title of a PDF, by PDFium."""

import re
from typing import Any

from stemma.cleaning.extraction import Extraction

# PDFium writes U+FFFE (older versions U+0002) for a hyphen that ends a line and belongs to the layout.
_LAYOUT_HYPHEN = re.compile("(?:\ufffe|\x02)[ \t]*\n?")
# A letter, a hyphen and a lower-case letter on the next line: the word was divided there.
_DIVIDED_WORD = re.compile(r"(?<=[^\W\d_])[-\u2010\u00ad]\n(?=[^\W\d_])(?=(.))")


def extract_pdf(data: bytes, *, max_pages: int) -> Extraction:
    """Extract the text of all pages, joined by blank lines, and the title that the metadata name.

    Raises:
        ValueError: the file is encrypted, broken, without pages, or has more than `max_pages`.
    """
    from pypdfium2 import PdfDocument, PdfiumError

    try:
        with PdfDocument(data) as document:
            _check_pages(len(document), max_pages)
            pages = [_page_text(document, number) for number in range(len(document))]
            title = document.get_metadata_value("Title").strip("\x00 ")
    except PdfiumError as error:
        raise ValueError(f"PDF cannot be read: {error}") from error
    text = "\n\n".join(page for page in pages if page)
    return Extraction(text, title or None, len(text))


def _check_pages(pages: int, max_pages: int) -> None:
    if pages == 0:
        raise ValueError("PDF has no pages")
    if pages > max_pages:
        raise ValueError(f"PDF has {pages} pages, more than max_pages={max_pages}")


def _page_text(document: Any, number: int) -> str:
    page = document[number]
    try:
        text_page = page.get_textpage()
        try:
            return join_divided_words(text_page.get_text_range().replace("\r\n", "\n")).strip()
        finally:
            text_page.close()
    finally:
        page.close()


def join_divided_words(text: str) -> str:
    """Join words that a hyphen divides at the end of a line, unless the next line begins with a capital."""
    text = _LAYOUT_HYPHEN.sub("", text)
    return _DIVIDED_WORD.sub(lambda match: "" if match[1].islower() else match[0], text)
