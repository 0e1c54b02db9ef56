"""Search finds the best chunks by vectors, by words and by both, with their way back to the source."""

import json
import math
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pytest
from harness import Corpus, sentence
from test_text_index import plain_words

import stemma
from stemma.cli import main
from stemma.embedding import hash_embed
from stemma.errors import StemmaError, UsageError
from stemma.search import TEXT_WEIGHT, Searcher
from stemma.search.words import query_words, without_diacritics

QUERIES = [
    "lanterng riverc",
    "migrations in Zurich",
    "harbour",
    "中文 猫",
    "nothing-of-this 12345",
    "The rivera",
]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    """A published corpus that has been updated, with texts of several scripts, sources and duplicates of chunks."""
    made = Corpus(tmp_path_factory.mktemp("searched"), chunk={"max_tokens": 60})
    made.steady = True
    made.fill(30, words=60)
    made.write("gone.txt", "The migration of the harbour is gone.")
    made.run()
    made.delete("gone.txt")
    made.write(
        "zürich.md", "# Zürich\n\nThe migration to Zürich took place in winter.\n\n## After\n\nIt ended."
    )
    made.write("中文.txt", "中文维基百科，自由的百科全书。猫和狗。")
    made.write("same.md", f"# One\n\n{sentence('same', 20)}.\n\n# One\n\n{sentence('same', 20)}.\n")
    made.run()
    return made


@pytest.fixture
def searcher(corpus: Corpus) -> Searcher:
    return Searcher(stemma.open(corpus.path))


def plain_bm25(corpus: Corpus, query: str) -> dict[str, float]:
    """BM25 of each chunk, one by one in plain Python."""
    chunks = {}
    for chunk_id, text in corpus.query("SELECT chunk_id::VARCHAR, text FROM corpus.chunked"):
        words = plain_words(text)
        counts: Counter[str] = Counter()
        for word in words:
            counts.update({word, without_diacritics(word)})
        chunks[chunk_id] = (counts, len(words))
    mean = sum(length for _counts, length in chunks.values()) / len(chunks)
    scores = dict.fromkeys(chunks, 0.0)
    for wanted in query_words(query):
        times = {
            chunk: sum(count for word, count in counts.items() if wanted.low <= word <= wanted.high)
            for chunk, (counts, _length) in chunks.items()
        }
        having = sum(count > 0 for count in times.values())
        rarity = math.log(1 + (len(chunks) - having + 0.5) / (having + 0.5))
        for chunk, count in times.items():
            saturation = 1.2 * (0.25 + 0.75 * chunks[chunk][1] / mean)
            scores[chunk] += rarity * count * 2.2 / (count + saturation)
    return scores


def plain_similarities(corpus: Corpus, query: str) -> dict[str, float]:
    (wanted,) = hash_embed(pa.table({"text": [query]}), dimensions=384)["embedding"].to_pylist()
    found = {}
    for chunk_id, vector in corpus.query("SELECT chunk_id::VARCHAR, embedding FROM corpus.embedded"):
        norms = math.sqrt(sum(x * x for x in vector) * sum(x * x for x in wanted))
        found[chunk_id] = sum(x * y for x, y in zip(vector, wanted, strict=True)) / (norms or 1)
    return found


def ids_and_scores(rows: list[dict[str, Any]], name: str = "score") -> list[tuple[str, float]]:
    return [(row["chunk_id"], round(row[name], 5)) for row in rows]


def best(scores: dict[str, float]) -> list[tuple[str, float]]:
    return sorted(
        ((chunk, round(score, 5)) for chunk, score in scores.items()), key=lambda pair: (-pair[1], pair[0])
    )


