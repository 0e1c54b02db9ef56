"""OpenLineage events of real runs, as a real HTTP server gets them; and runs whose backend is not there."""

import http.server
import json
import subprocess
import sys
import threading
import uuid
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from harness import Corpus

from stemma.cli import main
from stemma.config import SourceConfig
from stemma.datasets import DATASETS
from stemma.lineage.openlineage import source_name
from stemma.resources.openlineage import is_configured

NAMES = [dataset.name for dataset in DATASETS]


class Backend(http.server.ThreadingHTTPServer):
    """Takes events as OpenLineage backends do, or answers with an error."""

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []
        self.paths: set[tuple[str, str | None]] = set()
        self.answer = 201

        backend = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                backend.events.append(json.loads(body))
                backend.paths.add((self.path, self.headers["Authorization"]))
                self.send_response(backend.answer)
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                """Keep still."""

        super().__init__(("127.0.0.1", 0), Handler)


@pytest.fixture
def backend(monkeypatch: pytest.MonkeyPatch) -> Iterator[Backend]:
    """A backend that the environment names."""
    server = Backend()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("OPENLINEAGE_URL", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("OPENLINEAGE_API_KEY", "the key")
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def corpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Corpus:
    made = Corpus(tmp_path)
    made.fill(3)
    made.config()
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("STEMMA_CONFIG", str(tmp_path / "stemma.toml"))
    return made


def check_event(event: dict[str, Any]) -> None:
    """Check what the spec demands of a RunEvent, and of every facet in it."""
    assert datetime.fromisoformat(event["eventTime"]).tzinfo is not None
    assert event["producer"].startswith("https://")
    assert event["schemaURL"].startswith("https://openlineage.io/spec/2-")
    assert event["schemaURL"].endswith("#/$defs/RunEvent")
    assert event["eventType"] in ("START", "COMPLETE", "FAIL")
    uuid.UUID(event["run"]["runId"])
    datasets = [*event["inputs"], *event["outputs"]]
    for named in (event["job"], *datasets):
        assert named["namespace"]
        assert named["name"]
    facets = [event["run"]["facets"], event["job"]["facets"], *(each.get("facets", {}) for each in datasets)]
    facets += [each.get("outputFacets", {}) for each in event["outputs"]]
    for name, facet in (item for group in facets for item in group.items()):
        assert facet["_producer"].startswith("https://"), name
        assert facet["_schemaURL"].startswith("https://openlineage.io/spec/facets/"), name


def test_a_run_tells_its_datasets_and_where_their_columns_come_from(
    corpus: Corpus, backend: Backend, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["run", "--json"]) == 0
    run_id = json.loads(capsys.readouterr().out)["run_id"]
    assert backend.paths == {("/api/v1/lineage", "Bearer the key")}
    for event in backend.events:
        check_event(event)
    told = [(event["job"]["name"], event["eventType"]) for event in backend.events]
    assert told == [(f"corpus.{name}", kind) for name in NAMES for kind in ("START", "COMPLETE")]
    assert len({event["run"]["runId"] for event in backend.events}) == 5, "one run a dataset"
    parents = [event["run"]["facets"]["parent"] for event in backend.events]
    assert {(parent["run"]["runId"], parent["job"]["name"]) for parent in parents} == {(run_id, "corpus")}

    here = f"duckdb://{corpus.path}"
    ended = {event["job"]["name"].split(".")[1]: event for event in backend.events[1::2]}
    assert [(i["namespace"], i["name"]) for i in ended["raw"]["inputs"]] == [("file", str(corpus.docs))]
    known = {("file", str(corpus.docs))}
    for dataset in DATASETS:
        event = ended[dataset.name]
        inputs = {(given["namespace"], given["name"]) for given in event["inputs"]}
        assert inputs
        assert inputs <= known, "each dataset is made of what was told before"
        (output,) = event["outputs"]
        known.add((output["namespace"], output["name"]))
        assert (output["namespace"], output["name"]) == (here, f"corpus.{dataset.name}")
        facets = output["facets"]
        columns = [(field["name"], field["type"]) for field in facets["schema"]["fields"]]
        assert columns == [(column.name, column.type) for column in dataset.columns]
        assert facets["version"]["datasetVersion"]
        rows = corpus.count(f"corpus.{dataset.name}")
        assert output["outputFacets"]["outputStatistics"]["rowCount"] == rows
        for origins in facets.get("columnLineage", {"fields": {}})["fields"].values():
            for origin in origins["inputFields"]:
                assert (origin["namespace"], origin["name"]) in inputs
    lineage = ended["embedded"]["outputs"][0]["facets"]["columnLineage"]["fields"]
    assert [(o["name"], o["field"]) for o in lineage["chunk_id"]["inputFields"]] == [
        ("corpus.chunked", "chunk_id")
    ]


def test_a_run_that_fails_says_why(corpus: Corpus, backend: Backend) -> None:
    assert main(["run", "--quiet"]) == 0
    corpus.docs.rename(corpus.root / "away")
    backend.events.clear()
    assert main(["run", "--quiet"]) == 1
    assert [event["eventType"] for event in backend.events] == ["START", "FAIL"]
    check_event(backend.events[1])
    assert str(corpus.docs) in backend.events[1]["run"]["facets"]["errorMessage"]["message"]


@pytest.mark.parametrize("trouble", ["refuses", "is not there"])
def test_a_run_does_not_fail_of_its_backend(
    trouble: str, corpus: Corpus, backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    if trouble == "refuses":
        backend.answer = 403
    else:
        # No second try: the waiting between them is not what is looked at.
        monkeypatch.setenv("OPENLINEAGE__TRANSPORT__TYPE", "http")
        monkeypatch.setenv("OPENLINEAGE__TRANSPORT__URL", "http://127.0.0.1:9")
        monkeypatch.setenv("OPENLINEAGE__TRANSPORT__RETRY", '{"total": 0}')
    assert main(["run", "--quiet"]) == 0
    assert corpus.count("corpus.embedded") == 3
    assert len(backend.events) == (trouble == "refuses"), "asked once, not with each event"


def test_it_is_off_unless_the_environment_names_a_backend() -> None:
    assert not is_configured({})
    assert not is_configured({"OPENLINEAGE_URL": "", "OPENLINEAGE_NAMESPACE": "docs"})
    assert is_configured({"OPENLINEAGE_URL": "http://127.0.0.1:5000"})
    assert is_configured({"OPENLINEAGE__TRANSPORT__TYPE": "console"})
    assert is_configured({"OPENLINEAGE__TRANSPORT": '{"type": "console"}'})
    assert not is_configured({"OPENLINEAGE_URL": "http://127.0.0.1:5000", "OPENLINEAGE_DISABLED": "true"})
    loaded = "import stemma.resources.pipeline, sys; sys.exit('openlineage.client' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", loaded]).returncode == 0


@pytest.mark.parametrize(
    ("source", "named"),
    [
        (SourceConfig("a", "docs"), ("file", "/srv/docs")),
        (SourceConfig("a", "/data/*.md"), ("file", "/data/*.md")),
        (SourceConfig("a", "s3://bucket/reports/2026"), ("s3://bucket", "reports/2026")),
        (SourceConfig("a", "zip://*.csv::s3://bucket/all.zip"), ("s3://bucket", "all.zip")),
        (SourceConfig("a", "https://user:secret@example.org/x/"), ("https://example.org", "x")),
        (SourceConfig("a", "gs://bucket"), ("gs://bucket", "/")),
        (SourceConfig("a", "file:///data"), ("file", "/data")),
        (SourceConfig("a", query="SELECT 1", database="postgresql://me:secret@db/x"), ("stemma", "query:a")),
    ],
)
def test_sources_have_the_names_of_the_spec_and_no_secrets(
    source: SourceConfig, named: tuple[str, str]
) -> None:
    assert source_name(source, Path("/srv")) == named
