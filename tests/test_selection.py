"""Subsets of a corpus: the functions on vectors, and `stemma select` on a published corpus."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from harness import Corpus, sentence

from stemma.cli import main
from stemma.selection import alike, covering, diverse, document_vectors


def unit(rows: np.ndarray) -> np.ndarray:
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def crowds(*sizes: int, dimensions: int = 16, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Unit vectors around as many axes, and which one each is around."""
    draw = np.random.default_rng(seed)
    around = np.repeat(np.arange(len(sizes)), sizes)
    return unit(np.eye(dimensions)[around] + draw.normal(0, 0.05, (len(around), dimensions))), around


# ---- functions


def test_a_crowd_gives_no_more_than_a_few() -> None:
    vectors, around = crowds(400, 20, 5, 5)
    chosen = diverse(vectors, 20, rounds=2, seed=3)
    # Drawn at random, the small ones would give one in four times.
    assert (np.bincount(around[chosen.rows], minlength=4)[1:] >= 2).all()
    assert len(set(chosen.rows.tolist())) == 20
    assert np.bincount(chosen.groups).tolist() == [2] * 10


def test_each_round_takes_what_is_nearest_to_the_centre_and_then_what_is_unlike_it() -> None:
    vectors, around = crowds(50, 50)
    chosen = diverse(vectors, 4, rounds=2)
    assert around[chosen.rows[:2]].tolist() != around[chosen.rows[:1]].tolist() * 2
    for row, group in zip(chosen.rows[:2], chosen.groups[:2], strict=True):
        members = vectors[around == around[row]]
        assert vectors[row] @ members.mean(axis=0) == pytest.approx(
            (members @ members.mean(axis=0)).max(), abs=1e-5
        )
        (second,) = [
            each for each, other in zip(chosen.rows[2:], chosen.groups[2:], strict=True) if other == group
        ]
        assert vectors[row] @ vectors[second] == pytest.approx((members @ vectors[row]).min(), abs=1e-6)


def test_clusters_that_run_out_leave_their_turn_to_others() -> None:
    vectors, _around = crowds(30, 1, 1)
    assert sorted(diverse(vectors, 32, rounds=10).rows.tolist()) == list(range(32))
    assert len(diverse(vectors, 1000).rows) == 32


def test_the_same_seed_draws_the_same() -> None:
    vectors = unit(np.random.default_rng(1).normal(size=(300, 8)))
    one, again, other = (diverse(vectors, 30, seed=seed).rows.tolist() for seed in (1, 1, 2))
    assert one == again
    assert one != other


def test_coverage_leaves_nothing_farther_than_its_last_step() -> None:
    vectors, around = crowds(200, 3, 1, 1)
    chosen = covering(vectors, 4)
    assert sorted(around[chosen.rows].tolist()) == [0, 1, 2, 3]
    radius = 1 - (vectors @ vectors[chosen.rows].T).max(axis=1).min()
    # The greedy choice: each is the farthest of all, so what is left is nearer than the last one was.
    assert radius <= chosen.scores[-1] + 1e-6
    assert chosen.scores[1:].tolist() == sorted(chosen.scores[1:].tolist(), reverse=True)


def test_likeness_takes_the_nearest_of_any_example() -> None:
    vectors = unit(np.random.default_rng(2).normal(size=(100, 8)))
    examples = unit(np.random.default_rng(3).normal(size=(3, 8)))
    chosen = alike(vectors, examples, 10)
    similarity = (vectors.astype(float) @ examples.T.astype(float)).max(axis=1)
    assert set(chosen.rows.tolist()) == set(np.argsort(-similarity)[:10].tolist())
    assert chosen.scores == pytest.approx(similarity[chosen.rows], abs=1e-6)


def test_nothing_is_chosen_of_nothing() -> None:
    nothing = np.empty((0, 4), np.float32)
    for chosen in (diverse(nothing, 3), covering(nothing, 3), alike(nothing, unit(np.ones((1, 4))), 3)):
        assert [len(part) for part in chosen] == [0, 0, 0]


def test_equal_vectors_are_chosen_once_each() -> None:
    vectors = unit(np.ones((6, 4)))
    for chosen in (diverse(vectors, 6), covering(vectors, 6)):
        assert sorted(chosen.rows.tolist()) == list(range(6))


def test_a_documents_vector_is_the_weighted_mean_of_its_chunks() -> None:
    vectors = np.array([[1, 0], [0, 1], [0, 1]], np.float32)
    found = document_vectors(np.array([0, 0, 1]), vectors, np.array([3.0, 1.0, 2.0]))
    assert found == pytest.approx(np.array([[3, 1] / np.sqrt(10), [0, 1]]))


