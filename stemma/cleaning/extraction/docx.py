"""Text of a Word document: mammoth reads it, a small writer makes Markdown of what it has read.

Left out: headers and footers, comments, deleted text, tables of contents, the descriptions of pictures.
"""

import re
from collections.abc import Iterable, Iterator
from typing import Any

from stemma.cleaning.extraction.formula import formulas_as_text
from stemma.cleaning.extraction.limits import Limits
from stemma.cleaning.extraction.package import Package
from stemma.cleaning.extraction.placed_text import Blocks, one_line, table

# mammoth's elements have no types.
Node = Any

# Word's own limit: https://support.microsoft.com/office/word-specifications
_MAX_COLUMNS = 63
_MAX_LEVEL = 8
_HEADING = re.compile(r"heading ([1-9])$", re.IGNORECASE)
_CONTENTS = re.compile(r"(?:toc|contents) ?(?:heading|[1-9])$", re.IGNORECASE)
# Word nests fields no deeper than 20.
_FIELD = re.compile(rb"fldCharType\s{0,9}=\s{0,9}[\"']([^\"']{0,99})")
_FIELD_STEPS = {b"begin": 1, b"end": -1}
_MAX_OPEN_FIELDS = 100
_CODE_STYLES = frozenset(
    {"code", "source code", "html preformatted", "preformatted text", "macro text", "code block"}
)
_CODE_FONTS = frozenset(
    {"courier", "courier new", "consolas", "menlo", "monaco", "lucida console", "source code pro"}
    | {"liberation mono", "dejavu sans mono", "cascadia code", "cascadia mono", "jetbrains mono", "fira code"}
)


def write_docx(package: Package, limits: Limits) -> tuple[Blocks, str | None]:
    """Return a Word document's text and its first heading or title.

    Places are "paragraph N" and "note N", from 1 in the order of the document. The paragraphs of a table are
    counted, but for those of cells merged into the one above; the table bears the number of its first.

    Raises:
        ValueError: mammoth cannot read it, or it is beyond a limit.
    """
    document = _read(package)
    paragraphs = [
        node for node in document.children if _kind(node) == "Paragraph" and _text(node, {}).strip()
    ]
    # Where most of a document has the font of code, it is a script or typewritten, and says nothing.
    has_code_fonts = 2 * sum(map(_has_code_font, paragraphs)) <= len(paragraphs)
    writer = _Writer(limits, has_code_fonts)
    writer.write(document.children)
    writer.write_notes(document.notes)
    return writer.blocks, writer.title


def _read(package: Package) -> Node:
    import mammoth

    found = []

    def keep(document: Node) -> Node:
        found.append(document)
        return document.copy(children=[])

    mammoth.convert_to_html(
        package.checked(_prepared),
        transform_document=keep,
        include_embedded_style_map=False,
        external_file_access=False,
    )
    return found[0]


def _prepared(xml: bytes) -> bytes:
    """Make a part of the document fit for mammoth, which for each run looks through all fields that are open."""
    depth = 0
    for match in _FIELD.finditer(xml):
        depth = max(0, depth + _FIELD_STEPS.get(match[1], 0))
        if depth > _MAX_OPEN_FIELDS or b"&" in match[1]:
            raise ValueError(f"more than {_MAX_OPEN_FIELDS} fields are open at a time")
    return formulas_as_text(xml)


