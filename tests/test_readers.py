"""Readers: the published file is the contract, and reading it at any time disturbs nobody."""

import ast
import contextlib
import json
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import pytest
from harness import READER, Corpus, sentence

from stemma.config import DecontaminateConfig
from stemma.datasets import DATASETS, FAMILIES, LEDGER, MEASURES, PURGED, WAITING, WEIGHTS
from stemma.resources import warehouse

DIMENSIONS = 384

READER_PROCESS = """
import json, sys
import duckdb

connection = duckdb.connect(sys.argv[1], read_only=True)
for query in sys.stdin:
    print(json.dumps(connection.execute(query).fetchall(), default=str), flush=True)
"""

WATCHER_PROCESS = """
import sys, threading, time
import duckdb
from stemma.lineage.checks import BLOCKING, run_check

stopping = threading.Event()
threading.Thread(target=lambda: (sys.stdin.read(), stopping.set()), daemon=True).start()
looks, states = 0, set()
while True:
    last = stopping.is_set()
    with duckdb.connect(sys.argv[1], read_only=True) as connection:
        for name, query in BLOCKING.items():
            check = run_check(connection, name, query)
            assert check.passed, (name, check.detail)
        states.add(connection.execute('''SELECT (SELECT count(*) FROM corpus.raw),
            (SELECT count(*) FROM corpus.deduplicated) + (SELECT count(*) FROM lineage.decisions)
            + (SELECT count(DISTINCT document_id) FROM lineage.errors)''').fetchone())
    looks += 1
    time.sleep(0.05)
    if last:
        break
print(looks, sorted(states))
"""


@pytest.fixture
def corpus(tmp_path: Path) -> Corpus:
    made = Corpus(tmp_path)
    made.steady = True
    return made


