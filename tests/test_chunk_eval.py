"""stemma chunk-eval and strategies of the user's own, on a published corpus."""

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import duckdb
import pytest
from harness import Corpus

from stemma.cli import main
from stemma.commands.chunk_eval import _Embedding
from stemma.embedding.arrays import matrix
from stemma.errors import UsageError
from stemma.resources.engine import Setup

Evaluate = Callable[..., Any]

TOPICS = {
    "harbour": "ship sails wind anchor crew tide",
    "bakery": "dough oven flour crust yeast loaf",
    "parliament": "budget vote minister debate bill speaker",
    "garden": "seed soil root blossom hedge spade",
}


def paragraph(topic: str, number: int) -> str:
    words = TOPICS[topic].split()
    first, second, third = (words[(number + step) % len(words)] for step in range(3))
    return (
        f"In the {topic} the {first} matters more than people think. They had seen the {second} there {number + 2} "
        f"times. Without its {third} no {topic} would be what it is."
    )


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    corpus = Corpus(tmp_path_factory.mktemp("evaluated"))
    for topic in TOPICS:
        parts = [f"## Part {n}\n\n{paragraph(topic, n)}\n\n{paragraph(topic, n + 1)}" for n in range(6)]
        corpus.write(f"{topic}.md", f"# The {topic}\n\n" + "\n\n".join(parts))
    corpus.run()
    return corpus


@pytest.fixture
def evaluate(corpus: Corpus, capsys: pytest.CaptureFixture[str]) -> Evaluate:
    def call(*arguments: str) -> Any:
        capsys.readouterr()
        try:
            code = main(["chunk-eval", "--config", str(corpus.root / "stemma.toml"), *arguments])
        except SystemExit as stop:
            code = int(stop.code or 0)
        out, err = capsys.readouterr()
        rows = json.loads(out) if "--json" in arguments and not code else None
        return SimpleNamespace(code=code, out=out, err=err, rows=rows)

    return call


def test_without_questions_each_way_has_intrinsic_scores(evaluate: Evaluate) -> None:
    rows = evaluate("--json").rows
    assert len(rows) == 4 * 3
    assert {row["strategy"] for row in rows} == {"structure", "semantic", "recursive", "fixed"}
    assert "recall" not in rows[0]
    scores = {row["strategy"]: row for row in rows if row["size"] == "64/128"}
    for row in rows:
        assert 0 <= row["score"] <= 1
        assert row["mb_per_second"] > 0
    assert scores["structure"]["whole"] == 1
    assert scores["fixed"]["whole"] < 0.5
    assert scores["structure"]["score"] > scores["fixed"]["score"]


def test_questions_are_scored(evaluate: Evaluate, tmp_path: Path) -> None:
    questions = tmp_path / "questions.jsonl"
    lines = [
        {
            "question": f"Which {TOPICS[topic].split()[2]} matters in the {topic}?",
            "expected": f"In the {topic} the {TOPICS[topic].split()[2]} matters more than people think.",
        }
        for topic in TOPICS
    ]
    questions.write_text("".join(json.dumps(line) + "\n" for line in lines))
    arguments = ["--questions", str(questions), "--strategies", "structure,fixed", "--sizes", "30/60,200"]
    rows = evaluate(*arguments, "--k", "2", "--json").rows
    assert [(row["strategy"], row["size"]) for row in rows] == [
        ("structure", "30/60"),
        ("structure", "200"),
        ("fixed", "30/60"),
        ("fixed", "200"),
    ]
    small, large = rows[:2]
    assert (small["target_tokens"], small["max_tokens"], large["target_tokens"]) == (30, 60, None)
    assert small["recall"] >= 0.5
    assert small["tokens"] < 2 * 60
    assert small["precision"] > large["precision"] > 0
    assert evaluate(*arguments, "--k", "1", "--json").rows[0]["tokens"] < small["tokens"]
    table = evaluate(*arguments).out
    assert "4 documents, questions" in table
    assert "PΩ" in table


@pytest.mark.parametrize(("context", "smoothing"), [("section", 0.3), ("none", 0.0)])
def test_chunks_are_embedded_as_a_run_does_it(tmp_path: Path, context: str, smoothing: float) -> None:
    corpus = Corpus(tmp_path, chunk={"max_tokens": 40}, embed={"context": context, "smoothing": smoothing})
    for topic in TOPICS:
        corpus.write(f"{topic}.md", f"# The {topic}\n\n{paragraph(topic, 0)}\n\n{paragraph(topic, 1)}\n")
    corpus.run()
    with duckdb.connect(str(corpus.path), read_only=True) as connection:
        chunks = connection.execute(
            """SELECT text, section, tokens, dense_rank() OVER (ORDER BY document_id) AS document, embedding
            FROM corpus.chunked JOIN corpus.embedded USING (chunk_id, document_id) ORDER BY document_id, ordinal"""
        ).to_arrow_table()
    config = corpus.config()
    found = _Embedding(Setup.of(config).embedder, config.embed)(chunks)
    assert len(found) > 2 * len(TOPICS)
    assert found == pytest.approx(matrix(chunks), abs=1e-6)


