"""The documentation against the code: what it shows can be pasted and runs, what it lists is complete.

`python tests/test_docs.py` writes the tables in docs/contract.md and docs/configuration.md anew.
"""

import argparse
import re
import shlex
import shutil
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from harness import Corpus

from stemma import datasets
from stemma.cli import parser
from stemma.config import docs_table, load_config

ROOT = Path(__file__).resolve().parents[1]
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "sample/README.md")),
    *sorted((ROOT / "docs").glob("*.md")),
]
GENERATED: dict[str, Callable[[], str]] = {
    "docs/contract.md": datasets.docs_tables,
    "docs/configuration.md": docs_table,
}
GENERATED_PART = re.compile(r"(<!-- Made from [^\n]+ -->\n\n)(.*?)(<!-- end -->\n)", re.S)

BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.M | re.S)
LINK = re.compile(r"\]\(([^)\s]+)\)")
MOST_IMAGE_BYTES = 300_000


def regenerate(page: str) -> str:
    """Return a page with its generated part as the code has it."""
    text = (ROOT / page).read_text(encoding="utf-8")
    fresh, count = GENERATED_PART.subn(lambda match: f"{match[1]}{GENERATED[page]()}{match[3]}", text)
    assert count == 1, f"{page} has no generated part"
    return fresh


def blocks(language: str) -> Iterator[tuple[str, str]]:
    """Yield (page and line, content) for each fenced block in a language."""
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for match in BLOCK.finditer(text):
            if match[1] == language:
                yield f"{page.name}:{text.count(chr(10), 0, match.start()) + 1}", match[2]


def commands(program: str) -> Iterator[tuple[str, list[str]]]:
    """Yield (page and line, arguments) for each line `$ program …`, up to a redirection or comment."""
    for place, block in blocks("console"):
        for line in block.splitlines():
            words = shlex.split(line.removeprefix("$ "), comments=True)
            if line.startswith("$ ") and words[0] == program:
                ends = [words.index(sign) for sign in (">", "<", "|") if sign in words]
                yield place, words[1 : min(ends, default=None)]


def words_of_the_command_line() -> dict[str, argparse.ArgumentParser]:
    (actions,) = (a for a in parser()._actions if isinstance(a, argparse._SubParsersAction))
    return dict(actions.choices)


def section(page: Path, heading: str) -> str:
    """Return what stands below a heading of the second level."""
    parts = re.split(r"^## (.+)$", page.read_text(encoding="utf-8"), flags=re.M)
    return dict(zip(parts[1::2], parts[2::2], strict=True))[heading]


