"""The five datasets through a real Dagster instance: events, metadata, versions, checks, failures."""

import dataclasses
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import duckdb
import pytest
from harness import NOTHING, Corpus, published_bytes, sentence

from stemma.definitions import JOB, build_definitions
from stemma.lineage.checks import BLOCKING
from stemma.resources.engine import Setup, recipes
from stemma.resources.engine.step_checks import NAMES as CHECKS
from stemma.resources.engine.step_checks import WARNING

DATASETS = ("raw", "cleaned", "deduplicated", "chunked", "embedded")


@pytest.fixture(scope="module")
def instance(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dg.DagsterInstance]:
    """A real instance: runs and events in SQLite files of a DAGSTER_HOME of its own."""
    home = tmp_path_factory.mktemp("dagster_home")
    (home / "dagster.yaml").write_text("telemetry:\n  enabled: false\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DAGSTER_HOME", str(home))
        with dg.DagsterInstance.get() as real:
            yield real


def make_corpus(root: Path) -> Corpus:
    made = Corpus(root, chunk={"max_tokens": 60})
    made.fill(6, words=80)
    made.write("copy.txt", sentence("doc000.txt", 80))
    made.write("a page.html", f"<html><title>A page</title><body><p>{sentence('page', 60)}</p></body></html>")
    made.write("empty.txt", " \n")
    return made


@pytest.fixture
def corpus(tmp_path: Path) -> Corpus:
    """A corpus that has not been materialized."""
    return make_corpus(tmp_path)


@pytest.fixture(scope="module")
def first_run(
    instance: dg.DagsterInstance, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Corpus, dg.ExecuteInProcessResult]:
    """A corpus and its first run, for the tests that only look."""
    made = make_corpus(tmp_path_factory.mktemp("first_run"))
    return made, materialize(instance, made)


@pytest.fixture
def materialized(first_run: tuple[Corpus, dg.ExecuteInProcessResult], tmp_path: Path) -> Corpus:
    """A copy of the materialized corpus to damage; its documents are those of the first."""
    base, _ = first_run
    copy = Corpus(tmp_path, chunk={"max_tokens": 60})
    copy.sources = list(base.sources)
    shutil.copytree(base.path.parent, copy.path.parent)
    return copy


def materialize(
    instance: dg.DagsterInstance, corpus: Corpus, *selected: str, allow_deletes: bool = False
) -> dg.ExecuteInProcessResult:
    """Run the job as the command line does, in this process."""
    file = corpus.config().file
    job = build_definitions(corpus.config(), str(file)).resolve_job_def(JOB)
    return job.execute_in_process(
        instance=instance,
        raise_on_error=False,
        asset_selection=[dg.AssetKey(name) for name in selected or DATASETS],
        run_config={
            "loggers": {"console": {"config": {"log_level": "CRITICAL"}}},
            "resources": {"pipeline": {"config": {"config_file": str(file), "allow_deletes": allow_deletes}}},
        },
    )


def latest(instance: dg.DagsterInstance, dataset: str) -> dg.AssetMaterialization:
    """Return the newest materialization, as the instance has stored it."""
    event = instance.get_latest_materialization_event(dg.AssetKey(dataset))
    assert event is not None
    assert event.asset_materialization is not None
    return event.asset_materialization


def metadata(instance: dg.DagsterInstance, dataset: str) -> dict[str, Any]:
    return {name: entry.value for name, entry in latest(instance, dataset).metadata.items()}


def computed(instance: dg.DagsterInstance) -> dict[str, int]:
    return {name: metadata(instance, name)["rows_computed"] for name in DATASETS}


def tags(instance: dg.DagsterInstance, tag: str) -> dict[str, str]:
    return {name: (latest(instance, name).tags or {})[tag] for name in DATASETS}


def check_outcomes(instance: dg.DagsterInstance, dataset: str) -> dict[str, bool]:
    """Return the newest outcome of each check of a dataset, as the instance has stored it."""
    keys = [dg.AssetCheckKey(dg.AssetKey(dataset), name) for name in CHECKS[dataset]]
    records = instance.event_log_storage.get_latest_asset_check_execution_by_key(keys)
    return {
        key.name: records[key].event.dagster_event.asset_check_evaluation_data.passed  # type: ignore[union-attr]
        for key in keys
        if key in records and records[key].event is not None
    }


