"""A chunk's vector knows its section and, where it is small, its neighbours; incremental still equals rebuild."""

import dataclasses
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pytest
from harness import NOTHING, READER, Corpus, long_document, sentence
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from stemma.config import ChunkConfig, Config, EmbedConfig
from stemma.embedding import hash_embed
from stemma.embedding.arrays import matrix
from stemma.embedding.context import MAX_SECTION, smoothed, texts_in_context
from stemma.embedding.storage import LARGEST, quantized
from stemma.resources.engine import Setup

PARAGRAPHS = [sentence(f"p{number}", 10).capitalize() + "." for number in range(6)]


def markdown(*sections: tuple[str, list[str]]) -> str:
    return "\n\n".join(part for heading, texts in sections for part in (f"# {heading}", *texts)) + "\n"


def vectors(corpus: Corpus) -> dict[tuple[str, int], np.ndarray]:
    found = corpus.query(
        """SELECT parse_filename(uri), ordinal, embedding FROM corpus.embedded JOIN corpus.chunked USING (chunk_id)
        JOIN corpus.raw ON raw.document_id = chunked.document_id"""
    )
    return {(name, ordinal): np.array(vector, dtype=np.float32) for name, ordinal, vector in found}


def test_the_heading_path_goes_before_the_text() -> None:
    table = pa.table({"text": ["one", None, "three"], "section": ["A > B", "A", ""]})
    assert texts_in_context(table) == ["A > B\none", "A\n", "three"]
    assert texts_in_context(table.select(["text"])) == ["one", "", "three"]
    (long,) = texts_in_context(pa.table({"text": ["text"], "section": ["x" * 500 + " > inner"]}))
    assert long.endswith(" > inner\ntext")
    assert len(long) == MAX_SECTION + len("\ntext")


@pytest.mark.slow
def test_a_text_is_embedded_once_in_each_section(tmp_path: Path) -> None:
    corpus = Corpus(tmp_path, chunk={"max_tokens": 40}, deduplicate={"layers": ("exact",)})
    # The first chunk of a section holds its heading, the second is the same text in all.
    sections = [("River", 1), ("River", 2), ("Bridge", 3)]
    for name, (heading, number) in zip("abc", sections, strict=True):
        corpus.write(f"{name}.md", markdown((heading, [PARAGRAPHS[number], PARAGRAPHS[0]])))
    first = corpus.run()
    same = f"(FROM corpus.embedded SEMI JOIN (FROM corpus.chunked WHERE text = '{PARAGRAPHS[0]}') USING (chunk_id))"
    assert corpus.count(same) == 3
    assert corpus.value(f"SELECT count(DISTINCT embedding) FROM {same}") == 2
    assert first.computed["embedded"] == 5
    corpus.write("b.md", markdown(("Bridge", [PARAGRAPHS[2], PARAGRAPHS[0]])))
    # The chunk with the heading; the other one is known from c.md.
    assert corpus.run().computed["embedded"] == 1
    corpus.set(embed={"context": "none"})
    assert corpus.run().computed["embedded"] == corpus.value(
        "SELECT count(DISTINCT text_hash) FROM corpus.chunked"
    )
    assert corpus.differences() == []


def test_smoothing_is_switched_without_the_model(tmp_path: Path) -> None:
    corpus = Corpus(tmp_path, chunk={"max_tokens": 40}, embed={"context": "none"})
    corpus.write("a.txt", long_document("a", 6))
    corpus.write("b.txt", long_document("b", 1))
    corpus.run()
    raw = vectors(corpus)
    corpus.set(embed={"smoothing": 0.3})
    result = corpus.run()
    assert result.computed == NOTHING
    assert result.counts["embedded"].rows_changed == len(raw)
    now = vectors(corpus)
    assert now.keys() == raw.keys()
    last = max(ordinal for name, ordinal in raw if name == "a.txt")
    assert last >= 5
    for (name, ordinal), vector in now.items():
        beside = [raw[name, place] for place in (ordinal - 1, ordinal + 1) if (name, place) in raw]
        expected = raw[name, ordinal] + 0.3 * sum(beside)
        assert np.allclose(vector, expected / np.linalg.norm(expected), atol=1e-6)
    corpus.set(embed={"smoothing": 0.0})
    assert corpus.run().computed == NOTHING
    assert all(np.array_equal(vector, raw[place]) for place, vector in vectors(corpus).items())


def test_only_small_chunks_are_smoothed(tmp_path: Path) -> None:
    corpus = Corpus(tmp_path, chunk={"max_tokens": 40}, embed={"smoothing": 0.3, "smoothing_tokens": 20})
    corpus.write("a.md", markdown(("River", PARAGRAPHS[:3]), ("Bridge", PARAGRAPHS[3:])))
    corpus.run()
    small = "SELECT ordinal FROM corpus.chunked WHERE tokens <= 20"
    assert corpus.count(f"({small})") >= 1
    smooth = vectors(corpus)
    is_small = {ordinal for (ordinal,) in corpus.query(small)}
    corpus.set(embed={"smoothing": 0.0})
    corpus.run()
    for place, vector in vectors(corpus).items():
        assert np.array_equal(vector, smooth[place]) == (place[1] not in is_small)


