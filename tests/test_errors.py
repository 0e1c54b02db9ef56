"""One bad document costs one document: it ends in lineage.errors, and the rest is as if it weren't there."""

import errno
import gzip
import json
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from harness import FLAKY, NOTHING, POISON, Corpus, long_document, poison, published_bytes, sentence, slow

from stemma.cleaning import clean
from stemma.cleaning.repair import Repaired
from stemma.errors import StemmaError
from stemma.resources import looking
from stemma.resources.engine import DATASETS, check
from stemma.resources.engine.step_checks import check_step
from stemma.resources.memo import LostError
from stemma.resources.sources import FileEntry


@pytest.fixture
def corpus(tmp_path: Path) -> Corpus:
    return Corpus(tmp_path)


def errors(corpus: Corpus) -> list[tuple[Any, ...]]:
    """Return (file name, stage, error, detail, run) of each error."""
    rows = corpus.query("SELECT uri, source, stage, error, detail, run_id FROM lineage.errors ORDER BY ALL")
    assert all(source == "docs" for _uri, source, *_rest in rows)
    return [(Path(uri).name, *rest) for uri, _source, *rest in rows]


def sum_holds(corpus: Corpus) -> bool:
    """Whether raw = kept + decisions + errors, by document."""
    return corpus.value(
        """SELECT list_sort(list(document_id)) = (SELECT list_sort(list(document_id)) FROM corpus.raw)
        FROM (SELECT document_id FROM corpus.deduplicated UNION ALL SELECT document_id FROM lineage.decisions
            UNION ALL SELECT DISTINCT document_id FROM lineage.errors WHERE document_id IS NOT NULL)"""
    )


def published(corpus: Corpus) -> dict[str, list[tuple[Any, ...]]]:
    """Return what the corpus holds, by name of the file."""
    return {
        table: corpus.query(
            f"SELECT uri, t.* FROM {table} AS t JOIN corpus.raw USING (document_id) ORDER BY ALL"
        )
        for table in ("corpus.cleaned", "corpus.deduplicated", "corpus.chunked", "corpus.embedded")
    }


