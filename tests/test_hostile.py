"""The hostile suite: a folder of what should break a pipeline, run by the real one; every file ends as decided.

`shared/tools/make_hostile.py` writes the folder and `expect.jsonl`: the outcome that each file should have.
`_judge` says what those words mean here, `DECIDED` where we decided otherwise, and why.
"""

import json
import os
import re
import subprocess
import sys
import tarfile
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import duckdb
import pytest
from harness import READER, Corpus

from stemma.errors import RetryableError
from stemma.hashing import digest
from stemma.resources.sources import FileEntry, read_stable

# A seed, and whether the traps that only a file system holds (links, FIFO, sockets, names) are made as well.
SEEDS = [(1, False), *(pytest.param(case, marks=pytest.mark.slow) for case in ((2, True), (3, False)))]

# Where we do not what expect.jsonl asks for. "ok" instead of "limit": the file is no danger to code whose time
# and memory are linear, and what it says is worth keeping.
DECIDED = {
    "uni/one_grapheme.txt": ("ok", "characters are code points here, and all steps are linear"),
    "size/no_spaces.txt": ("ok", "one token of 500,000 letters is cut into chunks"),
    "html/nested.html": ("ok", "beyond 2,048 levels the words are kept without a tree"),
    "html/billion_laughs.xhtml": ("ok", "an HTML parser expands no entities: `&j;` stays what it is"),
    "gz/bomb.txt.gz": ("quarantine", "it begins with 64 KiB of NULs: refused before more of it is unpacked"),
    "gz/bomb_bomb.gz": ("quarantine", "what is compressed more than once is not unpacked at all"),
    "pdf/page_loop.pdf": ("quarantine", "PDFium refuses the page"),
    "pdf/count_lie.pdf": ("ok", "PDFium counts the pages itself"),
    "md/yaml_bomb.md": ("ok", "front matter is never parsed as YAML"),
    "md/nested_quote.md": ("ok", "Markdown is kept as it is written"),
    "md/emphasis_bomb.md": ("ok", "Markdown is kept as it is written"),
    "md/link_bomb.md": ("ok", "Markdown is kept as it is written"),
    "fs/sparse_20G.txt": ("quarantine", "a hole without data is refused before it is read"),
    "fs/bad_\\xff\\xfe.txt": (
        "quarantine",
        "a name that is no UTF-8 can be no key: the error asks for another",
    ),
    "fs/.hidden.txt": ("passed over", "hidden files are no documents"),
}
# The generator leaves it open: kept or refused, but accounted for.
EITHER = ("gz/trailing_garbage.txt.gz", "gz/not_gzip.txt.gz", "dedup/bridge_events.jsonl")

# An error that says which limit it was.
NAMES_A_LIMIT = re.compile(r"too (?:large|deep|many|long)|more than|deeper than|beyond|limit|expand", re.I)
PEAK_BYTES = 1536 * 2**20


@dataclass
class Fate:
    """What became of one file."""

    kept: dict[str | None, str] = field(default_factory=dict)
    hashes: set[Any] = field(default_factory=set)
    clusters: set[Any] = field(default_factory=set)
    rules: list[str] = field(default_factory=list)
    errors: list[tuple[str, str]] = field(default_factory=list)
    lost: int = 0


def fates(path: Path, root: Path) -> dict[str, Fate]:
    """Return what became of each file below `root`, by its path there; of a ZIP archive, of all in it."""
    found: dict[str, Fate] = defaultdict(Fate)
    prefix = f"{root}/"

    def name(uri: str) -> str:
        relative = uri.removeprefix(prefix)
        return (
            relative.partition(".zip")[0] + ".zip"
            if relative.startswith("zip/") and ".zip" in relative
            else relative
        )

    with duckdb.connect(str(path), read_only=True, config=READER) as connection:
        for uri, record, text, text_hash, cluster, rule, error in connection.execute(
            """SELECT r.uri, r.record, c.text, c.text_hash, coalesce(d.cluster_id, u.cluster_id), x.rule, e.error
            FROM corpus.raw AS r LEFT JOIN corpus.cleaned AS c USING (document_id)
            LEFT JOIN corpus.deduplicated AS d USING (document_id)
            LEFT JOIN lineage.duplicates AS u USING (document_id)
            LEFT JOIN (FROM lineage.decisions WHERE stage = 'cleaned') AS x USING (document_id)
            LEFT JOIN (SELECT DISTINCT ON (document_id) * FROM lineage.errors) AS e USING (document_id)"""
        ).fetchall():
            fate = found[name(uri)]
            if text is not None:
                fate.kept[record] = text
                fate.hashes.add(text_hash)
            if cluster is not None:
                fate.clusters.add(cluster)
            if rule is not None:
                fate.rules.append(rule)
            fate.lost += text is None and rule is None and error is None
            fate.lost += text is not None and cluster is None and error is None
        for uri, error, detail in connection.execute(
            "SELECT uri, error, detail FROM lineage.errors"
        ).fetchall():
            found[name(uri)].errors.append((error, detail))
    return found


