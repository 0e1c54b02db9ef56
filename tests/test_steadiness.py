"""Checks that warn when a corpus no longer looks as it did."""

import pytest
from harness import Corpus, sentence

from stemma.resources.engine import DATASETS, publish
from stemma.resources.engine.step_checks import WARNING, check_step

GERMAN = "Das ist ein ganz gewöhnlicher Satz in deutscher Sprache, und er handelt von Nummer {} und von sonst nichts."


def warned(corpus: Corpus) -> dict[str, str]:
    """Run, and return the warnings of cleaned and deduplicated with what they say."""
    run = corpus.start()
    found: dict[str, str] = {}
    try:
        for name, update in DATASETS.items():
            update(run)
            checks = check_step(run, name)
            assert all(check.passed for check in checks if check.name not in WARNING)
            found |= {check.name: check.detail for check in checks if not check.passed}
        assert publish(run).published
    finally:
        run.warehouse.close()
    return found


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    corpus = Corpus(tmp_path_factory.mktemp("steady"))
    for number in range(60):
        corpus.write(
            f"{number}.txt", f"This is an ordinary sentence of the English language. {sentence(number, 30)}"
        )
    assert warned(corpus) == {}, "nothing to compare with"
    return corpus


def test_what_changes_is_told_and_blocks_nothing(base: Corpus) -> None:
    base.write("one more.txt", f"And this is one more sentence of the same kind. {sentence('more', 30)}")
    assert warned(base) == {}
    for number in range(30):
        base.write(f"empty {number}.txt", " \n")
    assert warned(base) == {"drop_ratio_steady": "33.0% dropped, 0.0% in the runs before"}
    for number in range(30):
        base.write(f"empty {number}.txt", GERMAN.format(number) * 12)
    told = warned(base)
    assert "de +" in told["languages_steady"]
    rows = base.query("SELECT DISTINCT dataset, measure FROM lineage.measures")
    assert {("cleaned", "dropped"), ("cleaned", "language de"), ("deduplicated", "duplicates")} <= set(rows)
    assert base.differences() == []


def test_copies_and_long_texts_are_told(base: Corpus) -> None:
    for number in range(30):
        base.write(f"empty {number}.txt", base.docs.joinpath("1.txt").read_text())
    assert "duplicate_ratio_steady" in warned(base)
    base.set(checks={"shares": 1.0, "lengths": 1.5})
    for number in range(60):
        base.write(f"{number}.txt", f"These are ordinary sentences, and many. {sentence(number, 300)}")
    assert set(warned(base)) == {"lengths_steady"}
    base.set(checks={"lengths": 1000.0})
    base.write("last.txt", sentence("last", 30))
    assert warned(base) == {}
