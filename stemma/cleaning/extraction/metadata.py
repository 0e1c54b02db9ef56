"""What a document says of itself: title, author, day and language, from Dublin Core and PDF strings."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date

from stemma.cleaning.extraction.package import Package
from stemma.cleaning.extraction.placed_text import one_line

_CORE = "docProps/core.xml"
_PURL = "{http://purl.org/dc/elements/1.1/}"
_TERMS = "{http://purl.org/dc/terms/}"
_OPF_EVENT = "{http://www.idpf.org/2007/opf}event"
_DAY = re.compile(r"\s*(?:D:)?(\d{4})(-?)(\d\d)\2(\d\d)(?!\d\d\d\d-)")
_LANGUAGE = re.compile(r"[a-z]{2,3}(?:-[a-z0-9]{1,8})*")


@dataclass(frozen=True)
class Metadata:
    """Title, author, day of publication (of creation, where there is no other) and language; all may be None."""

    title: str | None = None
    author: str | None = None
    published: date | None = None
    language: str | None = None


def core_metadata(package: Package) -> Metadata:
    """Return what an Office document's core properties say; the day is the one it was created on."""
    data = package.read_xml(_CORE)
    return dublin_core(data, created=True) if data else Metadata()


def dublin_core(xml: bytes, *, created: bool = False) -> Metadata:
    """Return the Dublin Core elements of a checked XML document.

    Args:
        xml: the document.
        created: take the day of `dcterms:created`; otherwise that of `dc:date`, the one of the event
            "publication" where they tell events apart.
    """
    from defusedxml.ElementTree import fromstring

    root = fromstring(xml)
    dates = list(root.iter(f"{_TERMS}created" if created else f"{_PURL}date"))
    dates.sort(key=lambda element: element.get(_OPF_EVENT, "publication") != "publication")
    return Metadata(
        title=_first(element.text for element in root.iter(f"{_PURL}title")),
        author=", ".join(_texts(element.text for element in root.iter(f"{_PURL}creator"))) or None,
        published=next(filter(None, (day(element.text) for element in dates)), None),
        language=language_tag(_first(element.text for element in root.iter(f"{_PURL}language"))),
    )


def day(value: str | None) -> date | None:
    """Return the day of a date such as 2024-01-31T12:00:00Z or D:20240131120000; the offset does not move it."""
    match = _DAY.match(value or "")
    try:
        return date(int(match[1]), int(match[3]), int(match[4])) if match else None
    except ValueError:
        return None


def language_tag(value: str | None) -> str | None:
    """Return a language tag in lower case, None where it is none ("und" is none)."""
    tag = (value or "").strip().lower().replace("_", "-")
    return tag if tag != "und" and _LANGUAGE.fullmatch(tag) else None


def _texts(values: Iterable[str | None]) -> list[str]:
    return [line for value in values if (line := one_line(value or ""))]


def _first(values: Iterable[str | None]) -> str | None:
    return next(iter(_texts(values)), None)
