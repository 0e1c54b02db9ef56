"""Sources: what is listed, in which order, and that nothing is read half."""

import functools
import hashlib
import http.server
import io
import os
import socket
import threading
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import fsspec
import pytest

from stemma.errors import RetryableError, StemmaError
from stemma.reading import Record, read
from stemma.resources import sources
from stemma.resources.sources import FileEntry, ListingError, list_files, open_file, read_stable


@dataclass
class Source:
    path: str
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    name: str = "notes"
    query: str | None = None


def tree(root: Path, *paths: str) -> None:
    for path in paths:
        file = root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(path)


def names(source: Source) -> list[str]:
    return [item.relative if isinstance(item, FileEntry) else item.error for item in list_files(source)]


def errors(source: Source) -> dict[str, str]:
    """Name each listing error by its file name."""
    found = [item for item in list_files(source) if isinstance(item, ListingError)]
    return {item.uri.rpartition("/")[2]: item.error for item in found}


def entry(path: Path) -> FileEntry:
    status = path.stat()
    return FileEntry(str(path), path.name, status.st_size, status.st_mtime_ns)


# ---- listing


def test_folder_is_listed_in_the_order_of_whole_paths(tmp_path: Path) -> None:
    tree(
        tmp_path,
        "b/z.txt",
        "b.txt",
        "b-1/a.txt",
        "b0.txt",
        "a/x/y/z.md",
        "ä.txt",
        "new\nline.txt",
        "*?[a].txt",
    )
    listed = names(Source(str(tmp_path)))
    assert listed == sorted(listed)
    assert len(listed) == 8


def test_entry_says_where_and_how_large(tmp_path: Path) -> None:
    tree(tmp_path, "a/b.txt")
    (item,) = list_files(Source(str(tmp_path)))
    status = (tmp_path / "a/b.txt").stat()
    assert item == FileEntry(str(tmp_path / "a/b.txt"), "a/b.txt", status.st_size, status.st_mtime_ns)


def test_hidden_files_and_machinery_are_passed_over(tmp_path: Path) -> None:
    tree(
        tmp_path, ".hidden.txt", ".git/config", "__pycache__/x.py", "node_modules/m/a.md", "c.duckdb", "a.txt"
    )
    tree(tmp_path, "c.duckdb.wal")
    assert names(Source(str(tmp_path))) == ["a.txt"]
    assert names(Source(str(tmp_path / ".git"))) == ["config"]


def test_single_file_is_named_by_its_name(tmp_path: Path) -> None:
    tree(tmp_path, "a/data[1].txt")
    assert names(Source(str(tmp_path / "a/data[1].txt"))) == ["data[1].txt"]
    assert names(Source(f"file://{tmp_path}/a/data%5B1%5D.txt")) == ["data[1].txt"]


def test_path_relative_to_the_working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tree(tmp_path, "a/b.txt")
    monkeypatch.chdir(tmp_path)
    (item,) = list_files(Source("a"))
    assert (item.uri, item.relative) == (str(tmp_path / "a/b.txt"), "b.txt")  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("*.md", ["a.md"]),
        ("**/*.md", ["a.md", "x/b.md", "x/y/c.md"]),
        ("x/*.md", ["b.md"]),
        ("x/**", ["b.md", "y/c.md", "y/d.txt"]),
        ("x/[!z]/?.*", ["y/c.md", "y/d.txt"]),
    ],
)
def test_glob_is_relative_to_its_fixed_part(tmp_path: Path, pattern: str, expected: list[str]) -> None:
    tree(tmp_path, "a.md", "x/b.md", "x/y/c.md", "x/y/d.txt", "x/y/.e.md")
    assert names(Source(f"{tmp_path}/{pattern}")) == expected


