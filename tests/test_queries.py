"""Queries as sources: any table becomes documents; nothing is written to it, and mistakes are named."""

import sqlite3
from pathlib import Path

import duckdb
import pytest
from harness import NOTHING, Corpus, sentence

from stemma.config import SourceConfig
from stemma.errors import StemmaError
from stemma.resources.queries import run_query
from stemma.resources.sources import list_files


def rows(folder: Path, query: str, database: Path | str | None = None) -> list[str]:
    source = SourceConfig("table", query=query, database=None if database is None else str(database))
    file, _hash = run_query(source, folder, folder)
    with file:
        return file.read().decode().splitlines()


def failure(folder: Path, query: str, database: Path | str | None = None) -> str:
    with pytest.raises(StemmaError, match=r"^source 'table': the query failed: ") as caught:
        rows(folder, query, database)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture
def sqlite(tmp_path: Path) -> Path:
    path = tmp_path / "it's a file.sqlite"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE notes (id INTEGER, body TEXT, at TEXT, picture BLOB)")
        connection.execute(
            "INSERT INTO notes VALUES (1, 'Größe', '2024-05-06', x'00ff'), (2, CAST(x'61ff' AS TEXT), NULL, NULL)"
        )
    connection.close()
    return path


@pytest.fixture
def duck(tmp_path: Path) -> Path:
    path = tmp_path / "it's a file.db"
    with duckdb.connect(str(path)) as connection:
        connection.execute(
            """CREATE TABLE notes AS SELECT 1 AS id, 'Größe' AS body, DATE '2024-05-06' AS at, 'x'::BLOB AS picture,
            1.50::DECIMAL(5, 2) AS price, 'nan'::DOUBLE AS odd, {'a': [1, NULL]} AS nested"""
        )
    return path


def test_rows_of_each_kind_of_database(tmp_path: Path, sqlite: Path, duck: Path) -> None:
    query = "SELECT * EXCLUDE (odd) FROM notes"
    line = '{"id": 1, "body": "Größe", "at": "2024-05-06", "price": "1.50", "nested": {"a": [1, null]}}'
    assert rows(tmp_path, query, duck) == [line]
    lines = [
        '{"id": 1, "body": "Größe", "at": "2024-05-06"}',
        '{"id": 2, "body": "a\ufffd", "at": null, "picture": null}',
    ]
    assert rows(tmp_path, "SELECT * FROM notes ORDER BY id", sqlite) == lines
    url = f"sqlite:///{sqlite}"
    assert rows(tmp_path, "SELECT id, body FROM notes WHERE id < 2", url) == ['{"id": 1, "body": "Größe"}']
    assert rows(tmp_path, "SELECT odd, odd FROM notes", duck) == ['{"odd": null, "odd#2": null}']