class Reader:
    """A process that holds the published file open."""

    def __init__(self, path: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", READER_PROCESS, str(path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def query(self, sql: str) -> Any:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(" ".join(sql.split()) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())


@contextlib.contextmanager
def reader(path: Path) -> Iterator[Reader]:
    """Open the published file in another process, for as long as the block lasts."""
    opened = Reader(path)
    try:
        yield opened
    finally:
        opened.process.communicate()
    assert opened.process.returncode == 0


@pytest.mark.parametrize("name", ["corpus.duckdb", "my corpus's.db"])
def test_every_table_and_column_of_the_contract_is_published(corpus: Corpus, name: str) -> None:
    corpus.path = corpus.root / name
    corpus.fill(3)
    corpus.write("again.txt", sentence("doc001.txt", 30))
    corpus.write("rows.jsonl", "{broken\n")
    (corpus.root / "quiz.txt").write_text(sentence("doc001.txt", 30))
    corpus.set(clean={"decontaminate": DecontaminateConfig(sets=("quiz.txt",))})
    passage = sentence("passage", 60)
    for number in range(2):
        corpus.write(f"quotes{number}.txt", f"{sentence(number, 90)} {passage}")
    corpus.set(deduplicate={"layers": ("exact", "near", "passage")}, passage={"cut": True})
    corpus.run()
    with duckdb.connect(str(corpus.path), read_only=True, config=READER) as connection:
        for dataset in (*DATASETS, FAMILIES, WEIGHTS, *LEDGER):
            described = connection.execute(f"DESCRIBE {dataset.qualified}").fetchall()
            types = {column: kind for column, kind, *_rest in described}
            for column in dataset.columns:
                wanted = f"FLOAT[{DIMENSIONS}]" if column.type == "FLOAT[]" else column.type
                assert types.get(column.name) == wanted, f"{dataset.qualified}.{column.name}"
            # Rows of these: tests/test_days.py, test_purge.py and test_steadiness.py.
            if dataset not in (MEASURES, PURGED, WAITING):
                assert corpus.count(dataset.qualified), dataset.name


def test_the_published_file_needs_no_extension_and_cannot_be_written(corpus: Corpus) -> None:
    corpus.fill(3)
    corpus.run()
    assert stat.S_IMODE(corpus.path.stat().st_mode) == 0o444
    corpus.write("more.txt", sentence("more", 20))
    corpus.run()
    assert stat.S_IMODE(corpus.path.stat().st_mode) == 0o444
    with duckdb.connect(
        str(corpus.path), read_only=True, config={**READER, "enable_external_access": False}
    ) as connection:
        assert connection.execute("SELECT count(*) FROM lineage.trace").fetchone() == (4,)
        with pytest.raises(duckdb.Error):
            connection.execute("DELETE FROM lineage.runs")
    assert [path.name for path in corpus.path.parent.iterdir() if path.is_file()] == ["corpus.duckdb"]


def test_each_vector_has_length_one_and_belongs_to_its_text(corpus: Corpus) -> None:
    corpus.fill(3)
    corpus.run()
    assert corpus.value(
        "SELECT bool_and(abs(list_sum([x * x for x in embedding::FLOAT[]]) - 1) < 1e-5) FROM corpus.embedded"
    )
    assert corpus.value(
        """SELECT count(*) FROM corpus.chunked AS c JOIN corpus.cleaned AS d USING (document_id)
        WHERE c.text <> substring(d.text, c.char_start + 1, c.char_end - c.char_start)
            OR c.text_hash <> sha256(c.text)[:32]::UUID OR d.text_hash <> sha256(d.text)[:32]::UUID"""
    ) == 0  # fmt: skip


def test_a_reader_keeps_what_it_opened_and_disturbs_nobody(corpus: Corpus) -> None:
    corpus.fill(5)
    corpus.run()
    with reader(corpus.path) as old:
        question = "SELECT count(*), max(uri), sum(length(content)) FROM corpus.raw"
        before = old.query(question)
        vectors = old.query("SELECT chunk_id, embedding FROM corpus.embedded ORDER BY ALL")
        for number in range(3):
            corpus.write(f"later{number}.txt", sentence(number, 20))
            corpus.run()
            assert old.query(question) == before
        corpus.set(chunk={"max_tokens": 20}, embed={"model": "hash:64"})
        corpus.run()
        assert old.query(question) == before
        assert old.query("SELECT chunk_id, embedding FROM corpus.embedded ORDER BY ALL") == vectors
        with reader(corpus.path) as new:
            assert new.query("SELECT count(*) FROM corpus.raw") == [[8]]
            assert new.query("SELECT DISTINCT len(embedding) FROM corpus.embedded") == [[64]]
    assert corpus.differences() == []


def test_a_reader_in_the_same_process_disturbs_nobody(corpus: Corpus) -> None:
    corpus.fill(5)
    corpus.run()
    with duckdb.connect(str(corpus.path), read_only=True, config=READER) as connection:
        corpus.write("later.txt", sentence("later", 20))
        assert corpus.run().publication.published
        assert connection.execute("SELECT count(*) FROM corpus.raw").fetchone() == (5,)
    assert corpus.count("corpus.raw") == 6


def test_no_reader_ever_sees_a_mixed_state(corpus: Corpus) -> None:
    corpus.fill(5)
    corpus.run()
    watcher = subprocess.Popen(
        [sys.executable, "-c", WATCHER_PROCESS, str(corpus.path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    sizes = {5}
    for number in range(5):
        for copy in range(3):
            corpus.write(f"new{number}-{copy}.txt", sentence(f"{number} {copy // 2}", 25))
        if number:
            corpus.delete(f"new{number - 1}-2.txt")
        corpus.run()
        sizes.add(len(list(corpus.docs.iterdir())))
    out, errors = watcher.communicate()
    assert watcher.returncode == 0, errors
    looks, states = out.split(maxsplit=1)
    assert int(looks) > 2
    for documents, placed in ast.literal_eval(states):
        assert documents == placed
        assert documents in sizes


def test_the_published_file_may_be_attached_under_another_name(corpus: Corpus) -> None:
    corpus.fill(3)
    corpus.write("again.txt", sentence("doc001.txt", 30))
    corpus.run()
    with duckdb.connect(config=READER) as connection:
        connection.execute(f"ATTACH '{corpus.path}' AS other (READ_ONLY)")
        for dataset in (*DATASETS, *LEDGER):
            if dataset.name != "errors":
                rows = connection.execute(f"SELECT count(*) FROM other.{dataset.stored}").fetchone()
                assert rows == (corpus.count(dataset.qualified),)
        connection.execute("USE other")
        assert connection.execute("SELECT count(*) FROM lineage.trace").fetchone() != (0,)


def test_views_of_an_attached_file_read_that_file(tmp_path: Path) -> None:
    one, two = Corpus(tmp_path / "one"), Corpus(tmp_path / "two")
    one.path = tmp_path / "one.duckdb"
    one.fill(3)
    two.fill(2)
    two.write("again.txt", sentence("doc001.txt", 30))
    one.run()
    two.run()
    with duckdb.connect(str(one.path), read_only=True, config=READER) as connection:
        connection.execute(f"ATTACH '{two.path}' AS two (READ_ONLY)")
        assert connection.execute("SELECT count(*) FROM lineage.decisions").fetchone() == (0,)
        assert connection.execute("SELECT count(*) FROM two.lineage.decisions").fetchone() == (1,)
        assert connection.execute("SELECT count(*) FROM two.deduplicated").fetchone() == (2,)


def test_a_published_file_that_is_lost_is_made_anew(corpus: Corpus) -> None:
    corpus.fill(3)
    corpus.run()
    corpus.path.unlink()
    result = corpus.run()
    assert result.publication.published
    assert set(result.computed.values()) == {0}
    assert corpus.differences() == []


def test_a_run_that_needs_more_memory_asks_for_it(corpus: Corpus, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(warehouse, "MEMORY_BYTES", 24 * 2**20)
    rows = [json.dumps({"id": number, "text": sentence(number, 40)}) for number in range(6000)]
    corpus.write("rows.jsonl", "\n".join(rows))
    corpus.run()
    assert corpus.count("corpus.embedded") == 6000


def test_a_large_file_is_traced_in_memory_that_does_not_follow_its_size(corpus: Corpus) -> None:
    text = "\r\n\r\n".join(f"Größe {number}: {sentence(number, 30)}  " for number in range(8000))
    corpus.write("large.txt", text)
    corpus.run()
    file = (corpus.docs / "large.txt").read_bytes()
    with duckdb.connect(
        str(corpus.path), read_only=True, config={**READER, "memory_limit": "300MB"}
    ) as reader:
        spans = reader.execute(
            """SELECT source_byte_start, source_byte_end, c.text FROM lineage.trace AS t
            JOIN corpus.chunked AS c USING (chunk_id) ORDER BY ordinal"""
        ).fetchall()
    assert len(spans) >= 3000
    assert all(file[start:end].decode().split() == text.split() for start, end, text in spans)