def anchors(page: Path) -> set[str]:
    """Return the anchors that GitHub makes of a page's headings."""
    prose = BLOCK.sub("", page.read_text(encoding="utf-8"))
    headings = re.findall(r"^#+ (.+)$", prose, re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.fixture(scope="session")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    """The sample corpus, published; with a file that cannot be read."""
    corpus = Corpus(tmp_path_factory.mktemp("documented"))
    shutil.copytree(ROOT / "sample" / "corpus", corpus.docs, dirs_exist_ok=True)
    corpus.write("broken.pdf", b"%PDF-1.4 broken")
    corpus.run()
    return corpus


def named(items: Iterator[tuple[str, str]]) -> list[object]:
    return [pytest.param(content, id=place) for place, content in items]


def test_every_fault_has_its_test() -> None:
    """docs/reliability.md names tests as `test_file.py::test_name`, or files; there are all of them."""
    rows = [
        line for line in section(ROOT / "docs/reliability.md", "Faults").splitlines() if line.startswith("| ")
    ]
    for row in rows[1:]:
        named = re.findall(r"`(test_\w+\.py)(?:::(test_\w+))?`", row.rsplit(" | ", 1)[1])
        assert named, row
        for file, test in named:
            text = (ROOT / "tests" / file).read_text(encoding="utf-8")
            assert not test or f"def {test}(" in text, f"{file}::{test}"


@pytest.mark.parametrize("page", GENERATED)
def test_generated_tables_are_up_to_date(page: str) -> None:
    assert (ROOT / page).read_text(encoding="utf-8") == regenerate(page), "run: python tests/test_docs.py"


@pytest.mark.parametrize("query", named(blocks("sql")))
def test_every_query_runs_and_returns_rows(query: str, sample: Corpus) -> None:
    rows = sample.query(query)
    assert rows
    # A query for a single truth shows that something holds.
    if isinstance(rows[0][0], bool):
        assert rows == [(True,)]


@pytest.mark.parametrize("code", named(blocks("python")))
def test_every_python_block_runs(code: str, sample: Corpus, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(sample.root)
    exec(compile(code, "documentation", "exec"), {})


@pytest.mark.parametrize("toml", named(blocks("toml")))
def test_every_configuration_is_valid(toml: str, tmp_path: Path) -> None:
    file = tmp_path / "stemma.toml"
    file.write_text(toml, encoding="utf-8")
    load_config(file, environ={"ARCHIVE": "/srv/archive", "STEMMA_WEBHOOK": "https://example.org/hook"})


def test_every_command_parses() -> None:
    shown = list(commands("stemma"))
    assert {arguments[0] for _place, arguments in shown} == set(words_of_the_command_line())
    for place, arguments in shown:
        try:
            parser().parse_args(arguments)
        except SystemExit:
            pytest.fail(f"{place}: stemma {shlex.join(arguments)}")


def test_every_query_on_a_command_line_runs(sample: Corpus) -> None:
    queries = [arguments[1] for _place, arguments in commands("stemma") if arguments[0] == "sql"]
    assert queries
    for query in queries:
        if query != "-":
            assert sample.query(query), query


def test_commands_named_in_prose_exist() -> None:
    known = {*words_of_the_command_line(), "WORD"}
    for page in PAGES:
        for word in re.findall(r"`stemma (\w[\w-]*)", page.read_text(encoding="utf-8")):
            planned = page.name == "operations.md" and f"- `stemma {word}`\n" in section(
                page, "Not there yet"
            )
            assert word in known or planned, f"{page.name}: stemma {word}"


def test_every_word_and_option_is_documented() -> None:
    page = ROOT / "docs" / "cli.md"
    for_all = page.read_text(encoding="utf-8").split("\n## ")[0]
    for name, word in words_of_the_command_line().items():
        documented = section(page, name) + for_all
        for option in (option for action in word._actions for option in action.option_strings):
            assert re.search(rf"`[^`]*(?<![\w-]){option}(?![\w-])", documented), f"stemma {name} {option}"


def test_every_make_target_exists() -> None:
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M))
    for page in PAGES:
        for target in re.findall(r"(?:^\$ |`)make ([\w-]+)", page.read_text(encoding="utf-8"), re.M):
            assert target in targets, f"{page.name}: make {target}"


def test_every_link_leads_somewhere() -> None:
    for page in PAGES:
        for link in LINK.findall(BLOCK.sub("", page.read_text(encoding="utf-8"))):
            if link.startswith("https://"):
                continue
            path, _, anchor = link.partition("#")
            target = page.parent / path if path else page
            assert target.exists(), f"{page.name}: {link}"
            assert not anchor or anchor in anchors(target), f"{page.name}: {link}"


def test_every_dependency_has_its_reason() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    reasons = section(ROOT / "README.md", "Dependencies")
    listed = re.findall(r"^\| ([\w-]+) \| (?!For)", reasons, re.M)
    assert sorted(listed) == sorted(_distribution(line) for line in project["dependencies"])
    for line in project["optional-dependencies"]["dev"]:
        assert _distribution(line) in reasons


def _distribution(requirement: str) -> str:
    return re.split(r"[^\w-]", requirement)[0]


def test_images_are_shown_and_small() -> None:
    shown = {link for page in PAGES for link in LINK.findall(page.read_text(encoding="utf-8"))}
    for image in (ROOT / "docs" / "images").iterdir():
        assert image.stat().st_size < MOST_IMAGE_BYTES, image.name
        assert any(link.endswith(f"images/{image.name}") for link in shown), f"{image.name} is nowhere shown"


if __name__ == "__main__":
    for name in GENERATED:
        (ROOT / name).write_text(regenerate(name), encoding="utf-8")
