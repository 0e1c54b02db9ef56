"""The pipeline on a real Ray cluster: row for row what this machine makes, also when processes and nodes go."""

import dataclasses
import functools
import importlib.util
import json
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path
from typing import Any

import dangerous
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from cluster import TestCluster, started
from harness import NOTHING, Corpus, long_document, sentence, slow
from test_executors import assert_whole_partitions, path
from test_workers import outcome, table

from stemma.assets.dataset import count_metadata
from stemma.commands.run import print_remarks
from stemma.config import Config, EngineConfig, SourceConfig
from stemma.deduplication.stars import connected
from stemma.errors import StemmaError
from stemma.incremental.counts import Counts
from stemma.resources.child import items_to_parts
from stemma.resources.executors import executor_of, on_ray, ray_cluster, ray_tasks
from stemma.resources.looking import Request, Seen
from stemma.resources.sources import FileEntry

pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def cluster() -> Iterator[TestCluster]:
    with started() as cluster:
        yield cluster


@pytest.fixture
def everything_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """Send few rows away as well."""
    monkeypatch.setattr(on_ray, "FEW_ROWS", 1)
    monkeypatch.setattr(on_ray, "FEW_EXCHANGED", 1)
    monkeypatch.setattr(on_ray, "WINDOW_BYTES", 1 << 14)


@pytest.fixture
def corpus(tmp_path: Path, cluster: TestCluster) -> Corpus:
    """A corpus of formats, families and faults."""
    corpus = Corpus(
        tmp_path,
        engine={"kind": "ray", "address": cluster.address, "document_seconds": 20},
        chunk={"max_tokens": 30},
        deduplicate={"layers": ("exact", "near", "contained", "edit")},
    )
    corpus.fill(60)
    for number in range(6):
        text = long_document(f"family {number // 3}", 8)
        corpus.write(f"family/{number}.md", f"# Title {number}\n\n{text} {sentence(number, 4)}\n")
    corpus.write("page.html", f"<html><body><h1>Page</h1><p>{sentence('page', 60)}</p></body></html>")
    lines = [{"id": str(number), "text": sentence(f"line {number}", 25)} for number in range(30)]
    corpus.write("rows.jsonl", "\n".join(map(json.dumps, lines)) + "\n{broken\n")
    pq.write_table(
        pa.table({"id": ["a", "b"], "text": [sentence("a", 20), "two"]}), corpus.docs / "rows.parquet"
    )
    corpus.write("broken.pdf", b"%PDF-1.7 and nothing else")
    corpus.write("empty.txt", "")
    return corpus


def local(corpus: Corpus) -> None:
    corpus.set(engine={"kind": "local"})


def on_cluster(corpus: Corpus) -> None:
    corpus.set(engine={"kind": "ray"})


def assert_as_local(corpus: Corpus) -> None:
    """Every table, the ledger and the families are what this machine makes of it from nothing."""
    local(corpus)
    assert corpus.differences() == []
    on_cluster(corpus)


@pytest.mark.usefixtures("everything_there")
def test_the_corpus_is_row_for_row_that_of_one_machine(corpus: Corpus) -> None:
    first = corpus.run()
    assert min(first.computed.values()) > 60
    told = executor_of(corpus.config().engine).take_stats()
    assert [what for what in ("look", "compute_batch", "apply_to_partition") if f"({what})" not in told] == []
    assert_as_local(corpus)
    local(corpus)
    assert corpus.run().computed == NOTHING
    on_cluster(corpus)
    corpus.write("doc001.txt", sentence("changed", 40))
    corpus.delete("family/0.md")
    corpus.write("family/7.md", long_document("family 1", 8))
    corpus.fill(3, folder="new")
    assert 0 < corpus.run().computed["cleaned"] < 10
    assert_as_local(corpus)
    corpus.set(deduplicate={"threshold": 0.5}, chunk={"max_tokens": 40}, clean={"repair": False})
    corpus.run()
    assert_as_local(corpus)
    assert corpus.run().computed == NOTHING
    local(corpus)
    assert corpus.family_differences() == {}


