"""The audit: what is published and what the engine keeps, against a rebuild of all or of a sample of the files."""

import itertools
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import duckdb
import pytest
from harness import Corpus, sentence, slow

from stemma.cli import main
from stemma.definitions import build_definitions
from stemma.errors import StemmaError
from stemma.lineage.comparison import (
    PUBLISHED,
    STATE,
    TABLES,
    Comparison,
    compare_databases,
    with_lineage,
)
from stemma.resources.engine import audit as audits
from stemma.resources.engine.audit import audit, compare_states
from stemma.resources.warehouse import Warehouse

# What no rebuild can repeat (when and by which run something was done, what was there earlier), and bookkeeping of
# the text index, which shows in what is made of it.
HISTORY = {
    "lineage.superseded",
    "lineage.runs",
    "lineage.embedding_health",
    "lineage.measures",
    "lineage.recipes",
    "search.index",
}
# Where a table is seen in the comparison, if not under its own name.
SHOWN_IN = {
    "main.cleaned_rows": ("main.cleaned",),
    "lineage.rejections": ("lineage.decisions",),
    "search.numbers": ("search.chunks", "search.postings"),
    "search.posting_rows": ("search.postings",),
}
# Columns of history, and numbers without a meaning.
FREE = {"run_id", "ingested_at", "row_hash", "mtime_ns", "position", "version", "kind", "threshold"}
PASSAGE = sentence("passage", 60)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    """A corpus that has rows in every table, after two runs."""
    corpus = Corpus(
        tmp_path_factory.mktemp("audit"),
        clean={"languages": ("en",), "flag": ("gopher",)},
        deduplicate={"layers": ("exact", "near", "passage")},
        passage={"cut": True, "min_words": 30},
    )
    corpus.fill(8)
    corpus.write("again.txt", sentence("doc001.txt", 30))
    corpus.write("one.txt", f"{sentence('one', 30)}\n\n{PASSAGE}")
    corpus.write("two.txt", f"{sentence('two', 30)}\n\n{PASSAGE}")
    corpus.write(
        "german.txt", "Der Fluss fließt langsam durch das Tal, und am Abend leuchten die Fenster. " * 3
    )
    corpus.write("rows.jsonl", '{"id": 1, "text": "one record of a file of records"}\n{broken\n')
    corpus.run()
    corpus.write("doc002.txt", sentence("changed", 30))
    corpus.run()
    return corpus


