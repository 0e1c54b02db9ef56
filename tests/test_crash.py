"""Crashes: kill -9 at any moment leaves the last good state readable, and costs the next run one batch at most."""

import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import duckdb
import pyarrow as pa
import pytest
from harness import NOTHING, READER, Corpus, failed_checks, sentence, slow

from stemma.resources.engine import Setup
from stemma.resources.memo import Memo
from stemma.resources.warehouse import Warehouse

BATCH = 512

CHILD = """
import os, signal, sys
from stemma.config import load_config
from stemma.resources import warehouse
from stemma.resources.engine import DATASETS, Run, Setup, publish
from stemma.resources.warehouse import Warehouse

# "publish replace 1": die before the second time that publication puts a file in another's place.
PHASE, POINT, LEFT = "compute", sys.argv[3].rpartition(" ")[0] if len(sys.argv) > 3 else "", 0
if POINT:
    LEFT = int(sys.argv[3].rpartition(" ")[2])


def deadly(name, function):
    def call(*arguments, **options):
        global LEFT
        if f"{PHASE} {name}" == POINT:
            if LEFT == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            LEFT -= 1
        return function(*arguments, **options)
    return call


os.replace, os.fsync, os.chmod = (deadly(f.__name__, f) for f in (os.replace, os.fsync, os.chmod))
os.unlink = deadly("unlink", os.unlink)


def progress(dataset, done, total):
    print(dataset, done, total, flush=True)


config = load_config(sys.argv[1])
run = Run(sys.argv[2], Setup.of(config), Warehouse(config.warehouse.path), progress=progress, allow_deletes=True)
print("start 0 0", flush=True)
for update in DATASETS.values():
    update(run)
print("publish 0 0", flush=True)
PHASE = "publish"
publish(run)
print("done 0 0", flush=True)
"""

# Before what the system is asked to do, and the how manieth time: a segment is synced and renamed, the next published
# file is synced, given its mode, put in the old one's place, and the folder synced.
POINTS = [f"compute {call} {number}" for call in ("fsync", "replace") for number in (0, 1, 3)]
POINTS += ["publish fsync 0", "publish fsync 1", "publish chmod 0", "publish replace 0", "publish unlink 0"]

STAGES = {"cleaned": "clean", "deduplicated": "sign", "chunked": "chunk", "embedded": "embed"}