def _judge(case: dict[str, Any], found: dict[str, Fate]) -> Iterator[str]:
    """Yield what is wrong with the fate of a case; nothing where it ended as it should."""
    path = case["path"]
    expected = DECIDED.get(path, (case["expect"], ""))[0]
    fate = found.get(path, Fate())
    if fate.lost:
        yield f"{fate.lost} documents are neither kept nor decided nor in error"
    if any(not error or not detail or "\n" in detail for error, detail in fate.errors):
        yield f"an error without one clear line: {fate.errors}"
    if path in EITHER:
        if not (fate.kept or fate.errors):
            yield "neither kept nor an error"
    elif expected == "ok":
        if fate.errors:
            yield f"should be kept: {fate.errors}"
        if not fate.kept and case.get("rows") != 0:
            yield f"should be kept, but is not: {fate.rules}"
    elif expected == "quarantine":
        if not fate.errors:
            yield "should be an error"
        if fate.kept and case["kind"] != "zip":
            yield f"should not be kept: {list(fate.kept)[:5]}"
    elif expected == "partial":
        if not fate.errors or not fate.kept:
            yield f"should be kept in part: {len(fate.kept)} kept, {fate.errors}"
    elif expected == "skip":
        if fate.kept or not (fate.errors or fate.rules):
            yield f"should be skipped with a reason: {fate}"
    elif expected == "limit":
        if fate.kept or not any(NAMES_A_LIMIT.search(f"{error} {detail}") for error, detail in fate.errors):
            yield f"should be refused by a limit: {fate}"
    elif expected == "passed over" and (fate.kept or fate.errors or fate.rules):
        yield f"should be passed over: {fate}"
    yield from _judge_details(case, fate, found)


def _judge_details(case: dict[str, Any], fate: Fate, found: dict[str, Fate]) -> Iterator[str]:
    count = len(fate.kept)
    texts = list(fate.kept.values())
    if case.get("rows") not in (None, count):
        yield f"{count} rows instead of {case['rows']}"
    if count < case.get("min_good", 0) or len(fate.errors) < case.get("min_bad", 0):
        yield f"{count} kept and {len(fate.errors)} refused, of {case}"
    if case.get("docs") not in (None, count):
        yield f"{count} documents instead of {case['docs']}"
    if case.get("same_as") and fate.hashes != found[case["same_as"]].hashes:
        yield f"text differs from that of {case['same_as']}"
    if "text" in case and texts != [case["text"]]:
        yield f"text is {texts} and not {case['text']!r}"
    if "expected_prefix" in case and not texts[0].startswith(case["expected_prefix"]):
        yield f"text begins {texts[0][:20]!r} and not {case['expected_prefix']!r}"
    if any(word in text for word in case.get("must_not", ()) for text in texts):
        yield f"text holds one of {case['must_not']}"
    if case.get("clusters_expected") not in (None, len(fate.clusters)):
        yield f"{len(fate.clusters)} families instead of {case['clusters_expected']}"


@dataclass(frozen=True)
class Hostile:
    """A hostile folder, what is expected of it, what became of it, and the most memory that took."""

    files: Path
    cases: list[dict[str, Any]]
    found: dict[str, Fate]
    peak_bytes: int


_made: dict[tuple[int, bool], Hostile] = {}


@pytest.fixture
def hostile(
    request: pytest.FixtureRequest, shared: Path, tmp_path_factory: pytest.TempPathFactory
) -> Hostile:
    """The folder of a seed, run once by the command line in a process of its own."""
    seed, with_fs = request.param
    if (seed, with_fs) not in _made:
        root = tmp_path_factory.mktemp(f"hostile{seed}")
        _make(shared, root, seed, with_fs)
        peak = _run(root, root / "files")
        cases = [json.loads(line) for line in (root / "expect.jsonl").read_text("utf-8").splitlines()]
        if os.geteuid() == 0:
            cases = [case for case in cases if case["path"] != "fs/noperm.txt"]  # root reads it
        _made[seed, with_fs] = Hostile(root / "files", cases, fates(_corpus(root), root / "files"), peak)
    return _made[seed, with_fs]


