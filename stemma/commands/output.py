"""How answers are printed: as tables for people, as JSON for programs."""

import json
import math
import os
import shutil
import sys
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from datetime import date, datetime
from pathlib import Path
from typing import Any, TextIO
from uuid import UUID

from rich.cells import cell_len, set_cell_size

from stemma.config import Config, local_folder

# The width of an id: a column is never cut below it.
CELL_COLUMNS = 36
# Where no terminal says how wide a line may be.
PIPED_COLUMNS = 200
MOST_CHARACTERS = 1000
# No control characters: within words they join letters, or say where a word may be divided.
JOINERS = "\u00ad\u200c\u200d"


def warn_of_source(config: Config, path: Path) -> None:
    """Say so where a file that is written lies in a source: the next run would take it for documents."""
    written = Path(os.path.abspath(path.expanduser()))
    for source in config.sources:
        folder = local_folder(source.path) if source.query is None else None
        if folder is not None and written.is_relative_to(folder) and folder.is_dir():
            say_aside(
                f"{path} lies in the source '{source.name}': the next run will read it; write it elsewhere,"
                " or exclude it there"
            )
            return


def print_json(value: Any) -> None:
    """Print a value as indented JSON; ids, dates and times become strings."""
    write_json(value, indent=2)


def write_json(value: Any, **form: Any) -> None:
    """Write a value as JSON and a line's end; what a terminal would obey stands there as an escape (\\u009b)."""
    encoder = json.JSONEncoder(ensure_ascii=False, default=plain, **form)
    for part in encoder.iterencode(value):
        sys.stdout.write(part if part.isprintable() else "".join(map(_escaped, part)))
    sys.stdout.write("\n")


def _escaped(character: str) -> str:
    if character == "\n" or _is_shown(character):
        return character
    # json leaves DEL as it is.
    return f"\\u{ord(character):04x}" if character == "\x7f" else json.dumps(character)[1:-1]


def harmless(text: str) -> str:
    """Return text as a terminal may have it: without control characters, line breaks and tabs aside.

    What stands in documents, their names and titles must not move the cursor, change colours or turn text around.
    """
    if text.isprintable():
        return text
    return "".join(each if each in "\n\t" or _is_shown(each) else "�" for each in text)


def _is_shown(character: str) -> bool:
    return character.isprintable() or character in JOINERS or unicodedata.category(character) == "Zs"


def say(text: str = "", *, file: TextIO | None = None) -> None:
    """Print a line for a person; nothing in it gives the terminal an order."""
    print(harmless(text), file=file)


def say_aside(line: str) -> None:
    """Print a line that is no part of the answer, on standard error."""
    say(line, file=sys.stderr)


def plain(value: Any) -> Any:
    """Return a value that JSON has no form for as a string."""
    if isinstance(value, UUID):
        return str(value)
    if isinstance(value, date | datetime):
        return value.isoformat()
    if isinstance(value, bytes):
        return value.hex()
    return str(value)


def print_table(
    title: str, columns: Sequence[str], rows: Iterable[Sequence[Any]], *, separators: bool = True
) -> None:
    """Print rows as a table; numbers to the right, long text cut to what fits.

    `separators` writes 1,299 for 1299. Text is shown as it is, never as markup or control characters.
    """
    listed = [list(row) for row in rows]
    cells = [[shown(value, separators=separators) for value in row] for row in listed]
    right = [_all_numbers(row[index] for row in listed) for index in range(len(columns))]
    widths = _fitting(
        [max([cell_len(column), *(cell_len(row[i]) for row in cells)]) for i, column in enumerate(columns)]
    )
    if title:
        print(title)
    for row in (list(columns), ["─" * width for width in widths], *cells):
        print("  ".join(map(_padded, row, widths, right)).rstrip())
    print()


def _all_numbers(values: Iterable[Any]) -> bool:
    known = [value for value in values if value is not None]
    return bool(known) and all(
        isinstance(value, int | float) and not isinstance(value, bool) for value in known
    )


def _fitting(widths: list[int]) -> list[int]:
    """Narrow the widest columns until a line fits the terminal, but none below an id's width."""
    room = shutil.get_terminal_size().columns if sys.stdout.isatty() else PIPED_COLUMNS
    widths = list(widths)
    while widths and sum(widths) + 2 * (len(widths) - 1) > room and max(widths) > CELL_COLUMNS:
        widths[widths.index(max(widths))] -= 1
    return widths


def _padded(text: str, width: int, right: bool) -> str:
    if cell_len(text) > width:
        text = set_cell_size(text, width - 1).rstrip() + "…"
    space = " " * (width - cell_len(text))
    return space + text if right else text + space


def shown(value: Any, *, separators: bool = True) -> str:
    """Return a value as a table shows it."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    comma = "," if separators else ""
    if isinstance(value, int):
        return f"{value:{comma}}"
    if isinstance(value, float):
        small = value != 0 and abs(value) < 1e-4
        return f"{value:.4g}" if small or not math.isfinite(value) else _trimmed(f"{value:{comma}.6f}")
    if isinstance(value, datetime):
        return value.isoformat(" ", "seconds")
    # Cut first: a document's whole text may stand here.
    text = " ".join(str(value)[:MOST_CHARACTERS].split())
    return "".join(character if character.isprintable() else "�" for character in text)


def _trimmed(number: str) -> str:
    return number.rstrip("0").rstrip(".")


def print_facts(facts: Mapping[str, Any]) -> None:
    """Print names and values, one a line."""
    width = max((len(name) for name in facts), default=0)
    for name, value in facts.items():
        print(f"  {name:<{width}}  {shown(value)}")