@pytest.fixture
def executor(cluster: TestCluster, everything_there: None) -> Any:
    return executor_of(EngineConfig("ray", cluster.address, document_seconds=3, document_memory_mib=512))


def test_a_document_has_the_same_outcome_on_a_node(executor: Any) -> None:
    texts = ["a", "crash", "exit", "b", "hang", "refuse", "swallow", "print", "c"]
    there = outcome(executor, dangerous.stage(), *texts)
    assert there == outcome(
        executor_of(EngineConfig(document_seconds=3, document_memory_mib=512)), dangerous.stage(), *texts
    )
    assert there[0]["crash"] == "ParserDied"
    assert there[1] == {"exit", "hang", "swallow"}
    assert "compute_batch" in executor.take_stats()


def test_a_stage_that_breaks_its_contract_ends_the_run(executor: Any) -> None:
    with pytest.raises(StemmaError, match="rows of"):
        outcome(executor, dangerous.stage(dangerous.broken), "a", "b")


def test_a_model_is_loaded_by_processes_of_its_own(executor: Any, cluster: TestCluster) -> None:
    stage = dataclasses.replace(
        dangerous.stage(dangerous.with_model, alone=None), load=dangerous.load, parallel=False
    )
    found, _ = outcome(executor, stage, "a", "b")
    assert found == {"a": "model A", "b": "model B"}
    with pytest.raises(StemmaError, match=r"gpus = 0.5: the Ray cluster has 0"):
        outcome(executor_of(EngineConfig("ray", cluster.address, gpus=0.5)), stage, "a")
    broken = dataclasses.replace(stage, load=dangerous.load_nothing)
    with pytest.raises(StemmaError, match="no weights here"):
        outcome(executor, broken, "a")


