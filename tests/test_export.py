"""Exports hold what is published; exports of changes, taken together, hold it too."""

import json
from pathlib import Path
from typing import Any

import duckdb
import lancedb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from harness import Corpus, slow

from stemma.cli import main


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    made = Corpus(tmp_path_factory.mktemp("exported"), chunk={"max_tokens": 60})
    made.steady = True
    made.fill(6, words=80)
    made.write("rows.jsonl", json.dumps({"id": "ü", "text": "Zeilen\nmit Umbruch", "kind": {"a": [1]}}))
    made.run()
    return made


def export(corpus: Corpus, *arguments: str) -> int:
    return main(["export", *arguments, "--config", str(corpus.root / "stemma.toml")])


def rows_of(path: Path) -> list[dict[str, Any]]:
    if path.suffix == ".parquet":
        return pq.read_table(path).to_pylist()
    if path.suffix == ".arrow":
        return pa.ipc.open_file(path).read_all().to_pylist()
    if path.suffix == ".duckdb":
        with duckdb.connect(str(path), read_only=True) as connection:
            ((table,),) = connection.execute("SELECT table_name FROM duckdb_tables()").fetchall()
            return connection.execute(f"FROM {table}").to_arrow_table().to_pylist()
    if path.suffix == ".lance":
        return lancedb.connect(path.parent).open_table(path.stem).to_arrow().to_pylist()
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.mark.parametrize("form", ["parquet", "arrow", "jsonl", "duckdb", "lance"])
@pytest.mark.parametrize(
    ("what", "key"), [("documents", "document_id"), ("chunks", "chunk_id"), ("vectors", "chunk_id")]
)
def test_a_file_has_every_row_with_its_lineage(
    what: str, key: str, form: str, corpus: Corpus, tmp_path: Path
) -> None:
    path = tmp_path / f"out.{form}"
    assert export(corpus, str(path), "--what", what) == 0
    rows = rows_of(path)
    table = {"documents": "deduplicated", "chunks": "chunked", "vectors": "embedded"}[what]
    assert [row[key] for row in rows] == [
        str(found) for (found,) in corpus.query(f"SELECT {key} FROM corpus.{table} ORDER BY {key}::VARCHAR")
    ]
    (row,) = (row for row in rows if row["record"] == "ü")
    assert row["text"] == "Zeilen\nmit Umbruch"
    assert row["uri"].endswith("rows.jsonl")
    metadata = row["metadata"] if form == "jsonl" else json.loads(row["metadata"])
    assert metadata == {"id": "ü", "kind": {"a": [1]}}
    if what == "vectors":
        ((vector,),) = corpus.query(f"SELECT embedding FROM corpus.embedded WHERE chunk_id = '{row[key]}'")
        assert row["embedding"] == pytest.approx(list(vector))
    assert [child.name for child in tmp_path.iterdir()] == [path.name]


def taken_over(folder: Path, key: str) -> dict[str, dict[str, Any]]:
    """What somebody has who took over each file in turn."""
    have: dict[str, dict[str, Any]] = {}
    for path in sorted(folder.glob("0*")):
        for row in rows_of(path):
            change = row.pop("change")
            assert (row[key] in have) == (change != "added")
            if change == "removed":
                del have[row[key]]
            else:
                have[row[key]] = row
    return have