@pytest.fixture(scope="module")
def rebuilt(made: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A rebuild of it."""
    return made.rebuild(tmp_path_factory.mktemp("rebuilt"))


@pytest.fixture
def both(made: Corpus, rebuilt: Path, tmp_path: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    """A connection with the corpus, which may be damaged, and its rebuild."""
    damaged = tmp_path / "corpus.duckdb"
    damaged.write_bytes(made.path.read_bytes())
    with duckdb.connect() as connection:
        connection.execute(f"ATTACH '{damaged}' AS corpus_file")
        connection.execute(f"ATTACH '{rebuilt}' AS rebuilt_file (READ_ONLY)")
        yield connection


def planted(connection: duckdb.DuckDBPyConnection, statement: str, *tables: str) -> list[Comparison]:
    """Compare these tables, or all, with a statement done, which is then taken back."""
    connection.execute("BEGIN")
    connection.execute(statement)
    chosen = [table for table in PUBLISHED if not tables or table.name in tables]
    assert chosen, tables
    compared = compare_databases(connection, "corpus_file", "rebuilt_file", chosen)
    if not tables:
        compared = with_lineage(connection, compared)
    connection.execute("ROLLBACK")
    return compared


def differing(compared: list[Comparison]) -> set[str]:
    return {each.table for each in compared if each.differs}


def base_tables(connection: duckdb.DuckDBPyConnection) -> dict[str, dict[str, str]]:
    """Return the published tables, with columns and types, that are neither history nor bookkeeping."""
    found: dict[str, dict[str, str]] = {}
    for table, column, kind in connection.execute(
        """SELECT concat(schema_name, '.', table_name), column_name, data_type
        FROM duckdb_columns() JOIN duckdb_tables() USING (database_name, schema_name, table_name)
        WHERE database_name = 'corpus_file' AND schema_name <> 'history'"""
    ).fetchall():
        found.setdefault(table, {})[column] = kind
    assert found.keys() > HISTORY
    return {table: columns for table, columns in found.items() if table not in HISTORY}


def test_a_row_too_few_or_too_many_is_found_in_every_table(both: duckdb.DuckDBPyConnection) -> None:
    assert differing(planted(both, "SELECT 1", *TABLES)) == set()
    for table, columns in base_tables(both).items():
        name = f"corpus_file.{table}"
        if both.execute(f"SELECT count(*) FROM {name}").fetchone() == (0,):
            statements = [f"INSERT INTO {name} VALUES ({', '.join(['NULL'] * len(columns))})"]
        else:
            statements = [
                f"DELETE FROM {name} WHERE rowid = (SELECT min(rowid) FROM {name})",
                f"INSERT INTO {name} FROM {name} LIMIT 1",
            ]
        for statement in statements:
            assert differing(planted(both, statement, *SHOWN_IN.get(table, (table,)))), statement


def another(kind: str) -> str:
    """Return, as SQL, a value of a type for a column that has none."""
    if "TIMESTAMP" in kind or kind == "DATE":
        return f"{kind} '1999-01-01'"
    special = {"VARCHAR": "'x'", "JSON": "'{\"x\": 1}'", "UUID": "uuid()", "BLOB": "'x'::BLOB"}
    lists = "[]" if kind.endswith("]") else "MAP {'x': 1.0}" if kind.startswith("MAP") else "4711"
    return special.get(kind, lists)


def test_a_value_that_changed_is_found_in_every_column(both: duckdb.DuckDBPyConnection) -> None:
    looked_at = 0
    for table, columns in base_tables(both).items():
        name = f"corpus_file.{table}"
        for column, kind in columns.items():
            counts = both.execute(f"SELECT count({column}), count(*) FROM {name}").fetchone()
            if column in FREE or counts == (0, 0):
                continue
            value, which = ("NULL", "IS NOT NULL") if counts and counts[0] else (another(kind), "IS NULL")
            rows = f"WHERE rowid = (SELECT min(rowid) FROM {name} WHERE {column} {which})"
            statement = f"UPDATE {name} SET {column} = {value} {rows}"
            assert differing(planted(both, statement, *SHOWN_IN.get(table, (table,)))), statement
            looked_at += 1
    assert looked_at > 90


def test_a_difference_is_told_with_its_way_back(both: duckdb.DuckDBPyConnection) -> None:
    rows = "WHERE document_id = (SELECT document_id FROM corpus_file.main.raw WHERE uri LIKE '%/doc003.txt')"
    compared = planted(both, f"UPDATE corpus_file.main.cleaned_rows SET text = text || '!' {rows}")
    found = {each.table: each.examples[0] for each in compared if each.differs}
    assert set(found) == {"corpus.cleaned", "corpus.deduplicated"}
    for table, example in found.items():
        assert (example.table, example.kind, example.first) == (table, "changed", "corpus.cleaned")
        assert example.uri
        assert example.uri.endswith("/doc003.txt")
        assert example.source == "docs"
        assert example.place == f"bytes 0–{len(sentence('doc003.txt', 30))}"
        assert set(example.columns) == {"text"}
        ours, other = example.columns["text"]
        assert ours
        assert other
        assert ours.rstrip("…!") == other.rstrip("…")
        assert ours.endswith("!")
    (with_chunk,) = both.execute(f"SELECT chunk_id::VARCHAR FROM corpus_file.main.chunked {rows}").fetchall()
    statement = f"DELETE FROM corpus_file.main.embedded WHERE chunk_id = '{with_chunk[0]}'"
    (example,) = next(each.examples for each in planted(both, statement) if each.table == "corpus.embedded")
    assert (example.kind, example.key) == ("only in the rebuild", {"chunk_id": with_chunk[0]})
    assert example.uri
    assert example.uri.endswith("/doc003.txt")
    assert example.place
    assert example.place.startswith("characters 0–")


def test_the_engines_own_tables_are_compared(made: Corpus, rebuilt: Path) -> None:
    """From them the next run goes on: what is wrong there would be wrong in the corpus only later."""
    assert differing(compare_states(Warehouse(made.path), Warehouse(rebuilt))) == set()
    state = made.path.with_suffix(".work") / "state.duckdb"
    whole = state.read_bytes()
    planted_in = set()
    for table in STATE:
        with made.state() as connection:
            (rows,) = connection.execute(f"SELECT count(*) FROM {table.name}").fetchall()[0]
            if rows:
                connection.execute(
                    f"DELETE FROM {table.name} WHERE rowid = (SELECT min(rowid) FROM {table.name})"
                )
                planted_in.add(f"state.{table.name}")
    assert len(planted_in) > 8
    assert differing(compare_states(Warehouse(made.path), Warehouse(rebuilt))) == planted_in
    state.write_bytes(whole)


@pytest.mark.parametrize("share", [0.3, *slow(0.1, 0.5, 0.8)])
def test_a_sample_that_parts_families_does_not_differ(made: Corpus, share: float) -> None:
    sizes = set()
    for seed in range(2):
        found = audit(made.config(), share, seed=seed)
        assert found.differing == []
        sizes.add(next(each.rows for each in found.tables if each.table == "corpus.raw"))
    assert all(size < made.count("corpus.raw") for size in sizes)


def damage(corpus: Corpus, statement: str) -> None:
    corpus.path.chmod(0o644)
    with duckdb.connect(str(corpus.path)) as connection:
        connection.execute(statement)


@pytest.fixture
def damageable(made: Corpus) -> Iterator[Corpus]:
    """The corpus, with its published file as it was afterwards."""
    content = made.path.read_bytes()
    yield made
    made.path.write_bytes(content)


def test_a_sample_finds_what_is_wrong_with_its_documents(damageable: Corpus) -> None:
    damage(damageable, "UPDATE main.chunked SET section = 'nobody wrote this'")
    damage(damageable, "UPDATE lineage.rejections SET score = 0.1")
    damage(damageable, "DELETE FROM lineage.errors")
    tables: set[str] = set()
    for seed in range(2):
        tables |= differing(audit(damageable.config(), 0.95, seed=seed).tables)
    assert tables == {"corpus.chunked", "search.chunks", "lineage.decisions", "lineage.errors"}


def scratch_folders(corpus: Corpus) -> list[Path]:
    return list(corpus.path.with_suffix(".work").glob("audit*"))


def test_the_scratch_place_is_removed_and_never_fills_the_disk(
    made: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed = made.path.with_suffix(".work") / "audit-killed"
    killed.mkdir()
    seen: list[int] = []
    audit(made.config(), progress=lambda *_: seen.append(len(scratch_folders(made))))
    assert set(seen) == {1}
    audit(made.config(), 0.5, scratch=tmp_path / "elsewhere")
    usage = shutil.disk_usage(tmp_path)
    room = itertools.count(audits.LEFT_BYTES + 2**26, -(2**25))

    def used(_path: object) -> Any:
        return usage._replace(free=next(room))

    monkeypatch.setattr(audits.shutil, "disk_usage", used)
    with pytest.raises(StemmaError, match="the rebuild was given up: less than 256 MB are left"):
        audit(made.config())
    with pytest.raises(StemmaError, match=r"a rebuild needs about .* --scratch"):
        audit(made.config())
    assert scratch_folders(made) == []
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_verify_prints_what_differs_and_where_it_comes_from(
    damageable: Corpus, capsys: pytest.CaptureFixture[str]
) -> None:
    config = str(damageable.config().file)
    assert main(["verify", "--config", config]) == 0
    assert "No row differs." in capsys.readouterr().out
    damage(damageable, "UPDATE lineage.members SET similarity = 0.25 WHERE NOT kept")
    assert main(["verify", "--config", config]) == 1
    told = capsys.readouterr().out
    assert "similarity: '0.25' in the corpus, '1.0' in the rebuild" in told
    assert f"of {damageable.docs}/again.txt, bytes 0–" in told
    assert main(["verify", "--config", config, "--json"]) == 1
    tables = {each["table"]: each for each in json.loads(capsys.readouterr().out)}
    assert tables["lineage.members"]["missing"] == 1
    assert tables["lineage.decisions"]["examples"][0]["first"] == "lineage.members"


def test_the_audit_is_an_asset_check_and_a_weekly_job(damageable: Corpus) -> None:
    config = damageable.config()
    defs = build_definitions(config, str(config.file))
    job = defs.resolve_job_def("audit")
    assert defs.resolve_schedule_def("weekly_audit").job_name == "audit"
    assert defs.resolve_schedule_def("weekly_audit").cron_schedule == "0 4 * * 0"
    quiet = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
    result = job.execute_in_process(run_config=quiet)
    (evaluation,) = result.get_asset_check_evaluations()
    assert result.success
    assert evaluation.passed
    assert (evaluation.asset_key, evaluation.check_name) == (dg.AssetKey("embedded"), "equals_rebuild")
    damage(damageable, "UPDATE main.chunked SET section = '<b>nobody</b>'")
    share = {"ops": {"rebuild_and_compare": {"config": {"share": 0.7}}}}
    result = job.execute_in_process(run_config=quiet | share, raise_on_error=False)
    (failed,) = [event for event in result.all_events if event.is_step_failure]
    assert "corpus.chunked" in str(failed.step_failure_data.user_failure_data.description)
    (evaluation,) = result.get_asset_check_evaluations()
    assert not evaluation.passed
    assert "&lt;b&gt;nobody" in str(evaluation.metadata["differences"].value)


def test_a_run_that_materializes_leaves_the_audit_alone(made: Corpus) -> None:
    defs = build_definitions(made.config(), str(made.config().file))
    for name in ("corpus", "by_day"):
        checks = defs.resolve_job_def(name).asset_layer.asset_graph.asset_check_keys
        assert {key.name for key in checks} > {"every_chunk_embedded"}
        assert "equals_rebuild" not in {key.name for key in checks}
    # The UI materializes by this job, and adds the checks.
    with dg.DagsterInstance.ephemeral() as instance:
        result = defs.resolve_implicit_global_asset_job_def().execute_in_process(
            instance=instance,
            asset_selection=[dg.AssetKey("embedded")],
            run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
        )
    assert "equals_rebuild" not in {each.check_name for each in result.get_asset_check_evaluations()}


def test_a_corpus_that_is_behind_is_told_to_be(made: Corpus) -> None:
    made.write("later.txt", sentence("later", 30))
    try:
        found = audit(made.config())
    finally:
        made.delete("later.txt")
    assert "files of the sources" in found.stale[0]
    assert "corpus.raw" in differing(found.tables)
