"""Stemma, its peers and the floor on the same folder: how fast an update is, and how right the rows are after it.

    python benchmarks/peers.py [--docs 10000] [--systems floor,stemma,…] [--venvs DIR]      both tables
    python benchmarks/peers.py speed --docs 2000
    python benchmarks/peers.py correctness --docs 1000
    python benchmarks/peers.py minilm [--folder DIR]    # a full run with MiniLM against the pure model time

Peers have environments of their own; those that are absent are left out:

    for peer in cocoindex pixeltable llamaindex langchain datatrove text-dedup; do
        /usr/bin/python3.11 -m venv .bench-venv/$peer; done
    .bench-venv/cocoindex/bin/pip install cocoindex==1.0.26 numpy
    .bench-venv/pixeltable/bin/pip install pixeltable==0.7.21 psutil
    .bench-venv/llamaindex/bin/pip install llama-index-core==0.14.25 \\
        llama-index-vector-stores-chroma==0.6.0 chromadb==1.5.9
    .bench-venv/langchain/bin/pip install langchain-core==1.8.3 langchain-classic==1.0.8 \\
        langchain-text-splitters==1.1.3 langchain-chroma==1.1.0 chromadb==1.5.9 greenlet
    .bench-venv/datatrove/bin/pip install "datatrove[io,processing]==0.10.1" spacy pyarrow
    .bench-venv/text-dedup/bin/pip install text-dedup==0.4.0 pyarrow

Each system is a script in benchmarks/peers/ whose docstring says how it is set up, and why so. All peers get the same
cleaner, splitter and embedding function (made of a hash, next to free), so that engines are compared and not models.
Stemma does more: language, scores, near-duplicates, lineage, checks; it has its own cleaner, chunks and `hash:384`. The
batch alternatives remove near-duplicates too, and do everything each time.

Speed: every update is a process of its own. "seconds" is the wall time inside it without imports and start of servers,
"process" that of the whole process; peak memory is that of the process with its children, as sampled (Pixeltable's
Postgres is not in it). The floor does only what no incremental pipeline can leave out: read and hash every file, clean
and chunk what changed, embed texts never seen, append the results to Parquet; with Stemma's functions, and with the
peers'.

Correctness: after each event the rows of the store are compared with rows computed from nothing by the same functions.
An edit of code is an edit of a file: each system runs from a copy of its code (Stemma from one of its own source).
"By hand" is the next run after the owner has told the system what was edited, in the way that its documentation has.
A row is stale if there should be no such row (its text or vector is what another code or setting made, or its document
is gone), missing if it should be there, doubled if it is there more than once.
"""

import argparse
import json
import os
import platform
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
TIMEOUT_SECONDS = 900
MINILM_TIMEOUT_SECONDS = 7200
PURE_TEXTS = 5_000
POLL_SECONDS = 0.05
KILL_POLL_SECONDS = 0.01


class System(NamedTuple):
    """A system: its name in the tables, its script, its environment (None: this one), packages to give versions of."""

    title: str
    script: str
    venv: str | None
    packages: tuple[str, ...]
    variant: str = ""
    # What the owner has to do by hand after an edit that the system does not see, by kind of edit.
    by_hand: dict[str, str] = {}  # noqa: RUF012

    # Events that it takes part in, by a part of their names; none: all.
    events: tuple[str, ...] = ()
    # Whether it takes near-duplicates out, so that only a rebuild tells which documents there should be.
    drops_duplicates: bool = False

    @property
    def is_stemma(self) -> bool:
        """Whether it runs Stemma's own functions, so that Stemma's source is what is edited."""
        return self.venv is None and not self.variant

    def takes_part(self, event: str) -> bool:
        """Whether an event is for it: a variant takes part where it may differ."""
        return not self.events or any(part in event for part in self.events)


