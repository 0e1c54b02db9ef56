"""The documentation against the code: what it shows can be pasted and runs, what it lists is complete.

`python tests/test_docs.py` writes the tables in docs/contract.md and docs/configuration.md anew.
"""

import argparse
import io
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import dagster as dg
import duckdb
import pytest
import yaml
from harness import Corpus, sentence

from stemma import datasets
from stemma.cli import main, parser
from stemma.config import docs_table, load_config
from stemma.definitions import JOB, build_definitions

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

# Console lines that are not executed here, by how they begin, and what stands for them.
NOT_EXECUTED = {
    "stemma ui": "serves until Ctrl-C: test_graphql.py, test_browser.py, test_deployment.py",
    "stemma run handbook": "needs a store of S3: test_sources.py reads URLs through fsspec",
    "make": "makes the environment that tests run in; that there is such a target is tested below",
    ".venv/bin/python tests/": "writes files of the repository; that these are as they would be written is tested",
    "source": "is for a person's shell",
    "export": "is for a person's shell: test_deployment.py and test_ray.py set these variables",
    "git clone": "needs the network",
    "pip install": "needs the network; test_deployment.py looks whether all that is installed is pinned",
    "sudo": "needs root: test_deployment.py has a server and an instance of its own",
    "set -a": "is for a person's shell: test_deployment.py sets these variables",
    "docker compose": "needs Docker: test_deployment.py starts the services' commands as processes",
    "dagster-webserver": "serves until Ctrl-C: test_deployment.py",
    "pg_dump": "needs that server, or one more: PostgreSQL's own",
    "createdb": "the same",
    "ray start": "needs two machines: test_ray.py has a cluster on loopback",
}
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


def console_blocks() -> Iterator[tuple[str, list[str]]]:
    """Yield (page and line, the commands of a console block in their order)."""
    for place, block in blocks("console"):
        yield place, [line.removeprefix("$ ") for line in block.splitlines() if line.startswith("$ ")]


def launchpad_settings() -> Iterator[tuple[str, str]]:
    """Yield (page, settings) for each YAML block, and for what is said of `resources: …` and `ops: …` in a sentence."""
    yield from blocks("yaml")
    for page in PAGES:
        for setting in re.findall(r"`((?:resources|ops): \{[^`]+)`", page.read_text(encoding="utf-8")):
            yield page.name, setting


def is_executed(line: str) -> bool:
    return not line.startswith(tuple(NOT_EXECUTED))


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


@dataclass(frozen=True)
class Desk:
    """What the pages speak of: a home with folders of documents, a configuration, and a corpus of three publications.

    `saved` is a copy to begin each block with; `words` is what stands in the pages for what differs here.
    """

    home: Path
    saved: Path
    words: dict[str, str]

    def tidy(self) -> None:
        """Put all back as it was."""
        shutil.rmtree(self.home)
        shutil.copytree(self.saved, self.home)


@pytest.fixture(scope="session")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Desk:
    home = tmp_path_factory.mktemp("desk") / "home"
    files: dict[str, str | bytes] = {
        "stemma.toml": "".join(f'[[sources]]\npath = "{name}"\n' for name in ("handbook", "notes", "pages"))
        + '[embed]\nmodel = "hash:384"\n',
        "notes/stemma.toml": '[[sources]]\npath = "."\n[embed]\nmodel = "hash:384"\n',
        "handbook/it.md": "# Passwords\n\nPasswords expire after 90 days.\n",
        "pages/report.md": "# Report\n\n" + sentence("report", 80),
        "query.sql": "FROM corpus.raw",
        "my_module.py": "def split(text, max_tokens, overlap):\n    return [(0, len(text))]\n",
        "questions.jsonl": '{"question": "How long is one valid?", "expected": "Passwords expire after 90 days."}',
        "page.html": f"<p>{sentence('page', 60)}</p>",
        "downloads/report.pdf": b"%PDF-1.4 broken",
        "backup/about": "where copies go",
    }
    files |= {f"notes/{name}.md": f"# {name}\n\n{sentence(name, 50)}" for name in ("meeting", "joe", "draft")}
    files |= {"notes/jane.md": "---\nauthor: Jane Doe\n---\n" + sentence("jane", 50)}
    files |= {"notes/example.txt": sentence("example", 50)}
    for place in ("bzip2/manual.html", "bzip2/manual.texi.gz"):
        files[f"handbook/{place}"] = (ROOT / "sample/corpus" / place).read_bytes()
    files["deploy/.env.example"] = (ROOT / "deploy/.env.example").read_bytes()
    for place in ("sqlite/releaselog/3_11_0.html", "sqlite/releaselog/3_11_1.html"):
        files[f"pages/{place}"] = (ROOT / "sample/corpus" / place).read_bytes()
    for place, content in files.items():
        (home / place).parent.mkdir(parents=True, exist_ok=True)
        (home / place).write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        patch.setenv("DAGSTER_HOME", str(home / ".dagster"))
        for change in ("", "\n\nOne may have it changed.", "\n\nNobody else may."):
            for place in ("handbook/it.md", "pages/report.md"):
                with (home / place).open("a", encoding="utf-8") as file:
                    file.write(change)
            assert main(["run", "--quiet"]) == 0
    shutil.copytree(home, saved := home.parent / "saved")
    with duckdb.connect(str(home / ".stemma" / "corpus.duckdb"), read_only=True) as corpus:
        ((run,),) = corpus.execute("SELECT run_id FROM lineage.runs ORDER BY number LIMIT 1").fetchall()
        ((document,),) = corpus.execute(
            "SELECT document_id::VARCHAR FROM corpus.raw WHERE ends_with(uri, 'bzip2/manual.html')"
        ).fetchall()
    return Desk(
        home,
        saved,
        {
            "74f03a2d": run[:8],
            "5e940b78-b276-a5e4-fb56-c0417814f77b": document,
            "0b61241d-7c1b-98a4-3a1c-3bdb01cdde55": document,
            "5e940b78": document[:8],
            "/srv/notes": str(home / "notes"),
            "/backup/": f"{home}/backup/",
        },
    )


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


