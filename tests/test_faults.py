"""Faults of disks, files, rights, clocks and other hosts: nothing is lost, nothing is wrong unseen, one line says why.

docs/reliability.md lists each fault with its test; tests/test_docs.py looks that these are there.
"""

import contextlib
import datetime
import os
import shutil
import sqlite3
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pytest
from harness import NOTHING, Corpus, published_bytes, sentence, slow

from stemma.errors import StemmaError
from stemma.hashing import digest, uuid_array
from stemma.lineage.as_of import find_publication
from stemma.resources import warehouse
from stemma.resources.checksums import row_checksums
from stemma.resources.engine import publication, publish, raw, rowwise, with_what_it_needs
from stemma.resources.engine.audit import audit
from stemma.resources.memo import CHECKSUM, DamagedError, Mapped, Memo, Segments
from stemma.resources.warehouse import Warehouse
from stemma.resources.workers import Workers


@pytest.fixture
def corpus(tmp_path: Path) -> Corpus:
    """A corpus of a few documents, published."""
    corpus = Corpus(tmp_path, chunk={"max_tokens": 20})
    corpus.fill(8, words=50)
    corpus.write("near.txt", sentence("doc001.txt", 49))
    corpus.run()
    return corpus


def work(corpus: Corpus) -> Path:
    """Return the work folder."""
    return corpus.path.with_suffix(".work")


def quarantined(corpus: Corpus) -> list[Path]:
    """Return the files that were put aside."""
    folder = work(corpus) / "quarantine"
    return sorted(folder.iterdir()) if folder.exists() else []


# ---- checksums of the memo


def test_a_checksum_follows_the_values_and_not_how_they_lie() -> None:
    day = datetime.date(2020, 1, 1)
    arrays: list[pa.Array] = [
        pa.array(["a", None, "", "xyz" * 50, "é"]),
        pa.array([b"1", None, b"22", b"", b"z"], pa.large_binary()),
        pa.array([1, None, 3, 4, 5]),
        pa.array([1.5, None, 0.0, 2.0, -0.0]),
        pa.array([day, None, day, None, day]),
        pa.array([True, False, None, True, False]),
        pa.array([[1, 2], None, [], [3], [4, 5, 6]]),
        pa.array([{"a": 1, "b": "x"}, None, {"a": None, "b": "y"}, {"a": 3, "b": None}, {"a": 4, "b": "z"}]),
        pa.array([[{"a": 1, "b": ["x"]}], None, [], [{"a": 3, "b": None}, {"a": 1, "b": []}], []]),
        pa.array([[float(n), 0.5] * 8 if n != 1 else None for n in range(5)], pa.list_(pa.float32(), 16)),
        pa.array([[("k", 1.0)], None, [], [("a", 2.0), ("b", 3.0)], []], pa.map_(pa.string(), pa.float64())),
        uuid_array(digest(bytes([n])) for n in range(5)),
    ]
    rows = np.arange(5)
    for array in arrays:
        whole = row_checksums(array, rows)
        assert np.array_equal(row_checksums(array.slice(2), rows[:3]), whole[2:]), array.type
        assert np.array_equal(row_checksums(array, np.array([3, 1])), whole[[3, 1]]), array.type
        batch = pa.record_batch([array.slice(1)], ["x"])
        stored = pa.ipc.read_record_batch(batch.serialize(), batch.schema)
        assert np.array_equal(row_checksums(stored["x"], rows[:4]), whole[1:]), array.type
    with pytest.raises(TypeError, match="no checksum"):
        row_checksums(pa.array(["a", "a"]).dictionary_encode(), rows[:2])


OUTPUTS = pa.schema(
    [
        pa.field("text", pa.string(), nullable=False),
        pa.field("chunks", pa.list_(pa.struct([("start", pa.int32()), ("text", pa.string())]))),
        pa.field("embedding", pa.list_(pa.float32(), 8)),
        pa.field("score", pa.float64()),
    ]
)


