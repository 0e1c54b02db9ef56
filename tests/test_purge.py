"""stemma purge: what was purged is in no file below the warehouse's folder, stays out, and all else is as a rebuild."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pytest
from harness import NOTHING, Corpus, sentence

from stemma.cli import main

# Words that stand in one document alone: its text, an earlier text, its name, its title, a record's.
CANARIES = ("zqcanarytext", "zqcanarybefore", "zqcanaryname", "zqcanarytitle", "zqcanaryrecord")
VECTORS = {"model": "hash:64"}


@dataclass
class Purged:
    """A corpus of which things were purged, what was found in its files before, and what the command said."""

    corpus: Corpus
    root: Path
    ids: dict[str, str]
    found_before: set[str]
    vector: bytes
    said: dict[str, Any]


def command(capsys_or_none: Any, *arguments: str) -> tuple[int, str, str]:
    """Run a command in this process: exit code, output, errors."""
    code = 0
    try:
        code = main(list(arguments))
    except SystemExit as ended:
        code = int(ended.code or 0)
    out, err = capsys_or_none.readouterr()
    return code, out, err


@pytest.fixture(scope="module", autouse=True)
def dagster_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("DAGSTER_HOME", raising=False)
        patch.setenv("STEMMA_CONFIG", "")
        yield


def tell(root: Path, *arguments: str) -> Any:
    """Run a command that prints JSON in a process of its own, as a person would; returns what it said."""
    done = subprocess.run(
        [sys.executable, "-m", "stemma.cli", *arguments, "--json", "--config", str(root / "stemma.toml")],
        capture_output=True,
        text=True,
        env={name: value for name, value in os.environ.items() if name != "DAGSTER_HOME"},
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def secret(*words: str) -> str:
    return f"{' '.join(words)} {sentence('secret', 90)}"


@pytest.fixture(scope="module")
def purged(tmp_path_factory: pytest.TempPathFactory) -> Purged:
    root = tmp_path_factory.mktemp("purged")
    corpus = Corpus(root, chunk={"max_tokens": 40}, embed=VECTORS, deduplicate={"keep": "longest"})
    corpus.set(search={"index": "usearch", "min_chunks": 5})
    corpus.fill(8, words=60)
    corpus.write("zqcanaryname.txt", secret("zqcanarybefore", "and", "more"))
    # Nearly the same, so that it was removed for the other: it takes its place.
    corpus.write("alike.txt", secret("shared"))
    corpus.write("twin1.txt", sentence("twin", 40))
    corpus.write("twin2.txt", sentence("twin", 40))
    corpus.write(
        "untouched.html", "<html><head><title>zqcanarytitle</title></head><body><p>" + sentence("h", 60)
    )
    lines = [{"id": f"r{n}", "text": sentence(f"row {n}", 30)} for n in range(3)]
    lines[1]["text"] += " zqcanaryrecord"
    corpus.write("rows.jsonl", "".join(json.dumps(line) + "\n" for line in lines))
    corpus.config()
    tell(root, "run")
    corpus.write("zqcanaryname.txt", secret("zqcanarytext", "and", "more"))
    tell(root, "run")
    tell(root, "report")
    # What a process that was killed left: the beginning of a copy.
    shutil.copyfile(corpus.path, corpus.path.with_name(".corpus.duckdb.1.next"))
    spilled = corpus.path.with_name("corpus.duckdb.tmp")
    spilled.mkdir()
    (spilled / "duckdb_temp_storage-0.tmp").write_text("a reader's zqcanarytext")
    ids = dict(
        corpus.query("SELECT coalesce(record, parse_filename(uri)), document_id::VARCHAR FROM corpus.raw")
    )
    query = (
        "SELECT embedding FROM corpus.embedded JOIN corpus.chunked USING (chunk_id) WHERE text LIKE '%{}%'"
    )
    vector = np.array(corpus.value(query.format("zqcanarytext")), np.float32).tobytes()
    found_before = set(find(root, CANARIES, vector))
    said = tell(
        root, "purge", ids["twin1.txt"], "--uri", str(corpus.docs / "zqcanaryname.txt"),
        "--where", "record = 'r1' OR ends_with(uri, 'untouched.html')", "--reason", "asked to", "--yes",
    )  # fmt: skip
    return Purged(corpus, root, ids, found_before, vector, said)


# -- what is in the files ---------------------------------------------------------------------------------------


def find(root: Path, words: tuple[str, ...], vector: bytes) -> Iterator[str]:
    """Yield what is found in any file but the sources: words, as bytes and as values, and "vector" for its bytes."""
    forms = [(word, word.encode(form)) for word in words for form in ("utf-8", "utf-16-le", "utf-16-be")]
    for path in files(root):
        content = path.read_bytes()
        yield from (word for word, data in forms if data in content)
        if vector in content:
            yield "vector"
        values = {".duckdb": database_values, ".arrow": arrow_values}.get(path.suffix)
        if values and content:
            text = values(path)
            yield from (word for word in words if word in text)


def files(root: Path) -> list[Path]:
    return [path for path in root.rglob("*") if path.is_file() and "docs" not in path.parts]


def database_values(path: Path) -> str:
    """Return all values of all tables of a DuckDB file, as text."""
    with duckdb.connect(str(path), read_only=True) as connection:
        tables = connection.execute("SELECT schema_name, table_name FROM duckdb_tables()").fetchall()
        assert tables
        return str([connection.execute(f'FROM "{schema}"."{name}"').fetchall() for schema, name in tables])


def arrow_values(path: Path) -> str:
    with pa.OSFile(str(path)) as file:
        return str(pa.ipc.open_file(file).read_all().to_pydict())


def test_nothing_of_it_is_in_any_file(purged: Purged) -> None:
    assert purged.found_before == {*CANARIES, "vector"}, "the search would not find them"
    left = [path.relative_to(purged.root) for path in files(purged.root)]
    assert not any("report" in path.name or path.suffix in (".next", ".tmp") for path in left)
    assert any(".dagster" in path.parts for path in left)
    assert any("vectors" in path.parts for path in left), "the approximate index is made anew"
    assert set(find(purged.root, CANARIES, purged.vector)) == set()


def test_what_is_left_is_what_a_rebuild_gives(purged: Purged) -> None:
    corpus = purged.corpus
    assert corpus.differences() == []
    assert corpus.failed_checks() == []
    names = {uri.rsplit("/", 1)[1] for (uri,) in corpus.query("SELECT DISTINCT uri FROM corpus.raw")}
    assert {"alike.txt", "twin2.txt", "rows.jsonl", "doc000.txt"} <= names
    assert not {"zqcanaryname.txt", "twin1.txt", "untouched.html"} & names
    kept = "SELECT count(*) FROM corpus.deduplicated JOIN corpus.raw USING (document_id) WHERE uri LIKE '%/alike.txt'"
    assert corpus.value(kept) == 1, "what it was kept for has taken its place"
    assert purged.said["documents"] == 4
    assert purged.said["runs_deleted"] == 2
    assert purged.said["runs_left"] == 0


def test_the_ledger_names_no_path_and_no_text(purged: Purged) -> None:
    rows = purged.corpus.query("SELECT document_id::VARCHAR, content_hash, reason FROM lineage.purged")
    contents = {document: content for document, content, _reason in rows}
    assert {reason for _document, _content, reason in rows} == {"asked to"}
    assert set(contents) == {
        purged.ids[name] for name in ("zqcanaryname.txt", "twin1.txt", "untouched.html", "r1")
    }
    assert contents[purged.ids["twin1.txt"]] is None, "another document has that content"
    assert contents[purged.ids["r1"]] is not None


def test_it_stays_out(purged: Purged, tmp_path: Path) -> None:
    """Whatever becomes of the file, the state and the name."""
    corpus = Corpus(tmp_path, chunk={"max_tokens": 40}, embed=VECTORS, deduplicate={"keep": "longest"})
    shutil.copytree(purged.corpus.docs, corpus.docs, dirs_exist_ok=True)
    shutil.copytree(purged.root / ".stemma", tmp_path / ".stemma")
    corpus.set(search={"index": "usearch", "min_chunks": 5})
    count = corpus.count("corpus.raw")
    assert corpus.run().computed == NOTHING
    corpus.write("zqcanaryname.txt", secret("another", "content"))
    corpus.write("renamed.html", (corpus.docs / "untouched.html").read_bytes())
    corpus.run()
    assert corpus.count("corpus.raw") == count, (
        "the file came with another content, a content with another name"
    )
    shutil.rmtree(corpus.path.with_suffix(".work"))
    corpus.run()
    assert corpus.count("corpus.raw") == count, "the state was lost"
    assert corpus.differences() == []
    corpus.purges.unlink()
    corpus.run()
    assert corpus.count("corpus.raw") == count, "the list was lost: the state has it"
    # Whoever takes a line out of the list takes the purge back.
    lines = [line for line in corpus.purges.read_text().splitlines() if purged.ids["r1"] not in line]
    corpus.purges.write_text("\n".join(lines) + "\n")
    corpus.run()
    assert corpus.count("corpus.raw") == count + 1
    assert corpus.differences() == []
    corpus.purges.write_text("no entry\n")
    with pytest.raises(Exception, match=r"corpus\.purged\.jsonl, line 1: no entry of the list"):
        corpus.run()


# -- the command ------------------------------------------------------------------------------------------------


def test_there_is_nothing_to_finish_where_nothing_was_purged(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "stemma.toml").write_text('[[sources]]\npath = "docs"\n')
    code, _out, err = command(capsys, "purge", "--yes", "--config", str(tmp_path / "stemma.toml"))
    assert code == 2
    assert "nothing was purged before" in err
    assert [path.name for path in tmp_path.iterdir()] == ["stemma.toml"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["6c9ba8ac-0000-0000-0000-000000000000"], "no document of the corpus has this id"),
        (["notes.txt"], "'notes.txt' is no id of a document"),
        (["--uri", "/nowhere/notes.txt"], "/nowhere/notes.txt: no file of the corpus"),
        (["--where", "uri = 'nothing'"], "no document of the corpus meets"),
        (["--where", "uri"], "is not true or false"),
        (["--where", "uri IN (SELECT content FROM read_text('/etc/passwd'))"], "without subquery"),
    ],
)
def test_what_is_not_there_is_refused(
    purged: Purged, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    code, out, err = command(
        capsys, "purge", *arguments, "--yes", "--config", str(purged.root / "stemma.toml")
    )
    assert (code, out) == (2, "")
    assert message in err
    assert len(err.splitlines()) == 1


def test_without_yes_it_lists_and_does_nothing(purged: Purged, capsys: pytest.CaptureFixture[str]) -> None:
    where = ["--where", "uri LIKE '%alike.txt'", "--config", str(purged.root / "stemma.toml")]
    before = purged.corpus.path.stat().st_ino
    code, out, _err = command(capsys, "purge", *where)
    assert code == 0
    assert "alike.txt" in out
    assert "nothing was done" in out
    assert purged.corpus.path.stat().st_ino == before
    code, out, _err = command(capsys, "purge", "--json", "--config", str(purged.root / "stemma.toml"))
    assert {row["document_id"] for row in json.loads(out)["purged"]} >= {purged.ids["r1"]}


# -- kill -9 ----------------------------------------------------------------------------------------------------

KILLED = """
import os, signal, sys
from stemma.cli import main
from stemma.resources import memo, warehouse
from stemma.resources.engine import purge

