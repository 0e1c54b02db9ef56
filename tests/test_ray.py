"""The pipeline on a real Ray cluster: row for row what this machine makes, also when processes and nodes go."""

import json
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from cluster import TestCluster, started
from harness import NOTHING, Corpus, long_document, sentence

from stemma.resources.executors import on_ray

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
    """Every table, the ledger, the families and their index are what this machine makes of it from nothing."""
    local(corpus)
    assert corpus.differences() == []
    assert corpus.family_differences() == {}
    on_cluster(corpus)


@pytest.mark.usefixtures("everything_there")
def test_the_corpus_is_row_for_row_that_of_one_machine(corpus: Corpus) -> None:
    first = corpus.run()
    assert min(first.computed.values()) > 60
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
