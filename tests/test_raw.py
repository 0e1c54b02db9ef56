"""raw: labels, trusted times, archives and files in motion, from the source to the published table."""

import gzip
import io
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import fsspec
import pytest
from harness import NOTHING, Corpus, sentence

from stemma.config import SourceConfig, load_config
from stemma.errors import RetryableError
from stemma.hashing import digest
from stemma.resources import looking, sources
from stemma.resources.engine import Run, Setup
from stemma.resources.engine.raw import list_sources
from stemma.resources.sources import FileEntry, list_files, read_stable
from stemma.resources.warehouse import Warehouse


@pytest.fixture
def corpus(tmp_path: Path) -> Corpus:
    made = Corpus(tmp_path)
    made.steady = True
    return made


def labelled(corpus: Corpus, **options) -> None:
    corpus.sources = [SourceConfig("docs", str(corpus.docs), **options)]


def test_labels_are_columns_to_query_and_cost_no_cleaning(corpus: Corpus) -> None:
    corpus.fill(4)
    corpus.write(
        "rows.jsonl",
        "\n".join(
            json.dumps({"id": n, "text": sentence(("row", n), 30), "license": ["MIT", None][n]})
            for n in range(2)
        ),
    )
    labelled(
        corpus, fields=(("licence", "license"),), labels=(("licence", "CC-BY-4.0"), ("variety", "en-GB"))
    )
    corpus.run()
    licences = "SELECT labels->>'licence', count(*) FROM corpus.raw GROUP BY ALL ORDER BY ALL"
    assert corpus.query(licences) == [("CC-BY-4.0", 5), ("MIT", 1)]
    assert corpus.value("SELECT count(*) FROM corpus.raw WHERE labels->>'variety' = 'en-GB'") == 6
    labelled(corpus, fields=(("licence", "license"),), labels=(("licence", "CC0-1.0"), ("variety", "en-GB")))
    changed = corpus.run()
    assert changed.computed == NOTHING
    assert {name: counts.rows_changed for name, counts in changed.counts.items()} == {
        name: 5 if name == "raw" else 0 for name in NOTHING
    }
    assert corpus.query(licences) == [("CC0-1.0", 5), ("MIT", 1)]
    labelled(corpus)
    assert corpus.run().computed == NOTHING
    assert corpus.value("SELECT count(labels) FROM corpus.raw") == 0
    assert corpus.differences() == []


def test_guesses_are_shown(corpus: Corpus) -> None:
    corpus.write("a.md", "# A heading\n\n" + sentence("a", 20))
    corpus.write("rows.jsonl", json.dumps({"url": "u", "body": sentence("b", 20), "created": "2024-05-06"}))
    corpus.run()
    assert corpus.query("SELECT fields, date_from FROM corpus.raw WHERE fields IS NOT NULL") == [
        ('{"date": "created", "id": "url", "text": "body"}'.replace("\n", ""), "field")
    ]
    assert corpus.value("SELECT count(*) FROM corpus.raw WHERE fields IS NULL") == 1


