"""The published file answers for earlier runs as it did then, for as long as it is asked to remember."""

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import pytest
from harness import Corpus, sentence, slow

import stemma
from stemma.cli import main
from stemma.errors import UsageError
from stemma.lineage.as_of import open_as_of
from stemma.resources.engine.upkeep import compact

# What is not asked for as of a run: postings of chunks that are not there yet, or no more, are in it.
PRIVATE = ("search.posting_rows", "search.index")
Answer = tuple[int, int | None]


def answers(connection: duckdb.DuckDBPyConnection) -> dict[str, Answer | str]:
    """Return, for each table and view of the default database, its rows as a number that no order changes."""
    connection.execute("SET threads = 1")
    names = connection.execute(
        """SELECT concat(schema_name, '.', table_name) FROM duckdb_tables()
        WHERE database_name = current_database() AND schema_name <> 'history'
        UNION SELECT concat(schema_name, '.', view_name) FROM duckdb_views()
        WHERE database_name = current_database() AND NOT internal"""
    ).fetchall()
    found: dict[str, Answer | str] = {}
    for (name,) in names:
        if name in PRIVATE:
            continue
        try:
            (row,) = connection.execute(f"SELECT count(*), sum(hash(t)::HUGEINT) FROM {name} AS t").fetchall()
            found[name] = row
        except duckdb.InvalidInputException as error:
            found[name] = "unknown" if "the history has no" in str(error) else str(error)
    return found


def published(corpus: Corpus) -> dict[str, Answer | str]:
    with duckdb.connect(str(corpus.path), read_only=True) as connection:
        return answers(connection)


def as_of(corpus: Corpus, run: str) -> dict[str, Answer | str]:
    with open_as_of(corpus.path, run) as connection:
        return answers(connection)


def publications(corpus: Corpus) -> list[str]:
    return [run for (run,) in corpus.query("SELECT run_id FROM history.publications ORDER BY number")]


def corpus_at(root: Path, **sections: dict[str, Any]) -> Corpus:
    corpus = Corpus(
        root, chunk={"max_tokens": 30}, engine={"workers": 0}, embed={"model": "hash:16"}, **sections
    )
    corpus.steady = True
    return corpus


# -- any history -------------------------------------------------------------------------------------------------------

NAMES = [f"{letter}.txt" for letter in "abcdefgh"]
SETTINGS: list[dict[str, dict[str, Any]]] = [
    {"chunk": {"max_tokens": 20}},
    {"chunk": {"max_tokens": 40}},
    {"clean": {"languages": ("de",)}},
    {"clean": {"languages": ()}},
    {"clean": {"flag": ("gopher",)}},
    {"clean": {"drop": ("gopher_non_symbol_words_min",)}},
    {"deduplicate": {"threshold": 0.5}},
    {"deduplicate": {"layers": ("exact", "near", "passage")}, "passage": {"cut": True, "min_words": 10}},
    {"deduplicate": {"layers": ("exact",)}},
    {"embed": {"model": "hash:16"}},
    {"embed": {"model": "hash:24"}},
    {"embed": {"storage": "int8"}},
    {"embed": {"storage": "float32"}},
]


def change(corpus: Corpus, chance: random.Random) -> None:
    """Do something to the corpus."""
    name = chance.choice(NAMES)
    kind = chance.randrange(8)
    if kind == 0 and (corpus.docs / name).exists():
        corpus.delete(name)
    elif kind == 1 and (corpus.docs / name).exists():
        corpus.rename(name, chance.choice(NAMES))
    elif kind == 2:
        broken = "{broken\n" * chance.randrange(3)
        corpus.write("rows.jsonl", f"{json.dumps({'id': 'r', 'text': sentence(name, 30)})}\n{broken}")
    elif kind == 3:
        corpus.set(**chance.choice(SETTINGS))
    else:
        words = sentence(chance.randrange(4), 60).split()
        words[chance.randrange(60)] = "another"
        corpus.write(name, " ".join(words))


