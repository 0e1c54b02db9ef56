"""Formulas of Word documents (Office Math) in one line of text: (a+b)/2, x_1^2, √(x), ∑_(i=1)^n i."""

from typing import Any

# lxml's elements have no types of their own in lxml.
Element = Any

_MATH = "{http://schemas.openxmlformats.org/officeDocument/2006/math}"
_WORD = "{http://schemas.openxmlformats.org/wordprocessingml/2006/main}"


def formulas_as_text(xml: bytes) -> bytes:
    """Replace the formulas in a checked part of a Word document by runs of text, which mammoth reads."""
    if b"oMath" not in xml:
        return xml
    from lxml import etree

    parser = etree.XMLParser(resolve_entities=False, no_network=True, huge_tree=True)
    root = etree.fromstring(xml, parser)
    for formula in list(root.iter(f"{_MATH}oMathPara", f"{_MATH}oMath")):
        parent = formula.getparent()
        if parent is not None:
            run = etree.Element(f"{_WORD}r")
            etree.SubElement(run, f"{_WORD}t").text = linear(formula)
            parent.replace(formula, run)
    return bytes(etree.tostring(root, encoding="utf-8", xml_declaration=True))


def linear(element: Element) -> str:
    """Write a formula in one line; what is unknown is written as the formulas in it, one after the other."""
    name = element.tag.removeprefix(_MATH)
    if name == "t":
        return element.text or ""
    if name == "f":
        return f"{_grouped(_part(element, 'num'))}/{_grouped(_part(element, 'den'))}"
    if name == "rad":
        return f"{_part(element, 'deg')}√{_grouped(_part(element, 'e'))}"
    if name in ("sSup", "sSub", "sSubSup", "limLow", "limUpp"):
        return _part(element, "e") + _scripts(element)
    if name == "nary":
        return f"{_property(element, 'chr', '∫')}{_scripts(element)} {_part(element, 'e')}"
    if name == "d":
        inside = _property(element, "sepChr", "|").join(linear(e) for e in element.iterchildren(f"{_MATH}e"))
        return f"{_property(element, 'begChr', '(')}{inside}{_property(element, 'endChr', ')')}"
    if name == "m":
        return "; ".join(linear(row) for row in element.iterchildren(f"{_MATH}mr"))
    if name == "mr":
        return ", ".join(linear(entry) for entry in element.iterchildren(f"{_MATH}e"))
    return "".join(linear(child) for child in element.iterchildren(f"{_MATH}*"))


def _scripts(element: Element) -> str:
    """Write what stands below and above."""
    low, high = "sub", "sup"
    if element.tag in (f"{_MATH}limLow", f"{_MATH}limUpp"):
        low, high = ("lim", "") if element.tag == f"{_MATH}limLow" else ("", "lim")
    below, above = (_grouped(_part(element, part)) if part else "" for part in (low, high))
    return (f"_{below}" if below else "") + (f"^{above}" if above else "")


def _part(element: Element, name: str) -> str:
    found = element.find(_MATH + name)
    return "" if found is None else linear(found).strip()


def _property(element: Element, name: str, default: str) -> str:
    found = element.find(f"{element.tag}Pr/{_MATH}{name}")
    return default if found is None else found.get(f"{_MATH}val", "")


def _grouped(text: str) -> str:
    return text if text.isalnum() or len(text) < 2 else f"({text})"