@pytest.mark.parametrize(
    ("include", "exclude", "expected"),
    [
        (("*.md",), (), ["a.md", "drafts/c.md", "x/b.md"]),
        ((), ("*.md",), ["x/b.txt"]),
        (("*.md", "*.txt"), ("drafts/",), ["a.md", "x/b.md", "x/b.txt"]),
        (("x",), (), ["x/b.md", "x/b.txt"]),
        (("x/*.md",), (), ["x/b.md"]),
        (("x/b.??",), (), ["x/b.md"]),
        ((), ("**/b.*", "drafts/**"), ["a.md"]),
        (("B.MD",), (), []),
    ],
)
def test_include_and_exclude(
    tmp_path: Path, include: tuple[str, ...], exclude: tuple[str, ...], expected: list[str]
) -> None:
    tree(tmp_path, "a.md", "x/b.md", "x/b.txt", "drafts/c.md")
    assert names(Source(str(tmp_path), include, exclude)) == expected


@pytest.mark.parametrize("path", ["nowhere", "no/*.txt", "file:///no/where", "memory://no/where"])
def test_missing_root_names_source_and_path(tmp_path: Path, path: str) -> None:
    path = path if "://" in path else str(tmp_path / path)
    with pytest.raises(StemmaError, match="'notes'") as caught:
        list_files(Source(path))
    assert path in str(caught.value)


def test_unlistable_root_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        os, "scandir", lambda path: (_ for _ in ()).throw(PermissionError(13, "Permission denied"))
    )
    with pytest.raises(StemmaError, match="Permission denied"):
        list_files(Source(str(tmp_path)))


def test_unreadable_folder_costs_that_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tree(tmp_path, "a/x.txt", "locked/y.txt", "z.txt")
    scandir = os.scandir

    def guarded(path: str):  # type: ignore[no-untyped-def]
        if str(path).endswith("locked"):
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", guarded)
    assert names(Source(str(tmp_path))) == ["a/x.txt", "unreadable folder", "z.txt"]


def test_what_is_no_file_is_reported_and_never_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree(tmp_path, "a.txt", "folder.txt/b.txt")
    os.mkfifo(tmp_path / "fifo.txt")
    monkeypatch.chdir(tmp_path)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("sock.txt")
        assert errors(Source(str(tmp_path))) == {"fifo.txt": "not a file", "sock.txt": "not a file"}
    assert errors(Source(str(tmp_path / "fifo.txt"))) == {"fifo.txt": "not a file"}
    with pytest.raises(OSError, match="not a regular file"):
        open_file(FileEntry(str(tmp_path / "fifo.txt"), "fifo.txt", 0, 0))


def test_symlinks_stay_inside_and_never_loop(tmp_path: Path) -> None:
    tree(tmp_path, "root/a.txt", "root/sub/b.txt", "outside.txt")
    links = {
        "inside.txt": "sub/b.txt",
        "outside.txt": "../outside.txt",
        "self.txt": "self.txt",
        "ping.txt": "pong.txt",
        "pong.txt": "ping.txt",
        "dangling.txt": "nowhere.txt",
        "loop": ".",
        "up": "..",
    }
    for name, target in links.items():
        (tmp_path / "root" / name).symlink_to(target)
    source = Source(str(tmp_path / "root"))
    assert [item.relative for item in list_files(source) if isinstance(item, FileEntry)] == [
        "a.txt",
        "inside.txt",
        "sub/b.txt",
    ]
    assert errors(source) == {
        "outside.txt": "symlink leaves the source",
        "up": "symlink leaves the source",
        "self.txt": "symlink loop",
        "ping.txt": "symlink loop",
        "pong.txt": "symlink loop",
        "dangling.txt": "broken symlink",
        "loop": "symlink not followed",
    }


def test_name_that_is_not_utf8_is_reported_readably(tmp_path: Path) -> None:
    tree(tmp_path, "a.txt")
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/bad_\xff.txt")).write_text("x")
    found = [item for item in list_files(Source(str(tmp_path))) if isinstance(item, ListingError)]
    assert [item.error for item in found] == ["name is not UTF-8"]
    assert found[0].uri.endswith("bad_\\xff.txt")