def test_other_code_on_a_node_is_refused(executor: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(on_ray, "recipe", lambda _stage: "another")
    with pytest.raises(StemmaError, match="install the same versions on every node"):
        outcome(executor, dangerous.stage(), "a")


@pytest.mark.parametrize("large", [1 << 30, *slow(0)])
def test_an_exchange_delivers_whole_partitions(
    executor: Any, large: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(on_ray, "LARGE_EXCHANGE_BYTES", large)
    assert_whole_partitions(executor)


def test_a_function_that_fails_in_an_exchange_ends_the_run(executor: Any) -> None:
    rows = executor.scatter([pa.table({"other": [1]})])
    with pytest.raises(StemmaError, match="KeyError"):
        executor.exchange(rows, "key", dangerous.broken)


def test_components_by_stars_are_those_of_one_process(executor: Any) -> None:
    source, target = path(10)
    assert set(connected(12, source, target, executor).tolist()) == {0, 1, 2}


def test_what_the_engine_says_is_shown(
    executor: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    counts = Counts("raw", "", datetime(2026, 1, 1), engine="Operator 1 MapBatches(look)")
    assert "Operator 1 MapBatches(look)" in count_metadata(counts)["engine"].value
    assert executor.remarks() == []
    monkeypatch.setattr(ray_cluster, "nodes", lambda: ["the only one"])
    print_remarks(Config(engine=executor._engine))
    assert 'a single node: there [engine] kind = "local" does the same' in capsys.readouterr().out


def test_what_a_node_cannot_open_is_read_here(executor: Any, tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    file.write_text("only here")
    with file.open() as opened:
        # To another process that is another file, or none.
        number = os.dup2(opened.fileno(), 900)
        entries = [FileEntry(f"/proc/self/fd/{number}", "a.txt", 9, 1), FileEntry(str(file), "b.txt", 9, 1)]
        requests = [Request(SourceConfig("docs", str(tmp_path)), "", entry, None) for entry in entries]
        found = list(executor.read(iter(requests)))
        os.close(number)
    kinds = [(asked.entry.relative, getattr(item, "content", "") or item.kind) for asked, item in found]
    assert kinds[:2] == [("b.txt", "only here"), ("b.txt", "read")]
    assert kinds[2:] == [("a.txt", "begun"), ("a.txt", "only here"), ("a.txt", "read")]


def test_a_file_that_two_nodes_have_read_differently_is_put_off(
    executor: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a node is lost in the middle of a file, another one goes on."""
    request = Request(SourceConfig("docs", "/docs"), "", FileEntry("/docs/a.txt", "a.txt", 9, 1), None)
    seen = Seen("read", request.entry, b"two").to_json()
    contents, rest = items_to_parts([])
    rows = [
        {"number": 0, "reading": b"one", "contents": contents, "rest": rest, "seen": None, "fault": None},
        {"number": 0, "reading": b"two", "contents": contents, "rest": rest, "seen": seen, "fault": None},
    ]
    monkeypatch.setattr(executor, "_tables", lambda _looked: [pa.Table.from_pylist([row]) for row in rows])
    ((_request, found),) = executor.read([request])
    assert (found.kind, found.error) == ("put off", "changing")


@pytest.mark.slow
def test_the_corpus_is_the_same_when_a_process_and_a_node_are_lost(
    corpus: Corpus, cluster: TestCluster, everything_there: None
) -> None:
    """A process that cleans is killed, and one that cuts; and while signatures are made, a whole node."""
    corpus.fill(1500, words=60, folder="many")
    corpus.write("more.jsonl", "\n".join(json.dumps({"text": sentence(n, 80)}) for n in range(500)))
    cluster.add_node()
    cluster.wait()
    losses = {
        "cleaned": cluster.kill_process,
        "deduplicated": cluster.remove_node,
        "chunked": cluster.kill_process,
    }
    with ThreadPoolExecutor() as threads:
        lost = []

        def lose(dataset: str, _done: int, _total: int) -> None:
            if dataset in losses:
                lost.append(threads.submit(losses.pop(dataset)))

        corpus.run(progress=lose)
        assert [loss.result() for loss in lost] == [None] * 3
    assert_as_local(corpus)


@pytest.mark.slow
def test_the_vectors_of_a_model_are_the_same(corpus: Corpus) -> None:
    corpus.set(embed={"model": "all-MiniLM-L6-v2", "precision": "float32", "backend": "torch"})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(on_ray, "FEW_ROWS", 1)
        assert corpus.run().computed["embedded"] > 200
    assert_as_local(corpus)


def test_other_weights_on_a_node_are_refused(executor: Any, tmp_path: Path) -> None:
    weights = tmp_path / "weights"
    weights.write_text("those of the run")
    facts = functools.partial(dangerous.weights, weights)
    stage = dataclasses.replace(dangerous.stage(), digests=facts(), facts=facts)
    assert outcome(executor, stage, "a") == ({"a": "A"}, set())
    weights.write_text("others")
    with pytest.raises(
        StemmaError, match="weights, which the stage 'act' depends on, is not that of the run"
    ):
        outcome(executor, dataclasses.replace(stage, version=2), "a")


NAPS = [f"{batch} {row}" for batch in range(60) for row in range(4)]


def test_what_a_lost_process_and_a_lost_node_had_is_computed_again(
    cluster: TestCluster, executor: Any
) -> None:
    stage = dangerous.stage(dangerous.nap, alone=None)
    batches = [table(*NAPS[start : start + 4]) for start in range(0, len(NAPS), 4)]
    outcomes = executor.run(stage, batches, len(NAPS))
    rows = [next(outcomes).rows]
    cluster.kill_process()
    cluster.remove_node()
    rows += [computed.rows for computed in outcomes]
    assert sorted(pa.concat_tables(rows)["upper"].to_pylist()) == sorted(NAPS)


def refusal(address: str) -> str:
    with pytest.raises(StemmaError) as error:
        executor_of(EngineConfig("ray", address))
    return str(error.value)


def test_a_cluster_that_cannot_be_had_is_named(cluster: TestCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    import ray

    ray.shutdown()
    assert "cannot reach the Ray cluster at 127.0.0.9:1: Connection refused" in refusal("127.0.0.9:1")
    with monkeypatch.context() as patch:
        patch.setattr(ray_tasks, "__version__", "0.0")
        assert "has stemma 0.1.0, this machine 0.0" in refusal(cluster.address)
    with monkeypatch.context() as patch:
        patch.setattr(importlib.util, "find_spec", lambda _name: None)
        assert 'pip install "stemma[ray]"' in refusal(cluster.address)