def failure_text(instance: dg.DagsterInstance, result: dg.ExecuteInProcessResult) -> str:
    """Return what the event log of a failed run says in its step failures."""
    said = []
    for record in instance.all_logs(result.run_id):
        if record.dagster_event is not None and record.dagster_event.is_step_failure:
            data = record.dagster_event.step_failure_data
            said += [data.user_failure_data.description or "" if data.user_failure_data else ""]
            said += [data.error.message] if data.error else []
    return "\n".join(said)


def test_all_five_datasets_materialize_and_publish(
    instance: dg.DagsterInstance, first_run: tuple[Corpus, dg.ExecuteInProcessResult]
) -> None:
    corpus, result = first_run
    assert result.success
    run = instance.get_run_by_id(result.run_id)
    assert run is not None
    assert run.status == dg.DagsterRunStatus.SUCCESS
    rows = {
        event.asset_key.to_user_string(): event.materialization.metadata["dagster/row_count"].value
        for event in result.get_asset_materialization_events()
        if event.asset_key
    }
    assert rows == {dataset: corpus.count(f"corpus.{dataset}") for dataset in DATASETS}
    assert corpus.query("SELECT DISTINCT run_id FROM lineage.runs") == [(result.run_id,)]


def test_metadata_tell_what_a_step_did(instance: dg.DagsterInstance, corpus: Corpus) -> None:
    materialize(instance, corpus)
    cleaned = metadata(instance, "cleaned")
    assert cleaned["rows_in"] == 9
    assert cleaned["rows_added"] == cleaned["dagster/row_count"] == 8, "the empty document is dropped here"
    assert cleaned["rows_computed"] + cleaned["rows_reused"] == 9
    assert cleaned["rows_changed"] == cleaned["rows_removed"] == cleaned["errors"] == 0
    assert "A page" in cleaned["preview"]
    deduplicated = metadata(instance, "deduplicated")
    assert deduplicated["rows_in"] == 8
    assert deduplicated["rows_added"] == deduplicated["dagster/row_count"] == 7, "so is the copy"
    assert metadata(instance, "embedded")["published"] is True


def test_a_preview_shows_markup_as_text(instance: dg.DagsterInstance, corpus: Corpus) -> None:
    corpus.write("0.md", "---\ntitle: <script>alert(1)</script> | x\n---\n" + sentence("markup", 40))
    materialize(instance, corpus)
    preview = metadata(instance, "cleaned")["preview"]
    assert "&lt;script&gt;alert(1)&lt;/script&gt; \\| x" in preview
    assert "<script>" not in preview


def test_data_versions_are_those_of_a_rebuild(
    instance: dg.DagsterInstance, corpus: Corpus, tmp_path: Path
) -> None:
    materialize(instance, corpus)
    corpus.write("doc003.txt", sentence("changed", 50))
    corpus.write("new.txt", sentence("new", 50))
    corpus.delete("doc004.txt")
    materialize(instance, corpus)
    grown = tags(instance, "dagster/data_version")
    # The same documents, read at once and into another file.
    corpus.path = tmp_path / "elsewhere" / "rebuilt.duckdb"
    materialize(instance, corpus)
    assert tags(instance, "dagster/data_version") == grown
    assert corpus.count("corpus.raw") == 9


def test_a_change_changes_the_data_version_of_what_it_reaches(
    instance: dg.DagsterInstance, corpus: Corpus
) -> None:
    materialize(instance, corpus)
    before = tags(instance, "dagster/data_version")
    corpus.write("empty.txt", "\n \n")
    materialize(instance, corpus)
    after = tags(instance, "dagster/data_version")
    assert after["raw"] != before["raw"]
    for dataset in ("deduplicated", "chunked", "embedded"):
        assert after[dataset] == before[dataset], "another empty document changes nothing below"


