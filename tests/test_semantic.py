"""Semantic duplicates: documents as vectors, planes that find them, exact cosines."""

import unicodedata
from functools import partial
from itertools import combinations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stemma.deduplication.candidates import candidate_pairs
from stemma.deduplication.semantic import (
    PIECE,
    PIECES,
    SIGNED_SEMANTIC,
    hyperplane_parameters,
    semantic_buckets,
    semantic_scores,
    sign_semantic,
    text_pieces,
    vector_array,
)
from stemma.embedding import hash_embed
from stemma.embedding.arrays import vector_table


class Recorder:
    """A model that embeds by feature hashing and keeps what it was given."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def __call__(self, table: pa.Table) -> pa.Table:
        self.texts += table["text"].to_pylist()
        return hash_embed(table, dimensions=64)


def signed(texts: list[str], model=None) -> list[bytes | None]:
    table = pa.table({"text": pa.array(texts, pa.string())})
    result = sign_semantic(table, embedder="hash:64", model=model or partial(hash_embed, dimensions=64))
    assert result.schema == SIGNED_SEMANTIC
    return result["signature"].to_pylist()


def seen(text: str) -> list[str]:
    model = Recorder()
    signed([text], model)
    return model.texts


def neighbours(count: int, dimensions: int, cosine: float, seed: int) -> np.ndarray:
    """Pairs of random unit vectors of the given cosine, one after the other."""
    choose = np.random.default_rng(seed)
    a, b = (
        side / np.linalg.norm(side, axis=1, keepdims=True)
        for side in choose.standard_normal((2, count, dimensions))
    )
    b -= (a * b).sum(axis=1, keepdims=True) * a
    b = cosine * a + np.sqrt(1 - cosine**2) * b / np.linalg.norm(b, axis=1, keepdims=True)
    return np.stack((a, b), axis=1).reshape(2 * count, dimensions).astype(np.float32)


def table_of(vectors: np.ndarray) -> pa.Table:
    return pa.table({"signature": pa.array([vector.tobytes() for vector in vectors], pa.binary())})


def pairs_found(vectors: np.ndarray, threshold: float) -> set[tuple[int, int]]:
    buckets = semantic_buckets(table_of(vectors), threshold=threshold)
    pairs = candidate_pairs(buckets.keys, buckets.rows, witnesses=len(vectors))
    return {tuple(pair) for pair in pairs.tolist()}


# --- documents as vectors


def test_models_see_words_without_spaces_where_there_are_none():
    assert seen("Don’t  STOP — déjà vu…") == ["don t stop déjà vu"]
    assert seen("中文 abc。漢字、かな") == ["中文 abc 漢字かな"]
    assert seen("ที่นี่ ภาษา") == ["ที่นี่ภาษา"]
    assert seen("한국어로 쓰인 문장") == ["한국어로 쓰인 문장"]
    assert seen("") == seen("…!") == []


def test_a_long_text_is_seen_in_pieces_from_its_beginning_to_its_end():
    text = " ".join(f"word{number}" for number in range(900))
    pieces = seen(text)
    assert " ".join(pieces) == text
    assert len(pieces) == -(-len(text) // PIECE)
    assert max(map(len, pieces)) - min(map(len, pieces)) < 20
    long = " ".join(f"word{number}" for number in range(100_000))
    pieces = seen(long)
    assert len(pieces) == PIECES
    assert pieces[0].startswith("word0 ")
    assert pieces[-1].endswith("word99999")
    assert all(f" {piece} " in f" {long} " for piece in pieces)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.sampled_from(["a", "word", "漢", "字", "ที่", "น้ำ", "x" * 200, "한국어"]), max_size=400))
def test_pieces_lose_nothing_and_tear_no_word(words):
    text = "".join(
        word
        if not before
        or (
            unicodedata.category(word[0]) == unicodedata.category(before[0]) == "Lo"
            and word[0] not in "한"
            and before[0] not in "한"
        )
        else f" {word}"
        for before, word in zip(["", *words], words, strict=False)
    )
    pieces = text_pieces(text)
    assert len(pieces) <= PIECES
    assert all(0 < len(piece) <= PIECE + 257 for piece in pieces)
    assert not any(unicodedata.category(piece[0]).startswith("M") for piece in pieces)
    if len(text) <= PIECE * PIECES:
        assert "".join(pieces).replace(" ", "") == text.replace(" ", "")
        assert all(word in {*words} for piece in pieces for word in piece.split() if word.isascii())


def test_the_signature_is_the_normalised_mean_of_the_pieces():
    text = " ".join(f"word{number}" for number in range(900))
    vectors = hash_embed(pa.table({"text": text_pieces(text)}), dimensions=64)["embedding"].to_pylist()
    mean = np.mean(np.array(vectors, np.float64), axis=0)
    (signature,) = signed([text])
    assert np.abs(np.frombuffer(signature, "<f4") - mean / np.linalg.norm(mean)).max() < 1e-6


def test_signing_does_not_depend_on_the_batch():
    texts = ["", "one", "…", "two words", "größe " * 3_000, "漢字 " * 900, "x " * 40_000]
    together = signed(texts)
    assert together == [signature for text in texts for signature in signed([text])]
    assert signed(texts[::-1]) == together[::-1]
    assert [signature is None for signature in together[:4]] == [True, False, True, False]
    assert signed([]) == []
    with pytest.raises(ValueError, match="null"):
        signed(["a", None])


def test_case_and_punctuation_do_not_matter():
    assert len(set(signed(["One, two; three!", "ONE TWO THREE", "one — two\nthree"]))) == 1


def test_opposite_pieces_have_no_direction():
    def model(table: pa.Table) -> pa.Table:
        return vector_table(np.resize(np.array([[1, 0], [-1, 0]], np.float32), (len(table), 2)))

    (signature,) = signed(["word " * 300], model)
    assert signature is None


def test_vector_array_refuses_what_are_not_vectors():
    assert vector_array(pa.array([], pa.binary())).shape == (0, 0)
    assert vector_array(pa.array([bytes(8)])).tolist() == [[0, 0]]
    for values in ([bytes(8), bytes(4)], [bytes(8), None]):
        with pytest.raises(ValueError, match="length"):
            vector_array(pa.array(values, pa.binary()))


# --- candidates


@pytest.mark.parametrize("threshold", [0.5, 0.7, 0.8, 0.85, 0.9, 0.95, 0.98, 1.0])
def test_bands_find_a_pair_at_the_threshold(threshold):
    bands, bits = hyperplane_parameters(threshold)
    assert bands <= 128
    assert 1 <= bits <= 32
    agreement = 1 - np.arccos(threshold) / np.pi
    assert 1 - (1 - agreement**bits) ** bands >= 0.998


def test_wrong_thresholds_are_refused():
    for threshold in (0, -0.5, 1.1):
        with pytest.raises(ValueError, match="threshold"):
            hyperplane_parameters(threshold)


@pytest.mark.parametrize("threshold", [0.8, 0.9, 0.95])
def test_recall_at_the_threshold_and_few_candidates(threshold):
    bands, bits = hyperplane_parameters(threshold)
    vectors = neighbours(4_000, 96, threshold, seed=3)
    keys = semantic_buckets(table_of(vectors), threshold=threshold).keys.reshape(-1, bands)
    assert (keys[::2] == keys[1::2]).any(axis=1).mean() >= 0.99

    count = 1_000
    found = pairs_found(vectors[: 2 * count], threshold)
    by_chance = 2 * count * count * bands / 2**bits
    assert len(found) < count + 3 * by_chance + 0.05 * count


def test_buckets_do_not_depend_on_the_batch():
    vectors = neighbours(700, 384, 0.9, seed=4)
    table = table_of(vectors)
    together = semantic_buckets(table, threshold=0.9)
    bands, _ = hyperplane_parameters(0.9)
    assert together.keys.shape == together.rows.shape == together.rank.shape == (len(vectors) * bands,)
    assert together.asks.all()
    assert not together.rank.any()
    alone = [semantic_buckets(table.slice(row, 1), threshold=0.9).keys for row in range(0, 1_400, 50)]
    rows = together.keys.reshape(-1, bands)[::50]
    assert np.array_equal(np.array(alone), rows)
    assert not np.array_equal(semantic_buckets(table, threshold=0.9, seed=2).keys, together.keys)


def test_texts_without_vectors_are_in_no_bucket():
    vectors = neighbours(1, 16, 0.9, seed=5)
    table = pa.table(
        {"signature": pa.array([None, vectors[0].tobytes(), None, vectors[0].tobytes()], pa.binary())}
    )
    buckets = semantic_buckets(table, threshold=0.9)
    assert set(buckets.rows.tolist()) == {1, 3}
    bands = len(buckets.rows) // 2
    assert buckets.keys[:bands].tolist() == buckets.keys[bands:].tolist()
    assert len(set(buckets.keys.tolist())) == bands, "bands never share a bucket"
    assert not len(semantic_buckets(table.slice(0, 1), threshold=0.9).keys)


# --- scores


def test_scores_are_cosines():
    vectors = neighbours(40, 24, 0.7, seed=6) * np.float32(3)
    pairs = np.array(list(combinations(range(80), 2)))
    scores = semantic_scores(vectors, pairs)
    assert scores.dtype == np.float64
    for (a, b), score in zip(pairs.tolist(), scores.tolist(), strict=True):
        left, right = vectors[a].tolist(), vectors[b].tolist()
        dot = sum(x * y for x, y in zip(left, right, strict=True))
        norm = (sum(x * x for x in left) * sum(x * x for x in right)) ** 0.5
        assert score == pytest.approx(dot / norm, abs=1e-12)
    assert semantic_scores(vectors, np.array([[3, 3]])).tolist() == [pytest.approx(1, abs=1e-12)]
    assert semantic_scores(vectors, np.empty((0, 2), np.int64)).tolist() == []
    one_by_one = [semantic_scores(vectors, pair[None])[0] for pair in pairs[:50]]
    assert one_by_one == scores[:50].tolist()
