"""The index "bloom": datasketch's own filters, in one pass, that only ever grows."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from harness import Corpus, sentence

from stemma.deduplication import sign, signature_array
from stemma.deduplication.bloom import open_filters, seen_before
from stemma.errors import StemmaError
from stemma.resources.engine.duplicates import bloom


def near_copy(seed: object, words: int = 120) -> str:
    text = sentence(seed, words).split()
    return " ".join([*text[:60], "changed", *text[61:]])


def bloom_corpus(tmp_path: Path) -> Corpus:
    return Corpus(tmp_path, deduplicate={"index": "bloom", "bloom_documents": 10_000})


def kept(corpus: Corpus) -> set[str]:
    found = corpus.query("SELECT uri FROM corpus.deduplicated JOIN corpus.raw USING (document_id)")
    return {Path(uri).name for (uri,) in found}


def test_what_the_filters_say_is_what_datasketch_says() -> None:
    from datasketch import MinHash, MinHashLSHBloom

    texts = [text for seed in range(300) for text in (sentence(seed, 80), near_copy(seed, 80))]
    signatures = signature_array(sign(pa.table({"text": texts}))["signature"])
    seen = seen_before(
        open_filters(None, threshold=0.7, permutations=128, documents=2_000), signatures, [False] * len(texts)
    )
    index = MinHashLSHBloom(threshold=0.7, num_perm=128, n=2_000, fp=1e-5)
    for place, values in enumerate(signatures):
        sketch = MinHash(num_perm=128, hashvalues=values, scheme="affine32")
        assert seen[place] == index.query(sketch)
        if not seen[place]:
            index.insert(sketch)
    assert not seen[::2].any()
    assert seen[1::2].mean() > 0.9


def test_equal_and_similar_documents_are_dropped_and_the_rest_stays(tmp_path: Path) -> None:
    corpus = bloom_corpus(tmp_path)
    for number in range(20):
        corpus.write(f"2024-01-{number + 1:02}.txt", sentence(number, 120))
    corpus.write("2024-02-01-copy.txt", sentence(3, 120).upper())
    corpus.write("2024-02-02-near.txt", near_copy(3))
    corpus.run()
    assert kept(corpus) == {f"2024-01-{number + 1:02}.txt" for number in range(20)}
    rows = corpus.query(
        """SELECT method, similarity, kept_document_id IS NULL, rule FROM lineage.duplicates
        JOIN lineage.decisions USING (document_id, kept_document_id) ORDER BY method"""
    ) + corpus.query(
        "SELECT rule, score, kept_document_id IS NULL, stage FROM lineage.decisions WHERE rule = 'bloom'"
    )
    assert rows == [("exact", 1.0, False, "exact"), ("bloom", None, True, "deduplicated")]
    assert corpus.failed_checks() == []


def test_it_grows_and_a_run_without_news_does_nothing(tmp_path: Path) -> None:
    corpus = bloom_corpus(tmp_path)
    corpus.write("2024-01-01.txt", sentence("one", 120))
    corpus.run()
    corpus.write("2023-01-01.txt", near_copy("one"))
    corpus.run()
    assert kept(corpus) == {"2024-01-01.txt"}, "first come, first kept: dates decide within a run only"
    assert corpus.run().counts["deduplicated"].rows_computed == 0
    corpus.delete("2024-01-01.txt")
    corpus.run()
    assert kept(corpus) == set(), "the filters cannot forget"
    corpus.write("2024-01-01.txt", sentence("one", 120))
    corpus.run()
    assert kept(corpus) == {"2024-01-01.txt"}, "a text that was kept once is known"


def test_a_new_version_is_no_duplicate_of_the_one_before(tmp_path: Path) -> None:
    corpus = bloom_corpus(tmp_path)
    corpus.write("a.txt", sentence("a", 120))
    corpus.run()
    corpus.write("a.txt", near_copy("a"))
    corpus.run()
    assert kept(corpus) == {"a.txt"}


@pytest.mark.slow
def test_another_threshold_decides_on_all_anew(tmp_path: Path) -> None:
    corpus = bloom_corpus(tmp_path)
    corpus.write("2024-01-01.txt", sentence("one", 120))
    corpus.write("2024-01-02.txt", near_copy("one"))
    corpus.run()
    corpus.set(deduplicate={"threshold": 0.99})
    corpus.run()
    assert len(kept(corpus)) == 2
    corpus.set(deduplicate={"index": "lsh", "threshold": 0.7})
    corpus.run()
    assert kept(corpus) == {"2024-01-01.txt"}
    assert corpus.differences() == []


@pytest.mark.slow
def test_a_run_that_dies_leaves_the_filters_as_they_were(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    corpus = bloom_corpus(tmp_path)
    corpus.write("a.txt", sentence("a", 120))
    corpus.run()
    corpus.write("b.txt", sentence("b", 120))
    with monkeypatch.context() as patch:
        patch.setattr(bloom, "_commit_filters", lambda *_: (_ for _ in ()).throw(StemmaError("power cut")))
        with pytest.raises(StemmaError, match="power cut"):
            corpus.run()
    corpus.run()
    assert kept(corpus) == {"a.txt", "b.txt"}, "b was asked twice and is no duplicate of itself"
    assert len(list((corpus.path.with_suffix(".work") / "bloom").iterdir())) <= 2


@pytest.mark.slow
def test_filters_that_are_too_full_are_told(tmp_path: Path) -> None:
    corpus = Corpus(tmp_path, deduplicate={"index": "bloom", "bloom_documents": 1_000})
    rows = "\n".join(f'{{"id": "{number}", "text": "{sentence(number, 30)}"}}' for number in range(1_100))
    corpus.write("rows.jsonl", rows)
    assert any("made for 1,000 documents" in warning for warning in corpus.run().warnings)


def test_error_of_the_filters() -> None:
    texts = [sentence(seed, 60) for seed in range(2_000)]
    signatures = signature_array(sign(pa.table({"text": texts}))["signature"])
    filters = open_filters(None, threshold=0.7, permutations=128, documents=5_000)
    assert np.count_nonzero(seen_before(filters, signatures, [False] * len(texts))) <= 4