@pytest.mark.parametrize("stage", ["embedded", *slow("cleaned", "deduplicated", "chunked")])
def test_a_poison_document_costs_one_document(
    corpus: Corpus, stage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    corpus.fill(9)
    poison(monkeypatch, stage)
    corpus.run()
    without = published(corpus)

    parts = (long_document("p", 10), f"{POISON[stage]} {sentence('p', 10)}", long_document("q", 10))
    corpus.write("poison.txt", "\n\n".join(parts))
    result = corpus.run()
    assert errors(corpus) == [("poison.txt", stage, "ValueError", "poison found", "run-2")]
    assert result.counts[stage].errors == 1
    assert sum_holds(corpus)
    assert corpus.failed_checks() == []
    assert corpus.count("corpus.deduplicated") == 9
    kept = {
        table: [row for row in rows if not row[0].endswith("poison.txt")]
        for table, rows in published(corpus).items()
    }
    assert kept == without
    assert corpus.count("corpus.embedded") == len(without["corpus.embedded"])

    assert corpus.run().computed == NOTHING
    assert errors(corpus) == [("poison.txt", stage, "ValueError", "poison found", "run-2")]

    monkeypatch.undo()
    corpus.run()
    assert errors(corpus) == []
    assert corpus.count("corpus.deduplicated") == 10
    assert corpus.differences() == []


@pytest.mark.parametrize(
    ("stage", "reason"),
    [("deduplicated", "memory"), *slow(("cleaned", "time"), ("chunked", "memory"), ("embedded", "time"))],
)
def test_what_may_pass_is_tried_again(
    corpus: Corpus, stage: str, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    corpus.fill(3)
    corpus.write("poison.txt", f"{POISON[stage]} {sentence('p', 20)}")
    poison(monkeypatch, stage)
    monkeypatch.setenv(FLAKY, reason)
    kind = "TimeoutError" if reason == "time" else "MemoryError"
    corpus.run()
    assert errors(corpus) == [("poison.txt", stage, kind, "not now", "run-1")]
    assert corpus.run().computed == {**NOTHING, stage: 1}
    assert errors(corpus) == [("poison.txt", stage, kind, "not now", "run-1")]
    assert sum_holds(corpus)
    monkeypatch.setenv(FLAKY, "")
    assert corpus.run().computed[stage] == 1
    assert errors(corpus) == []
    assert corpus.count("corpus.deduplicated") == 4
    assert corpus.run().computed == NOTHING
    assert corpus.differences() == []


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["embedded", *slow("chunked")])
def test_a_failed_document_may_become_a_duplicate(
    corpus: Corpus, stage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    corpus.set(deduplicate={"keep": "longest"})
    corpus.fill(3)
    text = sentence("family", 60)
    corpus.write("poison.txt", f"{text} {POISON[stage]}")
    poison(monkeypatch, stage)
    corpus.run()
    assert [row[:2] for row in errors(corpus)] == [("poison.txt", stage)]
    corpus.write("longer.txt", f"{text} and some more words to be longer")
    corpus.run()
    assert errors(corpus) == []
    assert corpus.value("SELECT count(*) FROM lineage.duplicates") == 1
    assert sum_holds(corpus)
    assert corpus.differences() == []


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["deduplicated", *slow("chunked", "embedded")])
def test_a_failed_document_may_be_dropped_by_a_rule(
    corpus: Corpus, stage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    german = "Der Fluss fließt langsam durch das Tal, und am Abend leuchten die Fenster der kleinen Stadt."
    corpus.write("deutsch.txt", german)
    corpus.write(
        "poison.txt", f"The committee will meet on Thursday to discuss {POISON[stage]} plants in the garden."
    )
    poison(monkeypatch, stage)
    corpus.run()
    assert [row[:2] for row in errors(corpus)] == [("poison.txt", stage)]
    corpus.set(clean={"languages": ("de",)})
    corpus.run()
    assert errors(corpus) == []
    assert corpus.query("SELECT rule FROM lineage.decisions") == [("language",)]
    assert sum_holds(corpus)
    assert corpus.differences() == []


@pytest.mark.parametrize("stage", ["deduplicated", *slow("cleaned", "chunked", "embedded")])
def test_a_failed_document_may_be_deleted_or_mended(
    corpus: Corpus, stage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    corpus.fill(3)
    for name in ("one.txt", "two.txt"):
        corpus.write(name, f"{POISON[stage]} {sentence(name, 20)}")
    poison(monkeypatch, stage)
    corpus.run()
    assert [row[:2] for row in errors(corpus)] == [("one.txt", stage), ("two.txt", stage)]
    corpus.delete("one.txt")
    corpus.write("two.txt", sentence("two.txt", 20))
    corpus.run()
    assert errors(corpus) == []
    assert corpus.count("corpus.deduplicated") == 4
    assert corpus.differences() == []


def test_garbage_costs_itself(corpus: Corpus) -> None:
    corpus.fill(4)
    corpus.write("empty.txt", b"")
    corpus.write("noise.txt", bytes(range(256)) * 20)
    corpus.write("broken.pdf", b"%PDF-1.7\n" + b"\x00garbage" * 50)
    corpus.write("torn.jsonl.gz", gzip.compress(json.dumps({"id": 1, "text": "x" * 5000}).encode())[:-20])
    corpus.write(
        "rows.jsonl", '{"id": "a", "text": "a good record of words"}\n{broken\n{"id": "b"}\n[1, 2]\n'
    )
    corpus.write("deep.json", "[" * 100_000)
    corpus.write("page.html", "<html><body><p>unclosed <b>bold <i>words in a page" + "<div>" * 3000)
    corpus.write("rows.parquet", b"PAR1 is how it begins and not how it ends")
    corpus.run()
    assert sum_holds(corpus)
    assert corpus.failed_checks() == []
    kinds = {(name, stage) for name, stage, *_rest in errors(corpus)}
    assert {
        ("broken.pdf", "cleaned"),
        ("torn.jsonl.gz", "raw"),
        ("rows.jsonl", "raw"),
        ("deep.json", "raw"),
    } <= kinds
    assert ("rows.parquet", "raw") in kinds
    assert corpus.value("SELECT count(*) FROM lineage.errors WHERE uri LIKE '%rows.jsonl'") == 3
    assert corpus.value("SELECT rule FROM lineage.decisions WHERE uri LIKE '%empty.txt'") == "empty"
    kept = {
        Path(uri).name
        for (uri,) in corpus.query("FROM corpus.deduplicated JOIN corpus.raw USING (document_id) SELECT uri")
    }
    assert {f"doc00{number}.txt" for number in range(4)} <= kept
    before = errors(corpus)
    assert corpus.run().computed == NOTHING
    assert errors(corpus) == before
    assert corpus.differences() == []


@pytest.mark.slow
def test_errors_follow_a_source_that_moves(corpus: Corpus, monkeypatch: pytest.MonkeyPatch) -> None:
    corpus.fill(3)
    corpus.write("rows.jsonl", '{"id": "a", "text": "a good record of words"}\n{broken\n')
    corpus.write("poison.txt", POISON["chunked"])
    poison(monkeypatch, "chunked")
    corpus.run()
    moved = corpus.docs.rename(corpus.root / "moved")
    corpus.docs.symlink_to(moved)
    corpus.docs.unlink()
    corpus.docs = moved
    corpus.sources = [type(corpus.sources[0])("docs", str(moved))]
    assert corpus.run().computed == NOTHING
    assert {str(Path(uri).parent) for (uri,) in corpus.query("SELECT uri FROM lineage.errors")} == {
        str(moved)
    }
    assert corpus.differences() == []


@pytest.mark.slow
def test_a_file_that_cannot_be_read_comes_back(corpus: Corpus, monkeypatch: pytest.MonkeyPatch) -> None:
    corpus.fill(4)
    corpus.run()
    fail_reading(monkeypatch, "doc002.txt", PermissionError(errno.EACCES, "Permission denied"))
    corpus.run()
    assert errors(corpus) == [("doc002.txt", "raw", "PermissionError", "Permission denied", "run-2")]
    assert corpus.count("corpus.deduplicated") == 3
    corpus.run()
    assert errors(corpus) == [("doc002.txt", "raw", "PermissionError", "Permission denied", "run-2")]
    monkeypatch.undo()
    assert corpus.run().computed == NOTHING
    assert errors(corpus) == []
    assert corpus.count("corpus.deduplicated") == 4
    assert corpus.differences() == []


@pytest.mark.slow
@pytest.mark.parametrize(
    "error", [TimeoutError("timed out"), *slow(ConnectionResetError("reset by peer"), MemoryError())]
)
def test_a_file_that_cannot_be_read_just_now_stays(
    corpus: Corpus, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    corpus.fill(4)
    corpus.run()
    before = published(corpus)
    corpus.write("doc001.txt", sentence("another", 20))
    for name in ("doc001.txt", "doc002.txt"):
        fail_reading(monkeypatch, name, error)
    corpus.run()
    assert [row[:3] for row in errors(corpus)] == [
        (name, "raw", type(error).__name__) for name in ("doc001.txt", "doc002.txt")
    ]
    assert published(corpus) == before
    monkeypatch.undo()
    assert corpus.run().computed["raw"] == 1
    assert errors(corpus) == []
    assert corpus.differences() == []


@pytest.mark.slow
def test_a_file_that_fails_while_it_is_read_keeps_its_records(
    corpus: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [{"id": str(number), "text": sentence(number, 20)} for number in range(30)]
    corpus.write("rows.jsonl", "\n".join(map(json.dumps, rows)))
    corpus.run()
    before = published(corpus)
    rows[0]["text"] = rows[29]["text"] = "something else"
    corpus.write("rows.jsonl", "\n".join(map(json.dumps, rows)))

    read = looking.read

    def torn(*arguments: Any) -> Iterator[Any]:
        for number, record in enumerate(read(*arguments)):
            if number == 10:
                raise TimeoutError("the network is slow")
            yield record

    monkeypatch.setattr(looking, "read", torn)
    corpus.run()
    assert errors(corpus) == [("rows.jsonl", "raw", "TimeoutError", "the network is slow", "run-2")]
    assert published(corpus) == before
    monkeypatch.undo()
    corpus.run()
    assert errors(corpus) == []
    assert corpus.differences() == []


def fail_reading(monkeypatch: pytest.MonkeyPatch, name: str, error: Exception) -> None:
    """Make one file impossible to open (root may read anything, so permissions won't do)."""
    read_stable: Callable[[FileEntry], Any] = looking.read_stable

    def failing(entry: FileEntry) -> Any:
        if entry.relative == name:
            raise error
        return read_stable(entry)

    monkeypatch.setattr(looking, "read_stable", failing)


@pytest.mark.parametrize("stage", ["cleaned", *slow("deduplicated", "chunked", "embedded")])
def test_when_nothing_can_be_processed_the_run_fails(
    corpus: Corpus, stage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    corpus.fill(3)
    corpus.run()
    before = published_bytes(corpus.path)
    for number in range(3):
        corpus.write(f"doc{number:03}.txt", f"{POISON[stage]} {sentence(number, 20)}")
    poison(monkeypatch, stage)
    for _attempt in range(2):
        with pytest.raises(StemmaError, match=r"nothing could be processed.*ValueError: poison found"):
            corpus.run()
        assert published_bytes(corpus.path) == before
    corpus.write("good.txt", sentence("good", 20))
    corpus.run()
    assert corpus.count("lineage.errors") == 3
    assert sum_holds(corpus)
    monkeypatch.undo()
    corpus.run()
    assert corpus.count("lineage.errors") == 0
    assert corpus.count("corpus.deduplicated") == 4
    assert corpus.differences() == []


def test_when_nothing_can_be_read_the_run_fails(corpus: Corpus) -> None:
    corpus.write("rows.jsonl", "{broken\n{also broken\n")
    with pytest.raises(StemmaError, match="nothing could be processed"):
        corpus.run()
    assert not corpus.path.exists()
    corpus.write("rows.jsonl", '{"text": "mended"}\n')
    corpus.run()
    assert (corpus.count("corpus.deduplicated"), corpus.count("lineage.errors")) == (1, 0)


@pytest.mark.parametrize(
    ("damage", "check"),
    [
        ("DELETE FROM embedded WHERE document_id = {one}", "every_document_in_one_place"),
        (
            "INSERT INTO errors SELECT document_id, source, path, uri, record, 'cleaned', 'X', 'x', 'run-1' FROM raw"
            " WHERE document_id = {one}",
            "every_document_in_one_place",
        ),
        ("DELETE FROM cleaned WHERE document_id = {one}", "no_orphans"),
    ],
)
def test_a_state_that_contradicts_itself_is_not_published(corpus: Corpus, damage: str, check: str) -> None:
    corpus.fill(4)
    corpus.run()
    before = published_bytes(corpus.path)
    with corpus.state() as connection:
        connection.execute(damage.format(one="(SELECT min(document_id) FROM raw)"))
    with pytest.raises(StemmaError, match=f"blocking check failed, nothing was published.*{check}"):
        corpus.run()
    assert published_bytes(corpus.path) == before
    assert list(corpus.path.parent.glob(".*.next*")) == []


repair_as_it_is = clean.repair_text


def repair_by_environment(text: str) -> Repaired:
    return Repaired(repair_as_it_is(text).text + os.environ.get(FLAKY, ""), False)


def test_an_undeclared_dependency_is_warned_of(corpus: Corpus, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clean, "repair_text", repair_by_environment)
    corpus.audit = True
    corpus.fill(2)
    corpus.run()
    monkeypatch.setenv(FLAKY, "1")
    corpus.write("new.txt", sentence("new", 20))
    warnings = corpus.run().warnings
    assert warnings
    assert all("stage clean" in warning and "does not declare" in warning for warning in warnings)


@pytest.mark.slow
def test_a_remembered_row_that_fails_when_it_is_checked_stands(
    corpus: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    poison(monkeypatch, "embedded")
    monkeypatch.setenv(FLAKY, "")
    corpus.write("poison.txt", f"{POISON['embedded']} {sentence('p', 20)}")
    corpus.run()
    monkeypatch.setenv(FLAKY, "memory")
    corpus.audit = True
    corpus.write("new.txt", sentence("new", 20))
    result = corpus.run()
    assert corpus.count("corpus.deduplicated") == 2
    assert errors(corpus) == []
    (warning,) = result.warnings
    assert "stage embed" in warning
    assert "MemoryError" in warning


@pytest.mark.slow
@pytest.mark.parametrize("fault", [ImportError, PermissionError])
def test_a_fault_of_the_machine_is_not_remembered_as_the_documents(
    corpus: Corpus, monkeypatch: pytest.MonkeyPatch, fault: type[Exception]
) -> None:
    corpus.fill(2)
    poison(monkeypatch, "deduplicated")
    corpus.run()
    monkeypatch.setenv(FLAKY, fault.__name__)
    corpus.write("new.txt", f"{POISON['deduplicated']} {sentence('new', 20)}")
    corpus.run()
    assert [(name, stage, error) for name, stage, error, *_ in errors(corpus)] == [
        ("new.txt", "deduplicated", fault.__name__)
    ]
    monkeypatch.setenv(FLAKY, "")
    corpus.run()
    assert errors(corpus) == []
    assert corpus.count("corpus.deduplicated") == 3


@pytest.mark.slow
def test_when_every_row_fails_for_one_reason_none_is_remembered(
    corpus: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    corpus.fill(2)
    poison(monkeypatch, "chunked")
    corpus.run()
    for number in range(10):
        corpus.write(f"new{number}.txt", f"{POISON['chunked']} {sentence(number, 20)}")
    corpus.run()
    assert len(errors(corpus)) == 10
    assert corpus.run().computed["chunked"] == 10, "they are tried again"
    monkeypatch.setenv(FLAKY, "")
    corpus.run()
    assert errors(corpus) == []
    assert corpus.count("corpus.deduplicated") == 12


@pytest.mark.slow
@pytest.mark.parametrize("year", [1600, 2300])
def test_a_file_of_an_odd_time_is_read_like_any_other(corpus: Corpus, year: int) -> None:
    corpus.write("fine.txt", sentence("fine", 20))
    odd = corpus.write("odd.txt", sentence("odd", 20))
    done = subprocess.run(["touch", "-d", f"{year}-01-01", str(odd)], check=False)
    if done.returncode or abs(odd.stat().st_mtime_ns) < 2**63:
        pytest.skip(f"this file system knows no year {year}")
    corpus.run()
    assert errors(corpus) == []
    assert corpus.count("corpus.raw") == 2
    assert corpus.run().computed == NOTHING


@pytest.mark.slow
def test_one_long_text_is_checked_in_time_that_follows_its_length(tmp_path: Path) -> None:
    corpus = Corpus(tmp_path, embed={"model": "hash:8"})
    corpus.write("long.txt", "ü " + " ".join(sentence(number, 40) + ".\n" for number in range(6000)))
    corpus.run()
    run = corpus.start()
    run.begin("chunked", "")
    try:
        (*_rest, spans) = check_step(run, "chunked")
    finally:
        run.warehouse.close()
    assert (spans.name, spans.passed) == ("spans_exact", True)
    assert corpus.count("corpus.chunked") > 1000


@pytest.mark.slow
def test_a_check_has_what_it_needs_made_anew(corpus: Corpus) -> None:
    corpus.fill(3)
    corpus.run()
    for segment in (corpus.path.with_suffix(".work") / "memo" / "clean").rglob("*.arrow"):
        segment.unlink()
    corpus.write("new.txt", sentence("new", 20))
    run = corpus.start()
    try:
        for dataset in ("raw", "cleaned", "deduplicated", "chunked"):
            DATASETS[dataset](run)
        with pytest.raises(LostError):
            check_step(run, "chunked")
        (*_rest, spans) = check(run, "chunked")
    finally:
        run.warehouse.close()
    assert (spans.name, spans.passed) == ("spans_exact", True)
    assert "3 results that the memo had lost were made anew" in run.counts["chunked"].warnings