def _make(shared: Path, root: Path, seed: int, with_fs: bool) -> None:
    if seed == 1 and not with_fs:
        with tarfile.open(shared / "data/f1_hostile/hostile_seed1.tar.gz") as archive:
            archive.extractall(root, filter="data")
        return
    script = shared / "tools/make_hostile.py"
    command = [sys.executable, str(script), "--out", str(root), "--seed", str(seed)]
    subprocess.run([*command, "--fs"] if with_fs else command, check=True, stdout=subprocess.DEVNULL)


def _corpus(root: Path) -> Path:
    return root / ".stemma" / "corpus.duckdb"


def _run(root: Path, files: Path) -> int:
    """Run Stemma on a folder, with its warehouse in `root`; returns the most bytes that it held in memory."""
    (root / "stemma.toml").write_text(
        f'[[sources]]\nname = "docs"\npath = {json.dumps(str(files))}\n[embed]\nmodel = "hash:64"\n'
    )
    config = str(root / "stemma.toml")
    return _peak_bytes([sys.executable, "-m", "stemma.cli", "run", "--quiet", "--config", config], root)


# A process is charged with the memory of the one that it was forked from, which for that of the tests is gigabytes.
_PEAK = """
import os, subprocess, sys
process = subprocess.Popen(sys.argv[1:], stdout=subprocess.DEVNULL)
_pid, status, usage = os.wait4(process.pid, 0)
print(usage.ru_maxrss * 1024)
sys.exit(os.waitstatus_to_exitcode(status))
"""


