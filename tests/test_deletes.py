"""Deletes: what vanishes from a source vanishes everywhere, and too much at once must be confirmed."""

import dataclasses
import errno
import json
import os
from pathlib import Path
from typing import Any

import pytest
from harness import NOTHING, Corpus, published_bytes, sentence

from stemma.config import SourceConfig
from stemma.errors import StemmaError

EVERYWHERE = (
    "corpus.raw",
    "corpus.cleaned",
    "corpus.deduplicated",
    "corpus.chunked",
    "corpus.embedded",
    "lineage.trace",
    "lineage.files",
)


@pytest.fixture
def corpus(tmp_path: Path) -> Corpus:
    made = Corpus(tmp_path)
    made.steady = True
    return made


def records(*numbers: int) -> str:
    """Return a JSONL file of records with these ids."""
    rows = ({"id": f"r{number}", "text": sentence(f"record {number}", 20)} for number in numbers)
    return "".join(json.dumps(row) + "\n" for row in rows)


def uris(corpus: Corpus) -> set[str]:
    """Return the names of the documents in raw."""
    return {Path(uri).name for (uri,) in corpus.query("SELECT uri FROM corpus.raw")}


def stops(corpus: Corpus, message: str = "would vanish") -> None:
    """Run, and see the run stop without a trace in what is published or in the state's rows."""
    published = published_bytes(corpus.path)
    state = state_rows(corpus)
    with pytest.raises(StemmaError, match=message):
        corpus.run()
    assert published_bytes(corpus.path) == published
    assert state_rows(corpus) == state


def state_rows(corpus: Corpus) -> dict[str, list[tuple]]:
    """Return what the private state says of documents and files."""
    with corpus.state() as connection:
        return {
            table: connection.execute(f"FROM {table} ORDER BY ALL").fetchall()
            for table in ("raw", "files", "cleaned", "deduplicated", "chunked", "embedded", "errors")
        }


def test_a_deleted_document_disappears_everywhere(corpus: Corpus) -> None:
    corpus.fill(8)
    corpus.run()
    gone = corpus.value("SELECT document_id FROM corpus.raw WHERE uri LIKE '%doc003.txt'")
    corpus.delete("doc003.txt")
    result = corpus.run()
    assert result.computed == NOTHING
    assert result.counts["raw"].rows_removed == 1
    for table in EVERYWHERE[:-1]:
        assert corpus.value(f"SELECT count(*) FROM {table} WHERE document_id = '{gone}'") == 0, table
    assert corpus.count("lineage.files") == 7


def test_a_deleted_duplicate_and_a_deleted_keeper_disappear_everywhere(corpus: Corpus) -> None:
    text = sentence("family", 40)
    for name in ("a.txt", "b.txt", "c.txt", "other.txt"):
        corpus.write(name, text if name != "other.txt" else sentence("other", 40))
    corpus.run()
    kept, removed = (
        {Path(uri).name for (uri,) in corpus.query(f"SELECT uri FROM {table}")} - {"other.txt"}
        for table in (
            "corpus.raw JOIN corpus.deduplicated USING (document_id)",
            "corpus.raw JOIN lineage.duplicates USING (document_id)",
        )
    )
    assert (len(kept), len(removed)) == (1, 2)
    corpus.delete(kept.pop())
    corpus.run()
    assert corpus.count("lineage.duplicates") == 1
    corpus.delete(removed.pop())
    corpus.run()
    assert corpus.count("lineage.duplicates") == 0
    assert corpus.count("corpus.deduplicated") == 2
    assert corpus.differences() == []


def test_deletes_up_to_the_limit_pass_and_one_more_stops(corpus: Corpus) -> None:
    names = corpus.fill(100)
    corpus.run()
    for name in names[:11]:
        corpus.delete(name)
    stops(corpus, "11 of its 100 documents would vanish")
    corpus.write(names[0], sentence(names[0], 30))
    corpus.run()
    assert corpus.count("corpus.raw") == 90


@pytest.mark.slow
def test_a_small_source_may_lose_five_documents(corpus: Corpus) -> None:
    names = corpus.fill(12)
    corpus.run()
    for name in names[:6]:
        corpus.delete(name)
    stops(corpus, "6 of its 12")
    corpus.write(names[0], sentence(names[0], 30))
    corpus.run()
    assert corpus.count("corpus.raw") == 7