# ---- the command


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    corpus = Corpus(
        tmp_path_factory.mktemp("select"), chunk={"max_tokens": 60}, deduplicate={"layers": ("exact",)}
    )
    for number in range(20):
        corpus.write(f"sea{number}.txt", f"{sentence('sea', 40)} {sentence(number, 6)}")
    corpus.write(
        "law.txt", "The tribunal heard the appeal and the judge dismissed the claim of the tenant. " * 6
    )
    corpus.run()
    return corpus


def selected(capsys: pytest.CaptureFixture[str], corpus: Corpus, *arguments: str) -> Any:
    capsys.readouterr()
    assert main(["select", "--config", str(corpus.root / "stemma.toml"), *arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


@pytest.mark.parametrize("unit", ["documents", "chunks"])
@pytest.mark.parametrize("by", ["diversity", "coverage"])
def test_every_row_tells_where_it_came_from(
    corpus: Corpus, capsys: pytest.CaptureFixture[str], by: str, unit: str
) -> None:
    told = selected(capsys, corpus, "-n", "5", "--by", by, "--unit", unit)
    rows = told["rows"]
    assert [row["rank"] for row in rows] == [1, 2, 3, 4, 5]
    assert any(row["uri"].endswith("law.txt") for row in rows), (
        "what stands alone belongs to a diverse subset"
    )
    table, key = ("deduplicated", "document_id") if unit == "documents" else ("chunked", "chunk_id")
    for row in rows:
        (text,) = corpus.query(f"SELECT text FROM corpus.{table} WHERE {key} = '{row[key]}'")
        assert row["text"] == text[0]
    assert told["run_id"] == corpus.value("SELECT arg_max(run_id, finished_at) FROM lineage.runs")


def test_examples_are_ids_texts_and_files(
    corpus: Corpus, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    law = str(corpus.value("SELECT document_id FROM corpus.raw WHERE uri LIKE '%law.txt'"))
    file = tmp_path / "example.txt"
    file.write_text("the judge dismissed the appeal of the tenant")
    for example in (law, "tribunal appeal tenant", str(file)):
        (row,) = selected(capsys, corpus, "-n", "1", "--like", example)["rows"]
        assert row["document_id"] == law
    assert [row["group"] for row in selected(capsys, corpus, "-n", "2", "--like", law)["rows"]] == [0, 0]


def test_a_written_subset_keeps_its_lineage(
    corpus: Corpus, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    rows = selected(capsys, corpus, "-n", "4", "--seed", "9")["rows"]
    arguments = ["select", "--config", str(corpus.root / "stemma.toml"), "-n", "4", "--seed", "9", "--out"]
    assert (
        main([*arguments, str(tmp_path / "s.parquet")]) == main([*arguments, str(tmp_path / "s.jsonl")]) == 0
    )
    table = pq.read_table(tmp_path / "s.parquet")
    facts = json.loads(table.schema.metadata[b"stemma.selection"])
    assert (facts["by"], facts["seed"], facts["of"]) == ("diversity", 9, 21)
    lines = [json.loads(line) for line in (tmp_path / "s.jsonl").read_text().splitlines()]
    assert [line["document_id"] for line in lines] == [row["document_id"] for row in rows]
    assert [str(each) for each in table["document_id"].to_pylist()] == [row["document_id"] for row in rows]
    assert lines[0]["selection"] == facts
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["s.jsonl", "s.parquet"]


@pytest.mark.parametrize(
    "arguments",
    [
        ["--by", "likeness"],
        ["--by", "coverage", "--like", "x"],
        ["-n", "0"],
        ["--out", "subset.txt"],
        ["--like", " "],
    ],
)
def test_wrong_use_is_told(corpus: Corpus, arguments: list[str]) -> None:
    try:
        code = main(["select", "--config", str(corpus.root / "stemma.toml"), *arguments])
    except SystemExit as stop:
        code = int(stop.code or 0)
    assert code == 2


def test_a_folder_that_is_not_there_is_told_and_nothing_is_left(
    corpus: Corpus, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    out = tmp_path / "nowhere" / "s.parquet"
    assert main(["select", "--config", str(corpus.root / "stemma.toml"), "--out", str(out)]) == 1
    assert "cannot be written" in capsys.readouterr().err
    assert main(["select", "--config", str(corpus.root / "stemma.toml"), "--source", "nobody"]) == 1
