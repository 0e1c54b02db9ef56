"""What stops whom: readers that can reach nothing else, no code from data, names and titles that give no orders."""

import ast
import contextlib
import html
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import duckdb
import pytest
from harness import Corpus, sentence
from lxml import html as pages
from markdown_it import MarkdownIt

import stemma
from stemma.assets.story import as_text, table
from stemma.cli import main
from stemma.commands.output import harmless
from stemma.commands.published import open_published

ROOT = Path(stemma.__file__).resolve().parents[1]
CODE = sorted(
    path for folder in ("stemma", "assets", "resources", "sensors") for path in (ROOT / folder).rglob("*.py")
)
# Colours, a title of the window, what is typed, a bell, backspaces, the one-byte form of ESC [, text turned around.
ORDERS = "\x1b[31m\x1b]0;owned\x07\x08\x9b2J‮"
TITLE = f"<script>alert(1)</script> ![x](http://127.0.0.1:1/x.png) [y](javascript:alert(1)) {ORDERS}"
NAME = f"note{ORDERS}.md"


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    """Documents whose names, titles, headings and words are orders to a terminal or a browser."""
    made = Corpus(tmp_path_factory.mktemp("security"), chunk={"max_tokens": 60}, embed={"model": "hash:64"})
    written = f"# {TITLE}\n\nThe violin {TITLE} {sentence('orders', 60)}\n"
    made.write(NAME, written)
    made.write(f"copy{ORDERS}.md", written)
    made.write("broken\x1b[2J.pdf", b"%PDF-1.7\nnothing")
    made.write(
        "rows.jsonl", json.dumps({"id": "a\x1b[2Jb", "title": TITLE, "text": sentence("row", 40)}) + "\n"
    )
    made.fill(3)
    made.run()
    return made