def test_folders_may_be_nested_deeper_than_python_recurses(tmp_path: Path) -> None:
    path = str(tmp_path)
    for _ in range(1500):
        path += "/d"
        os.mkdir(path)
    with open(path + "/x.txt", "w") as file:
        file.write("x")
    try:
        assert names(Source(str(tmp_path))) == ["d/" * 1500 + "x.txt"]
    finally:
        # pytest would clean up by recursion.
        os.remove(path + "/x.txt")
        for _ in range(1500):
            os.rmdir(path)
            path = os.path.dirname(path)


def test_urls_are_listed_and_read() -> None:
    memory = fsspec.filesystem("memory")
    memory.pipe({"/corpus/b/x.txt": b"x", "/corpus/a.md": b"a", "/corpus/.hidden": b"h", "/other.txt": b"o"})
    try:
        listed = list(list_files(Source("memory://corpus")))
        assert [item.relative for item in listed if isinstance(item, FileEntry)] == ["a.md", "b/x.txt"]
        assert names(Source("memory://corpus/**/*.txt")) == ["b/x.txt"]
        assert names(Source("memory://corpus/a.md")) == ["a.md"]
        assert names(Source("memory://corpus", exclude=("*.md",))) == ["b/x.txt"]
        assert isinstance(listed[1], FileEntry)
        assert listed[1].uri == "memory:///corpus/b/x.txt"
        file, file_hash, found = read_stable(listed[1])
        assert (file.read(), file_hash, found.size) == (b"x", hashlib.sha256(b"x").digest()[:16], 1)
    finally:
        memory.rm("/corpus", recursive=True)


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("zip://*.csv::memory://chained/a.zip", {"y.csv": b"y"}),
        ("zip://d/x.csv::memory://chained/a.zip", {"x.csv": b"x"}),
        ("zip://::memory://chained/a.zip", {"d/x.csv": b"x", "y.csv": b"y"}),
        ("simplecache::memory://chained/t.txt", {"t.txt": b"t"}),
    ],
)
def test_chained_urls_are_listed_and_read(path: str, expected: dict[str, bytes]) -> None:
    memory = fsspec.filesystem("memory")
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("d/x.csv", "x")
        archive.writestr("y.csv", "y")
    memory.pipe({"/chained/a.zip": packed.getvalue(), "/chained/t.txt": b"t"})
    try:
        entries = [item for item in list_files(Source(path)) if isinstance(item, FileEntry)]
        assert {item.relative: read_stable(item)[0].read() for item in entries} == expected
    finally:
        memory.rm("/chained", recursive=True)