def remembered(folder: Path) -> Segments:
    """Return a memo of a few rows of all kinds, in one segment."""
    segments = Segments(folder / "memo" / "act" / "recipe", OUTPUTS, Mapped(folder / "quarantine"))
    texts = [sentence(number, 5) for number in range(9)]
    rows = {
        "input_hash": uuid_array(digest(text.encode()) for text in texts),
        "text": texts,
        "chunks": [[{"start": 0, "text": text[:9]}, {"start": 9, "text": text[9:]}] for text in texts],
        "embedding": [*([float(n)] * 8 for n in range(8)), None],
        "score": [None, *map(float, range(8))],
        "error": [None] * 8 + ["ValueError"],
        "detail": [None] * 8 + ["no"],
    }
    segments.append(pa.table(list(rows.values()), schema=segments.schema))
    return segments


def read_everything(folder: Path) -> tuple[Any, ...]:
    """Return all that the memo says, read as a whole and row by row."""
    segments = Segments(folder / "memo" / "act" / "recipe", OUTPUTS, Mapped(folder / "quarantine"))
    whole = [batch.select(segments.schema.names).to_pydict() for batch in checked_batches(segments)]
    return segments.keys().to_pylist(), whole


def checked_batches(segments: Segments) -> Iterator[pa.RecordBatch]:
    """Yield the batches as the engine takes them: those of a scan, and a few rows of those that are mapped."""
    mapped, names = segments._mapped, segments.schema.names
    for path in segments.files():
        for batch in mapped.batches(path, names):
            mapped.checked(path, batch, names)
            yield batch
        for batch in mapped.batches(path, mapped=True):
            few = np.array([1, 7])
            mapped.checked(path, batch, names, few)
            yield batch.select(names).take(pa.array(few))


@pytest.mark.parametrize("step", [37, *slow(1)])
def test_every_flipped_bit_of_a_segment_is_found_or_harmless(tmp_path: Path, step: int) -> None:
    (path,) = remembered(tmp_path).files()
    good = path.read_bytes()
    expected = read_everything(tmp_path)
    outcomes = {"found": 0, "harmless": 0}
    damages = [
        good[:at] + bytes([good[at] ^ 1 << at % 8]) + good[at + 1 :] for at in range(0, len(good), step)
    ]
    damages += [good[:at] for at in range(0, len(good), 20 * step)]
    for damaged in damages:
        path.write_bytes(damaged)
        try:
            found, told = read_everything(tmp_path), ""
        except DamagedError as error:
            told = str(error)
        if not told:
            # What is read is what was written: the flipped bit stands where nobody looks.
            assert found == expected
            outcomes["harmless"] += 1
            continue
        (aside,) = (tmp_path / "quarantine").iterdir()
        assert str(path) in told
        assert str(aside) in told
        assert not path.exists()
        assert aside.read_bytes() == damaged
        aside.unlink()
        outcomes["found"] += 1
    assert outcomes["found"] > outcomes["harmless"] > 0


def flipped(first: float, last: float) -> Callable[[Path, Corpus], None]:
    """Return what flips a bit now and then between these shares of a file."""

    def damage(path: Path, _corpus: Corpus) -> None:
        data = bytearray(path.read_bytes())
        for place in range(int(len(data) * first), int(len(data) * last), 31):
            data[place] ^= 1
        path.write_bytes(data)

    return damage


