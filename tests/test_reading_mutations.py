"""Damage of any kind: whatever a few changed bytes make of a file, reading it ends in records and errors."""

import gzip
import io
import random
import tarfile
import zlib

import brotli
import pyarrow.parquet as pq
import pytest
from harness import slow
from test_reading_archives import office, tarred, zipped, zstd
from test_reading_formats import BODY, MAIL, TABLE, arrow, chunked, mbox, multipart, page

from stemma.reading import ReadError, ReadOptions, Record, read

ROWS = b'{"id": "a", "text": "one", "date": "2024-05-06"}\n' * 5
PARTS = (
    "Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\nGr=C3=B6",
    "Content-Type: application/pdf; name*=utf-8''%C3%BC.pdf\r\nContent-Transfer-Encoding: base64\r\n\r\nAAAABBBB=",
    "Content-Type: text/html\r\n\r\n<p>",
)


def parquet() -> bytes:
    sink = io.BytesIO()
    pq.write_table(TABLE, sink, compression="zstd")
    return sink.getvalue()


FILES = {
    "deflated.zip": zipped(
        ("a.txt", b"first " * 50), ("b.jsonl", ROWS), ("c.csv.gz", gzip.compress(b"id,text\n1,c\n"))
    ),
    "stored.zip": zipped(("a.txt", b"first " * 50), ("b.jsonl", ROWS), method=0),
    "a.docx": office("word/document.xml"),
    "pax.tar": tarred(("a" * 120 + "/b", b"first " * 50), ("b.jsonl", ROWS)),
    "gnu.tar": tarred(("a" * 120 + "/b", b"first " * 50), form=tarfile.GNU_FORMAT),
    "a.warc": page(
        "http://a/1", chunked(gzip.compress(BODY)), Transfer_Encoding="chunked", Content_Encoding="gzip"
    )
    + page("http://a/2", brotli.compress(BODY), Content_Encoding="br")
    + page("http://a/3", zlib.compress(BODY), Content_Encoding="deflate"),
    "a.eml": multipart(*PARTS),
    "a.mbox": mbox(MAIL, multipart(*PARTS), MAIL),
    "zstd.arrow": arrow(TABLE, compression="zstd"),
    "plain.arrow": arrow(TABLE),
    "lz4.arrows": arrow(TABLE, stream=True, compression="lz4"),
    "a.parquet": parquet(),
    "a.jsonl.zst": zstd(ROWS),
    "a.jsonl.gz": gzip.compress(ROWS),
    "a.json": b"[" + ROWS.replace(b"\n", b",") + b"{}]",
    "a.csv": b'id,text,date\n1,"one, ""two""",2024-05-06\n2,three,\n' * 5,
    "a.md": b"---\ntitle: T\ndate: 2024-05-06\n---\n# H\n",
}


def mutated(data: bytes, chance: random.Random) -> bytes:
    """Change a few bytes, cut some out, or repeat some elsewhere."""
    result = bytearray(data)
    for _ in range(chance.choice((1, 1, 2, 5, 20))):
        at = chance.randrange(len(result) or 1)
        kind = chance.randrange(5)
        if kind == 0:
            result[at : at + 1] = bytes([chance.choice((0, 10, 45, 61, 255, chance.randrange(256)))])
        elif kind == 1:
            result[at : at + 1] = bytes(byte ^ (1 << chance.randrange(8)) for byte in result[at : at + 1])
        elif kind == 2:
            del result[at : at + chance.randrange(1, 20)]
        elif kind == 3:
            start = chance.randrange(len(result) or 1)
            result[at:at] = result[start : start + chance.randrange(40)]
        else:
            result[at : at + 4] = chance.choice((b"\xff\xff\xff\xff", bytes(4), b"\xff\xff\xff\x7f"))
    return bytes(result)


@pytest.mark.parametrize("rounds", [150, *slow(20_000)])
@pytest.mark.parametrize("name", FILES)
def test_damage_ends_in_records_and_errors(name: str, rounds: int) -> None:
    chance = random.Random(name)
    options = ReadOptions(fields=(("kind", "title"),), labels=(("a", 1),))
    for number in range(rounds):
        data = mutated(FILES[name], chance)
        try:
            found = list(read(io.BytesIO(data), name, options))
        except Exception as error:
            raise AssertionError(f"round {number}: {data!r}") from error
        check_found(found, data)


def check_found(found: list[Record | ReadError], data: bytes) -> None:
    """See that records have keys of their own, and all that is shown of them and of errors can be."""
    keys = [result.record for result in found if isinstance(result, Record)]
    assert len(keys) == len(set(keys)), data
    for result in found:
        shown = [result.record or ""]
        shown += (
            [result.content or "", repr(result)]
            if isinstance(result, Record)
            else [result.error, result.detail]
        )
        "".join(shown).encode()
        assert isinstance(result, Record) or "\n" not in result.detail, data