@dataclass
class Child:
    """A run in a process of its own, to be killed; `seen` holds the rows that it reported, by dataset."""

    process: subprocess.Popen[str]
    seen: dict[str, int] = field(default_factory=dict)
    whole: set[str] = field(default_factory=set)
    marks: dict[str, threading.Event] = field(default_factory=dict)

    def listen(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            dataset, done, total = line.split()
            if dataset not in self.whole:
                self.seen[dataset] = int(done)
                # Pairs are verified after all rows of deduplicated; their reports are not about rows.
                self.whole |= {dataset} if done == total else set()
            for mark, event in self.marks.items():
                name, at = mark.split()
                if name == dataset and int(done) >= int(at):
                    event.set()

    def kill(self) -> bool:
        """Kill the process; return whether it was still running."""
        alive = self.process.poll() is None
        self.process.kill()
        self.process.wait()
        return alive


def start(corpus: Corpus, run_id: str, *marks: str, point: str = "") -> tuple[Child, threading.Thread]:
    """Start a run in another process; each mark, "dataset rows", becomes an event. At `point` it kills itself."""
    corpus.config()
    process = subprocess.Popen(
        [sys.executable, "-c", CHILD, str(corpus.root / "stemma.toml"), run_id, *([point] if point else [])],
        stdout=subprocess.PIPE,
        text=True,
    )
    child = Child(process, marks={mark: threading.Event() for mark in marks})
    listener = threading.Thread(target=child.listen)
    listener.start()
    return child, listener


def kill_at(corpus: Corpus, run_id: str, mark: str, delay: float) -> Child:
    """Start a run and kill it `delay` seconds after it has reported `mark`, or at this point (see POINTS)."""
    if mark in POINTS:
        child, listener = start(corpus, run_id, point=mark)
        child.process.wait()
        listener.join()
        return child
    child, listener = start(corpus, run_id, mark, "done 0")
    while not child.marks[mark].wait(0.01) and child.process.poll() is None:
        pass
    time.sleep(delay)
    child.kill()
    listener.join()
    return child


def remembered(corpus: Corpus) -> dict[str, int]:
    """Return how many rows the memo has of each row-wise stage as configured, and of contents."""
    setup = Setup.of(corpus.config())
    stages = {name: getattr(setup, stage) for name, stage in STAGES.items()}
    memo = Memo(corpus.path.with_suffix(".work") / "memo")
    folders = {name: memo.root / stage.name / setup.recipe(stage) for name, stage in stages.items()}
    folders["raw"] = memo.root / "read" / "content"
    return {name: len(keys(folder)) for name, folder in folders.items()}


def keys(folder: Path) -> set[bytes]:
    """Return the distinct keys of a stage's segments."""
    found: set[bytes] = set()
    for path in folder.glob("*.arrow"):
        with pa.ipc.open_file(path) as segment:
            found.update(segment.read_all()["input_hash"].combine_chunks().storage.to_pylist())
    return found


def fill(corpus: Corpus, count: int) -> None:
    """Write documents of random words; every fifth is nearly the one before."""
    for number in range(count):
        text = sentence(number - (number % 5 == 1), 50)
        corpus.write(f"{number % 7}/doc{number:04}.txt", f"{text} {number % 5}")
    corpus.write(
        "rows.jsonl", "\n".join(f'{{"id": {n}, "text": "{sentence(f"r{n}", 30)}"}}' for n in range(100))
    )


def change(corpus: Corpus, random_: random.Random, count: int) -> None:
    """Change, rename, delete and add documents, and sometimes a setting."""
    paths = sorted(corpus.docs.glob("*/*.txt"))
    chosen = random_.sample(paths, min(count, len(paths)))
    for position, path in enumerate(chosen):
        if position % 4 == 0:
            path.unlink()
        elif position % 4 == 1:
            path.rename(path.with_name(f"renamed{random_.random()}.txt"))
        else:
            path.write_text(sentence(random_.random(), 50))
    for _ in range(count // 4):
        corpus.write(f"0/new{random_.random()}.txt", sentence(random_.random(), 50))
    if random_.random() < 0.3:
        corpus.set(chunk={"max_tokens": random_.choice([20, 30, 200])})
    if random_.random() < 0.3:
        corpus.set(deduplicate={"threshold": random_.choice([0.6, 0.7, 0.9])})


def documents(path: Path) -> int:
    """Return how many documents a published file has, after checking it; 0 where nothing is published."""
    if not path.exists():
        return 0
    assert failed_checks(path) == []
    with duckdb.connect(str(path), read_only=True, config=READER) as connection:
        row = connection.execute("SELECT count(*) FROM corpus.raw").fetchone()
        assert row is not None
        return row[0]


def survives(corpus: Corpus, run_id: str, mark: str, delay: float, expected: int, *, compare: bool) -> Child:
    """Kill a run, see that nothing is broken, finish it, and see that no more was lost than a batch a stage."""
    before = documents(corpus.path)
    known = remembered(corpus)
    child = kill_at(corpus, run_id, mark, delay)
    assert documents(corpus.path) in (before, expected)
    kept = remembered(corpus)
    for name in STAGES:
        # Whatever the dead run reported stands in the memo: the batch in hand is all that it can have lost.
        assert kept[name] - known[name] >= child.seen.get(name, 0)
    result = corpus.run(allow_deletes=True)
    final = remembered(corpus)
    assert result.computed == {name: final[name] - kept[name] for name in NOTHING}
    assert documents(corpus.path) == expected
    if compare:
        assert corpus.differences() == []
        assert corpus.run().computed == NOTHING
    leftovers = [path for path in corpus.path.parent.rglob(".*") if path.is_file()]
    assert [path.name for path in leftovers if path.suffix != ".tmp"] == []
    return child


def expected_documents(corpus: Corpus) -> int:
    return len(list(corpus.docs.glob("*/*.txt"))) + 100


@pytest.mark.parametrize(
    "mark", ["embedded 512", "publish replace 0", *slow("start 0", "publish 0", *POINTS[:-2])]
)
def test_a_killed_first_run_is_finished_by_the_next(tmp_path: Path, mark: str) -> Child:
    corpus = Corpus(tmp_path)
    fill(corpus, 600)
    child = survives(corpus, "killed", mark, 0.0, expected_documents(corpus), compare=mark == "embedded 512")
    assert mark not in POINTS or child.process.returncode == -signal.SIGKILL


def test_a_state_that_was_never_finished_is_made_anew(tmp_path: Path) -> None:
    corpus = Corpus(tmp_path)
    corpus.fill(3)
    folder = corpus.path.with_suffix(".work")
    folder.mkdir(parents=True)
    (folder / ".state.duckdb.4711.next").write_bytes(b"torn")
    (folder / ".state.duckdb.4711.next.wal").write_bytes(b"torn")
    (folder / "memo" / "clean" / "0").mkdir(parents=True)
    (folder / "memo" / "clean" / "0" / ".torn.tmp").write_bytes(b"PAR1")
    corpus.run()
    assert corpus.differences() == []
    assert not list(folder.glob(".state*"))


def test_what_a_killed_publication_left_is_swept_away(tmp_path: Path) -> None:
    corpus = Corpus(tmp_path)
    corpus.fill(3)
    corpus.run()
    left = corpus.path.parent / f".{corpus.path.name}.4711.next"
    left.write_bytes(b"half a file")
    corpus.write("more.txt", sentence("more", 20))
    corpus.run()
    assert not left.exists()
    assert corpus.count("corpus.raw") == 4


def test_two_runs_at_once_wait_for_each_other(tmp_path: Path) -> None:
    corpus = Corpus(tmp_path)
    fill(corpus, 150)
    children = [start(corpus, f"run-{number}", "done 0") for number in range(2)]
    for child, listener in children:
        assert child.process.wait() == 0
        listener.join()
    assert corpus.failed_checks() == []
    assert corpus.differences() == []
    assert corpus.run().computed == NOTHING


KILLS = 100


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_random_kills(tmp_path: Path) -> None:
    """A hundred kills in every stage and in publication; every tenth time the corpus is compared with a rebuild."""
    seed = time.time_ns()
    print(f"seed {seed}", flush=True)
    random_ = random.Random(seed)
    corpus = Corpus(tmp_path)
    fill(corpus, 700)
    begun = time.monotonic()
    child, listener = start(corpus, "undisturbed", "done 0")
    assert child.process.wait() == 0
    listener.join()
    whole = time.monotonic() - begun
    marks = [
        "raw 500",
        "cleaned 0",
        "cleaned 512",
        "deduplicated 0",
        "deduplicated 512",
        "chunked 0",
        "chunked 512",
    ]
    marks += ["embedded 0", "embedded 512", *["publish 0"] * 4]
    died: Counter[str] = Counter()
    for number in range(KILLS):
        if number % 5 == 0:
            Warehouse(corpus.path).close()
            for path in (corpus.path, *corpus.path.with_suffix(".work").rglob("*")):
                if path.is_file():
                    path.unlink()
        else:
            change(corpus, random_, random_.choice([10, 50, 300]))
        kind = random_.random()
        if kind < 0.3:
            mark, delay = "start 0", random_.uniform(0, whole)
        elif kind < 0.65:
            mark, delay = random_.choice(marks), random_.uniform(0, 0.15)
        else:
            mark, delay = random_.choice(POINTS), 0.0
        print(f"kill {number}: {delay:.3f} s after {mark}", flush=True)
        survives(
            corpus, f"killed-{number}", mark, delay, expected_documents(corpus), compare=number % 10 == 9
        )
        died[mark.split()[0]] += 1
    print(dict(died), flush=True)
    assert corpus.differences() == []