def cut(path: Path, _corpus: Corpus) -> None:
    os.truncate(path, path.stat().st_size // 2)


def emptied(path: Path, _corpus: Corpus) -> None:
    path.write_bytes(b"")


def deleted(path: Path, _corpus: Corpus) -> None:
    path.unlink()


def exchanged(path: Path, corpus: Corpus) -> None:
    """Another stage's segment in its place, sound in itself."""
    other = "clean" if "sign" in path.parts else "sign"
    path.write_bytes(next((work(corpus) / "memo" / other).rglob("*.arrow")).read_bytes())


def strayed(path: Path, corpus: Corpus) -> None:
    """A segment of the same stage under another recipe in its place, sound in itself."""
    folder = path.parent.with_name("0" * 32)
    outputs = pa.ipc.open_file(path).schema.remove_metadata()
    names = [name for name in outputs.names if not name.endswith(CHECKSUM)]
    segments = Memo(work(corpus) / "memo").segments(
        path.parent.parent.name,
        folder.name,
        pa.schema([outputs.field(name) for name in names if name not in ("input_hash", "error", "detail")]),
    )
    segments.append(pa.ipc.open_file(path).read_all().select(names))
    (made,) = folder.iterdir()
    os.replace(made, path)
    folder.rmdir()


DAMAGES = {
    "body": flipped(0.3, 0.85),
    "footer": flipped(0.9, 1.0),
    "cut": cut,
    "empty": emptied,
    "exchanged": exchanged,
}
DAMAGES |= {"strayed": strayed, "deleted": deleted}
STAGES = ("read", "clean", "sign", "chunk", "embed")
SHOWN = [("read", "body"), ("sign", "deleted"), ("chunk", "strayed")]


@pytest.mark.parametrize(
    ("stage", "damage"),
    [*SHOWN, *slow(*((stage, kind) for stage in STAGES for kind in DAMAGES if (stage, kind) not in SHOWN))],
)
def test_a_damaged_segment_is_put_aside_and_what_it_held_made_anew(
    corpus: Corpus, stage: str, damage: str
) -> None:
    before = corpus.query("FROM lineage.runs ORDER BY ALL")
    (path,) = (work(corpus) / "memo" / stage).rglob("*.arrow")
    DAMAGES[damage](path, corpus)
    damaged = path.read_bytes() if path.exists() else None
    # A document that makes others be compared anew, and a publication that takes everything from the memo.
    corpus.write("new.txt", sentence("doc003.txt", 48))
    corpus.path.unlink()
    result = corpus.run()
    told = "\n".join(result.warnings)
    assert "results that the memo had lost were made anew" in told
    if damaged is not None:
        (aside,) = quarantined(corpus)
        assert aside.read_bytes() == damaged
        assert f"{path}: a damaged file of the memo" in told
        assert f"moved to {aside}" in told
    assert corpus.failed_checks() == []
    assert corpus.differences() == []
    assert set(before) < set(corpus.query("FROM lineage.runs")), "the state was not made anew"
    assert corpus.run().computed == NOTHING


def test_a_run_with_nothing_to_do_reads_no_row_of_the_memo(
    corpus: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    checked: list[tuple[Path, int]] = []
    check = Mapped.checked

    def counting(self: Mapped, path: Path, batch: pa.RecordBatch, names: list[str], rows: Any = None) -> None:
        checked.append((path, batch.num_rows if rows is None else len(rows)))
        check(self, path, batch, names, rows)

    monkeypatch.setattr(Mapped, "checked", counting)
    assert corpus.run().computed == NOTHING
    assert checked == []
    corpus.write("new.txt", sentence("new", 20))
    corpus.run()
    assert {path.parent.parent.name for path, _rows in checked} == set(STAGES)


@pytest.mark.slow
def test_verify_checks_the_whole_memo(corpus: Corpus) -> None:
    (path,) = (work(corpus) / "memo" / "embed").rglob("*.arrow")
    flipped(0.3, 0.7)(path, corpus)
    found = audit(corpus.config())
    assert (len(found.damaged), found.differing) == (1, [])
    assert f"{path}: a damaged file of the memo" in found.damaged[0]
    assert len(quarantined(corpus)) == 1
    assert audit(corpus.config()).damaged == ()
    corpus.path.unlink()
    corpus.run()
    assert corpus.differences() == []


@pytest.mark.slow
def test_contents_that_no_file_holds_any_more_are_told_to_be_lost(corpus: Corpus) -> None:
    (path,) = (work(corpus) / "memo" / "read").rglob("*.arrow")
    emptied(path, corpus)
    (corpus.docs / "doc001.txt").write_text("changed when it was too late")
    corpus.path.unlink()
    run = corpus.start()
    run.begin("embedded", "")
    with contextlib.closing(run.warehouse), pytest.raises(StemmaError, match="bodies found in the memo"):
        publish(run)
    corpus.run()
    assert corpus.differences() == []


# ---- database files that are damaged, or not ours


def of_another_program(path: Path) -> None:
    path.unlink()
    with duckdb.connect(str(path)) as connection:
        connection.execute("CREATE TABLE mine AS SELECT 42 AS answer")


def of_sqlite(path: Path) -> None:
    path.unlink()
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE mine (answer)")
        connection.commit()


def of_a_newer_duckdb(path: Path) -> None:
    """A version of the storage that this DuckDB does not know, with the checksum that belongs to it."""
    data = bytearray(path.read_bytes())
    data[12] = 200
    path.write_bytes(data)


def torn(path: Path) -> None:
    data = bytearray(path.read_bytes())
    for place in range(len(data) // 3, len(data) // 3 + 4096, 7):
        data[place] ^= 0x5A
    path.write_bytes(data)


FILES: dict[str, Callable[[Path], object]] = {
    "garbage": lambda path: path.write_bytes(bytes(range(256)) * 400),
    "empty": lambda path: path.write_bytes(b""),
    "cut": lambda path: os.truncate(path, path.stat().st_size // 2),
    "torn": torn,
    "foreign": of_another_program,
    "sqlite": of_sqlite,
    "newer": of_a_newer_duckdb,
}
REFUSED = [("published", "foreign"), ("state", "torn")]


@pytest.mark.parametrize(
    ("which", "kind"),
    [*REFUSED, *slow(*((w, k) for w in ("published", "state") for k in FILES if (w, k) not in REFUSED))],
)
def test_a_damaged_or_foreign_database_is_refused_and_left_alone(
    corpus: Corpus, which: str, kind: str
) -> None:
    path = corpus.path if which == "published" else work(corpus) / "state.duckdb"
    path.chmod(0o644)
    FILES[kind](path)
    bad, before = path.read_bytes(), published_bytes(corpus.path)
    corpus.write("new.txt", sentence("new", 20))
    with pytest.raises(StemmaError) as refusal:
        corpus.run()
    told = str(refusal.value)
    assert told.startswith(f"{path}: ")
    assert "\n" not in told
    assert (
        "ove it away and run again" in told or "'A damaged state'" in told or "Move it away, or name" in told
    )
    assert published_bytes(corpus.path) == before
    if kind != "torn":
        assert path.read_bytes() == bad
    path.rename(path.with_name("away"))
    path.with_name(path.name + ".wal").unlink(missing_ok=True)
    corpus.run()
    assert corpus.count("corpus.raw") == 10
    assert corpus.differences() == []


@pytest.mark.parametrize("kind", ["foreign", *slow("garbage", "sqlite")])
def test_a_first_run_never_replaces_what_it_has_not_made(tmp_path: Path, kind: str) -> None:
    corpus = Corpus(tmp_path)
    corpus.fill(2)
    corpus.path.parent.mkdir()
    corpus.path.write_bytes(b"x")
    FILES[kind](corpus.path)
    precious = corpus.path.read_bytes()
    with pytest.raises(StemmaError, match="Move it away"):
        corpus.run()
    assert corpus.path.read_bytes() == precious


# ---- a full disk, and one that cannot be written


@contextlib.contextmanager
def mounted(place: Path, *options: str) -> Iterator[None]:
    """Mount something there for a while, or skip the test where that is not allowed."""
    done = subprocess.run(["mount", *options, str(place)], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"this machine lets nobody mount: {done.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Corpus]:
    """A published corpus whose warehouse lies on a disk of 100 MB: what the tests write takes up to 67."""
    disk = tmp_path / "disk"
    disk.mkdir()
    with mounted(disk, "-t", "tmpfs", "-o", "size=100m", "tmpfs"):
        corpus = Corpus(tmp_path)
        corpus.path = disk / "corpus.duckdb"
        corpus.fill(6)
        corpus.run()
        yield corpus


def fill_disk(corpus: Corpus) -> None:
    """Take all the room that is left."""
    with (corpus.path.parent / "balloon").open("wb") as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(2**16))


def when(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, act: Callable[[], object]) -> None:
    """Let something happen before a function of the product is called for the first time."""
    function, acted = getattr(owner, name), []

    def acting(*arguments: Any, **options: Any) -> Any:
        if not acted:
            acted.append(act())
        return function(*arguments, **options)

    monkeypatch.setattr(owner, name, acting)


FULL_AT: dict[str, tuple[Any, str]] = {
    "memo": (Segments, "append"),
    "state": (rowwise, "apply_rows"),
    "publication": (publication, "_fill"),
}


@pytest.mark.parametrize("place", ["publication", *slow("memo", "state")])
def test_a_full_disk_stops_the_run_and_costs_nothing(
    small_disk: Corpus, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    corpus = small_disk
    before = published_bytes(corpus.path)
    # More than fits into the free space of blocks that stand already.
    corpus.write("rows.jsonl", "\n".join(f'{{"text": "{sentence(n, 60)}"}}' for n in range(3000)))
    with monkeypatch.context() as patched:
        when(patched, *FULL_AT[place], lambda: fill_disk(corpus))
        with pytest.raises(StemmaError) as failure:
            corpus.run()
    told = str(failure.value)
    assert told.startswith(str(corpus.path.parent))
    assert "no space left" in told
    assert "free space and run again" in told
    assert "\n" not in told
    assert published_bytes(corpus.path) == before
    assert corpus.failed_checks() == []
    (corpus.path.parent / "balloon").unlink()
    corpus.run()
    assert corpus.count("corpus.raw") == 3006
    assert corpus.differences() == []
    assert [path.name for path in corpus.path.parent.glob(".*")] == []


def test_a_full_disk_under_what_spills_is_told(small_disk: Corpus) -> None:
    corpus = small_disk
    fill_disk(corpus)

    def spill(run: Any) -> None:
        # Three times the memory that it gets, and no more of that either.
        run.warehouse.grant_memory = lambda: False
        run.warehouse.connection.execute("SET memory_limit = '64MB'")
        run.warehouse.connection.execute(
            "CREATE TABLE much AS SELECT i, md5(i::VARCHAR) AS a, md5((-i)::VARCHAR) AS b FROM range(3000000) AS r(i)"
        )

    run = corpus.start()
    with contextlib.closing(run.warehouse), pytest.raises(StemmaError, match="no space left"):
        with_what_it_needs(run, "raw", spill)
    (corpus.path.parent / "balloon").unlink()
    assert corpus.run().computed == NOTHING


@contextlib.contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """Make a folder read-only for a while, for root as well."""
    with mounted(folder, "--bind", str(folder)):
        subprocess.run(["mount", "-o", "remount,ro,bind", str(folder)], check=True)
        yield


def test_a_target_that_cannot_be_written_is_named(corpus: Corpus, tmp_path: Path) -> None:
    corpus.write("new.txt", sentence("new", 20))
    with read_only(corpus.path.parent):
        with pytest.raises(StemmaError, match=r"corpus\.work: cannot be written: Read-only file system"):
            corpus.run()
        assert corpus.count("corpus.raw") == 9
    corpus.run()
    assert corpus.count("corpus.raw") == 10
    empty = Corpus(tmp_path / "other")
    empty.fill(1)
    empty.path.parent.mkdir()
    with read_only(empty.path.parent), pytest.raises(StemmaError, match="cannot be written: Read-only"):
        empty.run()


@pytest.mark.slow
@pytest.mark.parametrize("dataset", ["embedded", "raw", "cleaned", "deduplicated"])
def test_a_target_that_becomes_read_only_in_mid_run(corpus: Corpus, dataset: str) -> None:
    before = published_bytes(corpus.path)
    corpus.write("new.txt", sentence("new", 20))
    with contextlib.ExitStack() as stack:

        def listen(name: str, _done: int, _total: int) -> None:
            if name == dataset:
                stack.enter_context(read_only(corpus.path.parent))

        with pytest.raises(
            StemmaError, match=r"cannot be written or read \(Read-only file system\)"
        ) as failure:
            corpus.run(progress=listen)
        assert str(failure.value).startswith(str(corpus.path.parent))
        assert published_bytes(corpus.path) == before
    corpus.run()
    assert corpus.differences() == []


# ---- sources that vanish while they are read


def after_listing(monkeypatch: pytest.MonkeyPatch, act: Callable[[], object]) -> None:
    """Let something happen between the listing of the sources and their reading."""
    listed = raw.list_sources

    def listing(*arguments: Any) -> raw.Listed:
        found = listed(*arguments)
        act()
        return found

    monkeypatch.setattr(raw, "list_sources", listing)


def errors_of(corpus: Corpus) -> set[tuple[str, str]]:
    return set(corpus.query("SELECT DISTINCT parse_filename(uri), error FROM lineage.errors"))


def test_a_file_that_goes_between_listing_and_reading_is_an_error_then_a_delete(
    corpus: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    corpus.write("doc000.txt", sentence("changed", 20))
    with monkeypatch.context() as patched:
        after_listing(patched, lambda: corpus.delete("doc000.txt"))
        corpus.run()
    assert errors_of(corpus) == {("doc000.txt", "FileNotFoundError")}
    assert corpus.count("corpus.raw") == 8
    corpus.run()
    assert errors_of(corpus) == set()
    assert corpus.differences() == []


@pytest.mark.parametrize("how", ["emptied", *slow("moved")])
def test_a_folder_that_goes_in_mid_run_deletes_nothing(
    corpus: Corpus, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    before, away = published_bytes(corpus.path), corpus.root / "away"

    def vanish() -> None:
        corpus.docs.rename(away)
        if how == "emptied":
            corpus.docs.mkdir()

    with monkeypatch.context() as patched:
        after_listing(patched, vanish)
        with pytest.raises(StemmaError, match="9 of its 9 documents would vanish"):
            corpus.run()
    with pytest.raises(StemmaError, match="would vanish" if how == "emptied" else "cannot list"):
        corpus.run()
    assert published_bytes(corpus.path) == before
    if how == "emptied":
        corpus.docs.rmdir()
    away.rename(corpus.docs)
    assert corpus.run().computed == NOTHING


@pytest.mark.slow
def test_an_archive_that_is_cut_while_it_is_read_is_put_off(
    corpus: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = corpus.docs / "large.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for number in range(600):
            archive.writestr(f"{number}.txt", f"{sentence(number, 10)} {os.urandom(9000).hex()}")
    whole, read = path.read_bytes(), Workers.read

    def cutting(self: Workers, *arguments: Any) -> Iterator[Any]:
        for number, item in enumerate(read(self, *arguments)):
            if number == 10:
                os.truncate(path, 5 * 2**20)
            yield item

    with monkeypatch.context() as patched:
        patched.setattr(Workers, "read", cutting)
        corpus.run()
    assert ("large.zip", "changing") in errors_of(corpus)
    assert corpus.count("corpus.raw") == 9
    corpus.run()
    assert errors_of(corpus) == {("large.zip", "damaged zip")}
    path.write_bytes(whole)
    corpus.run()
    assert errors_of(corpus) == set()
    assert corpus.count("corpus.raw") == 609


# ---- a clock that goes backwards


class SetBack(datetime.datetime):
    """A clock that loses two days at each look."""

    looks = 0

    @classmethod
    def now(cls, tz: datetime.tzinfo | None = None) -> datetime.datetime:
        cls.looks += 1
        return datetime.datetime.now(tz) - datetime.timedelta(days=2 * cls.looks)


RUN = """
import sys
from stemma.config import load_config
from stemma.resources.engine import Run, Setup, run_all
from stemma.resources.warehouse import Warehouse
config = load_config(sys.argv[1])
run_all(Run(sys.argv[2], Setup.of(config), Warehouse(config.warehouse.path)))
"""


def run_days_ago(corpus: Corpus, run_id: str, days: int) -> None:
    """Run in a process whose clock says that it is so many days ago."""
    corpus.config()
    command = [
        "faketime",
        "-f",
        f"-{days}d",
        sys.executable,
        "-c",
        RUN,
        str(corpus.root / "stemma.toml"),
        run_id,
    ]
    subprocess.run(command, check=True, env={**os.environ, "FAKETIME_DONT_FAKE_MONOTONIC": "1"})


@pytest.mark.parametrize("clock", ["patched", *slow("libfaketime")])
def test_a_clock_that_goes_backwards_leaves_the_order_of_runs(
    corpus: Corpus, monkeypatch: pytest.MonkeyPatch, clock: str
) -> None:
    if clock == "libfaketime" and shutil.which("faketime") is None:
        pytest.skip("no faketime (apt-get install faketime)")
    corpus.set(deduplicate={"keep": "oldest"})
    if clock == "patched":
        monkeypatch.setattr(warehouse, "datetime", SetBack)
    ids = ["run-1"]
    for number in range(2, 5):
        corpus.write("doc000.txt", sentence(f"version {number}", 40))
        if clock == "patched":
            ids.append(corpus.run().run_id)
        else:
            ids.append(f"back-{number}")
            run_days_ago(corpus, ids[-1], 10 * number)
    order = "SELECT run_id FROM lineage.runs GROUP BY run_id ORDER BY"
    assert corpus.query(f"{order} max(number)") == [(name,) for name in ids]
    assert corpus.query(f"{order} min(started_at)") == [(name,) for name in reversed(ids)], "the clock lied"
    with duckdb.connect(str(corpus.path), read_only=True) as connection:
        assert [find_publication(connection, name).run_id for name in ("-1", "-2", *ids)] == [
            *ids[-2:-4:-1],
            *ids,
        ]
    versions = corpus.query(
        "SELECT version, since_run, until_run, until >= since FROM lineage.versions"
        " JOIN corpus.raw USING (document_id) WHERE uri LIKE '%/doc000.txt' ORDER BY version"
    )
    assert [row[:3] for row in versions] == list(zip(range(1, 5), ids, [*ids[1:], None], strict=True))
    assert all(row[3] in (True, None) for row in versions)
    assert corpus.run().computed == NOTHING
    assert corpus.differences() == []


# ---- other writers

HOLDER = """
import sys, time
from pathlib import Path
from stemma.resources.warehouse import Warehouse
with Warehouse(Path(sys.argv[1])).session():
    print("held", flush=True)
    time.sleep(600)
"""


@contextlib.contextmanager
def held(corpus: Corpus, *before: str) -> Iterator["subprocess.Popen[str]"]:
    """Let another process hold the writers' lock, started by the command `before`."""
    command = [*before, sys.executable, "-c", HOLDER, str(corpus.path)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        if process.stdout.readline() != "held\n":
            pytest.skip("this machine makes no namespace for another host name")
        yield process
    finally:
        process.kill()
        process.wait()


def test_a_writer_of_another_host_is_waited_for_and_named(
    corpus: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(warehouse, "WAITED_SECONDS", 0.1)
    host = ("unshare", "--uts", "sh", "-c", 'hostname other-host && exec "$@"', "sh")
    with held(corpus, *host) as other:
        told: list[str] = []

        def waiting(line: str) -> None:
            told.append(line)
            # Killed as by the other host's crash: its lock goes with it, and what it wrote into it means nothing.
            other.kill()

        ours = Warehouse(corpus.path, waiting=waiting)
        with contextlib.closing(ours), ours.session():
            pass
    (line,) = told
    assert f"another run is writing to {corpus.path} (other-host, process {other.pid}, since " in line
    assert line.endswith(" UTC); waiting for it")
    ours = Warehouse(corpus.path, waiting=told.append)
    with contextlib.closing(ours), ours.session():
        assert len(told) == 1


def test_a_second_writer_past_the_lock_is_refused(corpus: Corpus) -> None:
    """As on a file system whose locks do not reach the other host: DuckDB's own lock is the second one."""
    before = published_bytes(corpus.path)
    with held(corpus):
        (work(corpus) / "lock").unlink()
        with pytest.raises(StemmaError, match="another program, or a run on another machine, has it open"):
            corpus.run()
        assert published_bytes(corpus.path) == before
    assert corpus.run().computed == NOTHING
