"""How answers are printed: as tables for people, as JSON for programs."""

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import date, datetime
from typing import Any
from uuid import UUID


def print_json(value: Any) -> None:
    """Print a value as indented JSON; ids, dates and times become strings."""
    json.dump(value, sys.stdout, indent=2, ensure_ascii=False, default=plain)
    sys.stdout.write("\n")


def plain(value: Any) -> Any:
    """Return a value that JSON has no form for as a string."""
    if isinstance(value, UUID):
        return str(value)
    if isinstance(value, date | datetime):
        return value.isoformat()
    if isinstance(value, bytes):
        return value.hex()
    return str(value)


def print_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Print rows as a table; numbers to the right. Text is shown as it is, never as markup."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(title=title or None, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False)
    listed = [list(row) for row in rows]
    for index, column in enumerate(columns):
        numeric = all(isinstance(row[index], int | float) for row in listed if row[index] is not None)
        table.add_column(Text(column), justify="right" if numeric and listed else "left", overflow="fold")
    for row in listed:
        table.add_row(*(Text(shown(value)) for value in row))
    Console(highlight=False).print(table)


def shown(value: Any) -> str:
    """Return a value as a table shows it."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.3f}".rstrip("0").rstrip(".")
    text = " ".join(str(value).split())
    return "".join(character if character.isprintable() else "�" for character in text)


def print_facts(facts: Mapping[str, Any]) -> None:
    """Print names and values, one a line."""
    width = max((len(name) for name in facts), default=0)
    for name, value in facts.items():
        print(f"  {name:<{width}}  {shown(value)}")


def human_bytes(count: int) -> str:
    """Return a number of bytes as people read it."""
    size = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"
