"""Worker processes: what a document does to the process that parses it costs that document and nothing else."""

import json
import os
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import dangerous
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from harness import Corpus

from stemma.errors import StemmaError
from stemma.hashing import digest, uuid_array
from stemma.incremental.stage import SMALL_ROWS
from stemma.reading import ReadError, ReadOptions, Record, read
from stemma.resources.workers import Limits, Workers


@pytest.fixture(autouse=True)
def _importable(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))


@pytest.fixture
def pool():
    pools = []

    def make(processes=1, **limits):
        pools.append(Workers(processes, Limits(**limits)))
        return pools[-1]

    yield make
    for each in pools:
        each.close()


def table(*texts):
    return pa.table({"input_hash": uuid_array(digest(text.encode()) for text in texts), "text": list(texts)})


def outcome(workers, stage, *texts):
    """Return {text: its output, or the name of its error} and the failures that may pass."""
    names = {digest(text.encode()): text for text in texts}
    found, passing = {}, set()
    for computed in workers.run(stage, [table(*texts)], len(texts)):
        for row in computed.rows.to_pylist():
            found[names[row["input_hash"].bytes]] = row["upper"] or row["error"]
        for failure in computed.failures:
            found[names[failure.input_hash]] = failure.error
            if failure.retryable:
                passing.add(names[failure.input_hash])
    return found, passing


@pytest.mark.parametrize("alone", [dangerous.marked, None], ids=["alone", "together"])
@pytest.mark.parametrize(
    ("deed", "error", "passes"),
    [
        ("crash", "ParserDied", False),
        ("exit", "ParserDied", True),
        ("swallow", "MemoryError", True),
        ("swallow slowly", "MemoryError", True),
        ("refuse", "ValueError", False),
    ],
)
def test_a_document_that_kills_its_process_costs_itself(pool, deed, error, passes, alone):
    fillers = [f"text {number}" for number in range(5 if alone else SMALL_ROWS)]
    texts = [*fillers[:3], deed, *fillers[3:]]
    found, passing = outcome(pool(memory_mib=512), dangerous.stage(alone=alone), *texts)
    assert found == {text: text.upper() for text in fillers} | {deed: error}
    assert passing == ({deed} if passes else set())


@pytest.mark.timeout(120)  # seconds; far below what the hanging document asks for
def test_a_document_that_hangs_is_given_up_and_tried_again(pool):
    workers = pool(seconds=1.0)
    outcome(workers, dangerous.stage(), "first")  # the first document of a stage has time for imports as well
    found, passing = outcome(workers, dangerous.stage(), "before", "hang", "after")
    assert found == {"before": "BEFORE", "hang": "TimeoutError", "after": "AFTER"}
    assert passing == {"hang"}


def test_what_a_library_prints_does_no_harm(pool):
    assert outcome(pool(), dangerous.stage(), "print", "b") == ({"print": "PRINT", "b": "B"}, set())


def test_a_broken_stage_is_no_fault_of_the_documents(pool):
    with pytest.raises(StemmaError, match="rows of"):
        outcome(pool(), dangerous.stage(dangerous.broken), "a", "b")


def test_a_stage_that_no_other_process_can_find_is_computed_here(pool):
    def local(batch):
        return pa.table({"upper": [str(os.getpid())] * batch.num_rows})

    found, _ = outcome(pool(), dangerous.stage(local), "a")
    assert found == {"a": str(os.getpid())}


def test_without_processes_everything_is_computed_here(pool):
    found, _ = outcome(pool(processes=0), dangerous.stage(), "process")
    assert found == {"process": str(os.getpid())}


def test_few_harmless_documents_need_no_process(pool):
    found, _ = outcome(pool(), dangerous.stage(alone=None), "process")
    assert found == {"process": str(os.getpid())}


def test_the_processes_share_the_work_and_live_on(pool):
    workers = pool(processes=2)
    batches = [table(*[f"{number}-{row}" for row in range(200)]) for number in range(6)]
    stage = dangerous.stage(alone=None)
    rows = pa.concat_tables([computed.rows for computed in workers.run(stage, batches, 1200)])
    assert sorted(rows["upper"].to_pylist()) == sorted(
        text for batch in batches for text in batch["text"].to_pylist()
    )
    first, _ = outcome(workers, dangerous.stage(), "process")
    again, _ = outcome(workers, dangerous.stage(), "process")
    assert first == again != {"process": str(os.getpid())}


def test_processes_that_rest_are_gone_and_start_anew(pool):
    workers = pool()
    first, _ = outcome(workers, dangerous.stage(), "process")
    workers.rest()
    assert not Path(f"/proc/{first['process']}").exists()
    again, _ = outcome(workers, dangerous.stage(), "process")
    assert again["process"] not in (first["process"], str(os.getpid()))