@pytest.mark.slow
def test_smoothed_vectors_equal_a_rebuild(tmp_path: Path) -> None:
    corpus = Corpus(tmp_path, chunk={"max_tokens": 40}, embed={"smoothing": 0.3})
    corpus.steady = True
    corpus.write("still.txt", long_document("still", 3))
    # The same chunks in another order have other neighbours, and so have those beside one that came or went.
    for order in ([0, 1, 2, 3], [0, 2, 1, 3], [0, 2, 5, 3]):
        corpus.write("moving.md", markdown(("Moving", [PARAGRAPHS[number] for number in order])))
        corpus.run()
    assert corpus.differences() == []


def test_vectors_without_neighbours_stay_as_they_are() -> None:
    table = pa.table({"text": PARAGRAPHS})
    found = matrix(hash_embed(table, dimensions=64))
    rows = np.arange(6)
    alone = np.full(6, -1)
    assert np.array_equal(smoothed(found, rows, alone, alone, 0.3), found)
    opposite = np.concatenate([found[:1], -found[:1]])
    one = np.array([0])
    assert np.array_equal(smoothed(opposite, one, np.array([1]), np.array([-1]), 1.0), found[:1])


@given(st.integers(1, 6), st.floats(0, 1))
@settings(max_examples=30, deadline=None)
def test_smoothed_vectors_do_not_depend_on_the_batch(count: int, weight: float) -> None:
    found = matrix(hash_embed(pa.table({"text": PARAGRAPHS}), dimensions=32))
    rows = np.arange(6)
    before, after = rows - 1, np.where(rows < 5, rows + 1, -1)
    together = smoothed(found, rows, before, after, weight)
    apart = smoothed(found, rows[:count], before[:count], after[:count], weight)
    assert np.array_equal(together[:count], apart)
    assert np.allclose(np.linalg.norm(together, axis=1), 1, atol=1e-6)


@pytest.mark.parametrize(
    ("storage", "kind", "least"), [("int16", "SMALLINT", 1 - 1e-6), ("int8", "TINYINT", 0.9998)]
)
def test_vectors_are_stored_in_fewer_bits(tmp_path: Path, storage: str, kind: str, least: float) -> None:
    corpus = Corpus(tmp_path, chunk={"max_tokens": 40}, embed={"model": "hash:64", "smoothing": 0.2})
    corpus.write("a.txt", long_document("a", 4))
    corpus.run()
    exact = vectors(corpus)
    corpus.set(embed={"storage": storage})
    assert corpus.run().computed == NOTHING
    columns = dict(corpus.query("SELECT column_name, column_type FROM (DESCRIBE corpus.embedded)"))
    assert (columns["embedding"], columns["vector"]) == ("FLOAT[64]", f"{kind}[64]")
    found = vectors(corpus)
    assert found.keys() == exact.keys()
    for place, vector in found.items():
        assert (
            least <= vector @ exact[place] / np.linalg.norm(vector) / np.linalg.norm(exact[place]) < 1 + 1e-6
        )
        assert not np.array_equal(vector, exact[place])
    corpus.write("b.txt", long_document("b", 2))
    corpus.run()
    assert corpus.differences() == []
    assert corpus.failed_checks() == []
    corpus.set(embed={"storage": "float32"})
    assert corpus.run().computed == NOTHING
    assert all(np.array_equal(vectors(corpus)[place], vector) for place, vector in exact.items())


@given(hnp.arrays(np.float32, (5, 7), elements=st.floats(-100, 100, width=32)))
@settings(max_examples=50, deadline=None)
def test_whole_numbers_are_the_nearest(found: np.ndarray) -> None:
    for storage, largest in LARGEST.items():
        whole, scales = quantized(found, storage)
        assert whole.dtype == storage
        step = np.abs(found).max(axis=1, keepdims=True) / largest
        assert (np.abs(whole * scales[:, None] - found) <= 0.51 * step + 1e-37).all()
        alone, _ = quantized(found[2:3], storage)
        assert np.array_equal(alone[0], whole[2])


def test_readers_see_the_old_vectors_until_the_new_are_published(tmp_path: Path) -> None:
    corpus = Corpus(tmp_path, embed={"model": "hash:64"})
    corpus.write("a.txt", long_document("a", 2))
    corpus.run()
    old = vectors(corpus)
    corpus.set(embed={"model": "hash:32"})
    with duckdb.connect(str(corpus.path), read_only=True, config=READER) as reader:
        corpus.update("embedded")
        # All are embedded anew beside, and nothing of it is to be seen.
        assert corpus.value("SELECT DISTINCT model FROM corpus.embedded") == "hash:64"
        assert all(np.array_equal(vector, old[place]) for place, vector in vectors(corpus).items())
        corpus.run()
        assert reader.execute("SELECT DISTINCT model FROM corpus.embedded").fetchall() == [("hash:64",)]
    assert corpus.value("SELECT DISTINCT model FROM corpus.embedded") == "hash:32"
    assert {len(vector) for vector in vectors(corpus).values()} == {32}


def test_chunks_leave_room_for_their_section() -> None:
    config = Config(
        chunk=ChunkConfig(max_tokens=10_000), embed=EmbedConfig(precision="float32", backend="torch")
    )
    plain = dataclasses.replace(config, embed=dataclasses.replace(config.embed, context="none"))
    assert Setup.of(config).chunk.parameters["max_tokens"] == 254 - 48
    assert Setup.of(plain).chunk.parameters["max_tokens"] == 254