@pytest.fixture
def web(tmp_path: Path) -> Iterator[str]:
    """The address at which a folder is served."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            pass

    tree(tmp_path, "a.txt", "sub/b.md", ".hidden.txt")
    handler = functools.partial(Quiet, directory=str(tmp_path))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_web_addresses_are_listed_and_read(tmp_path: Path, web: str) -> None:
    pytest.importorskip("aiohttp")
    (item,) = list_files(Source(f"{web}/a.txt"))
    assert isinstance(item, FileEntry)
    seconds = int((tmp_path / "a.txt").stat().st_mtime)
    assert item == FileEntry(f"{web}/a.txt", "a.txt", 5, seconds * 10**9)
    file, file_hash, found = read_stable(item)
    assert (file.read(), file_hash, found) == (b"a.txt", hashlib.sha256(b"a.txt").digest()[:16], item)
    assert names(Source(f"{web}/*.txt")) == ["a.txt"]
    assert names(Source(f"{web}/")) == ["a.txt", "sub/b.md"]
    assert names(Source(f"{web}/sub/")) == ["b.md"]
    for missing in ("nowhere.txt", "nowhere/"):
        with pytest.raises(StemmaError, match="'notes'"):
            list_files(Source(f"{web}/{missing}"))


def test_unknown_scheme_is_an_error() -> None:
    with pytest.raises(StemmaError, match="nosuch"):
        list_files(Source("nosuch://x/y"))


# ---- reading


@pytest.mark.parametrize("size", [0, 5, sources.SMALL_FILE, sources.SMALL_FILE + 1])
def test_hash_is_of_the_bytes_as_stored(tmp_path: Path, size: int) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b"x" * size)
    stale = FileEntry(str(path), "a.txt", 1, 1)
    file, file_hash, found = read_stable(stale)
    with file:
        assert file.read() == b"x" * size
        assert file.seek(0) == 0
    assert file_hash == hashlib.sha256(b"x" * size).digest()[:16]
    assert found == entry(path)


class Restless(io.FileIO):
    """A file that somebody writes to each time it is read, as often as `writes` says."""

    writes = 0

    def read(self, size: int = -1) -> bytes:  # type: ignore[override]
        data = super().read(size)
        if Restless.writes:
            Restless.writes -= 1
            with open(str(self.path), "ab") as file:
                file.write(b"!")
        return data

    path: Path


@pytest.mark.parametrize("size", [10, sources.SMALL_FILE + 10])
def test_file_that_changes_is_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b"x" * size)

    def restless(_: FileEntry) -> Restless:
        file = Restless(path)
        file.path = path
        return file

    monkeypatch.setattr(sources, "open_file", restless)
    monkeypatch.setattr(sources, "_PAUSE_SECONDS", 0)
    Restless.writes = 2
    file, file_hash, _ = read_stable(entry(path))
    assert file_hash == hashlib.sha256(path.read_bytes()).digest()[:16]
    assert file.read() == path.read_bytes()
    Restless.writes = 1000
    with pytest.raises(RetryableError, match="changed while being read"):
        read_stable(entry(path))


def test_large_file_that_changes_after_it_was_hashed_is_put_off(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    line = b'{"text": "' + b"x" * 1000 + b'"}\n'
    path.write_bytes(line * 10_000)
    file, _, _ = read_stable(entry(path))
    records = read(file, "a.jsonl")
    assert isinstance(next(records), Record)
    with path.open("r+b") as other:
        other.truncate(5_000_000)
    with pytest.raises(RetryableError, match="changed"):
        list(records)


def test_file_that_is_nothing_but_a_hole_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "sparse.txt"
    with path.open("wb") as file:
        file.truncate(sources.SMALL_FILE * 4)
    if path.stat().st_blocks:
        pytest.skip("this file system has no holes")
    with pytest.raises(OSError, match="hole"):
        read_stable(entry(path))


def test_file_that_is_gone_is_an_os_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_stable(FileEntry(str(tmp_path / "gone.txt"), "gone.txt", 0, 0))


# ---- the sample corpus


def test_sample_corpus_is_read_without_errors() -> None:
    corpus = Path(__file__).resolve().parents[1] / "sample/corpus"
    kinds: dict[str, int] = {}
    for item in list_files(Source(str(corpus))):
        assert isinstance(item, FileEntry), item
        file, _, found = read_stable(item)
        for record in read(file, found.relative):
            assert isinstance(record, Record), record
            kinds[record.media_type] = kinds.get(record.media_type, 0) + 1
    assert sum(kinds.values()) == 248
    assert set(kinds) == {
        "text/plain",
        "text/x-rst",
        "text/html",
        "text/markdown",
        "text/x-texinfo",
        "application/pdf",
    }


def test_the_corpus_is_no_source_of_itself(tmp_path: Path) -> None:
    tree(tmp_path, "notes.md", "out/corpus.db", "out/corpus.db-work/memo/clean/0/1.arrow", "other/corpus.db")
    own = (tmp_path / "out" / "corpus.db", tmp_path / "out" / "corpus.db-work")
    found = [item.relative for item in list_files(Source(str(tmp_path)), own) if isinstance(item, FileEntry)]
    assert found == ["notes.md", "other/corpus.db"]