def _peak_bytes(command: list[str], cwd: Path) -> int:
    """Run a command, which must succeed; returns the most bytes that it held in memory."""
    environ = {
        name: value for name, value in os.environ.items() if name not in ("STEMMA_CONFIG", "DAGSTER_HOME")
    }
    done = subprocess.run(
        [sys.executable, "-c", _PEAK, *command], cwd=cwd, env=environ, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return int(done.stdout)


@pytest.mark.parametrize("hostile", SEEDS, indirect=True)
def test_every_file_ends_as_decided(hostile: Hostile) -> None:
    faults = {case["path"]: faults for case in hostile.cases if (faults := list(_judge(case, hostile.found)))}
    assert not faults, json.dumps(faults, indent=1, ensure_ascii=False)[:8000]


@pytest.mark.parametrize("hostile", SEEDS, indirect=True)
def test_memory_stays_bounded(hostile: Hostile) -> None:
    assert hostile.peak_bytes < PEAK_BYTES


@pytest.mark.parametrize("hostile", SEEDS, indirect=True)
def test_no_file_is_written_outside(hostile: Hostile) -> None:
    assert not any(Path(f"/tmp/{name}").exists() for name in ("evil.txt", "evil2.txt", "evil_yaml"))
    assert not list(hostile.files.parent.rglob("evil*"))


@pytest.mark.parametrize("hostile", SEEDS, indirect=True)
def test_the_others_are_unharmed(hostile: Hostile, tmp_path: Path) -> None:
    """Each sound file says the same as in a run without the hostile ones."""
    sound = {
        case["path"]
        for case in hostile.cases
        if case["expect"] == "ok" and not case["path"].startswith(("dedup/", "fs/"))
    }
    alone = tmp_path / "sound"
    for path in sound:
        (alone / path).parent.mkdir(parents=True, exist_ok=True)
        (alone / path).write_bytes((hostile.files / path).read_bytes())
    _run(tmp_path, alone)
    found = fates(_corpus(tmp_path), alone)
    assert len(sound) > 80
    assert {path: found[path].kept for path in sound} == {path: hostile.found[path].kept for path in sound}


READ_AND_CLEAN = """
import os, sys
import pyarrow as pa
from stemma.cleaning.clean import INPUTS, clean
from stemma.reading import Record, read

for folder, _folders, names in os.walk(sys.argv[1]):
    for name in names:
        with open(os.path.join(folder, name), "rb") as file:
            for item in read(file, name):
                if isinstance(item, Record):
                    row = {column: getattr(item, column) for column in INPUTS.names}
                    try:
                        clean(pa.Table.from_pylist([row], INPUTS))
                    except ValueError:
                        pass
"""


def test_reading_and_cleaning_take_little_memory(shared: Path, tmp_path: Path) -> None:
    """No bomb is ever unpacked: the limit is the one that make_hostile.py names, on top of what the libraries take."""
    _make(shared, tmp_path, 1, with_fs=False)
    for name in ("hot", "star"):
        (tmp_path / f"files/dedup/{name}.jsonl").unlink()  # many, and harmless here
    harmless = tmp_path / "harmless"
    harmless.mkdir()
    (harmless / "a.html").write_text("<html><body><p>Of no language: zq xv wk, qj vx kw.</p></body></html>")
    libraries = _peak_bytes([sys.executable, "-c", READ_AND_CLEAN, str(harmless)], tmp_path)
    peak = _peak_bytes([sys.executable, "-c", READ_AND_CLEAN, str(tmp_path / "files")], tmp_path)
    assert peak - libraries < 300 * 2**20


def test_a_judgement_can_fail() -> None:
    kept, refused = Fate(kept={None: "x"}), Fate(errors=[("unsupported format", "it is binary")])
    for expect, fate in (
        ("ok", refused),
        ("quarantine", kept),
        ("partial", kept),
        ("skip", kept),
        ("limit", refused),
        ("limit", kept),
    ):
        assert list(_judge({"path": "x", "kind": "x", "expect": expect}, {"x": fate})), expect
        assert list(_judge({"path": "x", "kind": "x", "expect": expect}, {})), expect
    for details in (
        {"rows": 2},
        {"min_good": 2},
        {"text": "y"},
        {"must_not": ["x"]},
        {"clusters_expected": 1},
    ):
        assert list(_judge({"path": "x", "expect": "ok", **details}, {"x": kept})), details
    assert not list(_judge({"path": "x", "expect": "ok", "rows": 1}, {"x": kept}))


# ---- a file that changes while it is read

VERSION = re.compile(r"(?:version|atomic) (\d+) ")


@pytest.fixture
def changing(shared: Path, tmp_path: Path) -> Iterator[Path]:
    """A file that another process writes, cuts, replaces and deletes for as long as the test lasts."""
    path = tmp_path / "docs" / "changing.txt"
    path.parent.mkdir()
    path.write_text("new")
    script = shared / "tools/make_hostile.py"
    process = subprocess.Popen([sys.executable, str(script), "--mutate", str(path), "--seconds", "30"])
    yield path
    process.terminate()
    process.wait()


@pytest.mark.slow
def test_a_changing_file_is_read_whole_or_put_off(changing: Path) -> None:
    entry = FileEntry(str(changing), changing.name, None, 0)
    seen: set[str] = set()
    while len(seen) < 50:
        try:
            file, file_hash, _entry = read_stable(entry)
        except (RetryableError, FileNotFoundError):
            continue
        data = file.read()
        assert file_hash == digest(data)
        assert _is_of_one_version(data.decode()), data[:200]
        seen.add(data.decode())


@pytest.mark.slow
def test_runs_beside_a_changing_file(changing: Path, tmp_path: Path) -> None:
    corpus = Corpus(tmp_path, embed={"model": "hash:64"})
    corpus.write("still.txt", "this one stays as it is")
    for _ in range(3):
        corpus.run(allow_deletes=True)
        for (content,) in corpus.query("SELECT content FROM corpus.raw WHERE uri LIKE '%/changing.txt'"):
            assert _is_of_one_version(content), content[:200]
        assert corpus.query("SELECT content FROM corpus.raw WHERE uri LIKE '%/still.txt'") == [
            ("this one stays as it is",)
        ]


def _is_of_one_version(content: str) -> bool:
    """Is it one version, whole, cut, or (where `truncate` made it longer) followed by NULs?"""
    text = content.rstrip("\0")
    numbers = set(VERSION.findall(text))
    if not numbers:
        return "version 99999 atomic 99999 new".find(text.rstrip("0123456789")) >= 0 or not text
    (number,) = numbers if len(numbers) == 1 else (None,)
    if number is None:
        return False
    word = "version" if text.startswith("version") else "atomic"
    whole = f"{word} {number} "
    return (whole * (len(text) // len(whole) + 1)).startswith(text)
