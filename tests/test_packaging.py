"""The wheel holds the whole house and nothing else; the library imports no orchestrator; every option is documented."""

import argparse
import ast
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from stemma.cli import parser

ROOT = Path(__file__).resolve().parents[1]
# Top-level folders that are packages below `stemma` in the wheel, by setuptools' package-dir.
HOUSE = {
    "stemma": "stemma",
    "assets": "stemma/assets",
    "resources": "stemma/resources",
    "sensors": "stemma/sensors",
}
# These wire library, assets and resources together.
WIRING = ("stemma/definitions.py", "stemma/cli.py", "stemma/commands/")
ORCHESTRATION = re.compile(r"(dagster|stemma\.(assets|resources|sensors|definitions))(\.|$)")


def sources() -> dict[str, str]:
    """Return every Python file of the house with its place in the wheel."""
    return {
        path.relative_to(ROOT).as_posix(): f"{place}/{path.relative_to(ROOT / folder).as_posix()}"
        for folder, place in HOUSE.items()
        for path in (ROOT / folder).rglob("*.py")
    }


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The names of the files in the wheel, built from a copy without the network."""
    folder = tmp_path_factory.mktemp("wheel")
    copy = folder / "copy"
    for name in sources():
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        (copy / name).write_bytes((ROOT / name).read_bytes())
    for name in ("pyproject.toml", "README.md", "LICENSE", "stemma/py.typed"):
        (copy / name).write_bytes((ROOT / name).read_bytes())
    # What pip calls, without pip: it would ask the network.
    build = "import sys, setuptools.build_meta as backend; backend.build_wheel(sys.argv[1])"
    built = subprocess.run(
        [sys.executable, "-c", build, str(folder)], cwd=copy, capture_output=True, text=True, timeout=120
    )
    assert built.returncode == 0, built.stdout + built.stderr
    (file,) = folder.glob("stemma-*.whl")
    with zipfile.ZipFile(file) as archive:
        return archive.namelist()


def test_every_folder_with_python_in_it_is_in_the_wheel(wheel: list[str]) -> None:
    assert sorted(name for name in wheel if name.endswith(".py")) == sorted(sources().values())


def test_the_wheel_holds_only_stemma(wheel: list[str]) -> None:
    assert {name.split("/")[0].split("-")[0] for name in wheel} == {"stemma"}
    assert "stemma/py.typed" in wheel


def test_the_wheel_brings_the_command(wheel: list[str]) -> None:
    assert any(name.endswith(".dist-info/entry_points.txt") for name in wheel)


def imported(tree: ast.AST) -> list[str]:
    """Return the modules that a module imports when it is imported: not those inside functions or for types only."""
    found: list[str] = []
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            found.append(node.module or "")
            found += [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            continue
        elif not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            found += imported(node)
    return found


def test_imported_sees_what_runs_at_import_only() -> None:
    tree = ast.parse("import a\nif x:\n    from b import c\ndef f():\n    import d\nclass K:\n    import e\n")
    assert imported(tree) == ["a", "b", "b.c", "e"]


def test_the_library_imports_neither_dagster_nor_resources() -> None:
    guilty = {
        name: [
            module
            for module in imported(ast.parse((ROOT / name).read_text(encoding="utf-8")))
            if ORCHESTRATION.match(module)
        ]
        for name in sources()
        if name.startswith("stemma/") and not name.startswith(WIRING)
    }
    assert {name: modules for name, modules in guilty.items() if modules} == {}


def test_only_assets_sensors_and_the_pipeline_know_dagster() -> None:
    knowing = {
        name
        for name in sources()
        if any(
            re.match(r"dagster(\.|$)", module)
            for module in imported(ast.parse((ROOT / name).read_text(encoding="utf-8")))
        )
    }
    assert {name for name in knowing if not name.startswith(("assets/", "sensors/"))} == {
        "resources/pipeline.py",
        "stemma/definitions.py",
    }


def words() -> dict[str, argparse.ArgumentParser]:
    """Return the parser of each word of the command line."""
    actions = [action for action in parser()._actions if isinstance(action, argparse._SubParsersAction)]
    return dict(actions[0].choices)


def documented() -> dict[str, str]:
    """Return the section of docs/cli.md for each word: from a heading that names it to the next such heading."""
    text = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
    parts = re.split(r"^##+ +`?(?:stemma )?([a-z-]+)\b.*$", text, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


@pytest.mark.parametrize("word", sorted(words()))
def test_every_word_and_option_is_in_docs_cli_md(word: str) -> None:
    section = documented().get(word)
    assert section is not None, f"docs/cli.md has no section '## stemma {word}'"
    everywhere = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
    for action in words()[word]._actions:
        names = action.option_strings or [f"stemma {word}"]
        # What every word has is said once for all.
        place = everywhere if set(names) & {"--help", "--config", "--debug"} else section
        assert any(name in place for name in names), (
            f"docs/cli.md, stemma {word}: {' or '.join(names)} is missing"
        )


def test_docs_cli_md_names_no_option_that_is_not_there() -> None:
    there = {name for word in words().values() for action in word._actions for name in action.option_strings}
    there |= {"--version"}
    named = set(
        re.findall(r"(?<![\w-])--[a-z][a-z-]+", (ROOT / "docs" / "cli.md").read_text(encoding="utf-8"))
    )
    assert named - there == set()