_CHROMA = ("llama-index-core", "llama-index-vector-stores-chroma", "chromadb")
_LANGCHAIN = ("langchain-core", "langchain-classic", "langchain-chroma", "chromadb")
_DROP_ALL = "drop docstore and collection"
_LLAMAINDEX = dict.fromkeys(("cleaner", "helper", "embedder", "chunk-size"), _DROP_ALL)
SYSTEMS = {
    "floor": System("floor", "floor_flow.py", None, ()),
    "floor-plain": System("floor, peers' functions", "floor_flow.py", None, (), "plain"),
    "stemma": System("**Stemma**", "stemma_flow.py", None, (), drops_duplicates=True),
    "stemma-plain": System(
        "Stemma, the peers' job", "stemma_flow.py", None, (), "plain", events=("cleaner", "chunk", "renamed")
    ),
    "cocoindex": System(
        "CocoIndex",
        "cocoindex_flow.py",
        "cocoindex",
        ("cocoindex",),
        by_hand={"helper": "raise `version=` of the cleaner"},
    ),
    "pixeltable": System(
        "Pixeltable",
        "pixeltable_flow.py",
        "pixeltable",
        ("pixeltable",),
        by_hand={
            "cleaner": "`recompute_columns`",
            "helper": "`recompute_columns`",
            "embedder": "`recompute_columns`",
            "chunk-size": "drop the view",
        },
    ),
    "llamaindex": System("LlamaIndex", "llamaindex_flow.py", "llamaindex", _CHROMA, by_hand=_LLAMAINDEX),
    "llamaindex-clean-first": System(
        "LlamaIndex, cleaned before",
        "llamaindex_flow.py",
        "llamaindex",
        _CHROMA,
        "clean-first",
        _LLAMAINDEX,
        ("cleaner", "chunk"),
    ),
    "llamaindex-cache": System(
        "LlamaIndex, with its cache", "llamaindex_flow.py", "llamaindex", _CHROMA, "cache", _LLAMAINDEX
    ),
    "langchain": System(
        "LangChain, full",
        "langchain_flow.py",
        "langchain",
        _LANGCHAIN,
        by_hand={"embedder": "`force_update`"},
    ),
    "langchain-incremental": System(
        "LangChain, incremental",
        "langchain_flow.py",
        "langchain",
        _LANGCHAIN,
        "incremental",
        {"embedder": "`force_update`"},
        ("deleted", "renamed", "emptied"),
    ),
    "datatrove": System(
        "datatrove (batch)", "datatrove_flow.py", "datatrove", ("datatrove", "spacy"), drops_duplicates=True
    ),
    "text-dedup": System(
        "text-dedup (batch)",
        "text_dedup_flow.py",
        "text-dedup",
        ("text-dedup", "datasets"),
        drops_duplicates=True,
    ),
}
_LEFT_OUT = {"speed": ("llamaindex-clean-first", "llamaindex-cache", "langchain-incremental")}
_LEFT_OUT |= {"correctness": ("floor", "floor-plain", "stemma-plain", "llamaindex-cache")}
DEFAULT = {table: [name for name in SYSTEMS if name not in left_out] for table, left_out in _LEFT_OUT.items()}


class Edit(NamedTuple):
    """An edit of a file: a text that is there once, and what it becomes."""

    file: str
    old: str
    new: str


# The edits of code: of the peers' files, and of Stemma's own.
EDITS = {
    "cleaner": Edit(
        "cleaning.py", "    return polish(text)", "    return polish(text).replace({old}, {new})"
    ),
    "helper": Edit("polishing.py", "text.strip()", "text.strip().replace({old}, {new})"),
    "embedder": Edit("embedding_function.py", "- 127.5", "- 128.0"),
}
STEMMA_EDITS = {
    "cleaner": Edit(
        "stemma/cleaning/clean.py",
        "    titles = [_one_line(extraction.title)",
        "    texts = [text.replace({old}, {new}) for text in texts]\n    titles = [_one_line(extraction.title)",
    ),
    "helper": Edit(
        "stemma/cleaning/repair.py",
        "    kinds = _kinds(text)\n    if kinds & _REMOVED:\n        text =",
        "    text = text.replace({old}, {new})\n    kinds = _kinds(text)\n    if kinds & _REMOVED:\n        text =",
    ),
    "embedder": Edit(
        "stemma/embedding/feature_hashing.py",
        "_SIGN_BIT, -weights, weights)",
        "_SIGN_BIT, weights, -weights)",
    ),
}
# What Stemma's copy gets for the tests of correctness: the peers' cleaner fails for poison, and their embedder logs.
STEMMA_INSTRUMENTS = (
    Edit(
        "stemma/cleaning/clean.py",
        "    texts, repaired = _repair_all(",
        '    if any("No cleaner survives this sentence." in extraction.text for extraction in extractions):\n'
        '        raise ValueError("poison")\n    texts, repaired = _repair_all(',
    ),
    Edit(
        "stemma/embedding/feature_hashing.py",
        "    texts = texts_in_context(table)\n",
        "    texts = texts_in_context(table)\n"
        '    if "STEMMA_EMBED_LOG" in __import__("os").environ:\n'
        '        with open(__import__("os").environ["STEMMA_EMBED_LOG"], "a") as log:\n'
        '            log.write(f"{{len(texts)}}\\n")\n',
    ),
)
# A word that few texts have, for speed (an edit that changes 1 % of them), and one that many have.
RARE, FREQUENT = ("especially", "particularly"), ("which", "that")


