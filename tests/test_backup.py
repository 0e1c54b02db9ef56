"""Backup and restore: what docs/operations.md says to copy is enough, and nothing is computed again."""

import shutil
from pathlib import Path

import duckdb
import pytest
from harness import NOTHING, READER, Corpus, failed_checks, sentence

from stemma.lineage.comparison import compare_files


@pytest.fixture
def corpus(tmp_path: Path) -> Corpus:
    """A corpus with a history: changes, a duplicate, an error."""
    made = Corpus(tmp_path / "here", chunk={"max_tokens": 40})
    made.fill(8, words=60)
    made.write("copy.txt", sentence("doc000.txt", 60))
    made.write("rows.jsonl", "{broken\n")
    made.run()
    made.write("doc001.txt", sentence("other", 60))
    made.run()
    return made


def is_same(one: Path, other: Path) -> bool:
    """Tell whether two published files hold the same corpus, with the same history."""
    if any(table.differs for table in compare_files(one, other)):
        return False
    histories = []
    for path in (one, other):
        with duckdb.connect(str(path), read_only=True, config=READER) as connection:
            histories.append(connection.execute("FROM lineage.runs ORDER BY ALL").fetchall())
    return histories[0] == histories[1]


def test_the_published_file_alone_is_the_whole_corpus(corpus: Corpus, tmp_path: Path) -> None:
    copy = tmp_path / "backup.duckdb"
    shutil.copyfile(corpus.path, copy)
    assert is_same(corpus.path, copy)
    corpus.write("later.txt", sentence("later", 30))
    corpus.run()
    assert not is_same(corpus.path, copy)
    # Put back under its name, it answers at once; the next run makes it what the state says.
    corpus.path.unlink()
    shutil.copyfile(copy, corpus.path)
    assert failed_checks(corpus.path) == []
    assert corpus.count("corpus.raw") == 9
    assert corpus.run().computed == NOTHING
    assert corpus.count("corpus.raw") == 10
    assert corpus.differences() == []


@pytest.mark.parametrize("sources_moved", [False, True])
def test_the_folder_restored_elsewhere_computes_nothing(
    corpus: Corpus, tmp_path: Path, sources_moved: bool
) -> None:
    backup = tmp_path / "backup"
    shutil.copytree(corpus.root / ".stemma", backup)
    there = Corpus(tmp_path / "there", chunk={"max_tokens": 40})
    if sources_moved:
        shutil.copytree(corpus.docs, there.docs, dirs_exist_ok=True)
    else:
        there.sources = corpus.sources
    shutil.copytree(backup, there.root / ".stemma")
    assert is_same(corpus.path, there.path)
    assert there.run().computed == NOTHING
    assert there.differences() == []
    (Path(there.sources[0].path) / "later.txt").write_text(sentence("later", 15))
    assert set(there.run().computed.values()) == {1}


def test_a_published_file_that_is_put_where_there_is_no_state_gives_way_to_the_sources(
    corpus: Corpus, tmp_path: Path
) -> None:
    there = Corpus(tmp_path / "there", chunk={"max_tokens": 40})
    there.sources = corpus.sources
    there.path.parent.mkdir()
    shutil.copyfile(corpus.path, there.path)
    there.run()
    assert there.differences() == []