@pytest.mark.parametrize("query", QUERIES)
def test_each_mode_ranks_as_a_plain_count(query: str, corpus: Corpus, searcher: Searcher) -> None:
    words, similarities = plain_bm25(corpus, query), plain_similarities(corpus, query)
    every = len(words)
    rows = searcher.search(query, every, mode="text").to_pylist()
    assert ids_and_scores(rows) == best({chunk: score for chunk, score in words.items() if score > 0})
    rows = searcher.search(query, every, mode="vector").to_pylist()
    assert ids_and_scores(rows) == best(similarities)
    rows = searcher.search(query, every).to_pylist()
    highest = max(words.values()) or 1.0
    expected = {chunk: similarities[chunk] + TEXT_WEIGHT * words[chunk] / highest for chunk in words}
    assert dict(ids_and_scores(rows)) == pytest.approx(dict(best(expected)), abs=2e-5)
    assert [row["score"] for row in rows] == sorted((row["score"] for row in rows), reverse=True)
    assert dict(ids_and_scores(rows, "bm25")) == pytest.approx(words, abs=2e-5)


def test_a_few_are_the_first_of_all_and_the_same_from_a_stream(corpus: Corpus, searcher: Searcher) -> None:
    streamed = Searcher(stemma.open(corpus.path), keep_bytes=0)
    for mode in ("hybrid", "vector", "text"):
        for query in QUERIES[1:5:2]:
            every = searcher.search(query, 1000, mode=mode).to_pylist()
            assert searcher.search(query, 3, mode=mode).to_pylist() == every[:3]
            assert streamed.search(query, 3, mode=mode).to_pylist() == every[:3]


def test_equal_chunks_come_in_the_order_of_their_ids(searcher: Searcher) -> None:
    rows = searcher.search(sentence("same", 20), 2).to_pylist()
    assert rows[0]["text"] == rows[1]["text"]
    assert rows[0]["score"] == rows[1]["score"]
    assert rows[0]["chunk_id"] < rows[1]["chunk_id"]
    (first,) = searcher.search(sentence("same", 20), 1).to_pylist()
    assert first == rows[0]


def test_diacritics_and_endings_do_not_matter(searcher: Searcher) -> None:
    (hit,) = searcher.search("migrations ZURICH", 1, mode="text").to_pylist()
    assert hit["uri"].endswith("zürich.md")
    assert hit["similarity"] is None
    (hit,) = searcher.search("猫", 1, mode="text").to_pylist()
    assert hit["uri"].endswith("中文.txt")


def test_hits_lead_back_to_their_source(corpus: Corpus, searcher: Searcher) -> None:
    (hit,) = searcher.search("Zürich winter", 1, context=6).to_pylist()
    ((text,),) = corpus.query("SELECT text FROM corpus.cleaned WHERE title = 'Zürich'")
    start, end = hit["char_start"], hit["char_end"]
    assert hit["text"] == text[start:end]
    assert hit["before"] == text[max(0, start - 6) : start]
    assert hit["after"] == text[end : end + 6]
    assert (hit["source"], hit["title"], hit["record"]) == ("docs", "Zürich", None)


def test_hits_say_their_own_place_as_the_trace_does(corpus: Corpus, searcher: Searcher) -> None:
    columns = "place, source_char_start, source_char_end, source_byte_start, source_byte_end"
    rows = searcher.search("river winter", 1000).to_pylist()
    found = sorted((row["chunk_id"], *(row[name] for name in columns.split(", "))) for row in rows)
    assert found == sorted(corpus.query(f"SELECT chunk_id::VARCHAR, {columns} FROM lineage.trace"))
    for row in rows:
        data = Path(row["uri"].removeprefix("file://")).read_bytes()
        assert data[row["source_byte_start"] : row["source_byte_end"]].decode() == row["text"]


def test_a_filter_leaves_only_what_meets_it(corpus: Corpus, searcher: Searcher) -> None:
    rows = searcher.search("river", 1000, where="uri LIKE '%doc00%' AND tokens > 5").to_pylist()
    expected = corpus.query(
        "SELECT chunk_id::VARCHAR FROM search.chunks WHERE uri LIKE '%doc00%' AND tokens > 5"
    )
    assert sorted((row["chunk_id"],) for row in rows) == sorted(expected)
    assert rows
    assert searcher.search("river", where="false").num_rows == 0
    assert searcher.search(
        "Zürich", where="title = 'Zürich' OR section ILIKE '%after%'", mode="text"
    ).num_rows


