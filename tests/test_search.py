"""Search finds the nearest chunks, with their way back to the source."""

import math
import uuid

import duckdb
import pytest

from stemma.errors import UsageError
from stemma.search import search

DOCUMENTS = [uuid.UUID(int=number) for number in (1, 2)]
CHUNKS = [uuid.UUID(int=number) for number in (11, 12, 13, 14)]
VECTORS = [[1.0, 0.0, 0.0], [0.6, 0.8, 0.0], [0.0, 0.0, 5.0], [3.0, 4.0, 0.0]]


@pytest.fixture
def corpus() -> duckdb.DuckDBPyConnection:
    connection = duckdb.connect(":memory:")
    connection.execute("""
        CREATE SCHEMA corpus;
        CREATE TABLE corpus.raw (document_id UUID, uri VARCHAR, record VARCHAR);
        CREATE TABLE corpus.chunked (chunk_id UUID, document_id UUID, ordinal INT,
            char_start INT, char_end INT, text VARCHAR, tokens INT, section VARCHAR);
        CREATE TABLE corpus.embedded (chunk_id UUID, document_id UUID, model VARCHAR, embedding FLOAT[3],
            text_hash UUID);
    """)
    for number, document in enumerate(DOCUMENTS):
        connection.execute(
            "INSERT INTO corpus.raw VALUES (?, ?, ?)", [document, f"file:///{number}", str(number)]
        )
    for number in (3, 2, 1, 0):
        document = DOCUMENTS[number // 2]
        chunk = [
            CHUNKS[number],
            document,
            number % 2,
            number,
            number + 4,
            f"text {number}",
            2,
            f"Part {number}",
        ]
        connection.execute("INSERT INTO corpus.chunked VALUES (?, ?, ?, ?, ?, ?, ?, ?)", chunk)
        vector = [CHUNKS[number], document, "m", VECTORS[number], None]
        connection.execute("INSERT INTO corpus.embedded VALUES (?, ?, ?, ?, ?)", vector)
    return connection


def test_search_returns_the_nearest_chunks_first(corpus: duckdb.DuckDBPyConnection) -> None:
    rows = search(corpus, [2.0, 0.0, 0.0], k=4).to_pylist()
    assert [row["chunk_id"] for row in rows] == [str(CHUNKS[number]) for number in (0, 1, 3, 2)]
    assert [round(row["score"], 5) for row in rows] == [1.0, 0.6, 0.6, 0.0]


def test_equal_scores_come_in_the_order_of_ids(corpus: duckdb.DuckDBPyConnection) -> None:
    rows = search(corpus, [0.0, 1.0, 0.0], k=2).to_pylist()
    assert [row["chunk_id"] for row in rows] == [str(CHUNKS[1]), str(CHUNKS[3])]


def test_hits_lead_back_to_their_source(corpus: duckdb.DuckDBPyConnection) -> None:
    (hit,) = search(corpus, [0.0, 0.0, 1.0], k=1).to_pylist()
    assert math.isclose(hit.pop("score"), 1.0)
    assert hit == {
        "chunk_id": str(CHUNKS[2]),
        "document_id": str(DOCUMENTS[1]),
        "uri": "file:///1",
        "record": "1",
        "char_start": 2,
        "char_end": 6,
        "section": "Part 2",
        "text": "text 2",
    }


def test_an_empty_corpus_has_no_hits(corpus: duckdb.DuckDBPyConnection) -> None:
    corpus.execute("DELETE FROM corpus.embedded")
    assert search(corpus, [1.0, 0.0, 0.0]).num_rows == 0


def test_a_vector_of_another_model_is_refused(corpus: duckdb.DuckDBPyConnection) -> None:
    with pytest.raises(UsageError, match="2 dimensions and the corpus 3"):
        search(corpus, [1.0, 0.0])


def test_k_is_at_least_one(corpus: duckdb.DuckDBPyConnection) -> None:
    with pytest.raises(UsageError, match="k must be"):
        search(corpus, [1.0, 0.0, 0.0], k=0)