class _Writer:
    def __init__(self, limits: Limits, has_code_fonts: bool) -> None:
        self.blocks = Blocks(limits.max_characters)
        self._has_code_fonts = has_code_fonts
        self.title: str | None = None
        self._cells_left = limits.max_cells
        self._paragraph = 0
        self._code: list[str] = []
        self._code_place = ""
        # The number of the last item at each level of the open list.
        self._numbers: dict[int, int] = {}
        # The notes that were referred to, by kind and id, each with its number.
        self._notes: dict[tuple[str, str], int] = {}

    def write(self, nodes: Iterable[Node]) -> None:
        for node in nodes:
            if _kind(node) == "Table":
                self._write_table(node)
            elif _kind(node) == "Paragraph":
                self._write_paragraph(node)
        self._end_code()

    def write_notes(self, notes: Node) -> None:
        """Write the footnotes and endnotes that were referred to, in that order."""
        for (kind, note_id), number in self._notes.items():
            try:
                body = notes.find_note(kind, note_id).body
            except KeyError:
                continue
            text = " ".join(one_line(_text(node, {})) for node in _paragraphs(body))
            self.blocks.add(f"[^{number}]: {text}" if text.strip() else "", f"note {number}")

    def _write_paragraph(self, node: Node) -> None:
        self._paragraph += 1
        place = f"paragraph {self._paragraph}"
        style = node.style_name or ""
        text = _text(node, self._notes)
        if style.lower() in _CODE_STYLES or (self._has_code_fonts and _has_code_font(node)):
            self._code_place = self._code_place or place
            self._code.append(text)
            return
        self._end_code()
        if not text.strip() or _CONTENTS.match(style):
            return
        heading = _HEADING.match(style)
        if heading or style.lower() == "title":
            self.title = self.title or one_line(text)
            self._numbers.clear()
            level = min(int(heading[1]), 6) if heading else 1
            self.blocks.add("#" * level + " " + one_line(text), place)
        elif node.numbering is not None:
            self._write_item(node, one_line(text), place)
        else:
            self._numbers.clear()
            self.blocks.add(text.strip(), place)

    def _write_item(self, node: Node, text: str, place: str) -> None:
        index = node.numbering.level_index
        level = min(int(index), _MAX_LEVEL) if index.isdecimal() else 0
        number = self._numbers.get(level, 0) + 1
        begins = not self._numbers
        self._numbers = {deep: last for deep, last in self._numbers.items() if deep < level}
        self._numbers[level] = number
        marker = f"{number}. " if node.numbering.is_ordered else "- "
        self.blocks.add("  " * level + marker + text, place, separator="\n\n" if begins else "\n")

    def _end_code(self) -> None:
        code = "\n".join(self._code).strip("\n")
        if code.strip():
            self._numbers.clear()
            fence = "````" if "```" in code else "```"
            self.blocks.add(f"{fence}\n{code}\n{fence}", self._code_place)
        self._code, self._code_place = [], ""

    def _write_table(self, node: Node) -> None:
        self._end_code()
        self._numbers.clear()
        rows = [row for row in node.children if _kind(row) == "TableRow"]
        cells = [cell for row in rows for cell in row.children if _kind(cell) == "TableCell"]
        if len(cells) == 1:
            # A frame around text and no table of data.
            self.write(cells[0].children)
            return
        place = f"paragraph {self._paragraph + 1}"
        self.blocks.add(table([self._cells(row) for row in _unmerged(rows, self)]), place)
        self._paragraph += sum(1 for _ in _paragraphs(cells))

    def _cells(self, row: list[Node | None]) -> list[str]:
        return [
            ""
            if cell is None
            else " ".join(one_line(_text(inner, self._notes)) for inner in _paragraphs([cell]))
            for cell in row
        ]

    def count_cells(self, cells: int) -> None:
        self._cells_left -= cells
        if self._cells_left < 0:
            raise ValueError("tables have more cells than max_cells")


def _unmerged(rows: list[Node], writer: _Writer) -> Iterator[list[Node | None]]:
    """Yield the rows of a table as a grid: a merged cell stands in its first place, None in the others."""
    below: dict[int, int] = {}
    for row in rows:
        line: list[Node | None] = []
        for cell in row.children:
            if _kind(cell) != "TableCell":
                continue
            while below.get(len(line), 0) > 0:
                below[len(line)] -= 1
                line.append(None)
            width = max(1, min(cell.colspan, _MAX_COLUMNS))
            for column in range(len(line), len(line) + width):
                below[column] = cell.rowspan - 1
            line += [cell, *[None] * (width - 1)]
        while below.get(len(line), 0) > 0:
            below[len(line)] -= 1
            line.append(None)
        writer.count_cells(len(line))
        yield line


def _kind(node: Node) -> str:
    return type(node).__name__


def _paragraphs(nodes: Iterable[Node]) -> Iterator[Node]:
    """Yield the paragraphs in these nodes, at any depth; those of notes are not in them."""
    for node in nodes:
        if _kind(node) == "Paragraph":
            yield node
        else:
            yield from _paragraphs(getattr(node, "children", ()))


def _text(node: Node, notes: dict[tuple[str, str], int]) -> str:
    """Return the text of a paragraph; the notes that it refers to are numbered in `notes`."""
    kind = _kind(node)
    if kind == "Text":
        return node.value
    if kind == "Tab":
        return "\t"
    if kind == "Break":
        return "\n" if node.break_type == "line" else " "
    if kind == "Checkbox":
        return "[x]" if node.checked else "[ ]"
    if kind == "NoteReference":
        number = notes.setdefault((node.note_type, node.note_id), len(notes) + 1)
        return f"[^{number}]"
    return "".join(_text(child, notes) for child in getattr(node, "children", ()))


def _has_code_font(node: Node) -> bool:
    """Has all that is written in a paragraph without a style the font of code?"""
    if node.numbering is not None or node.style_name:
        return False
    runs = [run for run in node.children if _kind(run) == "Run" and _text(run, {}).strip()]
    return bool(runs) and all((run.font or "").lower() in _CODE_FONTS for run in runs)