@pytest.mark.slow
def test_the_share_counts_for_each_source(corpus: Corpus) -> None:
    corpus.fill(100)
    corpus.sources.append(SourceConfig("small", str(corpus.root / "small")))
    (corpus.root / "small").mkdir()
    for number in range(8):
        (corpus.root / "small" / f"{number}.txt").write_text(sentence(number, 20))
    corpus.run()
    for number in range(6):
        (corpus.root / "small" / f"{number}.txt").unlink()
    stops(corpus, "source 'small': 6 of its 8")


def test_an_emptied_folder_stops_the_run_until_it_is_allowed(corpus: Corpus) -> None:
    names = corpus.fill(20)
    corpus.run()
    for name in names:
        corpus.delete(name)
    stops(corpus, "20 of its 20")
    stops(corpus, "20 of its 20")
    corpus.run(allow_deletes=True)
    for table in EVERYWHERE:
        assert corpus.count(table) == 0, table
    assert corpus.failed_checks() == []


@pytest.mark.slow
def test_an_emptied_folder_that_fills_again_computes_nothing(corpus: Corpus) -> None:
    names = corpus.fill(20)
    corpus.run()
    texts = {name: (corpus.docs / name).read_bytes() for name in names}
    for name in names:
        corpus.delete(name)
    stops(corpus)
    for name, text in texts.items():
        corpus.write(name, text)
    assert corpus.run().computed == NOTHING
    assert corpus.count("corpus.raw") == 20


@pytest.mark.parametrize("allow_deletes", [False, True])
def test_a_vanished_path_stops_the_run_even_if_deletes_are_allowed(
    corpus: Corpus, allow_deletes: bool
) -> None:
    corpus.fill(8)
    corpus.run()
    published, state = published_bytes(corpus.path), state_rows(corpus)
    corpus.docs.rename(corpus.root / "elsewhere")
    with pytest.raises(StemmaError, match="cannot list"):
        corpus.run(allow_deletes=allow_deletes)
    assert published_bytes(corpus.path) == published
    assert state_rows(corpus) == state


def test_a_wrong_path_stops_and_leaves_nothing_of_the_wrong_documents(corpus: Corpus) -> None:
    corpus.fill(20)
    corpus.run()
    wrong = corpus.root / "wrong"
    wrong.mkdir()
    for number in range(60):
        (wrong / f"wrong{number}.txt").write_text(sentence(f"wrong {number}", 20))
    corpus.sources = [dataclasses.replace(corpus.sources[0], path=str(wrong))]
    stops(corpus, "20 of its 20")
    corpus.sources = [dataclasses.replace(corpus.sources[0], path=str(corpus.docs))]
    assert corpus.run().computed == NOTHING
    assert len(uris(corpus)) == 20


@pytest.mark.slow
def test_a_removed_source_is_a_mass_delete(corpus: Corpus) -> None:
    corpus.fill(8)
    other = corpus.root / "other"
    other.mkdir()
    (other / "one.txt").write_text(sentence("one", 20))
    corpus.sources.append(SourceConfig("other", str(other)))
    corpus.run()
    corpus.sources = corpus.sources[1:]
    stops(corpus, "source 'docs': 8 of its 8")
    corpus.run(allow_deletes=True)
    assert uris(corpus) == {"one.txt"}


def test_a_partial_listing_deletes_nothing(corpus: Corpus) -> None:
    corpus.sources = [dataclasses.replace(corpus.sources[0], complete=False)]
    names = corpus.fill(20)
    corpus.run()
    for name in names[:15]:
        corpus.delete(name)
    assert corpus.run().computed == NOTHING
    assert corpus.count("corpus.raw") == 20
    corpus.write(names[16], sentence("changed", 20))
    assert corpus.run().counts["raw"].rows_changed == 1
    corpus.sources = [dataclasses.replace(corpus.sources[0], complete=True)]
    stops(corpus, "15 of its 20")