@pytest.mark.parametrize(
    "condition",
    [
        "nonsense = 1",
        "tokens",
        "true) OR (true",
        "true; DROP TABLE x",
        "tokens > (SELECT 1)",
        "tokens = $1",
        "count(*) > 1",
        "row_number() OVER () = 1",
        "uri IN (SELECT content FROM read_text('/etc/passwd'))",
        "",
        "error('stop')::BOOLEAN",
    ],
)
def test_a_filter_is_one_expression_over_a_chunk(condition: str, searcher: Searcher) -> None:
    with pytest.raises(UsageError):
        searcher.search("river", where=condition)


@pytest.mark.parametrize(
    "arguments", [{"k": 0}, {"mode": "best"}, {"context": -1}, {"text_weight": -0.1}, {"text": " \n"}]
)
def test_bad_arguments_are_refused(arguments: dict[str, Any], searcher: Searcher) -> None:
    with pytest.raises(UsageError):
        searcher.search(**{"text": "river", **arguments})


def test_a_vector_of_another_model_is_refused(corpus: Corpus) -> None:
    other = Searcher(stemma.open(corpus.path), lambda _text: [1.0, 0.0])
    with pytest.raises(UsageError, match="2 dimensions and the corpus 384"):
        other.search("river")


def test_an_empty_corpus_has_no_hits(tmp_path: Path) -> None:
    corpus = Corpus(tmp_path)
    corpus.run()
    searcher = Searcher(stemma.open(corpus.path))
    for mode in ("text", "vector", "hybrid"):
        if mode == "text":
            assert searcher.search("river", mode=mode).num_rows == 0
        else:
            with pytest.raises(Exception, match="no vectors"):
                searcher.search("river", mode=mode)


def test_a_file_of_an_older_version_says_what_to_do(corpus: Corpus, tmp_path: Path) -> None:
    old = duckdb.connect(str(tmp_path / "corpus.duckdb"))
    with pytest.raises(StemmaError, match="no text index"):
        Searcher(old).search("river", mode="text")


# -- the command line and Python -----------------------------------------------------------------------------------


def test_the_command_prints_the_same(
    corpus: Corpus, searcher: Searcher, capsys: pytest.CaptureFixture[str]
) -> None:
    config = str(corpus.root / "stemma.toml")
    arguments = ["search", "river in Zürich", "-k", "3", "--where", "tokens > 3", "--context", "20"]
    assert main([*arguments, "--json", "--config", config]) == 0
    expected = searcher.search("river in Zürich", 3, where="tokens > 3", context=20).to_pylist()
    assert json.loads(capsys.readouterr().out) == expected
    assert main([*arguments, "--mode", "text", "--config", config]) == 0
    printed = capsys.readouterr().out
    assert "zürich.md  [" in printed
    assert "]  bytes 0-" in printed
    assert "» # Zürich The migration" in printed
    assert main(["search", "river", "--where", "1 = x", "--config", config]) == 2
    assert "is no filter" in capsys.readouterr().err


def test_open_embeds_in_sql(corpus: Corpus) -> None:
    query = """SELECT chunk_id::VARCHAR AS chunk_id FROM corpus.embedded
        ORDER BY array_cosine_similarity(embedding, (SELECT embed('river in Zürich'))) DESC, chunk_id LIMIT 5"""
    with stemma.open(corpus.root / "stemma.toml") as connection:
        found = connection.execute(query).fetchall()
        assert connection.execute("SELECT embed(NULL)").fetchall() == [(None,)]
        vectors = connection.execute("SELECT embed(x) FROM (VALUES ('a b'), ('c')) AS t(x)").fetchall()
        with pytest.raises(Exception, match="read-only"):
            connection.execute("CREATE TABLE x (y INT)")
    similarities = plain_similarities(corpus, "river in Zürich")
    assert [chunk for (chunk,) in found] == [chunk for chunk, _score in best(similarities)[:5]]
    assert np.shape(vectors) == (2, 1, 384)


def test_open_without_anything_published_says_so(tmp_path: Path) -> None:
    with pytest.raises(StemmaError, match="nothing published yet"):
        stemma.open(tmp_path / "corpus.duckdb")


def test_importing_stemma_is_cheap() -> None:
    code = (
        "import sys; import stemma; "
        "sys.exit(any(name in sys.modules for name in ('duckdb', 'numpy', 'pyarrow', 'stemma.resources')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