def apply(edit: Edit, code: Path, words: tuple[str, str]) -> None:
    """Edit a file below `code`. Raises ValueError where the text is not there exactly once."""
    path = code / edit.file
    text = path.read_text()
    if text.count(edit.old) != 1:
        raise ValueError(f"{edit.file}: {text.count(edit.old)} times {edit.old!r}")
    new = edit.new.format(old=repr(words[0]), new=repr(words[1]))
    path.write_text(text.replace(edit.old, new))


def copy_code(system: System, code: Path, instruments: bool = False) -> None:
    """Make the folder that the system runs from: the flows, and for Stemma its own source as the wheel has it."""
    shutil.rmtree(code, ignore_errors=True)
    ignore = shutil.ignore_patterns("__pycache__")
    shutil.copytree(HERE / "peers", code, ignore=ignore)
    # Pixeltable's flow becomes `nobody`, who may write bytecode as the others do.
    code.chmod(0o777)
    if system.venv is None:
        shutil.copytree(ROOT / "stemma", code / "stemma", ignore=ignore)
        for part in ("assets", "resources", "sensors"):
            shutil.copytree(ROOT / part, code / "stemma" / part, ignore=ignore)
        for edit in STEMMA_INSTRUMENTS if instruments else ():
            apply(edit, code, FREQUENT)


# -- one process --------------------------------------------------------------------------------------------------


@dataclass
class Outcome:
    """What came of one process: its exit code (None: it took too long), its figures, and what it took as a whole."""

    code: int | None
    figures: dict[str, Any]
    error: str
    process_seconds: float
    cpu_seconds: float
    peak_mb: float
    # Whether what it printed names the error of a document that the cleaner fails for.
    tells_of_poison: bool
    # Processor seconds of the session when the log began, and at its end.
    cpu_marks: tuple[float, float] = (0.0, 0.0)

    @property
    def is_done(self) -> bool:
        """Whether it ended well."""
        return self.code == 0


@dataclass
class Watched:
    """A process in a session of its own, and what the processes of that session take."""

    process: subprocess.Popen[bytes]
    peak_bytes: int = 0
    cpu_seconds: float = 0.0
    cpu_at_log: float | None = None
    ended: bool = False

    def look(self, log: Path | None) -> None:
        """Sample the session's memory and processor time, and see whether its log has begun."""
        ticks, pages = 0, 0
        for status in _session(self.process.pid):
            ticks += sum(map(int, status[11:15]))
            pages += int(status[21])
        self.peak_bytes = max(self.peak_bytes, pages * os.sysconf("SC_PAGE_SIZE"))
        self.cpu_seconds = max(self.cpu_seconds, ticks / os.sysconf("SC_CLK_TCK"))
        if self.cpu_at_log is None and log is not None and log.exists():
            self.cpu_at_log = self.cpu_seconds

    def kill(self) -> None:
        """Kill every process of the session at once, as a machine that loses its power would."""
        for status in _session(self.process.pid):
            try:
                os.kill(int(status[-1]), signal.SIGKILL)
            except ProcessLookupError:
                continue


def _session(leader: int) -> Iterator[list[str]]:
    """The fields of /proc/<pid>/stat after the name, and the pid, of each process of a session."""
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                status = Path("/proc", entry, "stat").read_text().rpartition(")")[2].split()
            except (OSError, ValueError):
                continue
            if int(status[3]) == leader:
                yield [*status, entry]


