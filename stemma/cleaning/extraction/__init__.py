"""Extraction: from a document of any media type to its main text as Markdown, its metadata, and where each stands.

`extract.py` chooses by media type. Web pages: `html.py` with `page_blocks.py` (the page in blocks),
`block_model.py` (which of them are content), `rescue.py` (structure that belongs to it), `render.py` (Markdown) and
`page_metadata.py`. Office documents and e-books: `office.py`, `package.py` (the archive, checked before any parser
sees it), and a module for each format.
"""

from stemma.cleaning.extraction.result import Extraction, Origin

__all__ = ["Extraction", "Origin"]
