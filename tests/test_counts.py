"""Counts of work: a run computes what changed and what that reaches, and nothing else."""

import importlib.util
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from harness import NOTHING, Corpus, long_document, sentence, slow

from stemma.chunking import chunker, strategies
from stemma.cleaning import clean
from stemma.cleaning.filters import metrics
from stemma.config import SourceConfig
from stemma.embedding import feature_hashing
from stemma.resources import workers

SMALL_CHUNKS = {"max_tokens": 40}


@pytest.fixture
def corpus(tmp_path: Path) -> Corpus:
    return Corpus(tmp_path, chunk=dict(SMALL_CHUNKS))


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """The rows that each stage's function was really called for, checks of remembered rows included."""
    counter: Counter[str] = Counter()

    def counting(function: Any) -> Any:
        def wrapped(stage: Any, batch: Any, model: Any) -> Any:
            counter[stage.name] += batch.num_rows
            return function(stage, batch, model)

        return wrapped

    monkeypatch.setattr(workers, "compute", counting(workers.compute))
    return counter


def chunk_texts(corpus: Corpus) -> set[str]:
    """Return the distinct texts of the published chunks."""
    return {text for (text,) in corpus.query("SELECT DISTINCT text FROM corpus.chunked")}


def test_the_first_run_computes_everything_once(corpus: Corpus, calls: Counter[str]) -> None:
    corpus.fill(5)
    corpus.write("long.txt", long_document("x", 20))
    result = corpus.run()
    chunks = len(chunk_texts(corpus))
    assert chunks > 20
    assert result.computed == {"raw": 6, "cleaned": 6, "deduplicated": 6, "chunked": 6, "embedded": chunks}
    assert calls == {"clean": 6, "sign": 6, "chunk": 6, "embed": chunks}


def test_a_second_run_computes_nothing(corpus: Corpus, calls: Counter[str]) -> None:
    corpus.fill(5)
    corpus.run()
    calls.clear()
    for _ in range(2):
        result = corpus.run()
        assert result.computed == NOTHING
        assert not any(counts.touched for counts in result.counts.values())
    assert calls == {}