@dataclass
class Bench:
    """A system with its code, state and environment."""

    system: System
    venvs: Path
    scratch: Path
    folder: Path
    environment: dict[str, str] = field(default_factory=dict)
    timeout_seconds: int = TIMEOUT_SECONDS

    @property
    def python(self) -> Path:
        """The interpreter of its environment."""
        if self.system.venv is None:
            return Path(sys.executable)
        return self.venvs / self.system.venv / "bin" / "python"

    @property
    def code(self) -> Path:
        """The folder that it runs from."""
        return self.scratch / "code"

    @property
    def state(self) -> Path:
        """The folder that it keeps everything in."""
        return self.scratch / "state"

    def run(
        self,
        *options: str,
        state: Path | None = None,
        log: Path | None = None,
        kill_at: float = 0.0,
        script: str | None = None,
    ) -> Outcome:
        """Run its script; with `kill_at`, kill it when its session has taken so many seconds since the log began."""
        state = state or self.state
        state.mkdir(exist_ok=True)
        command = [
            str(self.python),
            str(self.code / (script or self.system.script)),
            "--folder",
            str(self.folder),
        ]
        command += ["--state", str(state), "--variant", self.system.variant]
        if log is not None:
            options = (*options, "--log", str(log))
            log.unlink(missing_ok=True)
        environment = os.environ | {
            "HF_HUB_OFFLINE": "1",
            "HF_DATASETS_OFFLINE": "1",
            "PYTHONPATH": str(self.code),
        }
        started = time.perf_counter()
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as errors:
            process = subprocess.Popen(
                [*command, *options],
                stdout=out,
                stderr=errors,
                env=environment | self.environment,
                cwd=self.scratch,
                start_new_session=True,
            )
            watched = Watched(process)
            code, used = _wait(watched, log, started, kill_at, self.timeout_seconds)
            seconds = time.perf_counter() - started
            out.seek(0)
            errors.seek(0)
            lines = out.read().decode(errors="replace").strip().splitlines()
            failure = errors.read().decode(errors="replace").strip().splitlines()
        figures = json.loads(lines[-1]) if code == 0 and lines and lines[-1].startswith("{") else {}
        cpu = max(watched.cpu_seconds, used.ru_utime + used.ru_stime) + figures.get("server_cpu_seconds", 0.0)
        peak = max(watched.peak_bytes, used.ru_maxrss * 1024) / 2**20
        marks = (watched.cpu_at_log or 0.0, watched.cpu_seconds)
        tells = any("poison" in line for line in (*lines, *failure))
        return Outcome(code, figures, failure[-1] if failure else "", seconds, cpu, peak, tells, marks)


def _wait(
    watched: Watched, log: Path | None, started: float, kill_at: float, timeout_seconds: int
) -> tuple[int | None, resource.struct_rusage]:
    """Wait for a process, or kill its session: its exit code (None: too long), and what it used."""
    killed: int | None = 0
    while True:
        pid, status, used = os.wait4(watched.process.pid, os.WNOHANG)
        if pid:
            watched.process.returncode = os.waitstatus_to_exitcode(status)
            # Workers that outlive it have no more to do.
            watched.kill()
            return (killed if killed is None else watched.process.returncode), used
        watched.look(log)
        if time.perf_counter() - started > timeout_seconds:
            killed = None
            watched.kill()
        if kill_at and watched.cpu_at_log is not None and watched.cpu_seconds - watched.cpu_at_log >= kill_at:
            watched.kill()
        time.sleep(KILL_POLL_SECONDS if kill_at else POLL_SECONDS)


# -- speed --------------------------------------------------------------------------------------------------------


class Scenario(NamedTuple):
    """What happens to the folder, the code or the setting before an update."""

    title: str
    mutation: str | None = None
    edit: str | None = None
    chunk_size: int = 800


SCENARIOS = (
    Scenario("full"),
    Scenario("no-op"),
    Scenario("1 % changed", "changed"),
    Scenario("1 % added", "added"),
    Scenario("1 % deleted", "deleted"),
    Scenario("1 % renamed", "renamed"),
    Scenario("cleaner edit", edit="cleaner"),
    Scenario("chunk size 800 → 1000", edit="chunk-size", chunk_size=1000),
)


def speed(options: argparse.Namespace, scratch: Path) -> None:
    """Run all scenarios on all systems, in turn, and print a table."""
    folder = scratch / "corpus"
    make_folder(options, folder)
    benches = {name: bench(name, options, scratch, folder) for name in chosen(options, "speed")}
    for each in benches.values():
        copy_code(each.system, each.code)
    print("| scenario | system | seconds | × floor | process s | CPU s | peak RSS MB | texts embedded |")
    print("|---|---|---|---|---|---|---|---|")
    for number, scenario in enumerate(SCENARIOS):
        if scenario.mutation:
            corpus_script("--out", str(folder), "--mutate", scenario.mutation, "--seed", str(number))
        floors: dict[bool, float] = {}
        for name, each in list(benches.items()):
            if scenario.edit in EDITS:
                apply((STEMMA_EDITS if each.system.is_stemma else EDITS)[scenario.edit], each.code, RARE)
            redo = ("--redo", scenario.edit) if scenario.edit else ()
            outcome = each.run("--chunk-size", str(scenario.chunk_size), *redo)
            print(_speed_row(scenario, name, each.system, outcome, floors, options.stages), flush=True)
            if not outcome.is_done:
                print(f"{name}: {outcome.error}", file=sys.stderr)
                del benches[name]