@pytest.mark.slow
def test_a_partial_listing_keeps_the_errors_of_what_is_not_listed(corpus: Corpus) -> None:
    corpus.sources = [dataclasses.replace(corpus.sources[0], complete=False)]
    corpus.fill(3)
    corpus.write("rows.jsonl", records(1, 2) + "{broken\n")
    corpus.run()
    corpus.delete("rows.jsonl")
    corpus.run()
    assert corpus.count("corpus.raw") == 5
    assert corpus.count("lineage.errors") == 1


def test_a_renamed_folder_is_no_deletion(corpus: Corpus) -> None:
    corpus.fill(30, folder="before")
    corpus.run()
    corpus.rename("before", "after/deeper")
    result = corpus.run()
    assert result.computed == NOTHING
    assert (result.counts["raw"].rows_added, result.counts["raw"].rows_removed) == (30, 30)
    assert corpus.value("SELECT count(*) FROM corpus.raw WHERE uri LIKE '%/after/deeper/%'") == 30
    assert corpus.differences() == []


@pytest.mark.slow
def test_a_renamed_folder_does_not_hide_a_mass_delete(corpus: Corpus) -> None:
    names = corpus.fill(30, folder="before")
    corpus.run()
    for name in names[:6]:
        corpus.delete(name)
    corpus.rename("before", "after")
    stops(corpus, "6 of its 30")
    stops(corpus, "6 of its 30")


@pytest.mark.slow
def test_copies_that_stay_do_not_hide_a_mass_delete(corpus: Corpus) -> None:
    for number in range(30):
        corpus.write(f"copy{number}.txt", sentence("the same", 20))
    corpus.run()
    for number in range(29):
        corpus.delete(f"copy{number}.txt")
    stops(corpus, "29 of its 30")


def test_records_that_go_from_a_file_are_deleted(corpus: Corpus) -> None:
    corpus.write("rows.jsonl", records(*range(10)))
    corpus.run()
    corpus.write("rows.jsonl", records(*range(3, 10)))
    result = corpus.run()
    assert result.counts["raw"].rows_removed == 3
    assert {record for (record,) in corpus.query("SELECT record FROM corpus.raw")} == {
        f"r{number}" for number in range(3, 10)
    }


@pytest.mark.slow
def test_a_file_that_loses_most_records_stops_each_run(corpus: Corpus) -> None:
    corpus.write("rows.jsonl", records(*range(20)))
    corpus.run()
    corpus.write("rows.jsonl", records(1, 2))
    stops(corpus, "18 of its 20")
    stops(corpus, "18 of its 20")
    corpus.run(allow_deletes=True)
    assert corpus.count("corpus.raw") == 2
    assert corpus.differences() == []


@pytest.mark.slow
def test_an_emptied_file_of_records_stops_the_run(corpus: Corpus) -> None:
    corpus.write("rows.jsonl", records(*range(20)))
    corpus.fill(2)
    corpus.run()
    corpus.write("rows.jsonl", b"")
    stops(corpus, "of its 22")


@pytest.mark.slow
def test_the_last_documents_disappear_though_only_unreadable_files_are_left(corpus: Corpus) -> None:
    corpus.fill(3)
    corpus.write("broken.pdf", b"%PDF-1.4 is all there is")
    corpus.run()
    for name in ("doc000.txt", "doc001.txt", "doc002.txt", "broken.pdf"):
        corpus.delete(name)
    corpus.write("picture.png", b"\x89PNG\r\n\x1a\n00")
    corpus.run(allow_deletes=True)
    assert corpus.count("corpus.raw") == corpus.count("corpus.embedded") == 0
    assert corpus.count("lineage.errors") == 1


@pytest.mark.slow
def test_what_lies_in_a_folder_that_cannot_be_listed_stays(
    corpus: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    corpus.fill(6)
    corpus.fill(2, folder="sub")
    corpus.run()
    scandir = os.scandir

    def refusing(path: str) -> Any:
        if str(path).endswith("/sub"):
            raise PermissionError(errno.EACCES, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refusing)
    corpus.run()
    assert corpus.count("corpus.raw") == 8
    assert corpus.query("SELECT error, parse_filename(uri) FROM lineage.errors") == [
        ("unreadable folder", "sub")
    ]
    monkeypatch.undo()
    assert corpus.run().computed == NOTHING
    assert corpus.count("lineage.errors") == 0
    assert corpus.differences() == []
