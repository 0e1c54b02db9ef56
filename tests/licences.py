"""The licences of what `pip install stemma` brings along, as the packages themselves declare them.

    .venv/bin/python tests/licences.py

writes the table in docs/licences.md anew; tests/test_licences.py holds it against the environment.
"""

import importlib.metadata
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from packaging.requirements import Requirement

PAGE = Path(__file__).resolve().parents[1] / "docs" / "licences.md"
BEGIN, END = "<!-- table: made by tests/licences.py -->\n", "<!-- end of table -->"

# Whoever passes such a package on, changed or linked, must pass on more than the package under its terms.
COPYLEFT = re.compile(r"\b[AL]?GPL|GNU |EUPL|SSPL|CC-BY-SA|OSL-|CPAL|Sleepycat|Affero", re.I)
# Copyleft for the package's own files alone: using it asks for nothing, changing these files asks to publish them.
BY_FILE = re.compile(r"MPL|Mozilla Public|EPL-|CDDL", re.I)
SHORT = 60


@dataclass(frozen=True)
class Package:
    """A package of the default install, and the licence that its metadata declare."""

    name: str
    licence: str

    @property
    def kind(self) -> str:
        """Return permissive, by file, copyleft or unknown."""
        if not self.licence:
            return "unknown"
        if COPYLEFT.search(self.licence):
            return "copyleft"
        return "by file" if BY_FILE.search(self.licence) else "permissive"


def default_install(root: str = "stemma") -> list[Package]:
    """Return all packages that a package needs, without its extras, in this environment, by name."""
    found: dict[str, importlib.metadata.Distribution] = {}
    _collect(root, found)
    del found[_canonical(root)]
    return [Package(name, licence(found[name].metadata)) for name in sorted(found)]


def _collect(name: str, found: dict[str, importlib.metadata.Distribution]) -> None:
    if _canonical(name) in found:
        return
    found[_canonical(name)] = distribution = importlib.metadata.distribution(name)
    for needed in map(Requirement, distribution.requires or []):
        if needed.marker is None or needed.marker.evaluate({"extra": ""}):
            _collect(needed.name, found)


def _canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def licence(metadata: "importlib.metadata.PackageMetadata") -> str:
    """Return what a package declares: an SPDX expression, else a short field, else classifiers; empty for nothing."""
    expression = metadata.get("License-Expression")
    if expression:
        return str(expression)
    named = sorted(
        str(line).split("::")[-1].strip()
        for line in metadata.get_all("Classifier") or []
        if str(line).startswith("License ::")
    )
    field = str(metadata.get("License") or "").strip()
    if field and len(field) <= SHORT and "\n" not in field and not field.startswith("Copyright"):
        return field
    return ", ".join(named)


def table(packages: list[Package]) -> str:
    """Return the table of docs/licences.md."""
    return "".join(_lines(packages))


def _lines(packages: list[Package]) -> Iterator[str]:
    yield "| Package | Licence | |\n|---|---|---|\n"
    for package in packages:
        yield f"| {package.name} | {package.licence} | {'' if package.kind == 'permissive' else package.kind} |\n"


def main() -> None:
    """Write the table anew."""
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    PAGE.write_text(before + BEGIN + "\n" + table(default_install()) + "\n" + END + after, encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