def test_code_versions_are_the_recipes(instance: dg.DagsterInstance, materialized: Corpus) -> None:
    before = recipes(Setup.of(materialized.config()))
    materialized.set(chunk={"max_tokens": 40})
    materialize(instance, materialized)
    after = tags(instance, "dagster/code_version")
    assert after == recipes(Setup.of(materialized.config()))
    assert {name for name in DATASETS if after[name] != before[name]} == {"chunked"}


def test_a_second_run_computes_nothing(instance: dg.DagsterInstance, materialized: Corpus) -> None:
    assert materialize(instance, materialized).success
    assert computed(instance) == NOTHING
    assert not any(metadata(instance, name)["rows_changed"] for name in DATASETS)


def test_blocking_checks_are_recorded(
    instance: dg.DagsterInstance, first_run: tuple[Corpus, dg.ExecuteInProcessResult]
) -> None:
    _, result = first_run
    evaluations = result.get_asset_check_evaluations()
    told = {(e.asset_key.to_user_string(), e.check_name): e.passed for e in evaluations}
    assert told == {(dataset, name): True for dataset in DATASETS for name in CHECKS[dataset]}
    assert set(CHECKS["embedded"]) - WARNING == set(BLOCKING)
    blocking = [evaluation for evaluation in evaluations if evaluation.blocking]
    assert {e.check_name for e in evaluations} - {e.check_name for e in blocking} == WARNING
    assert {e.metadata["detail"].value for e in blocking} == {"no offending row"}, "every check has looked"
    kind = dg.DagsterEventType.ASSET_CHECK_EVALUATION
    assert len(instance.all_logs(result.run_id, of_type=kind)) == len(told)


@pytest.mark.parametrize(
    ("dataset", "damage", "check"),
    [
        ("raw", "INSERT INTO raw FROM raw LIMIT 1", "unique_document_ids"),
        ("cleaned", "DELETE FROM cleaned WHERE rowid = (SELECT min(rowid) FROM cleaned)", "no_document_lost"),
        (
            "deduplicated",
            "UPDATE deduplicated SET similarity = 0.1 WHERE kept_document_id IS NOT NULL",
            "every_removal_witnessed",
        ),
        ("chunked", "INSERT INTO chunked FROM chunked LIMIT 1", "unique_chunk_ids"),
        (
            "embedded",
            "DELETE FROM embedded WHERE rowid = (SELECT min(rowid) FROM embedded)",
            "every_chunk_embedded",
        ),
    ],
)
def test_a_failed_blocking_check_stops_the_run_and_publishes_nothing(
    instance: dg.DagsterInstance, materialized: Corpus, dataset: str, damage: str, check: str
) -> None:
    published = published_bytes(materialized.path)
    with materialized.state() as state:
        state.execute(damage)
    result = materialize(instance, materialized)
    assert not result.success
    assert check_outcomes(instance, dataset)[check] is False
    assert "blocking asset check" in failure_text(instance, result)
    below = DATASETS[DATASETS.index(dataset) + 1 :]
    assert not {event.step_key for event in result.all_events if event.is_step_start} & set(below)
    assert published_bytes(materialized.path) == published


def test_a_chunk_that_is_not_its_span_stops_the_run(instance: dg.DagsterInstance, corpus: Corpus) -> None:
    materialize(instance, corpus)
    published = published_bytes(corpus.path)
    with corpus.state() as state:
        state.execute("UPDATE chunked SET char_start = char_start + 1")
    corpus.write("new.txt", sentence("new", 50))
    result = materialize(instance, corpus)
    assert not result.success
    assert check_outcomes(instance, "chunked") == {"unique_chunk_ids": True, "spans_exact": False}
    assert published_bytes(corpus.path) == published


def test_a_mass_delete_fails_with_one_clear_line(instance: dg.DagsterInstance, materialized: Corpus) -> None:
    published = published_bytes(materialized.path)
    materialized.sources = [dataclasses.replace(materialized.sources[0], path=str(materialized.docs))]
    result = materialize(instance, materialized)
    assert not result.success
    description = failure_text(instance, result).splitlines()[0]
    assert "9 of its 9 documents would vanish" in description
    assert "--allow-deletes" in description
    assert published_bytes(materialized.path) == published
    assert materialize(instance, materialized, allow_deletes=True).success
    assert materialized.count("corpus.raw") == 0