def test_a_second_run_loads_no_model(corpus: Corpus) -> None:
    corpus.set(embed={"model": "all-MiniLM-L6-v2"})
    corpus.fill(2, words=12)
    assert corpus.run().computed["embedded"] == 2
    script = """
import sys
from stemma.config import load_config
from stemma.resources.engine import Run, Setup, run_all
from stemma.resources.warehouse import Warehouse

config = load_config(sys.argv[1])
run = Run("second", Setup.of(config), Warehouse(config.warehouse.path))
run_all(run)
heavy = {"torch", "transformers", "sentence_transformers"} & set(sys.modules)
print(run.counts["embedded"].rows_computed, sorted(heavy))
"""
    second = subprocess.run(
        [sys.executable, "-c", script, str(corpus.root / "stemma.toml")],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert second == "0 []\n"


def test_one_changed_document_computes_itself_and_its_new_chunks(corpus: Corpus, calls: Counter[str]) -> None:
    corpus.fill(30)
    text = long_document("x", 60)
    corpus.write("long.txt", text)
    corpus.run()
    before = chunk_texts(corpus)
    calls.clear()
    corpus.write("long.txt", text.replace(text.split()[1000], "changed", 1))
    result = corpus.run()
    unseen = chunk_texts(corpus) - before
    assert 1 <= len(unseen) <= 4
    assert result.computed == {
        "raw": 1,
        "cleaned": 1,
        "deduplicated": 1,
        "chunked": 1,
        "embedded": len(unseen),
    }
    assert calls["embed"] <= len(unseen) + 2
    assert corpus.differences() == []


def test_an_edit_that_cleaning_removes_goes_no_further(corpus: Corpus) -> None:
    corpus.fill(4)
    text = (corpus.docs / "doc002.txt").read_text()
    corpus.run()
    corpus.write("doc002.txt", f"{text}  \n\n")
    result = corpus.run()
    assert result.computed == {**NOTHING, "raw": 1, "cleaned": 1}
    # That something was repaired is a score of the cleaned row.
    assert [name for name, counts in result.counts.items() if counts.touched] == ["raw", "cleaned"]
    assert corpus.differences() == []


@pytest.mark.slow
def test_texts_are_found_after_an_edit_that_cleaning_removes(
    corpus: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    corpus.fill(3)
    text = (corpus.docs / "doc002.txt").read_text()
    corpus.run()
    corpus.write("doc002.txt", f"{text}  \n\n")
    corpus.run()
    monkeypatch.setattr(clean, "measure", edited(metrics, corpus.root, SAME_RESULT).measure)
    corpus.run()
    corpus.set(chunk={"max_tokens": 30})
    assert corpus.run().computed["chunked"] == 3
    assert corpus.differences() == []


@pytest.mark.parametrize("new", ["folder/doc002.txt", *slow("0.txt")])
def test_a_rename_computes_nothing(corpus: Corpus, calls: Counter[str], new: str) -> None:
    corpus.fill(5)
    corpus.run()
    calls.clear()
    corpus.rename("doc002.txt", new)
    result = corpus.run()
    assert result.computed == NOTHING
    assert calls == {}
    assert corpus.value(f"SELECT count(*) FROM corpus.raw WHERE uri LIKE '%/{new}'") == 1
    assert corpus.count("corpus.embedded") == corpus.value("SELECT count(*) FROM corpus.chunked")
    assert corpus.differences() == []


def test_a_rename_of_many_documents_computes_nothing(corpus: Corpus, calls: Counter[str]) -> None:
    corpus.fill(40, folder="before")
    corpus.run()
    calls.clear()
    corpus.rename("before", "after")
    assert corpus.run().computed == NOTHING
    assert calls == {}


def test_a_touch_computes_nothing(corpus: Corpus, calls: Counter[str]) -> None:
    corpus.fill(5)
    corpus.run()
    calls.clear()
    os.utime(corpus.docs / "doc001.txt", (10**9, 10**9))
    result = corpus.run()
    assert result.computed == NOTHING
    assert calls == {}
    # The day of a document without a date is its file's: that much follows, in raw alone.
    assert [name for name, counts in result.counts.items() if counts.touched] == ["raw"]
    assert (
        str(corpus.value("SELECT partition_date FROM corpus.raw WHERE uri LIKE '%doc001.txt'"))
        == "2001-09-09"
    )
    assert corpus.differences() == []


def test_a_document_that_comes_back_computes_nothing(corpus: Corpus, calls: Counter[str]) -> None:
    corpus.fill(5)
    text = (corpus.docs / "doc003.txt").read_text()
    corpus.run()
    corpus.delete("doc003.txt")
    corpus.run()
    calls.clear()
    corpus.write("doc003.txt", text)
    assert corpus.run().computed == NOTHING
    assert calls == {}
    assert corpus.count("corpus.deduplicated") == 5


@pytest.mark.parametrize(
    ("section", "key", "one", "other"),
    [
        ("chunk", "max_tokens", 40, 30),
        ("deduplicate", "threshold", 0.7, 0.8),
        ("embed", "model", "hash:384", "hash:64"),
        *slow(
            ("clean", "languages", (), ("en",)),
            ("chunk", "overlap", 0, 5),
            ("chunk", "strategy", "structure", "fixed"),
            ("deduplicate", "keep", "oldest", "longest"),
            ("deduplicate", "shingle_words", 5, 3),
            ("clean", "repair", True, False),
        ),
    ],
)
def test_going_back_to_an_earlier_setting_computes_nothing(
    corpus: Corpus, calls: Counter[str], section: str, key: str, one: Any, other: Any
) -> None:
    corpus.write("near.txt", sentence("doc001.txt", 30) + " and more")
    corpus.fill(3)
    corpus.write("long.txt", long_document("x", 8))
    corpus.set(**{section: {key: one}})
    corpus.run()
    corpus.set(**{section: {key: other}})
    corpus.run()
    calls.clear()
    for value in (one, other):
        corpus.set(**{section: {key: value}})
        assert corpus.run().computed == NOTHING
    assert calls == {}


def test_a_threshold_cleans_and_embeds_nothing_again(corpus: Corpus) -> None:
    corpus.fill(4)
    text = sentence("base", 60)
    corpus.write("near.txt", text)
    corpus.write("nearer.txt", text.replace(text.split()[30], "other"))
    corpus.run()
    assert corpus.count("lineage.duplicates") == 1
    corpus.set(deduplicate={"threshold": 0.95})
    result = corpus.run()
    assert corpus.count("lineage.duplicates") == 0
    assert result.computed["cleaned"] == result.computed["deduplicated"] == 0
    assert result.computed["chunked"] == 1
    assert corpus.differences() == []


def test_the_same_chunk_in_two_documents_is_embedded_once(corpus: Corpus, calls: Counter[str]) -> None:
    shared = sentence("shared", 25).capitalize() + "."
    for name in ("one.md", "two.md"):
        own = "\n\n".join(sentence(f"{name} {number}", 25).capitalize() + "." for number in range(8))
        corpus.write(name, f"# Part\n\n{shared}\n\n# Other\n\n{own}")
    result = corpus.run()
    assert corpus.count("corpus.deduplicated") == 2
    chunks, texts = corpus.query("SELECT count(*), count(DISTINCT text_hash) FROM corpus.embedded")[0]
    assert chunks > texts
    assert result.computed["embedded"] == calls["embed"] == texts
    assert corpus.value("SELECT count(DISTINCT embedding::VARCHAR) FROM corpus.embedded") == texts


def test_the_same_document_in_two_sources_is_computed_once(corpus: Corpus, calls: Counter[str]) -> None:
    corpus.set(deduplicate={"scope": "source"})
    corpus.fill(3)
    other = corpus.root / "other"
    other.mkdir()
    for path in corpus.docs.iterdir():
        (other / path.name).write_bytes(path.read_bytes())
    corpus.sources.append(SourceConfig("other", str(other)))
    result = corpus.run()
    assert corpus.count("corpus.deduplicated") == 6
    texts = len(chunk_texts(corpus))
    assert calls == {"clean": 3, "sign": 3, "chunk": 3, "embed": texts}
    assert result.computed == {"raw": 3, "cleaned": 3, "deduplicated": 3, "chunked": 3, "embedded": texts}
    assert corpus.count("corpus.embedded") == 2 * texts
    assert corpus.differences() == []


def test_another_chunk_size_embeds_only_unseen_texts(corpus: Corpus) -> None:
    corpus.fill(10, words=15)
    corpus.write("long.txt", long_document("x", 30))
    corpus.run()
    before = chunk_texts(corpus)
    corpus.set(chunk={"max_tokens": 60})
    result = corpus.run()
    now = chunk_texts(corpus)
    assert len(now & before) >= 10
    assert result.computed == {**NOTHING, "chunked": 11, "embedded": len(now - before)}
    assert corpus.differences() == []


# -- code ------------------------------------------------------------------------------------------------------


def edited(module: ModuleType, folder: Path, *edits: tuple[str, str]) -> ModuleType:
    """Load a module anew from an edited copy of its file, as another process would find it."""
    source = Path(module.__file__ or "").read_text()
    for old, new in edits:
        assert old in source
        source = source.replace(old, new)
    path = folder / Path(module.__file__ or "").name
    path.write_text(source)
    spec = importlib.util.spec_from_file_location(module.__name__, path)
    assert spec is not None
    assert spec.loader is not None
    copy = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(copy)
    return copy


COMMENTS = [
    (
        "    characters = _characters(block)\n",
        "    # A comment.\n    characters = _characters(block)  # more\n\n",
    ),
    ('    """Count the different stop words', '    """Another docstring. Count the different stop words'),
]
UNIQUE_WORDS = "ratios(distinct, np.diff(bounds))"
SAME_RESULT = (UNIQUE_WORDS, UNIQUE_WORDS.replace("np.diff(bounds)", "np.diff(bounds) * 1"))
OTHER_RESULT = (UNIQUE_WORDS, UNIQUE_WORDS + " / 2")
OTHER_WINDOWS = ("            cut = _window_end(layout, begin, end, sizes.most)\n",
                 "            cut = _window_end(layout, begin, end, sizes.most - 1)\n")  # fmt: skip


def test_an_edit_of_comments_computes_nothing(
    corpus: Corpus, calls: Counter[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    corpus.fill(3)
    corpus.run()
    calls.clear()
    monkeypatch.setattr(clean, "measure", edited(metrics, corpus.root, *COMMENTS).measure)
    assert corpus.run().computed == NOTHING
    assert calls == {}


def test_an_edit_of_a_helper_recomputes_its_stage_and_stops_where_outputs_are_equal(
    corpus: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    corpus.fill(3)
    corpus.run()
    monkeypatch.setattr(clean, "measure", edited(metrics, corpus.root, SAME_RESULT).measure)
    result = corpus.run()
    assert result.computed == {**NOTHING, "cleaned": 3}
    assert not any(counts.touched for counts in result.counts.values())
    assert corpus.run().computed == NOTHING


@pytest.mark.slow
def test_an_edit_of_a_helper_reaches_the_rows_that_it_changes(
    corpus: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    corpus.fill(3)
    corpus.run()
    monkeypatch.setattr(clean, "measure", edited(metrics, corpus.root, OTHER_RESULT).measure)
    result = corpus.run()
    assert result.computed == {**NOTHING, "cleaned": 3}
    assert result.counts["cleaned"].rows_changed == 3
    assert corpus.value("SELECT max((quality->>'unique_word_fraction')::DOUBLE) FROM corpus.cleaned") <= 0.5
    assert corpus.differences() == []


@pytest.mark.slow
def test_an_edit_of_a_chunking_strategy_recomputes_chunking(
    corpus: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    corpus.set(chunk={"strategy": "fixed"})
    corpus.fill(3, words=60)
    corpus.run()
    before = chunk_texts(corpus)
    monkeypatch.setitem(chunker.STRATEGIES, "fixed", edited(strategies, corpus.root, OTHER_WINDOWS).fixed)
    result = corpus.run()
    unseen = chunk_texts(corpus) - before
    assert unseen
    assert result.computed == {**NOTHING, "chunked": 3, "embedded": len(unseen)}
    assert corpus.differences() == []


normalised = feature_hashing._normalised


def turned(sums: Any) -> Any:
    return np.ascontiguousarray(normalised(sums)[:, ::-1])


@pytest.mark.slow
def test_a_changed_helper_of_embedding_recomputes_embedding(
    corpus: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    corpus.fill(3)
    corpus.run()
    before = corpus.query("SELECT chunk_id, embedding FROM corpus.embedded ORDER BY ALL")
    monkeypatch.setattr(feature_hashing, "_normalised", turned)
    result = corpus.run()
    assert result.computed == {**NOTHING, "embedded": len(before)}
    after = corpus.query("SELECT chunk_id, embedding FROM corpus.embedded ORDER BY ALL")
    assert after == [(chunk_id, vector[::-1]) for chunk_id, vector in before]
    assert corpus.differences() == []


def test_the_ledger_of_runs_shows_the_counts(corpus: Corpus) -> None:
    corpus.fill(4)
    corpus.run()
    corpus.write("doc001.txt", sentence("changed", 30))
    corpus.delete("doc002.txt")
    corpus.run()
    corpus.run()
    rows = corpus.query(
        """SELECT run_id, dataset, rows_in, rows_added, rows_changed, rows_removed, rows_reused, rows_computed, rows,
        recipe IS NOT NULL AND started_at <= finished_at FROM lineage.runs
        WHERE dataset IN ('raw', 'cleaned', 'deduplicated') ORDER BY started_at"""
    )
    assert rows == [
        ("run-1", "raw", 4, 4, 0, 0, 0, 4, 4, True),
        ("run-1", "cleaned", 4, 4, 0, 0, 0, 4, 4, True),
        ("run-1", "deduplicated", 4, 4, 0, 0, 0, 4, 4, True),
        ("run-2", "raw", 3, 0, 1, 1, 2, 1, 3, True),
        ("run-2", "cleaned", 3, 0, 1, 1, 2, 1, 3, True),
        ("run-2", "deduplicated", 3, 0, 1, 1, 2, 1, 3, True),
        ("run-3", "raw", 3, 0, 0, 0, 3, 0, 3, True),
        ("run-3", "cleaned", 3, 0, 0, 0, 3, 0, 3, True),
        ("run-3", "deduplicated", 3, 0, 0, 0, 3, 0, 3, True),
    ]
    assert corpus.count("lineage.runs") == 15