def die(*_arguments, **_named):
    os.kill(os.getpid(), signal.SIGKILL)

def die_at_second(module, name):
    real, calls = getattr(module, name), []
    def counted(*arguments, **named):
        calls.append(1)
        return die() if len(calls) == 2 else real(*arguments, **named)
    setattr(module, name, counted)

POINTS = {
    "listed": lambda: setattr(purge, "update_purged", die),
    "worked out": lambda: setattr(purge, "publish", die),
    "memo in part": lambda: die_at_second(memo.Segments, "_rewrite"),
    "state rewritten": lambda: die_at_second(warehouse, "_rewrite"),
}
POINTS[sys.argv[1]]()
main(sys.argv[2:])
"""


@pytest.mark.slow
def test_killed_at_any_point_it_can_be_read_and_finished(tmp_path: Path) -> None:
    corpus = Corpus(tmp_path, chunk={"max_tokens": 40}, embed=VECTORS)
    corpus.fill(4, words=60)
    corpus.write("zqcanaryname.txt", secret("zqcanarytext"))
    corpus.run()
    document = corpus.value("SELECT document_id::VARCHAR FROM corpus.raw WHERE uri LIKE '%zqcanaryname%'")
    for point in ("listed", "worked out", "memo in part", "state rewritten"):
        arguments = ["purge", document, "--yes", "--config", str(tmp_path / "stemma.toml")]
        done = subprocess.run(
            [sys.executable, "-c", KILLED, point, *arguments], capture_output=True, text=True
        )
        assert done.returncode == -signal.SIGKILL, f"{point}: {done.stderr}"
        assert corpus.failed_checks() == []
        assert corpus.count("corpus.raw") == (5 if point in ("listed", "worked out") else 4)
    assert "zqcanarytext" in set(find(tmp_path, CANARIES, b"no vector")), (
        "it was killed too late to prove anything"
    )
    tell(tmp_path, "purge", "--yes")
    assert set(find(tmp_path, CANARIES, b"no vector")) == set()
    assert corpus.differences() == []
    assert corpus.run().computed == NOTHING


@pytest.mark.slow
def test_a_purge_waits_for_a_run_that_works(tmp_path: Path) -> None:
    """It would add to the memo what the purge takes away."""
    corpus = Corpus(tmp_path, embed=VECTORS)
    corpus.fill(2)
    corpus.run()
    run = corpus.start()
    arguments = ["--uri", str(corpus.docs / "doc000.txt"), "--yes", "--config", str(tmp_path / "stemma.toml")]
    purge = subprocess.Popen(
        [sys.executable, "-m", "stemma.cli", "purge", *arguments], stderr=subprocess.PIPE, text=True
    )
    assert purge.stderr is not None
    assert "another run works on" in purge.stderr.readline()
    assert purge.poll() is None
    run.warehouse.close()
    assert purge.wait(60) == 0
    assert corpus.count("corpus.raw") == 1