@pytest.mark.parametrize("number", [0, *slow(*range(1, 9))])
def test_every_table_is_as_it_was_after_each_run(tmp_path: Path, number: int) -> None:
    chance = random.Random(number)
    corpus = corpus_at(tmp_path)
    corpus.write("anchor.txt", sentence("anchor", 60))
    corpus.write("broken.pdf", b"%PDF-1.7\nnothing follows\n")
    seen: dict[str, tuple[dict[str, Answer | str], object]] = {}
    for _ in range(5 if number == 0 else 9):
        for _ in range(chance.randrange(1, 4)):
            change(corpus, chance)
        run = corpus.run(allow_deletes=True)
        vectors = corpus.query(
            """SELECT table_name, data_type FROM duckdb_columns() WHERE table_name LIKE 'embedded%'
            AND schema_name = 'main' AND column_name IN ('embedding', 'vector') ORDER BY ALL"""
        )
        seen[run.run_id] = published(corpus), vectors
    kept = publications(corpus)
    assert len(kept) >= 3
    asked = [seen[run][1] for run in seen]
    for place, run in enumerate(seen):
        if run not in kept:
            continue
        expected, answered = dict(seen[run][0]), as_of(corpus, run)
        if any(other != asked[place] for other in asked[place:]):
            for name in ("main.embedded", "main.embedded_rows", "lineage.trace"):
                assert answered.pop(name, "unknown") == "unknown"
                expected.pop(name, None)
        # Where vectors are stored otherwise now, this table is new.
        if "main.embedded_rows" not in expected:
            assert answered.pop("main.embedded_rows", "unknown") == "unknown"
        assert answered == expected, run
    assert as_of(corpus, "latest") == published(corpus)


@pytest.mark.slow
def test_equal_rows_come_and_go_one_by_one(tmp_path: Path) -> None:
    corpus = corpus_at(tmp_path)
    corpus.write("anchor.txt", sentence("anchor", 60))
    line = json.dumps({"id": "a", "text": sentence("a", 40)}) + "\n"
    seen = {}
    for broken in (2, 3, 1):
        corpus.write("rows.jsonl", line + "{broken\n" * broken)
        corpus.run()
        seen[f"run-{len(seen) + 1}"] = published(corpus)
    for run, expected in seen.items():
        assert as_of(corpus, run) == expected, run


# -- how long ----------------------------------------------------------------------------------------------------------


def edited(corpus: Corpus, times: int, *, unseen: bool = False) -> list[dict[str, Answer | str]]:
    """Publish so many times, each with another text in a document; returns what was published, unless `unseen`."""
    seen = []
    before = (corpus.docs / "edited.txt").read_text() if (corpus.docs / "edited.txt").exists() else ""
    for number in range(times):
        corpus.write("edited.txt", sentence(f"{before} {number}", 60))
        corpus.run()
        if not unseen:
            seen.append(published(corpus))
    return seen


def kept_rows(corpus: Corpus) -> dict[str, int]:
    return dict(corpus.query("SELECT name, count(*) FROM history.gone GROUP BY name"))


@pytest.mark.slow
def test_what_no_remembered_publication_had_is_forgotten(tmp_path: Path) -> None:
    corpus = corpus_at(tmp_path, history={"publications": 1})
    corpus.fill(3)
    edited(corpus, 3, unseen=True)
    whole = ("main.raw", "main.cleaned_rows", "lineage.members", "lineage.files", "lineage.datasets")
    rows = kept_rows(corpus)
    seen = edited(corpus, 2)
    assert [kept_rows(corpus)[name] for name in whole] == [rows[name] for name in whole], "it does not grow"
    assert corpus.value("SELECT min(valid_from) FROM history.since") == 5
    assert publications(corpus) == ["run-4", "run-5"]
    assert [as_of(corpus, run) for run in ("-1", "latest")] == seen
    with pytest.raises(UsageError, match="run-3 is older than the history"):
        as_of(corpus, "run-3")


