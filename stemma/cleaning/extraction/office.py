"""Text, title and metadata of Office documents and e-books.

The libraries that read them (mammoth, python-pptx, openpyxl) are called as they are, without markitdown, which
would load pandas, magika and onnxruntime and tell neither slides nor paragraphs apart. No member of a document
reaches them unchecked (see `stemma.cleaning.extraction.package`), and none may open a file or a connection.
"""

from stemma.cleaning.extraction import Extraction
from stemma.cleaning.extraction.docx import write_docx
from stemma.cleaning.extraction.epub import write_epub
from stemma.cleaning.extraction.limits import DEFAULT_LIMITS, Limits
from stemma.cleaning.extraction.metadata import core_metadata
from stemma.cleaning.extraction.package import Package
from stemma.cleaning.extraction.pptx import write_pptx
from stemma.cleaning.extraction.xlsx import write_xlsx

KINDS = ("docx", "pptx", "xlsx", "epub")

# What PowerPoint writes as the title of a presentation that was given none.
_NO_TITLE = frozenset({"PowerPoint Presentation"})


def extract_office(data: bytes, kind: str, *, limits: Limits = DEFAULT_LIMITS) -> Extraction:
    """Extract the text of a DOCX, PPTX, XLSX or EPUB as Markdown, with its metadata and origins.

    Args:
        data: the document.
        kind: one of `KINDS`.
        limits: what it may cost; where it begins to cost more it is refused.

    Returns:
        `published` is the day of `dc:date` in an e-book, and of creation in an Office document; places are
        "paragraph 12", "slide 3", "sheet Prices", "OEBPS/ch01.xhtml".

    Raises:
        ValueError: it is damaged, encrypted, or beyond a limit; one line.
    """
    try:
        return _extract(data, kind, limits)
    except MemoryError:
        raise
    # What the libraries raise for a document that is not as it should be has no common class.
    except Exception as error:
        name = kind.upper()
        detail = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(detail if detail.startswith(name) else f"{name} cannot be read: {detail}") from error


def _extract(data: bytes, kind: str, limits: Limits) -> Extraction:
    held_as_tree = kind in ("docx", "pptx")
    package = Package(
        data, kind.upper(), limits, max_xml_bytes=limits.max_tree_bytes if held_as_tree else None
    )
    heading: str | None = None
    if kind == "epub":
        blocks, metadata = write_epub(package, limits)
    else:
        metadata = core_metadata(package)
        if kind == "docx":
            blocks, heading = write_docx(package, limits)
        elif kind == "pptx":
            blocks, heading = write_pptx(package, limits)
        elif kind == "xlsx":
            blocks = write_xlsx(package, limits)
        else:
            raise ValueError(f"unknown kind; one of {', '.join(KINDS)}")
    title = None if metadata.title in _NO_TITLE else metadata.title
    text = blocks.text
    return Extraction(
        text,
        title or heading,
        len(text),
        author=metadata.author,
        published=metadata.published,
        language=metadata.language,
        origins=blocks.origins,
    )
