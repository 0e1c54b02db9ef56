"""A real server, as `stemma ui` starts it: launch the job through GraphQL, wait for it, look at what came of it."""

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from harness import Corpus, sentence, slow
from server import Server, running, wait_for

from stemma.resources.engine.step_checks import WARNING

RUN_SECONDS = 300

LAUNCH = """
mutation Launch($params: ExecutionParams!) {
  launchRun(executionParams: $params) {
    __typename
    ... on LaunchRunSuccess { run { runId } }
    ... on PythonError { message }
    ... on RunConfigValidationInvalid { errors { message } }
  }
}"""
STATUS = """
query Status($id: ID!) { runOrError(runId: $id) { ... on Run { status } } }"""
ASSETS = """
query Assets {
  assetNodes {
    assetKey { path }
    groupName
    kinds
    owners { ... on TeamAssetOwner { team } }
    description
    opVersion
    dependencyKeys { path }
    assetChecksOrError {
      ... on AssetChecks { checks { name blocking executionForLatestMaterialization { status } } }
    }
    assetMaterializations(limit: 1) {
      runId
      metadataEntries {
        __typename
        label
        ... on IntMetadataEntry { intValue }
        ... on BoolMetadataEntry { boolValue }
        ... on MarkdownMetadataEntry { mdStr }
      }
    }
  }
}"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    corpus = Corpus(tmp_path_factory.mktemp("graphql"), chunk={"max_tokens": 60})
    corpus.fill(5, words=80)
    corpus.write("copy.txt", sentence("doc000.txt", 80))
    with running(corpus) as started:
        yield started


@pytest.fixture(scope="module")
def run_id(server: Server) -> str:
    """Launch the job and wait until it has succeeded."""
    launched = server.ask(
        LAUNCH, params={"selector": {**server.repository, "jobName": "corpus"}, "runConfigData": {}}
    )
    assert launched["launchRun"]["__typename"] == "LaunchRunSuccess", launched
    run_id = launched["launchRun"]["run"]["runId"]

    def ended() -> bool:
        status = server.ask(STATUS, id=run_id)["runOrError"]["status"]
        assert status not in ("FAILURE", "CANCELED"), server.log.read_text()[-3000:]
        return bool(status == "SUCCESS")

    wait_for(ended, RUN_SECONDS)
    return str(run_id)


def test_a_run_launched_in_the_ui_publishes(server: Server, run_id: str) -> None:
    assert server.corpus.query("SELECT DISTINCT run_id FROM lineage.runs") == [(run_id,)]
    assert server.corpus.count("corpus.raw") == 6
    assert server.corpus.count("corpus.deduplicated") == 5
    assert server.corpus.failed_checks() == []


def test_the_ui_shows_graph_materializations_and_checks(server: Server, run_id: str) -> None:
    nodes = {node["assetKey"]["path"][0]: node for node in server.ask(ASSETS)["assetNodes"]}
    names = ["source", "raw", "cleaned", "deduplicated", "chunked", "embedded"]
    assert sorted(nodes) == sorted(names)
    for above, name in itertools.pairwise(names):
        node = nodes[name]
        assert [key["path"] for key in node["dependencyKeys"]] == [[above]]
        assert node["groupName"] == "corpus"
        assert node["owners"] == [{"team": "stemma"}]
        assert "duckdb" in node["kinds"]
        assert node["description"]
        assert node["opVersion"]
        (materialization,) = node["assetMaterializations"]
        assert materialization["runId"] == run_id
        entries = {entry["label"]: entry for entry in materialization["metadataEntries"]}
        assert entries["dagster/row_count"]["intValue"] == server.corpus.count(f"corpus.{name}")
        assert entries["preview"]["mdStr"].startswith("| ")
        checks = node["assetChecksOrError"]["checks"]
        assert checks
        # That one is the weekly audit's, and no part of a run that materializes.
        checks = [check for check in checks if check["name"] != "equals_rebuild"]
        assert all(check["blocking"] == (check["name"] not in WARNING) for check in checks)
        assert {check["executionForLatestMaterialization"]["status"] for check in checks} == {"SUCCEEDED"}
    told = {e["label"]: e for e in nodes["embedded"]["assetMaterializations"][0]["metadataEntries"]}
    assert told["published"]["boolValue"] is True


def test_the_ui_listens_on_loopback_only(server: Server) -> None:
    sockets = [
        line.split()[1]
        for name in ("tcp", "tcp6")
        for line in Path(f"/proc/net/{name}").read_text().splitlines()[1:]
    ]
    bound = {place.split(":")[0] for place in sockets if place.endswith(f":{server.port:04X}")}
    assert bound == {"0100007F"}, "127.0.0.1 in the kernel's notation"
    assert f"http://127.0.0.1:{server.port}" in server.log.read_text()


def test_history_is_kept_without_telemetry(server: Server, run_id: str) -> None:
    home = server.corpus.root / "home"
    assert "enabled: false" in (home / "dagster.yaml").read_text()
    assert (home / "history" / "runs" / f"{run_id}.db").exists()


BACKFILL = """
mutation Backfill($params: LaunchBackfillParams!) {
  launchPartitionBackfill(backfillParams: $params) {
    __typename
    ... on LaunchBackfillSuccess { backfillId }
    ... on PythonError { message }
  }
}"""
BACKFILLED = """
query Backfill($id: String!) {
  partitionBackfillOrError(backfillId: $id) {
    ... on PartitionBackfill { status runs(limit: 10) { runId status } error { message } }
  }
}"""


# Dagster's daemon looks at backfills every half minute.
@pytest.mark.timeout(600)
@pytest.mark.parametrize("of_job", slow(True, False), ids=["of the job", "of the assets"])
def test_a_backfill_of_many_days_is_one_run(server: Server, run_id: str, of_job: bool) -> None:
    days = [f"2026-02-{day:02}" for day in (range(1, 11) if of_job else range(11, 21))]
    for day in days[::3]:
        server.corpus.write(f"{day}.txt", sentence(day, 50))
    server.corpus.write(f"2026-03-01-{of_job}.txt", sentence("of another day", 50))
    whole = ("raw", "cleaned", "deduplicated", "chunked", "embedded")
    params: dict[str, Any] = {"partitionNames": days}
    if of_job:
        params["selector"] = {
            "partitionSetName": "by_day_partition_set",
            "repositorySelector": server.repository,
        }
    else:
        params["assetSelection"] = [{"path": [name]} for name in whole]
    launched = server.ask(BACKFILL, params=params)["launchPartitionBackfill"]
    assert launched["__typename"] == "LaunchBackfillSuccess", launched

    def ended() -> bool:
        told = server.ask(BACKFILLED, id=launched["backfillId"])["partitionBackfillOrError"]
        assert told["status"] not in ("FAILED", "COMPLETED_FAILED"), told
        return str(told["status"]).startswith("COMPLETED")

    wait_for(ended, 4 * RUN_SECONDS)
    runs = server.ask(BACKFILLED, id=launched["backfillId"])["partitionBackfillOrError"]["runs"]
    assert len(runs) <= 2, "the days in one run, and what is below"
    taken = server.corpus.query(
        "SELECT partition_date::VARCHAR FROM corpus.raw WHERE document_date IS NOT NULL"
    )
    assert {day for (day,) in taken} >= set(days[::3])
    assert server.corpus.count(f"lineage.waiting WHERE contains(uri, '{of_job}')") == 1
