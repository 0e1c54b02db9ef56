"""The command line: every word, its exit codes, and one clear line for every error."""

import csv
import io
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import pyarrow.parquet as pq
import pytest
from harness import published_bytes, sentence

from stemma.cli import main
from stemma.config import REMEMBERED_FILE

STEMMA = str(Path(sys.executable).with_name("stemma"))


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dagster_home")
    (folder / "dagster.yaml").write_text("telemetry:\n  enabled: false\n")
    return folder


@pytest.fixture(autouse=True)
def surroundings(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DAGSTER_HOME", str(home))
    # What a command sets in this process is undone after the test.
    monkeypatch.setenv("STEMMA_CONFIG", "")


def write_documents(docs: Path) -> None:
    docs.mkdir(parents=True)
    (docs / "guide.md").write_text(f"# How to tune a violin\n\n{sentence('guide', 60)}\n")
    (docs / "copy.md").write_text(f"# How to tune a violin\n\n{sentence('guide', 60)}\n")
    (docs / "orchard.txt").write_text("An orchard of almond trees in the valley. " + sentence("orchard", 300))
    (docs / "empty.txt").write_text("   \n")
    (docs / "sub").mkdir()
    (docs / "sub" / "rows.jsonl").write_text(
        "".join(json.dumps({"id": f"r{n}", "text": sentence(f"row {n}", 30)}) + "\n" for n in range(3))
    )
    (docs / "broken.pdf").write_bytes(b"%PDF-1.7\nnothing follows\n")
    for number in range(12):
        (docs / f"note{number:02}.txt").write_text(sentence(f"note {number}", 30))


def write_config(root: Path, model: str = "hash:384") -> Path:
    file = root / "stemma.toml"
    file.write_text(f'[[sources]]\npath = "docs"\n[embed]\nmodel = "{model}"\n[chunk]\nmax_tokens = 80\n')
    return file


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, home: Path) -> Path:
    """A folder with stemma.toml, documents and a published corpus, for the words that only read."""
    root = tmp_path_factory.mktemp("made")
    write_documents(root / "docs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DAGSTER_HOME", str(home))
        patch.setenv("STEMMA_CONFIG", "")
        assert main(["run", "--config", str(write_config(root)), "--quiet"]) == 0
    return root


