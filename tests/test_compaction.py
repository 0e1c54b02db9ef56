"""Compaction: the memo is what the corpus is made of, and what is young enough to go back to."""

import os
import time
from pathlib import Path

import pyarrow as pa
import pytest
from harness import NOTHING, Corpus, sentence

from stemma.resources import memo
from stemma.resources.engine.upkeep import compact
from stemma.resources.memo import Memo

DAY = 86_400


def compacted(corpus: Corpus, keep_days: int = 0) -> None:
    run = corpus.start()
    try:
        compact(run, keep_days=keep_days)
    finally:
        run.warehouse.close()


def remembered(corpus: Corpus) -> dict[tuple[str, str], set[bytes]]:
    """Return the keys that the memo holds on disk, by stage and recipe."""
    found: dict[tuple[str, str], set[bytes]] = {}
    for stage, recipe, folder in Memo(corpus.path.with_suffix(".work") / "memo").recipes():
        keys = found.setdefault((stage, recipe), set())
        for path in folder.glob("*.arrow"):
            with pa.ipc.open_file(path) as segment:
                keys.update(segment.read_all()["input_hash"].combine_chunks().storage.to_pylist())
    return {place: keys for place, keys in found.items() if keys}


def age(corpus: Corpus, days: float) -> None:
    """Make all that is remembered so old."""
    then = time.time() - days * DAY
    for path in corpus.path.with_suffix(".work").rglob("*.arrow"):
        os.utime(path, (then, then))


def rebuilt(corpus: Corpus, folder: Path) -> Corpus:
    """Return a corpus made from nothing of the same files and settings."""
    other = Corpus(folder)
    for path in corpus.docs.rglob("*"):
        if path.is_file():
            other.write(str(path.relative_to(corpus.docs)), path.read_text())
    other.run()
    return other


def test_after_churn_the_memo_is_that_of_a_rebuild(tmp_path: Path) -> None:
    corpus = Corpus(tmp_path / "corpus")
    corpus.fill(6)
    corpus.write("gone.txt", sentence("gone", 60))
    corpus.write("twin.txt", sentence("twin", 60))
    corpus.write("twin2.txt", sentence("twin", 60) + " almost")
    corpus.run()
    for day in range(3):
        corpus.write("doc0.txt", sentence(f"day {day}", 60))
        (corpus.docs / "gone.txt").unlink(missing_ok=True)
        corpus.run(allow_deletes=True)
    before = remembered(corpus)
    compacted(corpus)
    assert remembered(corpus) == remembered(rebuilt(corpus, tmp_path / "other"))
    assert sum(map(len, remembered(corpus).values())) < sum(map(len, before.values()))
    assert corpus.run().computed == NOTHING
    assert corpus.differences() == []


def test_what_is_young_stays_and_costs_nothing_to_go_back_to(tmp_path: Path) -> None:
    corpus = Corpus(tmp_path)
    corpus.fill(4)
    old, new = sentence("old", 60), sentence("new", 60)
    corpus.write("edited.txt", old)
    corpus.run()
    corpus.write("edited.txt", new)
    corpus.run()
    age(corpus, 29)
    compacted(corpus, keep_days=30)
    corpus.write("edited.txt", old)
    assert corpus.run().computed == NOTHING
    age(corpus, 31)
    compacted(corpus, keep_days=30)
    corpus.write("edited.txt", new)
    assert corpus.run().computed["cleaned"] == 1
    assert corpus.differences() == []


def test_merged_results_are_as_old_as_the_youngest_of_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memo, "MERGE_SEGMENTS", 2)
    corpus = Corpus(tmp_path)
    for day in range(3):
        age(corpus, 40)
        corpus.write("edited.txt", sentence(f"day {day}", 60))
        corpus.run()
    # The third run has merged what it wrote with what the others had: segments of one size.
    compacted(corpus, keep_days=30)
    corpus.write("edited.txt", sentence("day 0", 60))
    assert corpus.run().computed == NOTHING
    age(corpus, 40)
    compacted(corpus, keep_days=30)
    corpus.write("edited.txt", sentence("day 1", 60))
    assert corpus.run().computed["cleaned"] == 1


def test_settings_that_no_run_has_followed_yet_cost_nothing_of_the_old(tmp_path: Path) -> None:
    corpus = Corpus(tmp_path)
    corpus.fill(4)
    corpus.run()
    before = remembered(corpus)
    corpus.set(chunk={"max_tokens": 20})
    compacted(corpus)
    assert remembered(corpus) == before
    corpus.set(chunk={"max_tokens": 100})
    corpus.run()
    compacted(corpus)
    chunks = {recipe for stage, recipe in remembered(corpus) if stage == "chunk"}
    assert len(chunks) == 1
    assert chunks.isdisjoint(recipe for stage, recipe in before if stage == "chunk")


def test_damaged_files_stay_aside_for_as_long(tmp_path: Path) -> None:
    corpus = Corpus(tmp_path)
    corpus.fill(2)
    corpus.run()
    aside = corpus.path.with_suffix(".work") / "quarantine" / "clean-0-1.arrow"
    aside.parent.mkdir(exist_ok=True)
    aside.write_bytes(b"damaged")
    compacted(corpus, keep_days=1)
    assert aside.exists()
    compacted(corpus)
    assert not aside.exists()