@pytest.mark.parametrize("settings", named(launchpad_settings()))
def test_every_setting_of_the_launchpad_is_valid(settings: str, sample: Corpus) -> None:
    given = yaml.safe_load(settings)
    job = build_definitions(sample.config()).resolve_job_def("audit" if "ops" in given else JOB)
    dg.validate_run_config(job, given)


def test_every_command_parses() -> None:
    shown = list(commands("stemma"))
    assert {arguments[0] for _place, arguments in shown} == set(words_of_the_command_line())
    for place, arguments in shown:
        try:
            parser().parse_args(arguments)
        except SystemExit:
            pytest.fail(f"{place}: stemma {shlex.join(arguments)}")


@pytest.mark.parametrize(
    "lines",
    [pytest.param(lines, id=place) for place, lines in console_blocks() if any(map(is_executed, lines))],
)
def test_every_command_runs(lines: list[str], desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """The lines of a block one after the other, each with exit code 0; those of NOT_EXECUTED are passed over."""
    desk.tidy()
    monkeypatch.chdir(desk.home)
    monkeypatch.setenv("HOME", str(desk.home))
    monkeypatch.setenv("DAGSTER_HOME", str(desk.home / ".dagster"))
    for line in filter(is_executed, lines):
        for word, here in desk.words.items():
            line = line.replace(word, here)
        program, *arguments = shlex.split(line, comments=True)
        if program == "cd":
            monkeypatch.chdir(os.path.expanduser(*arguments))
        elif program == "stemma":
            if "<" in arguments:
                piped = io.BytesIO(Path(arguments[-1]).read_bytes())
                monkeypatch.setattr("sys.stdin", io.TextIOWrapper(piped))
            ends = [arguments.index(sign) for sign in (">", "<") if sign in arguments]
            given = [os.path.expanduser(word) for word in arguments[: min(ends, default=None)]]
            assert main(given) == 0, line
        else:
            subprocess.run(["sh", "-c", line], check=True)


def test_every_reason_not_to_run_a_command_is_needed() -> None:
    lines = [line for _place, block in console_blocks() for line in block]
    assert [start for start in NOT_EXECUTED if not any(line.startswith(start) for line in lines)] == []


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")
def test_systemd_takes_every_unit(tmp_path: Path) -> None:
    for _place, block in blocks("ini"):
        for name, unit in re.findall(
            r"^# /etc/systemd/system/([\w.-]+).*\n((?:(?!# /etc).*\n)+)", block, re.M
        ):
            # Commands must be there.
            (tmp_path / name).write_text(
                re.sub(r"^ExecStart=\S+", f"ExecStart={sys.executable}", unit, flags=re.M)
            )
    units = sorted(map(str, tmp_path.iterdir()))
    assert len(units) == 4
    # Of a key that it does not know it only warns.
    assert subprocess.run(["systemd-analyze", "verify", *units], stderr=subprocess.PIPE).stderr == b""


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
