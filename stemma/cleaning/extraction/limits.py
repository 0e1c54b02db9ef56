"""What one document may cost: limits on its size and shape, never on time, so that results stay the same."""

from dataclasses import dataclass

MIB = 2**20

# Below this an expansion ratio says nothing (the same bound as for compressed files in `stemma.reading`).
FREE_BYTES = 16 * MIB


@dataclass(frozen=True)
class Limits:
    """Limits of extraction; a document beyond one of them is refused with a ValueError that names it.

    Attributes:
        max_pages: pages of a PDF, slides of a presentation, sheets of a workbook, chapters of an e-book.
        max_characters: characters of the text that is extracted from a binary document.
        max_members: files in a document that is a ZIP archive.
        max_expansion: limit of unpacked to packed bytes, beyond the first 16 MiB.
        max_expanded_bytes: unpacked bytes of a document that is a ZIP archive.
        max_tree_bytes: XML of a DOCX or PPTX, which is held as a tree: 40 bytes of memory and 1 us for each byte.
        max_depth: nesting of XML elements.
        max_cells: cells of a workbook or of a document's tables, the empty ones between them counted; a workbook
            takes 12 us and 150 bytes of memory for each.
    """

    max_pages: int = 5000
    max_characters: int = 64 * MIB
    max_members: int = 10_000
    max_expansion: int = 200
    max_expanded_bytes: int = 512 * MIB
    max_tree_bytes: int = 32 * MIB
    max_depth: int = 100
    max_cells: int = 2_000_000


DEFAULT_LIMITS = Limits()
