"""Chunks of every corpus of texts, in all languages: exact spans within the limit that lose only white space."""

import gzip
import hashlib
import json
import lzma
from pathlib import Path

import pyarrow as pa
import pytest
from real_texts import real_texts
from test_chunking import check_spans

from stemma.chunking import STRATEGIES, TokenCounter, chunk, load_tokenizer
from stemma.resources.embedder import resolve_embedder

# strategy, target, most, overlap
WAYS = [
    *((strategy, None, 160, 0) for strategy in STRATEGIES),
    ("structure", 64, 128, 0),
    ("structure", None, 254, 32),
    ("semantic", 20, 24, 5),
]


@pytest.fixture(scope="module")
def corpora(shared: Path) -> dict[str, list[str]]:
    """All texts by corpus."""
    data = shared / "data"
    questions = (data / "d1_chunking_evaluation/questions.jsonl").read_text(encoding="utf-8").splitlines()
    with gzip.open(data / "d4_choi_segmentation/docs.jsonl.gz", "rt", encoding="utf-8") as lines:
        segmented = [json.loads(line)["text"] for line in lines]
    files = [
        path.read_text(encoding="utf-8", errors="replace")
        for folder in ("d1_chunking_evaluation/corpora", "b2_plagiarism_short_answers/files")
        for path in sorted((data / folder).rglob("*"))
        if path.is_file()
    ]
    naughty = json.loads((data / "f3_blns/blns.json").read_text(encoding="utf-8"))
    asked = [json.loads(line)["question"] for line in questions]
    return {
        **real_texts(shared),
        "files of text": files,
        "asked": asked,
        "naughty": naughty,
        "choi": segmented,
    }


@pytest.fixture(scope="module")
def counter() -> TokenCounter:
    return load_tokenizer(resolve_embedder().tokenizer_file)


def check(texts: list[str], way: tuple[str, int | None, int, int], counter: TokenCounter) -> int:
    """Check all chunks of the texts, and return how many there are."""
    strategy, target, most, overlap = way
    found = chunk(
        pa.table({"text": pa.array(texts, pa.string())}),
        strategy=strategy,
        max_tokens=most,
        target_tokens=target,
        overlap=overlap,
        tokenizer="",
        model=counter,
    )["chunks"].to_pylist()
    for text, chunks in zip(texts, found, strict=True):
        # A model may know no token for characters that are all a text has.
        check_spans(text, chunks, most, overlap, least=0)
    return sum(map(len, found))


def least(texts: list[str], most: int) -> list[str]:
    """Return the texts of least hash, up to so many characters each."""
    ordered = sorted(texts, key=lambda text: hashlib.sha256(text.encode()).digest())
    return [text[:8_000] for text in ordered[:most]]


@pytest.mark.parametrize("way", WAYS, ids=lambda way: "-".join(map(str, way)))
def test_chunks_of_a_sample_of_every_corpus_are_spans(
    corpora: dict[str, list[str]], counter: TokenCounter, way: tuple[str, int | None, int, int]
) -> None:
    sample = [text for texts in corpora.values() for text in least(texts, 8)]
    assert len(sample) > 80
    assert check(sample, way, counter) > 500


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("way", WAYS, ids=lambda way: "-".join(map(str, way)))
@pytest.mark.parametrize("estimate", [False, True], ids=["model", "estimate"])
def test_chunks_of_every_corpus_are_spans(
    corpora: dict[str, list[str]],
    counter: TokenCounter,
    way: tuple[str, int | None, int, int],
    estimate: bool,
) -> None:
    for texts in corpora.values():
        assert check(texts, way, load_tokenizer(None) if estimate else counter)


def test_an_edit_of_a_real_document_moves_few_chunks(shared: Path) -> None:
    versions: dict[str, list[str]] = {}
    with lzma.open(shared / "data/a4_pep_events/events.jsonl.xz", "rt", encoding="utf-8") as lines:
        for event in map(json.loads, lines):
            if event["op"] == "put":
                versions.setdefault(event["path"], []).append(event["text"])
    edits = [(texts[0], texts[1]) for texts in versions.values() if len(texts) > 1][:60:4]
    assert len(edits) == 15

    def anew(strategy: str) -> float:
        """Return the mean share of an edited document's chunks whose text the version before does not have."""
        texts = pa.array([text for edit in edits for text in edit])
        found = chunk(
            pa.table({"text": texts}),
            strategy=strategy,
            max_tokens=160,
            overlap=0,
            tokenizer="",
            model=load_tokenizer(None),
        )["chunks"].to_pylist()
        chunks = [{each["text"] for each in row} for row in found]
        shares = [len(new - old) / len(new) for old, new in zip(chunks[::2], chunks[1::2], strict=True)]
        return sum(shares) / len(shares)

    assert anew("structure") < 0.15
    assert anew("structure") < anew("recursive") < anew("fixed")
    assert anew("semantic") < anew("fixed") / 3