def test_without_a_database_files_below_the_configuration_are_read(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("id,text\n1,hello\n")
    assert rows(tmp_path, "SELECT text FROM read_csv('x.csv')") == ['{"text": "hello"}']


def test_nothing_can_be_written_or_read_beside_the_database(tmp_path: Path, sqlite: Path, duck: Path) -> None:
    before = (sqlite.read_bytes(), duck.read_bytes())
    (tmp_path / "x.csv").write_text("id,text\n1,hello\n")
    assert "single SELECT" in failure(tmp_path, f"COPY (SELECT 1) TO '{tmp_path}/evil.csv'")
    assert "single SELECT" in failure(tmp_path, "SELECT 1; SELECT 2")
    assert "single SELECT" in failure(tmp_path, "DROP TABLE notes", duck)
    assert "disabled" in failure(tmp_path, f"SELECT * FROM read_csv('{tmp_path}/x.csv')", duck)
    assert "readonly" in failure(tmp_path, "DELETE FROM notes", sqlite)
    assert "single SELECT" in failure(tmp_path, "DELETE FROM notes", f"sqlite:///{sqlite}")
    assert "already closed" not in failure(
        tmp_path, "INSERT INTO notes VALUES (3, '', '', '') RETURNING nothing", sqlite
    )
    assert not (tmp_path / "evil.csv").exists()
    assert (sqlite.read_bytes(), duck.read_bytes()) == before


def test_mistakes_are_named_and_secrets_are_not(tmp_path: Path, sqlite: Path, duck: Path) -> None:
    for database in (sqlite, duck, None, f"sqlite:///{sqlite}"):
        assert "nowhere" in failure(tmp_path, "SELECT * FROM nowhere", database)
    assert "No such file" in failure(tmp_path, "SELECT 1", tmp_path / "gone.duckdb")
    (tmp_path / "text").write_text("no database at all")
    assert "no DuckDB or SQLite file" in failure(tmp_path, "SELECT 1", tmp_path / "text")
    assert "secret" not in failure(tmp_path, "SELECT 1", "nosuch://me:secret@host/db")


def test_a_query_is_listed_without_being_run() -> None:
    (entry,) = list_files(SourceConfig("table", query="SELECT nonsense"))
    assert (entry.uri, entry.relative) == ("query:table", "table")  # type: ignore[union-attr]


class Table:
    """A corpus whose one source is a query of a DuckDB file."""

    def __init__(self, root: Path, **options) -> None:
        self.corpus = Corpus(root)
        self.path = root / "notes.duckdb"
        self.execute("CREATE TABLE notes (number INTEGER, body VARCHAR, published DATE)")
        for number in range(6):
            self.execute("INSERT INTO notes VALUES (?, ?, '2024-05-06')", number, sentence(number, 30))
        self.corpus.sources = [
            SourceConfig(
                "notes", query="SELECT * FROM notes ORDER BY number", database=str(self.path), **options
            )
        ]

    def execute(self, query: str, *parameters: object) -> None:
        with duckdb.connect(str(self.path)) as connection:
            connection.execute(query, list(parameters))


def test_rows_become_documents_and_only_changed_ones_are_computed(tmp_path: Path) -> None:
    table = Table(tmp_path, id_field="number", labels=(("licence", "CC0-1.0"),))
    corpus = table.corpus
    assert corpus.run().computed["cleaned"] == 6
    assert corpus.query(
        "SELECT DISTINCT uri, byte_start, document_date::VARCHAR, date_from, fields->>'text', labels->>'licence'"
        " FROM corpus.raw"
    ) == [("query:notes", None, "2024-05-06", "field", "body", "CC0-1.0")]
    assert corpus.run().computed == NOTHING
    table.execute("UPDATE notes SET body = ? WHERE number = 3", sentence("new", 30))
    table.execute("DELETE FROM notes WHERE number = 1")
    changed = corpus.run()
    assert changed.computed["raw"] == changed.computed["cleaned"] == 1
    assert (changed.counts["raw"].rows_changed, changed.counts["raw"].rows_removed) == (1, 1)
    assert corpus.query("SELECT record FROM corpus.raw ORDER BY record") == [(key,) for key in "02345"]
    assert corpus.differences() == []


def test_rows_of_a_partial_query_stay(tmp_path: Path) -> None:
    table = Table(tmp_path, id_field="number", complete=False)
    table.corpus.run()
    table.execute("DELETE FROM notes WHERE number < 5")
    assert table.corpus.run().counts["raw"].rows_removed == 0
    assert table.corpus.count("corpus.raw") == 6


def test_a_query_that_fails_changes_nothing(tmp_path: Path) -> None:
    table = Table(tmp_path, id_field="number")
    corpus = table.corpus
    corpus.run()
    table.execute("DROP TABLE notes")
    with pytest.raises(StemmaError, match="source 'notes'"):
        corpus.run(allow_deletes=True)
    assert corpus.count("corpus.raw") == 6


def test_a_row_without_text_costs_that_row(tmp_path: Path) -> None:
    table = Table(tmp_path, id_field="number")
    table.execute("INSERT INTO notes VALUES (9, NULL, NULL)")
    table.corpus.run()
    assert table.corpus.query("SELECT uri, record, error FROM lineage.errors") == [
        ("query:notes", "9", "empty text field")
    ]
    assert table.corpus.count("corpus.raw") == 6


def test_missing_sqlite_file_behind_an_address_is_not_created(tmp_path: Path, sqlite: Path) -> None:
    missing = tmp_path / "missing.db"
    assert f"there is no file {missing}" in failure(tmp_path, "SELECT 1 AS id", f"sqlite:///{missing}")
    assert not missing.exists()
    assert rows(tmp_path, "SELECT 1 AS id", "sqlite://") == ['{"id": 1}']
    assert rows(tmp_path, "SELECT id FROM notes LIMIT 1", f"sqlite:///{sqlite}") == ['{"id": 1}']