def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the relative paths of the files that are opened from now on."""
    found: list[str] = []

    def watched(entry: FileEntry):
        found.append(entry.relative)
        return read_stable(entry)

    monkeypatch.setattr(looking, "read_stable", watched)
    return found


@pytest.mark.slow
def test_trusted_times_spare_the_reading(corpus: Corpus, monkeypatch: pytest.MonkeyPatch) -> None:
    names = corpus.fill(5)
    labelled(corpus, trust_mtime=True)
    corpus.run()
    reads = opened(monkeypatch)
    assert corpus.run().computed == NOTHING
    assert reads == []
    corpus.write(names[0], sentence("other", 31))
    os.utime(corpus.docs / names[1], ns=(10**18, 10**18))
    assert corpus.run().computed["cleaned"] == 1
    assert reads == names[:2]
    reads.clear()
    assert corpus.run().computed == NOTHING
    assert reads == []
    labelled(corpus)
    corpus.run()
    assert sorted(reads) == sorted(names)
    assert corpus.differences() == []


def test_a_trusted_folder_that_moves_keeps_its_documents(
    corpus: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    corpus.fill(3)
    labelled(corpus, trust_mtime=True)
    corpus.run()
    corpus.docs.rename(corpus.root / "elsewhere")
    corpus.docs = corpus.root / "elsewhere"
    labelled(corpus, trust_mtime=True)
    reads = opened(monkeypatch)
    assert corpus.run().computed == NOTHING
    assert reads == []
    assert corpus.value("SELECT count(*) FROM corpus.raw WHERE uri LIKE '%/elsewhere/%'") == 3


def test_trusted_times_change_nothing_for_other_labels_or_readers(corpus: Corpus) -> None:
    corpus.fill(3)
    labelled(corpus, trust_mtime=True)
    corpus.run()
    labelled(corpus, trust_mtime=True, labels=(("a", "b"),))
    assert corpus.run().counts["raw"].rows_changed == 3


def test_remote_files_are_told_apart_by_their_version(
    corpus: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory = fsspec.filesystem("memory")
    info = type(memory).info
    etags = {"/bucket/a.txt": "one", "/bucket/b.txt": "one"}

    def with_etag(self, path, **options):
        return {
            **{k: v for k, v in info(self, path, **options).items() if k != "created"},
            "ETag": etags.get(path),
        }

    monkeypatch.setattr(type(memory), "info", with_etag)
    monkeypatch.setattr(
        type(memory), "find", lambda self, path, **_: {name: self.info(name) for name in sorted(etags)}
    )
    memory.pipe({name: sentence(name, 30).encode() for name in etags})
    try:
        corpus.sources = [SourceConfig("docs", "memory://bucket", trust_mtime=True)]
        corpus.run()
        reads = opened(monkeypatch)
        assert corpus.run().computed == NOTHING
        assert reads == []
        memory.pipe("/bucket/a.txt", sentence("new", 30).encode())
        etags["/bucket/a.txt"] = "two"
        assert corpus.run().computed["cleaned"] == 1
        assert reads == ["a.txt"]
    finally:
        memory.rm("/bucket", recursive=True)


def test_members_of_an_archive_are_documents_of_their_own(corpus: Corpus) -> None:
    def pack(texts: dict[str, str]) -> bytes:
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as archive:
            for name, text in texts.items():
                archive.writestr(name, text)
        return buffer.getvalue()

    texts = {f"notes/{number}.txt": sentence(number, 30) for number in range(4)}
    corpus.write("a.zip", pack({**texts, "../evil.txt": "x"}))
    corpus.write("b.jsonl.gz", gzip.compress(json.dumps({"text": sentence("b", 30)}).encode()))
    corpus.run()
    assert corpus.query("SELECT record FROM corpus.raw WHERE ends_with(uri, 'a.zip') ORDER BY ALL") == [
        (name,) for name in texts
    ]
    assert corpus.query("SELECT record, error FROM lineage.errors") == [
        ("../evil.txt", "path leaves the archive")
    ]
    del texts["notes/3.txt"]
    texts["notes/0.txt"] = sentence("new", 30)
    corpus.write("a.zip", pack(texts))
    changed = corpus.run()
    assert changed.computed["cleaned"] == 1
    assert changed.counts["raw"].rows_removed == 1
    assert corpus.query("SELECT * FROM lineage.errors") == []
    assert corpus.differences() == []


@pytest.mark.slow
def test_a_file_in_motion_is_read_whole_or_put_off(
    shared, corpus: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:  # type: ignore[no-untyped-def]
    """make_hostile.py --mutate rewrites, truncates, renames and deletes a file while it is read again and again."""
    names = corpus.fill(3)
    path = corpus.write("moving.txt", "first version")
    monkeypatch.setattr(sources, "_PAUSE_SECONDS", 0)
    tool = shared / "tools/make_hostile.py"
    seen: set[str] = set()
    mutator = subprocess.Popen([sys.executable, str(tool), "--mutate", str(path), "--seconds", "4"])
    try:
        while mutator.poll() is None:
            for entry in list_files(SourceConfig("docs", str(corpus.docs))):
                assert isinstance(entry, FileEntry)
                try:
                    file, file_hash, found = read_stable(entry)
                except (RetryableError, FileNotFoundError) as error:
                    seen.add(type(error).__name__)
                    continue
                data = file.read()
                assert (digest(data), len(data)) == (file_hash, found.size)
                seen.add("whole")
            corpus.run(allow_deletes=True)
            assert {name for (name,) in corpus.query("SELECT parse_filename(uri) FROM corpus.raw")} >= set(
                names
            )
            assert corpus.failed_checks() == []
    finally:
        mutator.wait()
    assert "whole" in seen
    corpus.write("moving.txt", sentence("at rest", 30))
    corpus.run(allow_deletes=True)
    assert corpus.value("SELECT count(*) FROM corpus.raw") == 4
    assert corpus.differences() == []


def test_the_settings_in_use_are_no_document(tmp_path: Path) -> None:
    corpus = Corpus(tmp_path)
    corpus.fill(2)
    (tmp_path / "docs").rename(tmp_path / "inside")
    settings = tmp_path / "inside" / "stemma.toml"
    settings.write_text('[[sources]]\nname = "docs"\npath = "."\n\n[embed]\nmodel = "hash:16"\n')
    (tmp_path / "inside" / "other.toml").write_text('title = "no settings of ours"')
    config = load_config(settings)
    run = Run("run", Setup.of(config), Warehouse(config.warehouse.path))
    try:
        listed = [file.relative for _source, files, _errors in list_sources(run) for file in files]
    finally:
        run.warehouse.close()
    assert "stemma.toml" not in listed
    assert len(listed) == 3
