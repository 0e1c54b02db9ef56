"""The approximate index finds what an exact search finds, after any update, and never stands in for another one."""

import warnings
from pathlib import Path
from typing import Any

import duckdb
import pytest
from harness import Corpus, sentence, slow

import stemma
from stemma.cli import main
from stemma.resources.engine import vector_index
from stemma.resources.engine.staleness import staleness
from stemma.search import Searcher
from stemma.search.approximate import index_path

QUERIES = ["lanterng riverc", "harbour in winter", "nothing-of-this 12345", sentence("doc003.txt", 12)]
INDEX = {"index": "usearch", "min_chunks": 10, "expansion": 1000}


def made(root: Path, **search: Any) -> Corpus:
    corpus = Corpus(root, chunk={"max_tokens": 60}, search={**INDEX, **search})
    corpus.steady = True
    corpus.fill(40, words=80)
    return corpus


@pytest.fixture
def corpus(tmp_path: Path) -> Corpus:
    corpus = made(tmp_path)
    corpus.run()
    return corpus


def files(corpus: Corpus) -> list[Path]:
    return list(index_path(corpus.path, "").parent.glob("*"))


def assert_finds_what_is_there(corpus: Corpus, *, indexed: bool = True) -> None:
    """Compare with exact searches; a damaged index would warn, and a warning is an error here."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        searcher = Searcher(stemma.open(corpus.path))
        assert (searcher._neighbours is not None) == indexed
        found = wanted = 0
        for query in QUERIES:
            for mode in ("vector", "hybrid", "text"):
                every = searcher.search(query, 1000, mode=mode, exact=True).to_pylist()
                assert searcher.search(query, 1000, mode=mode).to_pylist() == every
                for k in (1, 7):
                    hits = searcher.search(query, k, mode=mode).to_pylist()
                    # What a hybrid score is divided by depends on what is ranked.
                    ids = {row["chunk_id"] for row in every[:k]}
                    found += len(ids & {row["chunk_id"] for row in hits})
                    wanted += len(ids)
        # Which neighbours a graph misses depends on the order in which threads built it.
        assert found >= 0.9 * wanted
    if indexed:
        assert len(searcher._neighbours or ()) == corpus.count("corpus.embedded")
        assert [path.stem for path in files(corpus)] == [
            corpus.value("SELECT digest FROM search.vector_index")
        ]
    else:
        assert files(corpus) == []


def test_a_corpus_with_an_index_is_not_stale(corpus: Corpus) -> None:
    run = corpus.start()
    assert staleness(run).reasons == ()
    run.warehouse.close()


def test_it_finds_what_an_exact_search_finds_after_any_update(
    corpus: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert_finds_what_is_there(corpus)
    built = {corpus.value("SELECT digest FROM search.vector_index")}
    corpus.write("new.txt", sentence("new", 200))
    corpus.delete("doc003.txt")
    corpus.write("doc004.txt", sentence("doc004.txt", 80) + " and a few words more")
    corpus.run()
    assert_finds_what_is_there(corpus)
    assert corpus.value("SELECT removed FROM search.vector_index") > 0
    built.add(corpus.value("SELECT digest FROM search.vector_index"))
    # The same chunks with other vectors: their numbers stay.
    corpus.set(embed={"smoothing": 0.3})
    monkeypatch.setattr(vector_index, "DEAD_SHARE", 10)
    corpus.run()
    assert_finds_what_is_there(corpus)
    built.add(corpus.value("SELECT digest FROM search.vector_index"))
    assert len(built) == 3
    monkeypatch.undo()
    for number in range(30):
        corpus.delete(f"doc{number:03}.txt") if number != 3 else None
    corpus.run(allow_deletes=True)
    assert_finds_what_is_there(corpus)
    assert corpus.value("SELECT removed FROM search.vector_index") == 0
    assert corpus.differences() == []


def test_what_changes_no_vector_changes_no_index(corpus: Corpus) -> None:
    (before,) = files(corpus)
    stat = before.stat()
    corpus.rename("doc001.txt", "moved.txt")
    corpus.rename("moved.txt", "doc001.txt")
    corpus.set(search={"expansion": 500})
    corpus.run()
    (after,) = files(corpus)
    assert (after, after.stat().st_mtime_ns) == (before, stat.st_mtime_ns)
    assert corpus.value("SELECT expansion FROM search.vector_index") == 500


@pytest.mark.slow
def test_other_storage_and_other_dimensions(corpus: Corpus) -> None:
    corpus.set(embed={"storage": "int8"})
    corpus.run()
    assert_finds_what_is_there(corpus)
    corpus.set(embed={"model": "hash:64", "storage": "float32"})
    corpus.run()
    searcher = Searcher(stemma.open(corpus.root / "stemma.toml"))
    assert searcher.search("river", 5).equals(searcher.search("river", 5, exact=True))


@pytest.mark.slow
def test_it_goes_with_what_it_indexes(corpus: Corpus) -> None:
    corpus.set(search={"min_chunks": 100_000})
    corpus.run()
    assert_finds_what_is_there(corpus, indexed=False)
    corpus.set(search={"min_chunks": 10})
    corpus.run()
    assert_finds_what_is_there(corpus)
    corpus.set(search={"index": "exact"})
    corpus.run()
    assert_finds_what_is_there(corpus, indexed=False)


def test_a_reader_of_an_older_state_never_takes_the_new_index(corpus: Corpus) -> None:
    early, late = (Searcher(stemma.open(corpus.path)) for _ in range(2))
    before = early.search("harbour", 5).to_pylist()
    corpus.write("new.txt", "harbour harbour harbour")
    corpus.run()
    assert late._neighbours is None
    for searcher in (early, late):
        assert searcher.search("harbour", 5).to_pylist() == before
    assert Searcher(stemma.open(corpus.path)).search("harbour", 1)["text"].to_pylist() == [
        "harbour harbour harbour"
    ]


@pytest.mark.parametrize("damage", ["flipped", *slow("missing", "short", "foreign")])
def test_without_a_sound_index_each_vector_is_looked_at(
    damage: str, corpus: Corpus, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (path,) = files(corpus)
    data = bytearray(path.read_bytes())
    path.unlink()
    if damage == "short":
        path.write_bytes(data[:-7])
    elif damage == "flipped":
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
    elif damage == "foreign":
        other = made(tmp_path / "other")
        other.write("more.txt", sentence("more", 70))
        other.run()
        (foreign,) = files(other)
        path.write_bytes(foreign.read_bytes())
    told: list[str] = []
    searcher = Searcher(stemma.open(corpus.path), warn=told.append)
    for query in QUERIES:
        assert searcher.search(query).equals(searcher.search(query, exact=True))
    assert ["damaged" in message for message in told] == [True] * (damage != "missing")
    assert main(["search", "river", "--config", str(corpus.root / "stemma.toml")]) == 0
    assert ("damaged" in capsys.readouterr().err) == (damage != "missing")
    # The next run that changes vectors makes it anew.
    corpus.write("new.txt", sentence("new", 200))
    corpus.run()
    assert_finds_what_is_there(corpus)


def test_a_filter_is_met_by_all_that_is_found(corpus: Corpus) -> None:
    searcher = Searcher(stemma.open(corpus.path))
    found = searcher.search("river", 1000, where="uri LIKE '%doc03%'").to_pylist()
    assert len(found) == corpus.value("SELECT count(*) FROM search.chunks WHERE uri LIKE '%doc03%'")


def test_a_copy_without_its_folder_is_searched_exactly(corpus: Corpus, tmp_path: Path) -> None:
    copy = tmp_path / "copy" / "corpus.duckdb"
    copy.parent.mkdir()
    copy.write_bytes(corpus.path.read_bytes())
    with duckdb.connect(str(copy), read_only=True) as connection:
        searcher = Searcher(connection, lambda _text: [1.0] + [0.0] * 383)
        assert searcher._neighbours is None
        assert searcher.search("river").num_rows == 10
