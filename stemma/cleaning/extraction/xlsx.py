"""Cells of an Excel workbook, sheet by sheet, as openpyxl reads them.

Hidden sheets are left out, and formats of numbers, charts, comments and pictures. Formulas stand as the values
that were last computed.
"""

import datetime
import warnings
from collections.abc import Iterator
from typing import Any

from stemma.cleaning.extraction.limits import Limits
from stemma.cleaning.extraction.package import Package
from stemma.cleaning.extraction.placed_text import Blocks, table


def write_xlsx(package: Package, limits: Limits) -> Blocks:
    """Return a workbook's cells: a heading of level 2 for each sheet, a table for each block of rows.

    An empty row ends a block; a block of one column is written as lines. Places are "sheet NAME".

    Raises:
        ValueError: openpyxl cannot read it, or it is beyond a limit. The cells that are empty between others
            count for `max_cells` as well, so that a cell in the last corner of a sheet costs nothing else.
    """
    from openpyxl import load_workbook

    blocks = Blocks(limits.max_characters)
    with warnings.catch_warnings():
        # openpyxl warns of what it leaves out: validation, styles, headers.
        warnings.simplefilter("ignore")
        workbook = load_workbook(package.checked(), read_only=True, data_only=True, keep_links=False)
        if not workbook.sheetnames:
            raise ValueError("it has no sheets")
        if len(workbook.worksheets) > limits.max_pages:
            raise ValueError(f"it has more sheets than max_pages={limits.max_pages}")
        cells_left = limits.max_cells
        for sheet in workbook.worksheets:
            if sheet.sheet_state == "visible":
                cells_left = _write_sheet(blocks, sheet, cells_left)
    return blocks


def _write_sheet(blocks: Blocks, sheet: Any, cells_left: int) -> int:
    """Write one sheet; returns how many cells are left to the others."""
    place = f"sheet {sheet.title}"
    heading = f"## {sheet.title}"
    # What a sheet declares as its size may be wrong, or a trap.
    sheet.reset_dimensions()
    rows = _Rows(sheet.iter_rows(values_only=True), cells_left, blocks.characters_left)
    for block in rows.blocks():
        blocks.add(heading, place)
        blocks.add(table(block), place)
        heading = ""
    return rows.cells_left


class _Rows:
    """The rows of a sheet, counted before they are written: many cells may refer to one long string."""

    def __init__(self, rows: Iterator[tuple[Any, ...]], cells_left: int, characters_left: int) -> None:
        self._rows = rows
        self.cells_left = cells_left
        self._characters_left = characters_left

    def blocks(self) -> Iterator[list[list[str]]]:
        """Yield the rows between empty ones."""
        block: list[list[str]] = []
        for row in self._rows:
            self.cells_left -= max(1, len(row))
            if self.cells_left < 0:
                raise ValueError("it has more cells than max_cells, with the empty ones between them")
            cells = [_written(value) for value in row]
            self._characters_left -= sum(map(len, cells))
            if self._characters_left < 0:
                raise ValueError("the text has more than max_characters")
            if any(cells):
                block.append(cells)
            elif block:
                yield block
                block = []
        if block:
            yield block


def _written(value: Any) -> str:
    """Write a value as Excel shows it where no format is set: 15 digits, days without a time of day."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).upper()
    if isinstance(value, float):
        return format(value, ".15g")
    if isinstance(value, datetime.datetime):
        return str(value.date() if value.time() == datetime.time() else value)
    return str(value).strip()
