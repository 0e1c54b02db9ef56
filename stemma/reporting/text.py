"""How numbers and foreign text are written into pictures and pages."""

from html import escape


def plain(value: object, most: int = 200) -> str:
    """Return foreign text for SVG and HTML: on one line, cut, printable, its markup escaped."""
    text = " ".join(str(value)[: 4 * most].split())
    text = text if len(text) <= most else text[: most - 1].rstrip() + "…"
    # A control character or half a surrogate pair is allowed in neither XML nor UTF-8.
    return escape("".join(character if character.isprintable() else "�" for character in text))


def short(number: float) -> str:
    """Return a number in the room of an axis label: 950, 1.5k, 20k, 3M."""
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= size:
            return f"{number / size:.3g}{unit}"
    return f"{number:.3g}"


def amount(number: float) -> str:
    """Return a number as people read it: 1,998 or 0.877."""
    if isinstance(number, int) or float(number).is_integer():
        return f"{int(number):,}"
    return f"{number:,.3f}".rstrip("0").rstrip(".")


def duration(seconds: float) -> str:
    """Return seconds as people read them: 0.03 s, 27.9 s, 4 min, 3.5 h."""
    if seconds < 0.995:
        return f"{seconds:.2g} s"
    if seconds < 90:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:,.1f} h"


def human_bytes(count: int) -> str:
    """Return a number of bytes as people read it."""
    size = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"