@pytest.mark.slow
def test_changes_add_up_to_the_whole(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    corpus = Corpus(tmp_path / "corpus", chunk={"max_tokens": 60})
    corpus.steady = True
    corpus.fill(6, words=80)
    last = corpus.run().run_id
    folder = tmp_path / "exports"
    arguments = (str(folder), "--changes", "--what", "vectors", "--json")
    assert export(corpus, *arguments) == 0
    assert json.loads(capsys.readouterr().out)["path"] == str(folder / f"00001-{last}.parquet")
    assert export(corpus, *arguments) == 0
    assert json.loads(capsys.readouterr().out) == {"path": None, "added": 0, "changed": 0, "removed": 0}
    corpus.delete("doc000.txt")
    corpus.write("doc001.txt", (corpus.docs / "doc001.txt").read_text() + " and a few words more.")
    corpus.write("new.txt", "A new document of a few words.")
    corpus.run()
    assert export(corpus, *arguments) == 0
    counts = json.loads(capsys.readouterr().out)
    assert counts["added"] > 0
    assert counts["removed"] > 0
    assert counts["added"] + counts["changed"] < 8
    export(corpus, str(tmp_path / "whole.parquet"), "--what", "vectors")
    whole = rows_of(tmp_path / "whole.parquet")
    assert taken_over(folder, "chunk_id") == {row["chunk_id"]: row for row in whole}
    assert len(list(folder.iterdir())) == 3


def test_tables_of_one_duckdb_file_are_replaced_one_by_one(corpus: Corpus, tmp_path: Path) -> None:
    path = tmp_path / "out.duckdb"
    with duckdb.connect(str(path)) as connection:
        connection.execute("CREATE TABLE mine AS SELECT 1 AS x; CREATE TABLE chunks (y INT)")
    before = duckdb.connect(str(path), read_only=True)
    for what in ("documents", "vectors", "chunks"):
        assert export(corpus, str(path), "--what", what) == 0
    assert before.execute("SELECT count(*) FROM chunks").fetchall() == [(0,)]
    before.close()
    with duckdb.connect(str(path), read_only=True) as connection:
        kinds = dict(connection.execute("SELECT column_name, column_type FROM (DESCRIBE vectors)").fetchall())
        assert kinds["embedding"] == "FLOAT[384]"
        assert connection.execute("SELECT x FROM mine").fetchall() == [(1,)]
        assert connection.execute("SELECT count(*) FROM chunks").fetchall() == [
            (corpus.count("corpus.chunked"),)
        ]
    assert [child.name for child in tmp_path.iterdir()] == [path.name]


def test_a_lance_dataset_becomes_a_new_version(corpus: Corpus, tmp_path: Path) -> None:
    path = tmp_path / "out.lance"
    assert export(corpus, str(path), "--what", "vectors") == 0
    before = lancedb.connect(tmp_path).open_table("out").to_arrow()
    assert export(corpus, str(path), "--what", "vectors") == 0
    table = lancedb.connect(tmp_path).open_table("out")
    assert table.to_arrow().equals(before)
    assert len(table.list_versions()) == 2
    assert export(corpus, str(tmp_path / "out"), "--format", "lance") == 2


def since(corpus: Corpus, run: str, folder: Path, capsys: pytest.CaptureFixture[str], form: str) -> Any:
    capsys.readouterr()
    assert export(corpus, str(folder), "--since", run, "--format", form, "--json") == 0
    return json.loads(capsys.readouterr().out)


def check_changes(done: dict[str, Any], then: dict[str, Any], now: dict[str, Any]) -> None:
    """Check that a file leads from the rows of then to those of now."""
    have = dict(then)
    for row in rows_of(Path(done["path"])):
        kind, key = row.pop("change"), row["document_id"]
        assert (kind == "added") == (key not in have)
        assert (kind == "removed") == (key not in now)
        have[key] = now.get(key)
    assert {key: row for key, row in have.items() if row is not None} == now
    assert done["added"] == len(now.keys() - then.keys())
    assert done["removed"] == len(then.keys() - now.keys())


@pytest.mark.parametrize("form", ["parquet", *slow("arrow", "jsonl")])
def test_what_has_changed_since_a_run(form: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """By the history; by the folder's exports once that has forgotten; not at all where neither knows."""
    corpus = Corpus(tmp_path / "corpus", chunk={"max_tokens": 60})
    corpus.steady = True
    corpus.fill(4, words=80)
    folder, whole = tmp_path / "exports", {}
    runs = []
    for change in range(4):
        if change:
            corpus.write("changing.txt", f"A text of version {change}.")
            corpus.write(f"new{change}.txt", f"A new document, number {change}, of a few words.")
        if change == 2:
            corpus.delete("doc000.txt")
        if change == 3:
            corpus.delete("new2.txt")
        runs.append(corpus.run().run_id)
        if change:
            assert export(corpus, str(folder), "--changes", "--what", "documents", "--format", form) == 0
        export(corpus, str(tmp_path / "whole.jsonl"))
        whole[change] = {row["document_id"]: row for row in rows_of(tmp_path / "whole.jsonl")}
    fresh = tmp_path / "fresh"
    for change, run in enumerate(runs[:3]):
        done = since(corpus, run, fresh, capsys, form)
        assert Path(done["path"]) == fresh / f"since-{run}.{form}"
        check_changes(done, whole[change], whole[3])
    assert len(list(fresh.iterdir())) == 3, "no export of everything, nor a file beside"
    assert since(corpus, "-1", fresh, capsys, form)["path"] == str(fresh / f"since-{runs[2]}.{form}")
    assert since(corpus, runs[3], fresh, capsys, form)["path"] is None
    assert main(["compact", "--forget-history", "--config", str(corpus.root / "stemma.toml")]) == 0
    for change in (1, 2):
        check_changes(since(corpus, runs[change], folder, capsys, form), whole[change], whole[3])
    for place, run in ((folder, runs[0]), (folder, "unknown"), (tmp_path / "none", runs[1])):
        capsys.readouterr()
        assert export(corpus, str(place), "--since", run, "--format", form) == 2
        told = capsys.readouterr().err
        assert (
            "no run of the corpus has this id" in told
            if run == "unknown"
            else "older than the history" in told
        )
        assert (runs[1] in told.split("has exports of", 1)[1]) == (place == folder)
    assert not (tmp_path / "none").exists()


def test_a_run_whose_vectors_were_of_another_model_cannot_be_asked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    corpus = Corpus(tmp_path / "corpus")
    corpus.steady = True
    corpus.fill(2)
    then = corpus.run().run_id
    corpus.set(embed={"model": "hash:64"})
    corpus.run()
    assert export(corpus, str(tmp_path / "out"), "--what", "vectors", "--since", then) == 2
    assert "the history has no corpus.embedded of that run" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    assert since(corpus, then, tmp_path / "out", capsys, "parquet")["path"] is None, (
        "documents are as they were"
    )


def test_a_file_that_the_next_run_would_read_is_told(
    corpus: Corpus, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    inside = corpus.docs / "corpus.jsonl"
    try:
        upwards = corpus.docs / ".." / "corpus.jsonl"
        for path, is_told in ((inside, True), (tmp_path / "corpus.jsonl", False), (upwards, False)):
            assert export(corpus, str(path)) == 0
            assert ("the next run will read it" in capsys.readouterr().err) == is_told
    finally:
        inside.unlink()


def test_wrong_use_is_refused(corpus: Corpus, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert export(corpus, str(tmp_path / "out.csv")) == 2
    assert export(corpus, str(tmp_path)) == 2
    assert export(corpus, str(corpus.path)) == 2
    assert export(corpus, str(tmp_path / "changes"), "--changes", "--format", "duckdb") == 2
    (tmp_path / "no.duckdb").write_text("no database")
    assert export(corpus, str(tmp_path / "no.duckdb")) == 2
    assert (tmp_path / "no.duckdb").read_text() == "no database"
    folder = tmp_path / "folder"
    assert export(corpus, str(folder), "--changes") == 0
    assert export(corpus, str(folder), "--changes", "--what", "chunks") == 2
    assert "take another folder" in capsys.readouterr().err
    (folder / "keys.parquet").unlink()
    assert export(corpus, str(folder), "--changes") == 1
    assert duckdb.sql(f"SELECT count(*) FROM '{folder}/0*.parquet'").fetchall() == [(7,)]