def test_a_bad_configuration_is_a_readable_failure(instance: dg.DagsterInstance, corpus: Corpus) -> None:
    definitions = build_definitions(corpus.config(), str(corpus.root / "stemma.toml"))
    (corpus.root / "stemma.toml").write_text("[chunk]\nmax_tokns = 5\n")
    result = definitions.resolve_job_def(JOB).execute_in_process(
        instance=instance,
        raise_on_error=False,
        run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
    )
    assert not result.success
    text = failure_text(instance, result)
    assert "stemma.toml, line 2" in text
    assert "max_tokns" in text


def test_raw_alone_is_staged_and_the_rest_publishes(instance: dg.DagsterInstance, corpus: Corpus) -> None:
    assert materialize(instance, corpus, "raw").success
    assert not corpus.path.exists()
    assert metadata(instance, "raw")["dagster/row_count"] == 9
    assert materialize(instance, corpus, *DATASETS[1:]).success
    assert corpus.count("corpus.raw") == 9
    assert corpus.count("corpus.embedded") > 0
    assert corpus.differences() == []


def test_embedded_alone_does_not_publish_what_does_not_belong_together(
    instance: dg.DagsterInstance, corpus: Corpus
) -> None:
    materialize(instance, corpus)
    published = published_bytes(corpus.path)
    corpus.write("new.txt", sentence("new", 50))
    assert materialize(instance, corpus, "raw").success
    assert materialize(instance, corpus, "embedded").success
    assert published_bytes(corpus.path) == published
    told = metadata(instance, "embedded")
    assert told["published"] is False
    assert "cleaned" in told["publication"]


def test_column_schema_and_lineage_are_on_the_asset(corpus: Corpus) -> None:
    graph = build_definitions(corpus.config()).resolve_asset_graph()
    for dataset in DATASETS:
        facts = graph.get(dg.AssetKey(dataset)).metadata
        columns = {column.name for column in facts["dagster/column_schema"].columns}
        lineage = facts["dagster/column_lineage"].deps_by_column
        assert set(lineage) <= columns
        if dataset != "raw":
            assert lineage, dataset
        for above in (dep for deps in lineage.values() for dep in deps):
            schema = graph.get(above.asset_key).metadata["dagster/column_schema"]
            assert above.column_name in {column.name for column in schema.columns}, (dataset, above)


def test_the_published_columns_are_those_on_the_asset(
    first_run: tuple[Corpus, dg.ExecuteInProcessResult],
) -> None:
    corpus, _ = first_run
    graph = build_definitions(corpus.config()).resolve_asset_graph()
    for dataset in DATASETS:
        schema = graph.get(dg.AssetKey(dataset)).metadata["dagster/column_schema"]
        shown = {column.name for column in schema.columns}
        published = {row[0] for row in corpus.query(f"DESCRIBE corpus.{dataset}")}
        assert shown == published - {"row_hash"}, dataset


def test_the_corpus_is_found_under_any_name_of_its_database(
    first_run: tuple[Corpus, dg.ExecuteInProcessResult],
) -> None:
    corpus, _ = first_run
    assert corpus.path.name == "corpus.duckdb"
    with duckdb.connect() as connection:
        connection.execute(f"ATTACH '{corpus.path}' AS theirs (READ_ONLY)")
        ((rows,),) = connection.execute("SELECT count(*) FROM theirs.raw").fetchall()
        ((traced,),) = connection.execute("SELECT count(*) FROM theirs.lineage.trace").fetchall()
    assert (rows, traced) == (corpus.count("corpus.raw"), corpus.count("corpus.embedded"))


def test_warnings_and_errors_are_counted(instance: dg.DagsterInstance, corpus: Corpus) -> None:
    corpus.write("bad.json", json.dumps([{"text": sentence("good", 30)}]) + "{ broken")
    corpus.write("bad.pdf", b"%PDF-1.7 nothing follows")
    assert materialize(instance, corpus).success
    errors = sum(metadata(instance, name)["errors"] for name in DATASETS)
    assert errors == corpus.count("lineage.errors") > 0
