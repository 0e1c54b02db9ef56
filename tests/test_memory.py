"""Memory: a run lets go of what it has done with, so that its peak does not follow the sum of its steps."""

import weakref
from pathlib import Path

import duckdb
import pyarrow as pa
import pytest
from harness import Corpus

from stemma.resources import memo
from stemma.resources.engine import DATASETS, publish
from stemma.resources.handing import execute_over
from stemma.resources.warehouse import Warehouse


def test_a_table_handed_to_duckdb_is_free_before_the_transaction_ends() -> None:
    with duckdb.connect() as connection:
        connection.execute("BEGIN")
        connection.execute("CREATE TABLE numbers (number BIGINT, word VARCHAR)")
        for first in (0, 10):
            words = pa.array([f"word {number % 3}" for number in range(10)]).dictionary_encode()
            table = pa.table([pa.array(range(first, first + 10)), words], ["number", "word"])
            execute_over(connection, table, "INSERT INTO numbers FROM arriving")
            # A stream is made anew each time it is asked for.
            pairs = execute_over(connection, table, "SELECT count(*) FROM arriving AS a, arriving AS b")
            assert pairs.fetchall() == [(100,)]
            kept = weakref.ref(table)
            del table
            assert kept() is None
        connection.execute("COMMIT")
        assert connection.execute("SELECT sum(number), count(DISTINCT word) FROM numbers").fetchall() == [
            (190, 3)
        ]
        with pytest.raises(duckdb.CatalogException):
            connection.execute("FROM arriving")


def test_what_fails_within_a_transaction_tells_its_own_reason() -> None:
    with duckdb.connect() as connection:
        connection.execute("BEGIN")
        words = pa.table({"text": ["word"]})
        with pytest.raises(duckdb.ConversionException, match="word"):
            execute_over(connection, words, "SELECT text::INTEGER FROM arriving").fetchall()
        connection.execute("ROLLBACK")


def test_no_file_of_the_memo_that_much_was_read_of_stays_mapped_after_a_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memo, "ROWS_LEFT_MAPPED", -1)
    corpus = Corpus(tmp_path)
    corpus.fill(40, words=200)
    corpus.run()
    corpus.write("doc000.txt", "a text that changes one of forty documents")
    # The few remembered rows that are computed again are read by mapping their segment.
    corpus.audit = True
    mapped: dict[str, bool] = {}

    def note(dataset: str, _done: int, _total: int) -> None:
        mapped[dataset] = mapped.get(dataset, False) or _is_mapped(corpus)

    run = corpus.start(progress=note)
    try:
        for name, update_dataset in DATASETS.items():
            update_dataset(run)
            assert not _is_mapped(corpus), name
        assert publish(run).published
        assert not _is_mapped(corpus)
    finally:
        run.warehouse.close()
    assert any(mapped.values())


def _is_mapped(corpus: Corpus) -> bool:
    return f"{corpus.path.with_suffix('.work')}/memo/" in Path("/proc/self/maps").read_text()


def test_a_step_leaves_no_large_tables_behind(tmp_path: Path) -> None:
    warehouse = Warehouse(tmp_path / "corpus.duckdb")
    try:
        warehouse.connection.execute("CREATE TABLE few AS FROM range(1000)")
        warehouse.let_go()
        assert warehouse.connection.execute("SELECT count(*) FROM few").fetchall() == [(1000,)]
        warehouse.connection.execute("CREATE TABLE many AS FROM range(10_000_000)")
        warehouse.let_go()
        assert warehouse.connection.execute("FROM duckdb_tables()").fetchall() == []
        # What is spilled still has its place.
        warehouse.connection.execute("SET memory_limit = '64MB'")
        warehouse.connection.execute("CREATE TABLE large AS SELECT range, hash(range) FROM range(10_000_000)")
        assert list(warehouse.folder.glob("spill-*/*"))
    finally:
        warehouse.close()
    assert list(warehouse.folder.iterdir()) == []
