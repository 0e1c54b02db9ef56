"""The health of the vector space: measures that mean what their papers say, checks that warn, a row for each change."""

from pathlib import Path

import numpy as np
import pytest
from harness import NOTHING, Corpus, sentence

from stemma.embedding.health import drift, health
from stemma.resources.engine.health import NAMES

RANDOM = np.random.default_rng(7)


def isotropic(rows: int = 4_000, dimensions: int = 16) -> np.ndarray:
    return RANDOM.standard_normal((rows, dimensions)).astype(np.float32)


def test_vectors_in_all_directions_use_the_whole_space() -> None:
    found = health(isotropic())
    assert (found.unsound, found.repeated) == (0, 0)
    assert found.mean_cosine == pytest.approx(0, abs=0.01)
    assert found.effective_rank == pytest.approx(16, abs=0.1)
    assert found.isoscore == pytest.approx(1, abs=0.01)


def test_vectors_on_a_line_or_a_plane_do_not() -> None:
    line = np.outer(RANDOM.uniform(-1, 1, 500), np.eye(16)[3]).astype(np.float32)
    found = health(line)
    assert found.effective_rank == pytest.approx(1)
    assert found.isoscore == pytest.approx(0, abs=1e-6)
    plane = isotropic() * np.array([1, 1] + [0] * 14, dtype=np.float32)
    assert health(plane).effective_rank == pytest.approx(2, abs=0.01)
    same_way = isotropic() * np.float32(0.1) + np.ones(16, dtype=np.float32)
    mean_cosine = health(same_way).mean_cosine
    assert mean_cosine is not None
    assert mean_cosine > 0.98


def test_the_mean_cosine_is_that_of_all_pairs() -> None:
    vectors = isotropic(30, 5) + np.float32(0.5)
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    pairs = (unit @ unit.T)[np.triu_indices(30, 1)]
    assert health(vectors).mean_cosine == pytest.approx(pairs.mean(), abs=1e-6)


def test_zeros_infinities_and_repeats_are_counted() -> None:
    vectors = np.concatenate([isotropic(10), np.zeros((1, 16)), np.full((1, 16), np.nan)]).astype(np.float32)
    vectors[1] = vectors[0]
    found = health(vectors)
    assert (found.vectors, found.unsound, found.repeated) == (12, 2, 2)
    assert found.norm_min is not None
    assert health(vectors[:0]).vectors == 0
    assert health(np.zeros((3, 4), dtype=np.float32)).unsound == 3
    assert health(vectors[:1]).effective_rank is None
    assert health(np.ones((5, 1), dtype=np.float32)).isoscore is None


def test_drift_is_the_cosine_that_was_lost() -> None:
    vectors = isotropic(50)
    assert drift(vectors, vectors * 2) == pytest.approx(0, abs=1e-7)
    assert drift(vectors, -vectors) == pytest.approx(2, abs=1e-6)
    assert drift(vectors[:0], vectors[:0]) is None


def test_health_is_measured_when_vectors_change(tmp_path: Path) -> None:
    corpus = Corpus(tmp_path, embed={"context": "none", "model": "hash:64"})
    for number in range(4):
        corpus.write(f"{number}.txt", sentence(number, 30))
    first = corpus.run()
    assert {check.name for check in first.publication.checks} >= set(NAMES)
    assert all(check.passed for check in first.publication.checks)
    rows = "SELECT vectors, unsound, drift FROM lineage.embedding_health ORDER BY number"
    assert corpus.query(rows) == [(4, 0, None)]
    assert corpus.run().computed == NOTHING
    assert corpus.count("lineage.embedding_health") == 1
    corpus.write("4.txt", sentence("new", 30))
    corpus.run()
    assert corpus.query(rows)[1:] == [(5, 0, 0.0)]
    corpus.set(embed={"model": "hash:32"})
    assert corpus.run().publication.published
    assert corpus.query(rows)[2:] == [(5, 0, None)]


def test_a_space_that_collapsed_is_warned_of_and_published(tmp_path: Path) -> None:
    corpus = Corpus(tmp_path, embed={"context": "none", "model": "hash:1"}, chunk={"max_tokens": 12})
    for number in range(30):
        corpus.write(f"{number}.txt", sentence(number, 30))
    publication = corpus.run().publication
    assert publication.published
    failed = {check.name for check in publication.checks if not check.passed}
    assert failed == {"vectors_distinct", "vectors_spread"}
    assert publication.failed == ()