def _speed_row(
    scenario: Scenario, name: str, system: System, outcome: Outcome, floors: dict[bool, float], stages: bool
) -> str:
    """A row of the table; a ratio is to the floor that has the system's functions."""
    start = f"| {scenario.title} | {system.title} |"
    if outcome.code is None:
        return f"{start} > {TIMEOUT_SECONDS} | | | | | |"
    if not outcome.is_done:
        return f"{start} failed | | | | | |"
    seconds, has_own = outcome.figures["seconds"], system.is_stemma
    if name.startswith("floor"):
        floors[has_own] = seconds
    ratio = f"{seconds / floors[has_own]:.2f}" if has_own in floors else ""
    in_store = outcome.figures.get("store_seconds")
    part = "" if in_store is None else f" ({in_store:.2f} in Chroma)"
    line = (
        f"{start} {seconds:.2f}{part} | {ratio} | {outcome.process_seconds:.2f} | {outcome.cpu_seconds:.2f} |"
        f" {outcome.peak_mb:.0f} | {outcome.figures['embed_calls']:,} |"
    )
    if stages and "stages" in outcome.figures:
        line += f"\n| | stages | {outcome.figures['stages']} | | | | | |"
    return line


# -- correctness --------------------------------------------------------------------------------------------------

Rows = Counter[tuple[str, str, str]]


class Difference(NamedTuple):
    """How a store's rows differ from those that there should be."""

    stale: int
    missing: int
    doubled: int

    def __str__(self) -> str:
        words = [f"{number:,} {word}" for word, number in self._asdict().items() if number]
        return ", ".join(words) or "right"


NONE = Difference(0, 0, 0)


def difference(store: Rows, expected: Rows) -> Difference:
    """Compare rows. Equal rows of one document count once where a store keeps no more than one of them."""
    stale = sum(number for row, number in store.items() if row not in expected)
    doubled = sum(max(0, store[row] - number) for row, number in expected.items())
    return Difference(stale, sum(row not in store for row in expected), doubled)


def read_rows(path: Path) -> Rows:
    with path.open() as file:
        return Counter((path, text, vector) for path, text, vector in map(json.loads, file))


@dataclass
class Trial:
    """A system on the way through the events: each begins with the folder, the code and the state of one full run."""

    bench: Bench
    keep: Path
    base: Outcome | None = None
    right: Rows = field(default_factory=Counter)
    # Rows that the store holds after the full run.
    held: int = 0

    @property
    def log(self) -> Path:
        """Where calls of the embedder are counted."""
        return self.bench.state / "embedded.log"

    def begin(self) -> "Finding":
        """Build the state that all events begin with."""
        copy_code(self.bench.system, self.bench.code, instruments=True)
        self.base = self.update()
        self.right = self.expected()
        finding = self.finding(self.base, self.right)
        self.held = sum(self.rows().values())
        for name, path in (("state", self.bench.state), ("folder", self.bench.folder)):
            copy_tree(path, self.keep / name)
        return finding._replace(rows=f"{finding.rows}: {self.held:,} rows")

    def restore(self, with_state: bool = True) -> None:
        """Bring folder, code and state back; without the state, everything starts from nothing."""
        copy_code(self.bench.system, self.bench.code, instruments=True)
        copy_tree(self.keep / "folder", self.bench.folder)
        shutil.rmtree(self.bench.state, ignore_errors=True)
        if with_state:
            copy_tree(self.keep / "state", self.bench.state)

    def edit(self, kind: str) -> None:
        """Edit the code that the system runs from."""
        apply((STEMMA_EDITS if self.bench.system.is_stemma else EDITS)[kind], self.bench.code, FREQUENT)

    def update(self, *options: str, kill_at: float = 0.0) -> Outcome:
        """Run an update."""
        return self.bench.run(*options, log=self.log, kill_at=kill_at)

    def embedded(self) -> int:
        """Texts embedded in the last update."""
        return sum(map(int, self.log.read_text().split())) if self.log.exists() else 0

    def rows(self) -> Rows:
        """The rows of the store; none where it cannot be read."""
        out = self.bench.state / "rows.jsonl"
        outcome = self.bench.run("--task", "rows", "--out", str(out))
        return read_rows(out) if outcome.is_done else Counter()

    def expected(self, *options: str) -> Rows:
        """The rows that there should be, from nothing, by the code as it is now."""
        script = self.bench.system.script if self.bench.system.drops_duplicates else "common.py"
        with tempfile.TemporaryDirectory(dir=self.keep) as scratch:
            out, state = Path(scratch, "rows.jsonl"), Path(scratch, "state")
            outcome = self.bench.run(
                "--task", "expected", "--out", str(out), *options, state=state, script=script
            )
            if not outcome.is_done:
                raise RuntimeError(f"{self.bench.system.title}: {outcome.error}")
            return read_rows(out)

    def finding(self, outcome: Outcome, expected: Rows | None = None, *options: str) -> "Finding":
        """What a run left in the store, compared with what it should hold, and what it embedded."""
        embedded = self.embedded()
        found = difference(self.rows(), self.expected(*options) if expected is None else expected)
        return Finding(f"{marked(str(found), found == NONE)}{exit_of(outcome)}", f"{embedded:,}")