@pytest.mark.slow
def test_days_are_counted_from_the_end_of_a_publication(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from datetime import UTC, datetime, timedelta

    from stemma.resources.engine import history

    corpus = corpus_at(tmp_path, history={"days": 2.5})
    start = datetime.now(UTC).replace(tzinfo=None)
    for day in range(5):
        monkeypatch.setattr(history, "utc_now", lambda day=day: start + timedelta(days=day))
        edited(corpus, 1, unseen=True)
    # Now is day 4: the publication of day 0 stood until 3 days ago, that of day 1 until 2 days ago.
    assert publications(corpus) == ["run-2", "run-3", "run-4", "run-5"]


@pytest.mark.slow
def test_without_a_history_there_is_none_and_it_can_begin_again(tmp_path: Path) -> None:
    corpus = corpus_at(tmp_path, history={"publications": 0})
    corpus.fill(3)
    edited(corpus, 1, unseen=True)
    assert corpus.query("SELECT * FROM duckdb_schemas() WHERE schema_name = 'history'") == []
    with pytest.raises(UsageError, match="no history"):
        as_of(corpus, "-1")
    corpus.set(history={"publications": 5})
    first, second = edited(corpus, 2)
    assert as_of(corpus, "-1") == first
    assert as_of(corpus, "latest") == second
    corpus.set(history={"publications": 0})
    edited(corpus, 1, unseen=True)
    assert corpus.query("SELECT * FROM duckdb_functions() WHERE schema_name = 'history'") == []


@pytest.mark.slow
def test_a_run_that_changes_nothing_is_no_publication(tmp_path: Path) -> None:
    corpus = corpus_at(tmp_path)
    corpus.fill(3)
    (first,) = edited(corpus, 1)
    nothing = corpus.run().run_id
    (last,) = edited(corpus, 1)
    assert publications(corpus) == ["run-1", "run-3"]
    assert as_of(corpus, nothing) == as_of(corpus, "run-1") == first
    assert as_of(corpus, "run-3") == last


def test_compaction_keeps_the_history_and_forgets_it_when_asked(tmp_path: Path) -> None:
    corpus = corpus_at(tmp_path)
    corpus.fill(3)
    secret = "unforgettable " + sentence("secret", 60)
    corpus.write("edited.txt", secret)
    corpus.run()
    seen = edited(corpus, 2)
    run = corpus.start()
    compact(run)
    assert as_of(corpus, "-1") == seen[0]
    assert corpus.value("SELECT count(*) FROM history.cleaned_at('run-1')") == 4
    held = "name = 'main.cleaned_rows' AND cells::VARCHAR ILIKE '%unforgettable%'"
    assert corpus.value(f"SELECT count(*) FROM history.gone WHERE {held}") == 1
    compact(run, forget_history=True)
    run.warehouse.close()
    assert publications(corpus) == ["run-3"]
    assert kept_rows(corpus) == {}
    # The memo of what was read is another matter (docs/operations.md).
    assert corpus.value("SELECT count(*) FROM search.posting_rows WHERE word = 'unforgettable'") == 0
    assert published(corpus) == seen[1]
    (last,) = edited(corpus, 1)
    assert as_of(corpus, "-1") == seen[1]
    assert as_of(corpus, "latest") == last


# -- what is asked -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    """A corpus of three publications; in the second a document comes, goes, changes, is dropped, and comes back."""
    corpus = corpus_at(tmp_path_factory.mktemp("history"))
    corpus.fill(4, words=60)
    corpus.write("twice.txt", sentence("doc000.txt", 60))
    corpus.run()
    corpus.write("doc001.txt", sentence("doc001.txt", 59) + " changed")
    corpus.write("came.txt", sentence("came", 60))
    corpus.delete("doc003.txt")
    corpus.write("twice.txt", sentence("alone", 60))
    corpus.write("copy.txt", sentence("doc002.txt", 60))
    corpus.write("broken.pdf", b"%PDF-1.7\nnothing follows\n")
    corpus.run()
    corpus.write("later.txt", sentence("later", 60))
    corpus.run()
    return corpus


@pytest.fixture
def told(corpus: Corpus, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Run a command on the corpus; returns exit code, standard output and standard error."""

    def call(word: str, *arguments: str) -> tuple[int, str, str]:
        code = main([word, *arguments, "--config", str(corpus.root / "stemma.toml")])
        said = capsys.readouterr()
        return code, said.out, said.err

    return call


def test_sql_answers_as_of_a_run(told: Callable[..., tuple[int, str, str]]) -> None:
    query = "SELECT count(*) AS documents FROM corpus.raw JOIN corpus.cleaned USING (document_id)"
    for run, documents in (("run-1", 5), ("-2", 5), ("run-2", 6), ("-1", 6), ("run-3", 7), ("latest", 7)):
        assert told("sql", query, "--as-of", run, "--format", "csv")[:2] == (0, f"documents\n{documents}\n")
    assert told("sql", "FROM search.chunks", "--as-of", "run-1", "--format", "json")[0] == 0


@pytest.mark.parametrize(
    ("run", "part"),
    [("run-9", "no run"), ("run-", "3 runs begin so"), ("-3", "goes back 2 publications"), ("", "empty")],
)
def test_a_run_that_is_not_known_is_one_clear_line(
    told: Callable[..., tuple[int, str, str]], run: str, part: str
) -> None:
    code, _out, err = told("sql", "SELECT 1", f"--as-of={run}")
    assert code == 2
    assert part in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    "query",
    [
        "FROM read_csv('/etc/passwd')",
        "COPY (SELECT 1) TO 'stolen.csv'",
        "ATTACH 'other.duckdb'",
        "INSTALL httpfs",
        "SET enable_external_access = true",
        "CREATE TABLE mine (a INT)",
        "DROP VIEW main.raw",
        "DELETE FROM published_file.main.raw",
        "CALL enable_logging()",
        "SELECT 1; DETACH published_file",
        "EXPLAIN ANALYZE COPY (SELECT 1) TO 'stolen.csv'",
    ],
)
def test_an_earlier_run_is_as_shut_off_as_the_present(
    told: Callable[..., tuple[int, str, str]], query: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert told("sql", query, "--as-of", "run-1")[0] == 2
    assert list(tmp_path.iterdir()) == []


def test_diff_counts_rows_and_tells_what_became_of_documents(
    told: Callable[..., tuple[int, str, str]],
) -> None:
    code, out, _err = told("diff", "run-1", "run-2", "--json")
    assert code == 0
    found = json.loads(out)
    assert (found["before"]["run_id"], found["after"]["run_id"]) == ("run-1", "run-2")
    datasets = found["datasets"]
    assert datasets["raw"] == {"before": 5, "after": 7, "added": 3, "changed": 2, "removed": 1}
    assert datasets["cleaned"] == {"before": 5, "after": 6, "added": 2, "changed": 2, "removed": 1}
    # One of doc000 and twice was dropped before, one of doc002 and copy is now; the families of both are others.
    assert datasets["deduplicated"]["before"] == 4
    assert datasets["deduplicated"]["after"] == 5
    assert {(row["what"], row["reason"], row["documents"]) for row in found["decisions"]} >= {
        ("dropped", "exact", 1),
    }
    fates = {
        Path(row["uri"]).name: (row["change"], row["fate_before"], row["fate_after"])
        for row in found["documents"]
    }
    assert fates["came.txt"] == ("added", None, "kept")
    assert fates["doc003.txt"] == ("removed", "kept", None)
    assert fates["doc001.txt"] == ("content", "kept", "kept")
    assert fates["broken.pdf"] == ("added", None, "error")
    assert {fates[name][2] for name in ("copy.txt", "doc002.txt") if name in fates} >= {"dropped"}
    assert "later.txt" not in fates
    back = [row for row in found["decisions"] if row["what"] == "back"]
    assert [(row["reason"], row["documents"]) for row in back] == [("exact", 1)]


def test_diff_of_the_same_run_is_empty(told: Callable[..., tuple[int, str, str]]) -> None:
    found = json.loads(told("diff", "latest", "--json")[1])
    assert found["documents"] == found["decisions"] == []
    assert {(row["added"], row["changed"], row["removed"]) for row in found["datasets"].values()} == {
        (0, 0, 0)
    }


def test_diff_shows_what_differs_in_a_text(told: Callable[..., tuple[int, str, str]], corpus: Corpus) -> None:
    code, out, _err = told("diff", "-2", "--document", "doc001.txt")
    assert code == 0
    assert "another content; kept" in out
    assert "{+changed+}" in out
    assert "\x1b[" in told("diff", "-2", "--document", "doc001.txt", "--color", "always")[1]
    assert "doc003.txt: kept → not there" in told("diff", "run-1", "--document", "doc003.txt")[1]
    assert "later.txt" in told("diff", "run-2")[1]
    assert "more documents" in told("diff", "run-1", "--limit", "1")[1]
    assert told("diff", "run-1", "--document", "nowhere.txt")[0] == 2


def test_plain_duckdb_answers_by_macros(corpus: Corpus) -> None:
    for table in ("raw", "cleaned", "deduplicated", "chunked", "embedded"):
        with open_as_of(corpus.path, "run-1") as before:
            (expected,) = before.execute(f"SELECT count(*), sum(hash(t)) FROM corpus.{table} AS t").fetchall()
        for run in ("1", "'run-1'"):
            assert corpus.query(f"SELECT count(*), sum(hash(t)) FROM history.{table}_at({run}) AS t") == [
                expected
            ]
    assert len(corpus.query("FROM history.decisions_at(1)")) == 1
    with pytest.raises(duckdb.InvalidInputException, match=r"has no main\.raw as of 9"):
        corpus.query("FROM history.raw_at(9)")


def test_python_opens_an_earlier_run(corpus: Corpus) -> None:
    with stemma.open(corpus.path, as_of="run-1") as before, stemma.open(corpus.path) as now:
        assert before.sql("SELECT count(*) FROM corpus.raw").fetchall() == [(5,)]
        assert now.sql("SELECT count(*) FROM corpus.raw").fetchall() == [(8,)]
        query = "SELECT max(array_cosine_similarity(embedding, embed('river'))) FROM corpus.embedded"
        assert before.sql(query).fetchone() is not None


def test_what_is_published_equals_a_rebuild(corpus: Corpus) -> None:
    assert corpus.differences() == []


def test_the_first_publication_remembers_nothing(tmp_path: Path) -> None:
    corpus = corpus_at(tmp_path)
    corpus.fill(3)
    corpus.run()
    rows = kept_rows(corpus)
    assert sum(rows[name] for name in rows.keys() - {"publications", "tables"}) == 0


@pytest.mark.slow
def test_views_are_made_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from stemma.resources.engine import publication

    made: list[str] = []
    make = publication._make_definitions
    monkeypatch.setattr(
        publication, "_make_definitions", lambda connection: (made.append("x"), make(connection))
    )
    corpus = corpus_at(tmp_path)
    corpus.set(embed={"storage": "int16"})
    corpus.fill(3)
    edited(corpus, 2, unseen=True)
    assert len(made) == 1
    corpus.set(clean={"flag": ("c4",)})
    edited(corpus, 1, unseen=True)
    assert len(made) == 2
    # The view of vectors in fewer bits goes with its table.
    corpus.set(embed={"storage": "int8"})
    edited(corpus, 1, unseen=True)
    assert corpus.count("corpus.embedded") == corpus.count("corpus.chunked")
    # Vectors of the run before were of another type: the answer says so, and has all the rest.
    capsys.readouterr()
    assert main(["diff", "-1", "--json", "--config", str(corpus.root / "stemma.toml")]) == 0
    datasets = json.loads(capsys.readouterr().out)["datasets"]
    assert "the history has no corpus.embedded of that run" in datasets["embedded"]
    assert datasets["raw"]["changed"] == 1