def test_cloze_questions_are_made_of_the_corpus(evaluate: Evaluate) -> None:
    rows = evaluate("--cloze", "20", "--strategies", "structure", "--json").rows
    assert [row["size"] for row in rows] == ["64/128", "96/160", "128/200"]
    assert all(row["recall"] > 0.5 for row in rows)
    assert rows == [
        {**row, "mb_per_second": rows[number]["mb_per_second"]}
        for number, row in enumerate(evaluate("--cloze", "20", "--strategies", "structure", "--json").rows)
    ]


@pytest.mark.parametrize("questions", [[], ["--cloze", "5"]])
def test_a_plot_is_drawn(evaluate: Evaluate, tmp_path: Path, questions: list[str]) -> None:
    file = tmp_path / "chunks.svg"
    arguments = ["--strategies", "fixed", "--sizes", "50,100", "--plot", str(file), *questions]
    assert evaluate(*arguments).code == 0
    assert b"<svg" in file.read_bytes()
    assert not list(tmp_path.glob("*.png"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--strategies", "magic"], "--strategies magic: must be"),
        (["--strategies", "absent_module:f"], "'absent_module:f': No module named"),
        (["--sizes", "0"], "--sizes 0: must be MAXIMUM or TARGET/MAXIMUM"),
        (["--sizes", "200/100"], "--sizes 200/100: must be"),
        (["--sizes", "a"], "--sizes a: must be"),
        (["--questions", "absent.jsonl"], "absent.jsonl: cannot be read"),
        (["--questions", "absent.jsonl", "--cloze", "3"], "give one of them"),
        (["--plot", "absent/x.png"], "--plot: there is no folder absent"),
        (["--plot", "x.nonsense", "--strategies", "fixed", "--sizes", "50"], "--plot x.nonsense: Format"),
    ],
)
def test_wrong_use_is_one_line(
    evaluate: Evaluate, arguments: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = evaluate(*arguments)
    assert result.code == 2
    assert message in result.err
    assert result.err.count("\n") == 1


# --- a strategy of the user's own, in a run


SPLITTER = """
def split(text, max_tokens, overlap):
    return spans(text, "{separator}")


def spans(text, separator):
    starts = [0] + [n + 1 for n, character in enumerate(text) if character == separator]
    found = zip(starts, [start - 1 for start in starts[1:]] + [len(text)])
    return [(start, end) for start, end in found if start < end]
"""


@pytest.mark.slow
def test_a_function_of_the_users_own_cuts_and_its_code_is_in_the_recipe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import importlib
    import sys

    monkeypatch.setattr(sys, "path", [*sys.path])
    corpus = Corpus(tmp_path, chunk={"strategy": "own_splitter:split", "max_tokens": 50})
    corpus.write("a.txt", "One two.\nThree four.")
    module = tmp_path / "own_splitter.py"
    module.write_text(SPLITTER.format(separator="\\n"))
    corpus.run()

    def chunks() -> list[str]:
        return [text for (text,) in corpus.query("SELECT text FROM corpus.chunked ORDER BY ordinal")]

    assert chunks() == ["One two.", "Three four."]
    assert corpus.run().counts["chunked"].rows_computed == 0
    # Another body of a helper that the function reaches.
    module.write_text(SPLITTER.format(separator=" ").replace("starts = [0]", "starts = [0 + 0]"))
    importlib.invalidate_caches()
    importlib.reload(sys.modules["own_splitter"])
    try:
        assert corpus.run().counts["chunked"].rows_computed == 1
        assert chunks() == ["One", "two.\nThree", "four."]
        assert corpus.differences() == []
    finally:
        del sys.modules["own_splitter"]


def test_a_function_that_breaks_its_contract_costs_the_document(tmp_path: Path) -> None:
    corpus = Corpus(tmp_path, chunk={"strategy": "test_chunk_eval:breaks", "max_tokens": 50})
    corpus.write("good.txt", "One two three.")
    corpus.write("bad.txt", "Break here.")
    corpus.run()
    assert corpus.query("SELECT text FROM corpus.chunked") == [("One two three.",)]
    ((error, detail),) = corpus.query("SELECT error, detail FROM lineage.errors")
    assert error == "ValueError"
    assert "test_chunk_eval:breaks left out characters 0 to 11: 'Break here.'" in detail


def breaks(text: str, max_tokens: int, overlap: int) -> list[tuple[int, int]]:
    return [] if text.startswith("Break") else [(0, len(text))]


def test_a_function_that_is_absent_stops_the_run(tmp_path: Path) -> None:
    corpus = Corpus(tmp_path, chunk={"strategy": "absent_splitter:split"})
    corpus.write("a.txt", "One two.")
    with pytest.raises(UsageError, match=r"stemma.toml: \[chunk\] strategy: 'absent_splitter:split'"):
        corpus.run()
