"""Archives and Office documents: members as documents, limits before unpacking, nothing on disk."""

import bz2
import datetime
import gzip
import io
import json
import stat
import struct
import tarfile
import tracemalloc
import zipfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stemma.reading import ReadError, ReadOptions, Record, read
from stemma.reading.compression import FREE_BYTES

OPEN_XML = "application/vnd.openxmlformats-officedocument."


def results(data: bytes, name: str, **options) -> list[Record | ReadError]:
    return list(read(io.BytesIO(data), name, ReadOptions(**options)))


def outline(found: list[Record | ReadError]) -> list[tuple[str | None, str | None]]:
    return [(r.record, r.content if isinstance(r, Record) else r.error) for r in found]


def zipped(*members: tuple[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, data in members:
            archive.writestr(zipfile.ZipInfo(name) if method == zipfile.ZIP_STORED else name, data)
    return buffer.getvalue()


def tarred(*members: tuple[str, bytes], form: int = tarfile.PAX_FORMAT) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form) as archive:
        for name, data in members:
            header = tarfile.TarInfo(name)
            header.size = len(data)
            archive.addfile(header, io.BytesIO(data))
    return buffer.getvalue()


def zstd(data: bytes) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(data)
    return sink.getvalue().to_pybytes()


# ---- Zstandard (the tests of the other kinds are in test_reading.py)


def test_zstandard_frame_after_frame() -> None:
    text = "Nebel über den Wäldern. " * 20_000
    (record,) = results(zstd(text.encode()), "a.md.zst")
    assert isinstance(record, Record)
    assert (record.media_type, record.content, record.byte_end) == ("text/markdown", text, len(text.encode()))
    skippable = b"\x50\x2a\x4d\x18" + struct.pack("<I", 5) + b"notes"
    assert outline(results(zstd(b"first ") + skippable + zstd(b"second"), "a.txt.zst")) == [
        (None, "first second")
    ]
    assert outline(results(zstd(b""), "a.txt.zst")) == [(None, "")]
    assert outline(results(zstd(b'{"text": "a"}\n{"text": "b"}\n'), "a.jsonl.zst")) == [
        ("0", "a"),
        ("1", "b"),
    ]


@pytest.mark.parametrize(
    ("damage", "expected"),
    [
        (lambda data: data[:-20], "truncated zstd"),
        (lambda data: data + b"garbage", "damaged zstd"),
        (lambda data: data[:-4] + b"xxxx", "damaged zstd"),
    ],
)
def test_zstandard_that_is_truncated_or_damaged(damage, expected: str) -> None:
    rows = b"".join(b'{"id": %d, "text": "row"}\n' % number for number in range(3000))
    *records, last = results(damage(zstd(rows)), "a.jsonl.zst")
    assert all(isinstance(record, Record) for record in records)
    assert isinstance(last, ReadError)
    assert (last.record, last.error) == (None, expected)


def test_zstandard_bomb_and_window_are_bounded() -> None:
    bomb = zstd(b'{"text": "' + b" " * (8 * FREE_BYTES))
    tracemalloc.start()
    found = results(bomb, "bomb.jsonl.zst")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert outline(found) == [(None, "too large")]
    assert peak < 5 * FREE_BYTES
    # A frame that claims a window of 2 GiB: magic, a header without a content size, window descriptor 2^31.
    (refused,) = results(b"\x28\xb5\x2f\xfd\x00\xa8" + bytes(100), "a.txt.zst")
    assert isinstance(refused, ReadError)
    assert refused.error == "damaged zstd"


def test_error_of_the_file_itself_passes_through_zstandard() -> None:
    class Failing(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            if self.tell() > 70_000:
                raise ConnectionResetError("gone")
            return super().read(size)

    rows = "".join(json.dumps({"text": str(hash((number, "x")))}) + "\n" for number in range(60_000))
    with pytest.raises(ConnectionResetError):
        list(read(Failing(zstd(rows.encode())), "a.jsonl.zst"))


# ---- members


@pytest.mark.parametrize(
    ("name", "pack"),
    [
        ("a.zip", zipped),
        ("a.zip", lambda *members: zipped(*members, method=zipfile.ZIP_STORED)),
        ("a", zipped),
        ("a.zip.gz", lambda *members: gzip.compress(zipped(*members))),
        ("a.tar", tarred),
        ("a.tar", lambda *members: tarred(*members, form=tarfile.GNU_FORMAT)),
        ("a.tgz", lambda *members: gzip.compress(tarred(*members))),
        ("a.tar.bz2", lambda *members: bz2.compress(tarred(*members))),
        ("a.tar.zst", lambda *members: zstd(tarred(*members))),
    ],
)
def test_members_are_read_as_files_of_their_own(name: str, pack) -> None:
    rows = b'{"id": "k", "text": "a"}\n{"text": "b"}\nbroken\n'
    long = "x" * 120 + "/" + "y" * 150 + ".txt"
    found = results(
        pack(
            ("docs/2024-05-06-a.md", b"---\ntitle: T\n---\nbody"),
            ("docs/rows.jsonl", rows),
            ("page", b"<html><p>x"),
            ("rows.csv.gz", gzip.compress(b"id,text\n1,c\n")),
            ("./empty.txt", b""),
            (long, b"long"),
            ("Größe.txt", b"name"),
            (".hidden/x.txt", b"hidden"),
            ("__MACOSX/._a", b"hidden"),
            ("program", b"\x7fELF" + bytes(100)),
        ),
        name,
    )
    assert outline(found) == [
        ("docs/2024-05-06-a.md", "---\ntitle: T\n---\nbody"),
        ("docs/rows.jsonl#k", "a"),
        ("docs/rows.jsonl#1", "b"),
        ("docs/rows.jsonl#2", "invalid JSON"),
        ("page", "<html><p>x"),
        ("rows.csv.gz#1", "c"),
        ("empty.txt", ""),
        (long, "long"),
        ("Größe.txt", "name"),
        ("program", "unsupported format"),
    ]
    first, second = found[:2]
    assert isinstance(first, Record)
    assert (first.title, first.document_date, first.date_from) == ("T", datetime.date(2024, 5, 6), "path")
    assert rows[second.byte_start : second.byte_end] == b'{"id": "k", "text": "a"}'


def test_parquet_and_arrow_members() -> None:
    table = pa.table({"text": ["a", "b"]})
    parquet, arrow = io.BytesIO(), io.BytesIO()
    pq.write_table(table, parquet)
    with pa.ipc.new_file(arrow, table.schema) as writer:
        writer.write_table(table)
    found = results(zipped(("a.parquet", parquet.getvalue()), ("b.arrow", arrow.getvalue())), "a.zip")
    assert outline(found) == [
        ("a.parquet#0", "a"),
        ("a.parquet#1", "b"),
        ("b.arrow#0", "a"),
        ("b.arrow#1", "b"),
    ]


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_no_two_documents_of_an_archive_share_a_key() -> None:
    lines = b'{"text": "0"}\n{"text": "1"}\n{"text": "2"}\n'
    found = results(
        zipped(("a.jsonl", lines), ("a.jsonl#2", b"whole"), ("a.jsonl", b"{}"), ("b", b"x"), ("b", b"y")), "z"
    )
    keys = [r.record for r in found if isinstance(r, Record)]
    assert len(keys) == len(set(keys)) == 6
    assert keys[-2:] == ["b", "b#2"]


@pytest.mark.parametrize("pack", [zipped, tarred])
def test_paths_that_leave_the_archive_cost_the_member(pack, tmp_path: Path) -> None:
    names = (
        "../evil.txt",
        "/tmp/evil.txt",
        "a/../../evil.txt",
        "..\\evil.txt",
        "C:\\evil.txt",
        "\\\\host\\evil",
    )
    found = results(pack(*((name, b"x") for name in names), ("ok.txt", b"fine")), "a")
    assert [r.error for r in found if isinstance(r, ReadError)] == ["path leaves the archive"] * len(names)
    assert outline(found)[-1] == ("ok.txt", "fine")
    assert all("evil" in (r.record or "") for r in found[:-1])


def test_links_devices_and_encrypted_members_cost_the_member() -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, mode in (("link", stat.S_IFLNK), ("fifo", stat.S_IFIFO)):
            info = zipfile.ZipInfo(name)
            info.external_attr = (mode | 0o644) << 16
            archive.writestr(info, "/etc/passwd")
        archive.writestr("secret.txt", "x")
        archive.writestr("ok.txt", "fine")
    data = bytearray(buffer.getvalue())
    at = data.rindex(b"secret.txt") - 46
    data[at + 8] |= 1
    found = results(bytes(data), "a.zip")
    assert outline(found) == [
        ("link", "symlink not followed"),
        ("fifo", "not a file"),
        ("secret.txt", "encrypted"),
        ("ok.txt", "fine"),
    ]
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, kind in (
            ("s", tarfile.SYMTYPE),
            ("h", tarfile.LNKTYPE),
            ("f", tarfile.FIFOTYPE),
            ("d", tarfile.CHRTYPE),
        ):
            header = tarfile.TarInfo(name)
            header.type, header.linkname = kind, "/etc/passwd"
            archive.addfile(header)
    errors = ["symlink not followed", "symlink not followed", "not a file", "not a file"]
    assert outline(results(buffer.getvalue(), "a.tar")) == list(zip("shfd", errors, strict=True))


def test_archives_inside_archives_are_refused() -> None:
    inner = zipped(("a.txt", b"x"))
    found = results(
        zipped(
            ("in.zip", inner),
            ("in.tar", tarred(("a", b"x"))),
            ("in.tar.gz", gzip.compress(tarred(("a", b"x")))),
            ("b.txt", b"y"),
        ),
        "a.zip",
    )
    assert outline(found) == [
        *((name, "unsupported format") for name in ("in.zip", "in.tar", "in.tar.gz")),
        ("b.txt", "y"),
    ]
    assert outline(results(tarred(("in.zip", inner)), "a.tar")) == [("in.zip", "unsupported format")]


def test_other_zip_methods_cost_the_member() -> None:
    for method in (zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA):
        assert outline(results(zipped(("a.txt", b"x" * 100), method=method), "a.zip")) == [
            ("a.txt", "unsupported format")
        ]


# ---- limits


def test_bomb_costs_the_member() -> None:
    found = results(zipped(("bomb.txt", b"0" * (2 * FREE_BYTES)), ("ok.txt", b"fine")), "a.zip")
    assert outline(found) == [("bomb.txt", "too large"), ("ok.txt", "fine")]


def test_members_that_expand_too_far_together_are_refused() -> None:
    members = [(f"{number}.txt", b" " * (FREE_BYTES // 2)) for number in range(20)]
    assert outline(results(zipped(*members), "a.zip")) == [(None, "too large")]


def test_overlapping_members_are_refused_or_bounded() -> None:
    """Many entries of the directory that lead to the same bytes."""
    data = zipped(("a.txt", bytes(FREE_BYTES - 1)))
    local, directory = (
        data[: data.index(b"PK\x01\x02")],
        data[data.index(b"PK\x01\x02") : data.index(b"PK\x05\x06")],
    )
    end = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 500, 500, len(directory) * 500, len(local), 0)
    assert outline(results(local + directory * 500 + end, "a.zip")) == [(None, "too large")]


def test_compressed_members_share_one_budget() -> None:
    member = gzip.compress(b'{"text": "' + b" " * (FREE_BYTES // 2 - 100) + b'"}')
    found = results(zipped(*((f"{number}.jsonl.gz", member) for number in range(5))), "a.zip")
    assert [isinstance(r, Record) for r in found] == [True, True, False, False, False][: len(found)]
    assert [r.error for r in found if isinstance(r, ReadError)] == ["too large"] * 3


def test_compressed_members_of_a_compressed_tar_share_one_budget() -> None:
    member = gzip.compress(b'{"text": "' + b" " * (FREE_BYTES // 2 - 100) + b'"}')
    found = results(gzip.compress(tarred(*((f"{number}.jsonl.gz", member) for number in range(4)))), "a.tgz")
    assert [r.error if isinstance(r, ReadError) else "" for r in found] == ["", "", "too large", "too large"]


def test_too_many_members_are_refused_before_they_are_read() -> None:
    names = [(f"{number}.txt", b"x") for number in range(101)]
    assert outline(results(zipped(*names), "a.zip", max_members=100)) == [(None, "too large")]
    found = results(tarred(*names), "a.tar", max_members=100)
    assert [r.record for r in found if isinstance(r, ReadError)] == [None]
    # A directory of a gigabyte would fill the memory before its entries could be counted.
    end = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 65535, 65535, 2**30, 4, 0)
    (refused,) = results(b"PK\x03\x04" + end, "a.zip")
    assert isinstance(refused, ReadError)
    assert (refused.error, "1073741824 bytes" in refused.detail) == ("too large", True)


@pytest.mark.parametrize("cut", [10, 60, 100, 600])
def test_truncated_archives(cut: int) -> None:
    data = zipped(("a.txt", b"first " * 50), ("b.txt", b"second"))
    assert outline(results(data[:-cut] if cut < len(data) else data[:30], "a.zip")) == [(None, "damaged zip")]
    data = tarred(("a.txt", b"first " * 500), ("b.txt", b"second " * 500))[: 7596 - cut]
    found = results(data, "a.tar")
    assert [r.record for r in found if isinstance(r, Record)] == ["a.txt"]
    assert [r.error for r in found if isinstance(r, ReadError)] in (["truncated tar"], ["truncated tar"] * 2)


def test_damaged_members_cost_themselves() -> None:
    data = bytearray(zipped(("a.txt", b"first " * 50), ("b.txt", b"second"), method=zipfile.ZIP_STORED))
    data[data.index(b"first") + 3] ^= 0xFF
    assert outline(results(bytes(data), "a.zip")) == [("a.txt", "damaged zip"), ("b.txt", "second")]
    damaged = bytearray(tarred(("a.txt", b"first"), ("b.txt", b"second")))
    damaged[1024 + 10] ^= 0xFF
    assert outline(results(bytes(damaged), "a.tar")) == [("a.txt", "first"), (None, "damaged tar")]


def test_tar_header_without_end_is_bounded() -> None:
    header = tarfile.TarInfo("pax")
    header.type, header.size = tarfile.XHDTYPE, 2**33
    found = results(header.tobuf(tarfile.GNU_FORMAT) + bytes(2048), "a.tar")
    assert outline(found) == [(None, "too large")]


# ---- documents that are archives


def office(part: str) -> bytes:
    return zipped(("[Content_Types].xml", b"<Types/>"), ("_rels/.rels", b"<R/>"), (part, b"<document/>"))


@pytest.mark.parametrize(
    ("part", "kind", "media_type"),
    [
        ("word/document.xml", "docx", f"{OPEN_XML}wordprocessingml.document"),
        ("ppt/presentation.xml", "pptx", f"{OPEN_XML}presentationml.presentation"),
        ("xl/workbook.xml", "xlsx", f"{OPEN_XML}spreadsheetml.sheet"),
    ],
)
def test_office_documents_are_handed_on_as_bytes(part: str, kind: str, media_type: str) -> None:
    data = office(part)
    for name, options in ((f"2024-05-06 a.{kind}", {}), ("no-extension", {}), ("a.zip", {"format": kind})):
        (record,) = results(data, name, **options)
        assert isinstance(record, Record)
        assert (record.record, record.media_type, record.content, record.content_bytes) == (
            None,
            media_type,
            None,
            data,
        )
        assert (record.byte_start, record.byte_end) == (0, len(data))
    inside = results(zipped((f"docs/a.{kind}", data), ("b.txt", b"x")), "a.zip")
    assert [(r.record, r.media_type) for r in inside if isinstance(r, Record)] == [
        (f"docs/a.{kind}", media_type),
        ("b.txt", "text/plain"),
    ]
    (refused,) = results(data, "a", format="text")
    assert isinstance(refused, ReadError)
    assert refused.error == "unsupported format"


def test_epub_is_one_document_and_opendocument_is_refused() -> None:
    epub = zipped(("mimetype", b"application/epub+zip"), ("OEBPS/a.xhtml", b"<html>x"))
    (record,) = results(epub, "a.epub")
    assert isinstance(record, Record)
    assert (record.media_type, record.content_bytes) == ("application/epub+zip", epub)
    odt = zipped(("mimetype", b"application/vnd.oasis.opendocument.text"), ("content.xml", b"<x/>"))
    assert outline(results(odt, "a.odt")) == [(None, "unsupported format")]
    assert outline(results(office("visio/document.xml"), "a.vsdx")) == [(None, "unsupported format")]


def test_office_bomb_is_refused_by_what_it_declares() -> None:
    bomb = zipped(("[Content_Types].xml", b"<Types/>"), ("word/document.xml", b" " * (3 * FREE_BYTES)))
    assert outline(results(bomb, "a.docx")) == [(None, "too large")]


def test_packages_are_no_archives_of_documents() -> None:
    assert outline(results(zipped(("a.txt", b"x")), "lib/a.JAR")) == [(None, "unsupported format")]
    assert outline(results(zipped(("a.whl", zipped(("a.txt", b"x"))), ("b.txt", b"y")), "a.zip")) == [
        ("a.whl", "unsupported format"),
        ("b.txt", "y"),
    ]


def test_documents_whose_parts_are_not_deflated_are_refused() -> None:
    parts = (("[Content_Types].xml", b"<Types/>"), ("word/document.xml", b"<document/>"))
    assert outline(results(zipped(*parts, method=zipfile.ZIP_BZIP2), "a.docx")) == [
        (None, "unsupported format")
    ]
    book = zipped(("mimetype", b"application/epub+zip"), method=zipfile.ZIP_BZIP2)
    assert outline(results(book, "a.epub")) == [("mimetype", "unsupported format")]


def test_format_of_an_office_document_that_is_none() -> None:
    assert outline(results(b"plain", "a.txt", format="docx")) == [(None, "unsupported format")]
    assert outline(results(zipped(("a.txt", b"x")), "a.zip", format="text")) == [("a.txt", "x")]
