"""What the default install brings along is under permissive licences, and docs/licences.md says which."""

from email.message import Message

import pytest
from licences import BEGIN, END, PAGE, Package, default_install, licence

# Copyleft for their own files alone, which Stemma neither changes nor passes on.
BY_FILE = {"certifi", "tqdm"}


@pytest.fixture(scope="module")
def packages() -> list[Package]:
    return default_install()


def test_nothing_in_the_default_install_is_copyleft(packages: list[Package]) -> None:
    assert len(packages) > 80
    kinds = {package.name: package.kind for package in packages}
    assert set(kinds.values()) == {"permissive", "by file"}, kinds
    assert {name for name, kind in kinds.items() if kind == "by file"} == BY_FILE


def test_the_page_names_each_package_with_its_licence(packages: list[Package]) -> None:
    """Other platforms bring a few others (such as CUDA), so the page may name more."""
    listed = PAGE.read_text(encoding="utf-8").partition(BEGIN)[2].partition(END)[0]
    rows = [line.strip("| ").split(" | ") for line in listed.splitlines() if line.startswith("| ")]
    named = {row[0]: row[1] for row in rows[1:]}
    missing = {p.name: p.licence for p in packages if named.get(p.name) != p.licence}
    assert missing == {}, "run: .venv/bin/python tests/licences.py"


@pytest.mark.parametrize(
    ("fields", "kind"),
    [
        ({"License-Expression": "MIT OR GPL-3.0-only"}, "copyleft"),
        ({"License": "GNU Affero General Public License v3"}, "copyleft"),
        ({"License": "LGPLv3+"}, "copyleft"),
        ({"License-Expression": "MPL-2.0 AND MIT"}, "by file"),
        (
            {"License": "Copyright (c) somebody", "Classifier": "License :: OSI Approved :: BSD License"},
            "permissive",
        ),
        ({"License": "See the file LICENSE, which is long\nand has many lines"}, "unknown"),
        ({}, "unknown"),
    ],
)
def test_kinds_of_licences(fields: dict[str, str], kind: str) -> None:
    metadata = Message()
    for name, value in fields.items():
        metadata[name] = value.replace("\n", "\n  ")
    assert Package("it", licence(metadata)).kind == kind