class Finding(NamedTuple):
    """What is in the store after a run, and how many texts the run embedded, as the table has it."""

    rows: str
    embedded: str = ""


class Result(NamedTuple):
    """A row of the table: what came of the event, what was done then, and what came of that."""

    first: Finding
    then: str = ""
    second: Finding = Finding("")


def marked(text: str, is_right: bool) -> str:
    """The text, bold where it is not as it should be."""
    return text if is_right else f"**{text}**"


def copy_tree(source: Path, target: Path) -> None:
    """Copy a folder with owners and times, in place of what is there."""
    shutil.rmtree(target, ignore_errors=True)
    subprocess.run(["cp", "-a", str(source), str(target)], check=True)


def exit_of(outcome: Outcome) -> str:
    """How a run ended, where it did not end well."""
    if not outcome.is_done:
        print(f"exit {outcome.code}: {outcome.error}", file=sys.stderr)
    return "" if outcome.is_done else f" (exit {outcome.code})"


def after_edit(trial: Trial, kind: str) -> list[Result]:
    """Edit the code or the setting, run, and compare; then again after what has to be done by hand."""
    trial.restore()
    options = ("--chunk-size", "1000") if kind == "chunk-size" else ()
    if kind != "chunk-size":
        trial.edit(kind)
    outcome = trial.update(*options)
    embedded = trial.embedded()
    expected = trial.expected(*options)
    first = trial.finding(outcome, expected)._replace(embedded=f"{embedded:,}")
    if kind not in trial.bench.system.by_hand:
        return [Result(first)]
    again = trial.update(*options, "--redo", kind)
    return [Result(first, trial.bench.system.by_hand[kind], trial.finding(again, expected))]