def test_when_a_process_is_killed_only_its_batch_is_computed_again(pool, tmp_path):
    stage = dangerous.stage(dangerous.die_once, alone=None, log=str(tmp_path / "log"))
    batches = [[f"{batch} {row}" for row in range(50)] for batch in range(8)]
    batches[3][7] = "die once"
    outcomes = list(pool(processes=2).run(stage, [table(*batch) for batch in batches], 400))
    assert sum(computed.rows.num_rows for computed in outcomes) == 400
    assert not [failure for computed in outcomes for failure in computed.failures]
    counts = Counter((tmp_path / "log").read_text().splitlines())
    assert {counts[text] for batch in batches for text in batch if batch is not batches[3]} == {1}
    assert {counts[text] for text in batches[3]} == {2}


def test_a_module_in_the_working_folder_is_not_imported(pool, tmp_path, monkeypatch):
    (tmp_path / "pyarrow.py").write_text("raise SystemExit('taken over')")
    monkeypatch.chdir(tmp_path)
    assert outcome(pool(), dangerous.stage(), "a") == ({"a": "A"}, set())


def test_processes_end_with_the_one_that_started_them(tmp_path):
    script = """
import dangerous, os, sys, threading
from test_workers import table
from stemma.reading import ReadError, ReadOptions, Record, read
from stemma.resources.workers import Workers, Limits
workers = Workers(1)
print(next(iter(workers.run(dangerous.stage(), [table("process")], 1))).rows["upper"][0], flush=True)
threading.Timer(1, os.kill, (os.getpid(), 9)).start()
list(workers.run(dangerous.stage(), [table("hang")], 1))
"""
    process = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, cwd=Path(__file__).parent, check=False
    )
    worker = int(process.stdout)
    deadline = time.monotonic() + 10
    while Path(f"/proc/{worker}").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not Path(f"/proc/{worker}").exists()


def test_a_file_is_read_as_it_would_be_here(pool, tmp_path):
    lines = [{"id": str(number), "text": f"text {number} é", "date": "2020-01-02"} for number in range(600)]
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)) + "\n{broken\n")
    with path.open("rb") as file:
        here = list(read(file, "rows.jsonl"))
    assert list(pool().read(str(path), "rows.jsonl", ReadOptions())) == here
    assert isinstance(here[0], Record)
    assert isinstance(here[-1], ReadError)


def test_a_reader_that_dies_costs_its_file(pool, tmp_path, monkeypatch):
    (tmp_path / "sitecustomize.py").write_text(
        "import ctypes, stemma.reading\nstemma.reading.read = lambda *_: ctypes.string_at(0)\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    (tmp_path / "a.parquet").write_bytes(b"PAR1")
    (error,) = pool().read(str(tmp_path / "a.parquet"), "a.parquet", ReadOptions())
    assert (error.record, error.error) == (None, "ParserDied")


def test_a_reading_that_is_given_up_leaves_nothing_behind(pool, tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps({"text": f"text {number}"}) + "\n" for number in range(5000)))
    workers = pool()
    assert next(workers.read(str(path), "rows.jsonl", ReadOptions())).content == "text 0"
    assert len(list(workers.read(str(path), "rows.jsonl", ReadOptions()))) == 5000


def test_parquet_is_read_by_another_process(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(Workers, "read", _noting(seen, Workers.read))
    corpus = Corpus(tmp_path)
    rows = pa.table({"id": ["a", "b"], "text": ["one text to keep", "and another of its kind"]})
    pq.write_table(rows, corpus.docs / "rows.parquet")
    corpus.write("plain.txt", "no process for this one")
    corpus.run()
    assert seen == ["rows.parquet"]
    assert corpus.query("SELECT record FROM corpus.raw ORDER BY record") == [("a",), ("b",), (None,)]
    assert corpus.query("SELECT * FROM lineage.errors") == []


@pytest.mark.slow
def test_a_large_file_that_changes_while_another_process_reads_it_is_put_off(tmp_path, monkeypatch):
    corpus = Corpus(tmp_path)
    rows = pa.table({"text": [f"{number} {os.urandom(9000).hex()}" for number in range(600)]})
    path = corpus.docs / "rows.parquet"
    pq.write_table(rows, path, compression="none")
    read = Workers.read

    def touched(self, *arguments):
        for number, item in enumerate(read(self, *arguments)):
            if number == 10:
                os.utime(path, ns=(1, 1))
            yield item

    with monkeypatch.context() as patch:
        patch.setattr(Workers, "read", touched)
        corpus.write("a.txt", "something that works, so that the run does")
        corpus.run()
    assert corpus.query("SELECT error FROM lineage.errors") == [("changing",)]
    assert corpus.value("SELECT count(*) FROM corpus.raw") == 1
    corpus.run()
    assert corpus.value("SELECT count(*) FROM corpus.raw") == 601


def _noting(seen, read):
    def noting(self, path, name, options):
        seen.append(name)
        return read(self, path, name, options)

    return noting