# -- readers ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("as_of", [None, "latest"])
@pytest.mark.parametrize(
    "statement",
    [
        "FROM read_text('{file}')",
        "FROM read_blob('{file}')",
        "FROM read_csv('{file}')",
        "FROM '{file}'",
        "FROM glob('{folder}/*')",
        "COPY (SELECT 1) TO '{folder}/out.csv'",
        "ATTACH '{folder}/other.duckdb'",
        "EXPORT DATABASE '{folder}/out'",
        "INSTALL httpfs",
        "LOAD httpfs",
        "SET enable_external_access = true",
        "SET temp_directory = '{folder}'",
        "SET allowed_directories = ['/']",
        "RESET enable_external_access",
    ],
)
def test_a_readers_connection_reaches_nothing_but_the_corpus(
    corpus: Corpus, tmp_path: Path, statement: str, as_of: str | None
) -> None:
    (tmp_path / "file.csv").write_text("a,b\n1,2\n")
    with open_published(corpus.config(), as_of=as_of) as connection:
        assert connection.execute("SELECT count(*) FROM corpus.raw").fetchone() == (7,)
        with pytest.raises(duckdb.Error, match=r"disabled|locked|not allowed|[Pp]ermission|read-only"):
            connection.execute(statement.format(file=tmp_path / "file.csv", folder=tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["file.csv"]


def test_every_command_reads_by_such_a_connection() -> None:
    """Where else a database is opened is known: none of these takes SQL from the command line."""
    opening = {str(path.relative_to(ROOT)) for path in CODE if "duckdb.connect(" in path.read_text()}
    assert opening == {
        "stemma/commands/published.py",  # this one
        "stemma/exports.py",  # the file that an export writes
        "stemma/lineage/as_of.py",  # locked by whoever opens it for somebody's SQL
        "stemma/lineage/comparison.py",  # two published files, compared
        "stemma/cleaning/filters/user_rules.py",  # checks a rule, without access to anything
        "stemma/search/corpus.py",  # stemma.open: a program's own connection
        "resources/queries.py",  # [[sources]] query
        "resources/faults.py",  # reads a damaged file through, to say what is wrong
        "resources/warehouse.py",  # the engine
    }
    commands = [path for path in CODE if path.parent.name == "commands"]
    assert not any("locked=False" in path.read_text() for path in commands)


# -- no code from data --------------------------------------------------------------------------------------------

FORBIDDEN_MODULES = {"marshal", "shelve", "dill", "cloudpickle", "joblib", "yaml", "imp", "runpy"}
FORBIDDEN_CALLS = {"eval", "exec", "compile", "__import__"}


def _trees() -> Iterator[tuple[str, ast.Module]]:
    for path in CODE:
        yield str(path.relative_to(ROOT)), ast.parse(path.read_text())


def _imported(tree: ast.AST) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module.split(".")[0])
    return names


def test_nothing_in_our_code_makes_code_of_data() -> None:
    for name, tree in _trees():
        assert not _imported(tree) & FORBIDDEN_MODULES, name
        for node in ast.walk(tree):
            if not isinstance(node, ast.Call):
                continue
            called = ast.unparse(node.func)
            # A recipe compiles the source of modules, to tell functions apart, and runs nothing of it.
            allowed = (name, called) == ("stemma/incremental/source.py", "compile")
            assert called not in FORBIDDEN_CALLS or allowed, (name, node.lineno)
            assert not any(word.arg == "shell" for word in node.keywords), (name, node.lineno)
            assert called not in ("os.system", "os.popen", "torch.load", "np.load", "numpy.load"), (
                name,
                called,
            )


def test_pickle_goes_one_way_from_the_run_to_its_own_worker() -> None:
    """The run writes it and never reads it; a worker reads it from who started it, a Ray task from its run."""
    users = {name: tree for name, tree in _trees() if "pickle" in _imported(tree)}
    used = {
        name: {
            node.attr
            for node in ast.walk(tree)
            if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "pickle"
        }
        for name, tree in users.items()
    }
    assert used == {
        "resources/workers.py": {"dumps", "PicklingError"},
        "resources/child.py": {"loads"},
        "resources/executors/on_ray.py": {"dumps"},
        "resources/executors/ray_tasks.py": {"loads"},
    }


# -- the terminal -------------------------------------------------------------------------------------------------


def _orders(text: str) -> set[str]:
    return {each for each in text if not each.isprintable() and each not in "\n\t"}


@pytest.fixture
def told(corpus: Corpus, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Run a command; returns all that it prints."""

    def run(*arguments: str) -> str:
        with contextlib.suppress(SystemExit):
            main([*arguments, "--config", str(corpus.root / "stemma.toml")])
        out, err = capsys.readouterr()
        return out + err

    corpus.config()
    return run


def test_nothing_in_documents_gives_a_terminal_orders(corpus: Corpus, told: Callable[..., str]) -> None:
    ids = dict(corpus.query("SELECT parse_filename(uri), document_id::VARCHAR FROM corpus.raw"))
    chunk = corpus.value("SELECT min(chunk_id::VARCHAR) FROM corpus.chunked WHERE text LIKE '%violin%'")
    assert _orders(NAME) == set("\x1b\x07\x08\x9b‮")
    for arguments in (
        ("why", "rows.jsonl"),
        ("why", NAME),
        ("why", "broken\x1b[2J.pdf"),
        ("why", f"unknown{ORDERS}"),
        ("trace", ids[NAME]),
        ("trace", chunk),
        ("search", "violin", "--context", "20"),
        ("search", "violin", "--where", f"uri = 1 + '{ORDERS}'"),
        ("families",),
        ("families", ids[NAME]),
        ("lookup", str(corpus.docs / NAME)),
        ("topics", "--least", "2"),
        ("sql", "SELECT uri, content FROM corpus.raw"),
        ("sql", f"SELECT '{ORDERS}' AS \"{ORDERS}\" FROM nowhere"),
        ("status",),
        ("purge", ids[NAME]),
    ):
        said = told(*arguments)
        assert said
        assert _orders(said) == set(), arguments
        if "--where" not in arguments and arguments[0] not in ("sql", "status", "topics"):
            as_json = told(*arguments, "--json")
            assert _orders(as_json) == set(), arguments


def test_json_says_the_very_same(corpus: Corpus, told: Callable[..., str]) -> None:
    answer = json.loads(told("sql", "SELECT uri, content FROM corpus.raw ORDER BY uri", "--format", "json"))
    expected = corpus.query("SELECT uri, content FROM corpus.raw ORDER BY uri")
    assert [(row["uri"], row["content"]) for row in answer] == expected


def test_what_is_no_order_is_shown_as_it_is() -> None:
    for text in (
        "naïve – “quoted” 日本語 👍",
        "a\tb\nc",
        "non\u00a0breaking",
        "की\u200dक",
        "co\u00adoperate",
    ):
        assert harmless(text) == text
    assert harmless("a\x1b[31mb\x9bc\u202ed\x7f") == "a�[31mb�c�d�"


# -- pages --------------------------------------------------------------------------------------------------------


def test_a_title_is_text_on_the_pages_of_the_ui() -> None:
    """Neither tags nor what Markdown makes tags of: a picture would be fetched by whoever looks at the page."""
    titles = [TITLE, "a | b", "a \\| b", "`code` | <b>", "[link]: http://127.0.0.1", "&lt;i&gt;", "\\<i>"]
    shown = (
        MarkdownIt("commonmark", {"html": True})
        .enable("table")
        .render(table([{"title": title, "more": "x"} for title in titles]).value)
    )
    page = pages.fragment_fromstring(shown, create_parent=True)
    assert {element.tag for element in page.iter()} == {"div", "table", "thead", "tbody", "tr", "th", "td"}
    cells = [cell.text_content() for cell in page.xpath("//tbody/tr/td[1]")]
    wanted = [" ".join(title.split()) for title in titles]
    assert cells[1:] == wanted[1:]
    assert cells[0].startswith("<script>alert(1)</script> ![x](http://127.0.0.1:1/x.png) [y](")
    warning = MarkdownIt("commonmark", {"html": True}).render(f"- {as_text(TITLE)}")
    assert not re.search(r"<(script|img|a)\b", warning)


def test_a_title_is_text_in_the_report(corpus: Corpus, told: Callable[..., str]) -> None:
    told("report")
    report = corpus.path.with_suffix(".report.html").read_text(encoding="utf-8")
    page = pages.document_fromstring(report)
    assert not page.xpath("//script | //img | //*[@href and starts-with(@href, 'javascript')]")
    assert "<script>alert(1)</script>" in html.unescape(report)
    assert _orders(report) == set()