@pytest.fixture
def here(made: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Be in the folder with the published corpus."""
    monkeypatch.chdir(made)
    return made


@pytest.fixture
def fresh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Be in a folder of documents where nothing has run."""
    write_documents(tmp_path / "docs")
    write_config(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def copied(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Be in a folder with a copy of the published corpus, of the same documents: for what changes or damages it."""
    shutil.copytree(made / ".stemma", tmp_path / ".stemma")
    text = (made / "stemma.toml").read_text()
    (tmp_path / "stemma.toml").write_text(text.replace('"docs"', f'"{made / "docs"}"'))
    monkeypatch.chdir(tmp_path)
    return tmp_path


class Told:
    """What a command said: exit code, standard output, standard error."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    def is_one_line(self, code: int, *parts: str) -> None:
        """Check that it was refused with one clear line."""
        assert self.code == code, self.err
        lines = [line for line in self.err.splitlines() if line.strip()]
        assert len(lines) == 1, self.err
        assert lines[0].startswith("stemma: ")
        assert "Traceback" not in self.err
        for part in parts:
            assert part in lines[0]


@pytest.fixture
def stemma(capsys: pytest.CaptureFixture[str]) -> Any:
    """Run a command in this process."""

    def call(*arguments: str) -> Told:
        capsys.readouterr()
        try:
            code = main(arguments)
        except SystemExit as stop:
            code = int(stop.code or 0)
        said = capsys.readouterr()
        return Told(code, said.out, said.err)

    return call


def process(*arguments: str, cwd: Path, **options: Any) -> Told:
    """Run a command as a process of its own."""
    done = subprocess.run(
        [STEMMA, *arguments], cwd=cwd, capture_output=True, text=True, timeout=120, **options
    )
    return Told(done.returncode, done.stdout, done.stderr)


def query(path: Path, sql: str) -> list[tuple[Any, ...]]:
    with duckdb.connect(str(path), read_only=True) as connection:
        return connection.execute(sql).fetchall()


CORPUS = Path(".stemma") / "corpus.duckdb"


# -- help and start ------------------------------------------------------------------------------------------------


def test_help_loads_nothing_heavy() -> None:
    heavy = ("torch", "transformers", "dagster", "duckdb", "pyarrow", "numpy", "trafilatura")
    code = (
        "import sys\n"
        "from stemma.cli import parser; parser().format_help()\n"
        f"print([m for m in {heavy!r} if m in sys.modules])"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert said.strip() == "[]"


def test_a_run_with_nothing_to_do_loads_no_model_library(here: Path) -> None:
    code = (
        "import sys; from stemma.cli import main; code = main(['run', '--quiet', '--json'])\n"
        "heavy = [m for m in ('torch', 'transformers', 'trafilatura', 'scipy') if m in sys.modules]\n"
        "print(code, heavy, file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=here, check=True)
    assert done.stderr.strip().splitlines()[-1] == "0 []"
    assert sum(row["rows_computed"] for row in json.loads(done.stdout)["datasets"].values()) == 0


def test_every_word_has_help(stemma: Any) -> None:
    for word in (
        "run",
        "status",
        "sql",
        "search",
        "topics",
        "families",
        "lookup",
        "select",
        "trace",
        "why",
        "verify",
        "compact",
        "ui",
    ):
        told = stemma(word, "--help")
        assert told.code == 0
        assert f"usage: stemma {word}" in told.out


def test_version(stemma: Any) -> None:
    assert stemma("--version").out.startswith("stemma 0.")


@pytest.mark.parametrize(
    "wrong",
    [[], ["rnu"], ["run", "--no-such-option"], ["sql"], ["search", "x", "-k", "many"], ["search", "\udcff"]],
)
def test_wrong_use_of_the_command_line_exits_2(stemma: Any, wrong: list[str]) -> None:
    stemma(*wrong).is_one_line(2, "--help")


# -- run -----------------------------------------------------------------------------------------------------------


def test_run_prints_what_came_of_the_documents(copied: Path, stemma: Any) -> None:
    told = stemma("run")
    assert told.code == 0, told.err
    lines = told.out.splitlines()
    heads = ["documents", "in", "kept", "dropped", "failed", "families", "chunks", "vectors"]
    tables = ("deduplicated", "chunked")
    kept, chunks = (
        str(query(copied / CORPUS, f"SELECT count(*) FROM corpus.{table}")[0][0]) for table in tables
    )
    assert [line.split() for line in lines if "failed" in line] == [heads]
    assert ["20", kept, "2", "1", "1", chunks, chunks] in [line.split() for line in lines], told.out
    for said in ("empty", "exact", "seconds", "Next", "stemma search", "lineage.errors", "broken.pdf"):
        assert said in told.out
    assert all(len(line) <= 200 for line in lines)
    assert "\x1b" not in told.out + told.err, "no colours where there is no terminal"


def test_run_says_that_nothing_has_changed(copied: Path, stemma: Any) -> None:
    before = query(copied / CORPUS, "SELECT count(DISTINCT run_id) FROM lineage.runs")[0][0]
    told = stemma("run", "--quiet").out.splitlines()[1]
    assert ": nothing has changed; the run was added to lineage.runs, " in told
    assert query(copied / CORPUS, "SELECT count(DISTINCT run_id) FROM lineage.runs") == [(before + 1,)]
    changed = stemma("run", "--quiet", "--set", "chunk.max_tokens=60")
    assert ": published, " in changed.out.splitlines()[1]


def test_run_of_a_path_needs_no_configuration_and_is_remembered(
    tmp_path: Path, stemma: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_documents(tmp_path / "docs")
    monkeypatch.chdir(tmp_path)
    # The default model is tested in test_embedding.py: here only that no configuration is needed to get so far.
    assert stemma("run", "docs", "--select", "raw", "--quiet").code == 0
    assert (tmp_path / REMEMBERED_FILE).exists()
    told = stemma("run", "--select", "raw", "--json")
    assert told.code == 0
    assert told.json["datasets"]["raw"]["rows_in"] == 20
    assert told.json["datasets"]["raw"]["rows_computed"] == 0


def test_run_of_other_paths_leaves_the_configuration_alone(fresh: Path, stemma: Any) -> None:
    before = (fresh / "stemma.toml").read_text()
    told = stemma("run", "docs/guide.md", "docs/sub", "--json")
    assert told.code == 0, told.err
    assert told.json["corpus"]["documents"] == 4
    assert (fresh / "stemma.toml").read_text() == before
    assert not list((fresh / ".stemma").glob("*.toml"))


def test_run_select_stages_without_publishing(fresh: Path, stemma: Any) -> None:
    told = stemma("run", "--select", "raw,cleaned", "--quiet")
    assert told.code == 0
    assert "not published" in told.out
    assert not (fresh / CORPUS).exists()
    assert stemma("run", "--select", "deduplicated,chunked,embedded", "--quiet").code == 0
    assert query(fresh / CORPUS, "SELECT count(*) FROM corpus.raw") == [(20,)]
    stemma("run", "--select", "raw,vectors").is_one_line(2, "vectors", "embedded")


def test_run_dry_run_prints_a_plan_and_does_nothing(fresh: Path, stemma: Any) -> None:
    told = stemma("run", "--dry-run", "--json")
    assert told.code == 0, told.err
    plan = {row["dataset"]: row for row in told.json}
    assert plan["raw"]["rows_in"] == 20
    assert plan["raw"]["rows_computed"] == 19, "the copy has the same content"
    assert plan["raw"]["exact"]
    assert plan["embedded"]["rows_computed"] > 0
    assert not (fresh / CORPUS).exists()


def test_run_dry_run_counts_what_a_change_reaches(copied: Path, stemma: Any) -> None:
    before = published_bytes(copied / CORPUS)
    (copied / "more.txt").write_text(sentence("more", 70))
    with (copied / "stemma.toml").open("a") as file:
        file.write('[[sources]]\npath = "more.txt"\n')
    plan = {row["dataset"]: row for row in stemma("run", "--dry-run", "--json").json}
    assert plan["raw"]["rows_computed"] == plan["cleaned"]["rows_computed"] == 1
    assert 1 <= plan["embedded"]["rows_computed"] <= 10
    told = stemma("run", "--dry-run")
    assert "nothing was done" in told.out
    assert published_bytes(copied / CORPUS) == before


def test_run_stops_a_mass_delete_until_it_is_allowed(copied: Path, stemma: Any) -> None:
    text = (copied / "stemma.toml").read_text()
    (copied / "stemma.toml").write_text(text.replace("[embed]", 'exclude = ["note*"]\n[embed]'))
    before = published_bytes(copied / CORPUS)
    stemma("run", "--quiet").is_one_line(1, "12 of its 20", "--allow-deletes")
    assert published_bytes(copied / CORPUS) == before
    assert stemma("run", "--quiet", "--allow-deletes").code == 0
    assert query(copied / CORPUS, "SELECT count(*) FROM corpus.raw") == [(8,)]


def test_run_fails_with_1_when_a_blocking_check_fails(copied: Path, stemma: Any) -> None:
    with duckdb.connect(str(copied / ".stemma" / "corpus.work" / "state.duckdb")) as state:
        state.execute("DELETE FROM embedded WHERE rowid = (SELECT min(rowid) FROM embedded)")
    before = published_bytes(copied / CORPUS)
    told = stemma("run", "--quiet")
    told.is_one_line(1, "blocking check failed", "nothing was published", "every_chunk_embedded")
    assert published_bytes(copied / CORPUS) == before


def test_run_json_is_for_programs(here: Path, stemma: Any) -> None:
    told = stemma("run", "--json")
    assert told.err == ""
    summary = told.json
    assert uuid.UUID(summary["run_id"])
    assert list(summary["datasets"]) == ["raw", "cleaned", "deduplicated", "chunked", "embedded"]
    assert set(summary["checks"].values()) == {True}
    assert "embedded.every_document_in_one_place" in summary["checks"]
    assert summary["corpus"]["dropped_by"]
    assert summary["publication"]


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["run"], ["nothing to read"]),
        (["run", "no/such/folder"], ["no/such/folder"]),
        (["run", "--config", "none.toml"], ["none.toml"]),
    ],
)
def test_run_of_nothing_is_one_clear_line(
    tmp_path: Path, stemma: Any, monkeypatch: pytest.MonkeyPatch, arguments: list[str], parts: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    told = stemma(*arguments, "--quiet") if arguments != ["run"] else stemma(*arguments)
    told.is_one_line(2, *parts)


def test_a_bad_configuration_is_one_clear_line(fresh: Path, stemma: Any) -> None:
    with (fresh / "stemma.toml").open("a") as file:
        file.write("[deduplicate]\nthreshhold = 0.8\n")
    for word in (["run"], ["status"], ["sql", "SELECT 1"], ["verify"], ["compact"]):
        stemma(*word).is_one_line(2, "stemma.toml, line 8", "threshhold", "threshold")


def test_debug_shows_the_traceback(tmp_path: Path) -> None:
    quiet = process("status", cwd=tmp_path)
    quiet.is_one_line(1, "nothing published yet")
    debug = process("status", "--debug", cwd=tmp_path)
    assert debug.code == 1
    assert "Traceback (most recent call last)" in debug.err
    assert debug.err.splitlines()[-1] == quiet.err.strip()


def test_an_unexpected_error_is_one_line_too(
    here: Path, stemma: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stemma.commands.status.corpus_facts", lambda config: 1 / 0)
    stemma("status").is_one_line(1, "ZeroDivisionError", "division by zero", "--debug")
    with pytest.raises(ZeroDivisionError):
        main(["status", "--debug"])


@pytest.mark.parametrize(
    "damage",
    ["Corrupt database file: computed checksum", "Could not read enough bytes", "Input/output error"],
)
def test_damage_that_is_met_anywhere_is_told(
    here: Path, stemma: Any, monkeypatch: pytest.MonkeyPatch, damage: str
) -> None:
    def fail(_config: Any) -> Any:
        raise duckdb.IOException(damage)

    monkeypatch.setattr("stemma.commands.status.corpus_facts", fail)
    stemma("status").is_one_line(1, damage, "move it away")


def test_ctrl_c_ends_a_run_with_one_line(fresh: Path) -> None:
    for number in range(700):
        (fresh / "docs" / f"more{number}.txt").write_text(sentence(f"more {number}", 60))
    running = subprocess.Popen(
        [STEMMA, "run", "--quiet"], cwd=fresh, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    memo = fresh / ".stemma" / "corpus.work" / "memo"
    wait_for(lambda: (memo / "clean").exists())
    running.send_signal(signal.SIGINT)
    _, err = running.communicate(timeout=60)
    assert running.returncode == 1
    assert "Traceback" not in err
    assert "interrupted" in err
    assert len(err.strip().splitlines()) == 1, err
    assert not (fresh / CORPUS).exists()


# -- status --------------------------------------------------------------------------------------------------------


def test_status_tells_what_the_corpus_holds(here: Path, stemma: Any) -> None:
    told = stemma("status")
    assert told.code == 0
    for part in (str(here / CORPUS), "docs", "20", "Last runs", "Dropped, and why"):
        assert part in told.out
    facts = stemma("status", "--json").json
    assert facts["sources"] == [{"source": "docs", "documents": 20}]
    corpus = facts["corpus"]
    assert corpus["documents"] == corpus["kept"] + corpus["dropped"] + corpus["documents_in_error"] == 20
    assert {row["rule"] for row in corpus["dropped_by"]} == {"empty", "exact"}
    assert facts["runs"][0]["run_id"]
    assert facts["bytes"]["published"] == (here / CORPUS).stat().st_size


# -- sql -----------------------------------------------------------------------------------------------------------


def test_sql_in_four_forms(here: Path, stemma: Any) -> None:
    sql = "SELECT document_id, uri, byte_start FROM corpus.raw ORDER BY uri, byte_start LIMIT 3"
    expected = query(here / CORPUS, sql)
    assert [row["uri"] for row in json.loads(stemma("sql", sql, "--format", "json").out)] == [
        r[1] for r in expected
    ]
    read = list(csv.reader(io.StringIO(stemma("sql", sql, "--format", "csv").out)))
    assert read[0] == ["document_id", "uri", "byte_start"]
    assert [row[0] for row in read[1:]] == [str(row[0]) for row in expected]
    table = stemma("sql", sql).out
    assert all(str(row[0]) in table and row[1].split("/")[-1] in table for row in expected)
    done = subprocess.run(
        [STEMMA, "sql", sql, "--format", "parquet"], cwd=here, capture_output=True, timeout=60, check=True
    )
    rows = pq.read_table(io.BytesIO(done.stdout)).to_pylist()
    assert [row["uri"] for row in rows] == [row[1] for row in expected]


def test_sql_values_come_as_they_are(here: Path, stemma: Any) -> None:
    sql = """SELECT 2024 AS year, 0.953123456 AS score, NULL AS nothing, true AS yes, DATE '2024-02-03' AS day,
        'a "quoted", text
        of two lines' AS text, [1.5, 2]::FLOAT[2] AS vector"""
    (row,) = json.loads(stemma("sql", sql, "--format", "json").out)
    assert (row["year"], row["nothing"], row["yes"], row["day"], row["vector"]) == (
        2024,
        None,
        True,
        "2024-02-03",
        [1.5, 2],
    )
    ((_, *_), values) = list(csv.reader(io.StringIO(stemma("sql", sql, "--format", "csv").out)))
    assert values[5].startswith('a "quoted", text\n')
    assert "2024 " in stemma("sql", sql).out, "no separators in numbers that may be years"


def test_sql_limits_and_says_so(here: Path, stemma: Any) -> None:
    told = stemma("sql", "FROM range(500)")
    assert "first 100 rows" in told.err
    assert len(stemma("sql", "FROM range(500)", "--limit", "7", "--format", "csv").out.splitlines()) == 8
    assert len(json.loads(stemma("sql", "FROM range(500)", "--format", "json").out)) == 500


def test_sql_from_standard_input(here: Path) -> None:
    told = process("sql", "-", "--format", "csv", cwd=here, input="SELECT count(*) AS n FROM corpus.raw")
    assert (told.code, told.out) == (0, "n\n20\n")


def test_sql_stops_quietly_when_its_reader_goes(here: Path) -> None:
    told = subprocess.run(
        f"{STEMMA} sql 'FROM range(200000)' --format csv | head -2; echo ${{PIPESTATUS[0]}}",
        shell=True, executable="/bin/bash", cwd=here, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert told.stdout.splitlines() == ["range", "0", "0"]
    assert told.stderr == ""


@pytest.mark.parametrize(
    "statement",
    [
        "INSERT INTO lineage.files FROM lineage.files",
        "DELETE FROM corpus.raw",
        "DROP TABLE corpus.raw",
        "CREATE TABLE mine (a INT)",
        "ATTACH '{folder}/other.duckdb'",
        "COPY (SELECT 1) TO '{folder}/rows.csv'",
        "EXPORT DATABASE '{folder}/export'",
        "SELECT * FROM read_csv('/etc/passwd')",
        "SELECT * FROM read_text('/etc/passwd')",
        "SELECT * FROM '/etc/passwd'",
        "SELECT * FROM glob('/*')",
        "INSTALL httpfs",
        "LOAD httpfs",
        "SET enable_external_access = true",
        "SELECT * FROM no_such_table",
        "SELEC 1",
        "  ",
    ],
)
def test_sql_refuses_what_is_not_reading_the_corpus(
    here: Path, stemma: Any, tmp_path: Path, statement: str
) -> None:
    before = published_bytes(here / CORPUS)
    stemma("sql", statement.format(folder=tmp_path)).is_one_line(2)
    assert list(tmp_path.iterdir()) == []
    assert published_bytes(here / CORPUS) == before


def test_sql_shows_no_terminal_codes(here: Path, stemma: Any) -> None:
    told = stemma("sql", "SELECT 'a' || chr(27) || '[31mred' || chr(7) AS text, '[bold]x[/bold]' AS markup")
    assert "\x1b" not in told.out
    assert "\x07" not in told.out
    assert "[bold]x[/bold]" in told.out


# -- search --------------------------------------------------------------------------------------------------------


def test_search_says_where_no_chunk_answers(here: Path, stemma: Any) -> None:
    told = stemma("search", "guitar", "--where", "source = 'nobody'")
    assert (told.code, told.out, told.err) == (0, "", "(no chunk answers this)\n")


def test_search_finds_the_nearest_chunks(here: Path, stemma: Any) -> None:
    told = stemma("search", "orchard of almond trees in the valley", "-k", "2")
    assert told.code == 0
    assert "orchard.txt" in told.out.splitlines()[0]
    hits = stemma("search", "orchard of almond trees in the valley", "-k", "2", "--json").json
    assert len(hits) == 2
    assert hits[0]["uri"].endswith("orchard.txt")
    assert hits[0]["score"] >= hits[1]["score"]
    ((text,),) = query(
        here / CORPUS,
        f"SELECT text[{hits[0]['char_start'] + 1}:{hits[0]['char_end']}] FROM corpus.cleaned"
        f" WHERE document_id = '{hits[0]['document_id']}'",
    )
    assert text == hits[0]["text"]


@pytest.mark.parametrize("wrong", [["search", "  "], ["search", "x", "-k", "0"]])
def test_search_for_nothing_is_wrong_use(here: Path, stemma: Any, wrong: list[str]) -> None:
    stemma(*wrong).is_one_line(2)


# -- trace and why -------------------------------------------------------------------------------------------------


def test_trace_from_a_chunk_back_to_its_source(here: Path, stemma: Any) -> None:
    ((chunk, document),) = query(
        here / CORPUS,
        "SELECT chunk_id, document_id FROM corpus.chunked JOIN corpus.raw USING (document_id)"
        " WHERE record = 'r1' LIMIT 1",
    )
    found = stemma("trace", str(chunk), "--json").json
    assert found["chunk"]["chunk_id"] == str(chunk)
    (back,) = found["documents"]
    assert back["source"]["document_id"] == str(document)
    content = (here / "docs" / "sub" / "rows.jsonl").read_bytes()
    record = json.loads(content[back["source"]["byte_start"] : back["source"]["byte_end"]])
    assert record["id"] == "r1"
    assert set(back["recipes"]) == {"raw", "cleaned", "deduplicated", "chunked", "embedded"}
    told = stemma("trace", str(chunk))
    assert told.code == 0
    assert "rows.jsonl" in told.out


def test_trace_from_a_document_and_a_family(here: Path, stemma: Any) -> None:
    ((removed, kept, family),) = query(
        here / CORPUS, "SELECT document_id, kept_document_id, cluster_id FROM lineage.duplicates"
    )
    (document,) = stemma("trace", str(kept), "--json").json["documents"]
    assert document["fate"]["fate"] == "kept"
    assert [row["document_id"] for row in document["relatives"]] == [str(removed)]
    assert document["chunks"]
    (document,) = stemma("trace", str(removed), "--json").json["documents"]
    assert document["fate"]["fate"] == "dropped"
    assert document["fate"]["kept_document_id"] == str(kept)
    assert document["chunks"] == []
    (member,) = stemma("trace", str(family), "--json").json["documents"]
    members = {member["source"]["document_id"], *(row["document_id"] for row in member["relatives"])}
    assert members == {str(removed), str(kept)}
    told = stemma("trace", str(kept)).out
    assert "others of its family" in told
    assert str(removed) in told


def test_trace_of_what_is_not_there(here: Path, stemma: Any) -> None:
    unknown = str(uuid.uuid4())
    stemma("trace", unknown).is_one_line(2, unknown)
    stemma("trace", "guide.md").is_one_line(2, "guide.md", "stemma why")


def test_why_by_path_by_end_of_path_and_by_id(here: Path, stemma: Any) -> None:
    absolute = str(here / "docs" / "orchard.txt")
    (entry,) = stemma("why", absolute, "--json").json
    assert entry["fate"] == "kept"
    assert entry["chunks"] > 1
    upwards = "docs/sub/../orchard.txt"
    for way in ("docs/orchard.txt", "./docs/orchard.txt", upwards, "orchard.txt", entry["document_id"]):
        assert stemma("why", way, "--json").json == [entry], way
    assert "kept, in" in stemma("why", "orchard.txt").out
    (flagged, *_rest) = stemma("why", "rows.jsonl", "--json").json
    assert f"would drop it: '{flagged['flags'][0]['rule']}' (score" in stemma("why", "rows.jsonl").out
    assert len(stemma("why", "rows.jsonl", "--json").json) == 3, "every record of the file"


def test_why_not_kept(here: Path, stemma: Any) -> None:
    (entry,) = stemma("why", "empty.txt", "--json").json
    assert (entry["fate"], entry["rule"], entry["stage"]) == ("dropped", "empty", "cleaned")
    fates = [stemma("why", name, "--json").json[0] for name in ("guide.md", "copy.md")]
    assert sorted(entry["fate"] for entry in fates) == ["dropped", "kept"]
    (duplicate,) = [entry for entry in fates if entry["fate"] == "dropped"]
    assert (duplicate["rule"], duplicate["score"]) == ("exact", 1.0)
    assert "duplicate of" in stemma("why", duplicate["document_id"]).out
    (entry,) = stemma("why", "broken.pdf", "--json").json
    assert entry["fate"] == "error"
    assert entry["detail"]
    assert "could not be processed" in stemma("why", "broken.pdf").out


@pytest.mark.parametrize(
    "unknown", ["nowhere.txt", "rchard.txt", "832d8d1c-8503-4e55-8049-33d1fb409762", "%", ""]
)
def test_why_of_what_no_source_lists(here: Path, stemma: Any, unknown: str) -> None:
    stemma("why", unknown).is_one_line(2, "not in the corpus")


# -- verify and compact --------------------------------------------------------------------------------------------


def test_verify_says_0_and_after_tampering_1(copied: Path, stemma: Any) -> None:
    told = stemma("verify", "--json")
    assert told.code == 0, told.out
    assert {row["table"] for row in told.json} >= {"corpus.raw", "corpus.embedded", "lineage.decisions"}
    assert all(row["missing"] == row["extra"] == 0 for row in told.json)
    (copied / CORPUS).chmod(0o644)
    with duckdb.connect(str(copied / CORPUS)) as connection:
        connection.execute("UPDATE main.cleaned_rows SET title = 'tampered' WHERE starts_with(title, 'How')")
    told = stemma("verify")
    assert told.code == 1
    assert any(
        line.startswith("corpus.cleaned: rows that differ: 2 of the corpus, 2 of")
        for line in told.out.splitlines()
    ), told.out
    assert "title: 'tampered' in the corpus, 'How to tune a violin' in the rebuild" in told.out
    assert "/docs/guide.md, bytes 0–" in told.out


def test_compact_keeps_every_row(copied: Path, stemma: Any) -> None:
    before = query(copied / CORPUS, "FROM corpus.embedded ORDER BY chunk_id")
    sizes = stemma("compact", "--json").json
    assert sizes["after"]["published"] == (copied / CORPUS).stat().st_size
    assert "published" in stemma("compact", "--keep-days", "0").out
    assert query(copied / CORPUS, "FROM corpus.embedded ORDER BY chunk_id") == before
    told = stemma("run", "--json")
    assert sum(row["rows_computed"] for row in told.json["datasets"].values()) == 0


# -- a damaged file ------------------------------------------------------------------------------------------------


def test_a_damaged_published_file_is_one_clear_line(copied: Path, stemma: Any) -> None:
    whole = (copied / CORPUS).read_bytes()
    for damage in (b"this is no database", whole[:1000], whole[: len(whole) // 2]):
        (copied / CORPUS).unlink()
        (copied / CORPUS).write_bytes(damage)
        for word in (["status"], ["sql", "FROM corpus.embedded"], ["why", "guide.md"], ["search", "x"]):
            told = stemma(*word)
            told.is_one_line(told.code)
            assert told.code in (1, 2)
    (copied / CORPUS).unlink()
    (copied / CORPUS).write_bytes(b"this is no database")
    stemma("run", "--quiet").is_one_line(1, str(copied / CORPUS), "ove it away")
    (copied / CORPUS).unlink()
    assert stemma("run", "--quiet").code == 0, "as the message said: it is made anew from the state"
    assert query(copied / CORPUS, "SELECT count(*) FROM corpus.raw") == [(20,)]


def test_a_damaged_state_is_one_clear_line(copied: Path, stemma: Any) -> None:
    (copied / ".stemma" / "corpus.work" / "state.duckdb").write_bytes(b"garbage" * 1000)
    stemma("run", "--quiet").is_one_line(1, "state.duckdb")
    assert stemma("sql", "SELECT count(*) FROM corpus.raw").code == 0, "what is published stays readable"


# -- ui (a real one runs in test_graphql.py) -----------------------------------------------------------------------


def wait_for(condition: Any, seconds: float = 90) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)


@pytest.fixture
def taken_port() -> Iterator[int]:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        yield int(server.getsockname()[1])


@pytest.fixture
def free_port() -> int:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return int(server.getsockname()[1])


def test_ui_names_a_port_that_is_taken(here: Path, stemma: Any, taken_port: int) -> None:
    stemma("ui", "--port", str(taken_port)).is_one_line(1, str(taken_port), "--port")


def test_ui_for_viewers_is_the_webserver_alone(
    here: Path, stemma: Any, monkeypatch: pytest.MonkeyPatch, free_port: int
) -> None:
    """What it does is in tests/test_deployment.py, with the same command."""
    from dagster_webserver.cli import dagster_webserver

    started: list[list[str]] = []
    monkeypatch.setattr(os, "execv", lambda program, words: started.append([program, *words[1:]]))
    stemma("ui", "--read-only", "--port", str(free_port))
    ((program, *words),) = started
    assert Path(program).name == "dagster-webserver"
    asked = dagster_webserver.make_context("dagster-webserver", words).params
    assert (asked["read_only"], asked["host"], asked["port"]) == (True, "127.0.0.1", free_port)
    assert asked["module_name"] == ("stemma.definitions",)
    # In the folder that holds a clone of the name `stemma`, Python would take the clone for the package.
    assert (Path(asked["working_directory"]) / "stemma" / "definitions.py").exists()


def test_run_of_a_mistyped_path_is_not_remembered(
    tmp_path: Path, stemma: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_documents(tmp_path / "docs")
    monkeypatch.chdir(tmp_path)
    assert stemma("run", "docs", "--select", "raw", "--quiet").code == 0
    stemma("run", "dosc", "--select", "raw", "--quiet").is_one_line(2, "dosc: no such file or folder")
    stemma("run", "dosc/*.txt", "--select", "raw", "--quiet").is_one_line(1, "dosc")
    assert stemma("run", "--select", "raw", "--quiet").code == 0
    assert [path.name for path in (tmp_path / ".stemma").glob("*.toml")] == ["stemma.toml"]


def test_run_dry_run_of_selected_datasets(here: Path, stemma: Any) -> None:
    assert [row["dataset"] for row in stemma("run", "--dry-run", "--select", "raw", "--json").json] == ["raw"]


def test_dry_run_of_nothing_is_wrong_use(
    tmp_path: Path, stemma: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    stemma("run", "--dry-run").is_one_line(2, "nothing to read")


def test_sql_writes_json_and_csv_of_every_value(here: Path, stemma: Any) -> None:
    sql = "SELECT 'nan'::DOUBLE AS a, 2 AS a, ['inf'::DOUBLE] AS b, {'c': '\\x01'::BLOB} AS d"
    told = stemma("sql", sql, "--format", "json")
    assert json.loads(told.out, parse_constant=lambda name: pytest.fail(f"{name} is no JSON")) == [
        {"a": None, "a_1": 2, "b": [None], "d": {"c": "01"}}
    ]
    (_, row) = csv.reader(io.StringIO(stemma("sql", sql, "--format", "csv").out))
    assert row == ["nan", "2", "[null]", '{"c": "01"}']


@pytest.mark.parametrize(
    "wrong",
    [
        ("sql", "SELECT 1", "--limit", "-1"),
        ("sql", "SELECT INTERVAL 1 DAY AS i", "--format", "parquet"),
        ("sql", "CALL enable_logging('QueryLog', storage='file', storage_path='log')"),
        ("sql", "FROM enable_logging('QueryLog', storage='file', storage_path='log')"),
        ("sql", "SELECT '\udcff'"),
        ("compact", "--keep-days", "-1"),
        ("search", "x", "-k", "0"),
        ("ui", "--port", "99999"),
        ("ui", "--host", "no.such.host.invalid"),
    ],
)
def test_wrong_use_exits_2_and_does_nothing(here: Path, stemma: Any, wrong: tuple[str, ...]) -> None:
    before = published_bytes(here / CORPUS)
    told = stemma(*wrong)
    assert told.code == 2, told.err
    assert "Traceback" not in told.err
    assert not (here / "log").exists()
    assert published_bytes(here / CORPUS) == before