def after_poison(trial: Trial) -> list[Result]:
    """A document that the cleaner fails for, among the others, in a first run; then the next run without it."""
    trial.restore(with_state=False)
    documents = sorted(path for path in trial.bench.folder.rglob("*") if path.is_file())
    poisoned = documents[len(documents) // 2]
    poisoned.write_bytes(poisoned.read_bytes() + b"\nNo cleaner survives this sentence.\n")
    outcome = trial.update()
    embedded = trial.embedded()
    arrived = {path for path, _, _ in trial.rows()}
    poisoned.unlink()
    expected = trial.expected()
    should = {path for path, _, _ in expected}
    count = marked(f"{len(arrived & should):,} of {len(should):,} others", arrived >= should)
    record = "in the log alone" if outcome.tells_of_poison else "recorded nowhere"
    record = "recorded as an error" if outcome.figures.get("errors") else record
    first = Finding(f"{count}{exit_of(outcome)}, {record}", f"{embedded:,}")
    return [Result(first, "it is gone", trial.finding(trial.update(), expected))]


# Shares of a run's processor time after its imports.
CRASHES = (0.15, 0.4, 0.65, 0.9)


def after_crash(trial: Trial) -> list[Result]:
    """Kill a full run at some moments, each time from nothing, and run again."""
    assert trial.base is not None
    start, end = trial.base.cpu_marks
    whole = sum(map(int, (trial.keep / "state/embedded.log").read_text().split()))
    results = []
    for share in CRASHES:
        while True:
            trial.restore(with_state=False)
            killed = trial.update(kill_at=share * (end - start))
            if killed.code == -signal.SIGKILL or share < CRASHES[0]:
                break
            # It took less this time.
            share -= 0.1
        embedded = trial.embedded()
        second = trial.finding(trial.update(), trial.right)
        twice = embedded + int(second.embedded.replace(",", "")) - whole
        second = second._replace(embedded=f"{second.embedded} ({max(0, twice) / whole:.0%} twice)")
        results.append(Result(Finding(f"killed at {share:.0%}", f"{embedded:,}"), "the next run", second))
    return results


def after_emptied(trial: Trial) -> list[Result]:
    """The folder is there and empty, as one that is not mounted; then it is back."""
    trial.restore()
    shutil.rmtree(trial.bench.folder)
    trial.bench.folder.mkdir()
    outcome = trial.update()
    left = sum(trial.rows().values())
    count = marked(f"{left:,} of {trial.held:,} left", left == trial.held)
    first = Finding(f"{count}{exit_of(outcome)}", f"{trial.embedded():,}")
    copy_tree(trial.keep / "folder", trial.bench.folder)
    return [Result(first, "it is back", trial.finding(trial.update(), trial.right))]


def after_change(trial: Trial, mutation: str) -> list[Result]:
    """One document in a hundred is deleted, or moved to another folder."""
    trial.restore()
    corpus_script("--out", str(trial.bench.folder), "--mutate", mutation)
    return [Result(trial.finding(trial.update()))]


EVENTS: dict[str, Callable[[Trial], list[Result]]] = {
    "the cleaner's code edited": lambda trial: after_edit(trial, "cleaner"),
    "a helper of the cleaner edited": lambda trial: after_edit(trial, "helper"),
    "the embedding function edited": lambda trial: after_edit(trial, "embedder"),
    "chunk size 800 → 1000": lambda trial: after_edit(trial, "chunk-size"),
    "a document that the cleaner fails for": after_poison,
    "kill -9": after_crash,
    "the folder emptied": after_emptied,
    "1 % deleted": lambda trial: after_change(trial, "deleted"),
    "1 % renamed": lambda trial: after_change(trial, "renamed"),
}


def correctness(options: argparse.Namespace, scratch: Path) -> None:
    """Take each system through the events and print a table: a row for each event and system."""
    folder = scratch / "corpus"
    make_folder(options, folder)
    table: dict[str, list[str]] = {title: [] for title in ("nothing: a full run", *EVENTS)}
    for name in chosen(options, "correctness"):
        keep = scratch / f"{name}-kept"
        keep.mkdir(mode=0o755)
        trial = Trial(bench(name, options, scratch, folder), keep)
        results = {"nothing: a full run": [Result(trial.begin())]}
        for title, event in EVENTS.items():
            if options.events in title and trial.bench.system.takes_part(title):
                results[title] = event(trial)
                print(f"{name}: {title}: {results[title]}", file=sys.stderr, flush=True)
        for title, found in results.items():
            table[title] += [result_row(title, trial.bench.system, each) for each in found]
        trial.restore()
        shutil.rmtree(keep)
    print(
        "| after | system | rows in the store | texts embedded | then | rows in the store | texts embedded |"
    )
    print("|---|---|---|---|---|---|---|")
    for rows in table.values():
        for row in rows:
            print(row)


def result_row(title: str, system: System, result: Result) -> str:
    """A row of the table."""
    return f"| {title} | {system.title} | {' | '.join((*result.first, result.then, *result.second))} |"


# -- both ---------------------------------------------------------------------------------------------------------


def chosen(options: argparse.Namespace, table: str) -> list[str]:
    """The systems asked for whose environments are there."""
    names = options.systems.split(",") if options.systems else DEFAULT[table]
    there = [name for name in names if interpreter(SYSTEMS[name], options.venvs).exists()]
    for name in set(names) - set(there):
        print(f"{name}: no environment {options.venvs / str(SYSTEMS[name].venv)}", file=sys.stderr)
    return there


def interpreter(system: System, venvs: Path) -> Path:
    return Path(sys.executable) if system.venv is None else venvs / system.venv / "bin" / "python"


def bench(name: str, options: argparse.Namespace, scratch: Path, folder: Path) -> Bench:
    """A system in a folder of its own."""
    own = scratch / name
    own.mkdir(mode=0o755)
    return Bench(SYSTEMS[name], options.venvs, own, folder)


def make_folder(options: argparse.Namespace, folder: Path) -> None:
    """The documents: a copy of the folder given, or what this machine carries."""
    if options.folder:
        shutil.copytree(options.folder, folder)
    else:
        print(corpus_script("--out", str(folder), "--docs", str(options.docs)))
    print(f"\n{machine(options)}\n")


def corpus_script(*arguments: str) -> str:
    """Run corpus.py in a process of its own: a child's peak RSS counts from what its parent holds."""
    command = [sys.executable, str(HERE / "corpus.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def machine(options: argparse.Namespace) -> str:
    """Return the machine and the versions, for RESULTS.md."""
    from importlib.metadata import version

    versions = [f"{name} {version(name)}" for name in ("duckdb", "pyarrow", "numpy")]
    seen: set[str] = set()
    for system in SYSTEMS.values():
        python = interpreter(system, options.venvs)
        if system.venv and system.venv not in seen and python.exists():
            seen.add(system.venv)
            code = "import sys, importlib.metadata as m; print(*(m.version(name) for name in sys.argv[1:]))"
            command = [str(python), "-c", code, *system.packages]
            answer = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
            versions += [f"{name} {each}" for name, each in zip(system.packages, answer, strict=True)]
    with open("/proc/cpuinfo") as file:
        model = next(
            (line.split(":")[1].strip() for line in file if line.startswith("model name")),
            platform.processor(),
        )
    return f"{os.cpu_count()} × {model}, Python {platform.python_version()}; {', '.join(dict.fromkeys(versions))}"


def minilm(options: argparse.Namespace, scratch: Path) -> None:
    """A full run with MiniLM against the pure time of the model on the same texts, in one process each; then no-ops."""
    folder = options.folder or ROOT / "sample" / "corpus"
    model = {"STEMMA_BENCH_MODEL": "all-MiniLM-L6-v2"}
    each = Bench(SYSTEMS["stemma"], options.venvs, scratch, folder, model, MINILM_TIMEOUT_SECONDS)
    copy_code(each.system, each.code)
    full, again = each.run(), each.run()
    if not (full.is_done and again.is_done):
        raise SystemExit(full.error or again.error)
    pure, texts = _pure_model_seconds(each.state / ".stemma" / "corpus.duckdb")
    print(f"{machine(options)}\n")
    print("| full run, MiniLM | pure model | ratio | vectors | peak MB | no-op |\n|---|---|---|---|---|---|")
    seconds, calls = full.figures["seconds"], full.figures["embed_calls"]
    print(
        f"| {seconds:.1f} s | {pure:.1f} s | {seconds / pure:.3f} | {calls:,} | {full.peak_mb:.0f}"
        f" | {again.figures['seconds']:.1f} s |"
    )
    print(f"\nstages: {full.figures['stages']}; pure model time: of {texts:,} texts")


def _pure_model_seconds(published: Path) -> tuple[float, int]:
    """The seconds that the model takes for the texts of all chunks, and how many were embedded to know.

    Of more than PURE_TEXTS a part is embedded, chosen by a hash, and the time taken for as much more as there are more
    characters.
    """
    import duckdb
    import pyarrow as pa

    from stemma.config import EmbedConfig
    from stemma.resources.embedder import resolve_embedder

    with duckdb.connect(str(published), read_only=True) as connection:
        rows = connection.execute("SELECT DISTINCT text FROM corpus.chunked ORDER BY md5(text)").fetchall()
    chosen = [text for (text,) in rows[:PURE_TEXTS]]
    share = sum(map(len, chosen)) / sum(len(text) for (text,) in rows)
    texts = pa.table({"text": chosen})
    settings = EmbedConfig(model="all-MiniLM-L6-v2")
    embedder = resolve_embedder(settings.model, settings.device, settings.precision, settings.backend)
    assert embedder.load is not None
    model = embedder.load(**embedder.parameters)
    embedder.function(texts.slice(0, 64), model=model, **embedder.parameters)
    started = time.perf_counter()
    embedder.function(texts, model=model, **embedder.parameters)
    return (time.perf_counter() - started) / share, len(chosen)


TABLES = {"speed": speed, "correctness": correctness, "minilm": minilm}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("table", nargs="?", choices=TABLES, help="speed and correctness, unless one is named")
    parser.add_argument("--docs", type=int, help="10,000 for speed, 1,000 for correctness")
    parser.add_argument(
        "--folder", type=Path, help="measure on a copy of this folder instead of building one"
    )
    parser.add_argument("--systems", help=f"of {', '.join(SYSTEMS)}")
    parser.add_argument("--events", default="", help="only the events whose name has this in it")
    parser.add_argument(
        "--venvs", type=Path, default=ROOT / ".bench-venv", help="where the peers are installed"
    )
    parser.add_argument("--stages", action="store_true", help="also print Stemma's seconds by stage")
    options = parser.parse_args()
    options.venvs = options.venvs.absolute()
    docs = options.docs
    for table in [options.table] if options.table else ["speed", "correctness"]:
        options.docs = docs or (1_000 if table == "correctness" else 10_000)
        with tempfile.TemporaryDirectory(prefix="stemma-bench-") as scratch:
            # Pixeltable's Postgres runs as another user where this runs as root.
            os.chmod(scratch, 0o755)
            TABLES[table](options, Path(scratch))


if __name__ == "__main__":
    main()
