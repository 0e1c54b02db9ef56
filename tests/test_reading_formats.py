"""Arrow, web archives and mail: one document a row, page or message, and damage that costs no more than itself."""

import base64
import datetime
import gzip
import io
import json
import zlib

import brotli
import pyarrow as pa
import pyarrow.feather
import pytest

from stemma.reading import ReadError, ReadOptions, Record, read
from stemma.reading.compression import FREE_BYTES


def results(data: bytes, name: str, **options) -> list[Record | ReadError]:
    return list(read(io.BytesIO(data), name, ReadOptions(**options)))


def only(data: bytes, name: str, **options) -> Record:
    (result,) = results(data, name, **options)
    assert isinstance(result, Record), result
    return result


def outline(found: list[Record | ReadError]) -> list[tuple[str | None, str | None]]:
    return [(r.record, r.content if isinstance(r, Record) else r.error) for r in found]


# ---- Arrow


TABLE = pa.table(
    {
        "id": pa.array([10, 11, 12]),
        "text": pa.array(["a", None, "<p>c</p>"]),
        "title": pa.array(["A", "B", "C"]).dictionary_encode(),
        "published": pa.array([datetime.datetime(2024, 5, 6, 7), None, None], pa.timestamp("ns")),
        "image": pa.array([b"\x00", b"", None]),
    }
)


def arrow(table: pa.Table, *, stream: bool = False, rows: int | None = None, **options) -> bytes:
    sink = io.BytesIO()
    settings = pa.ipc.IpcWriteOptions(**options)
    opened = pa.ipc.new_stream if stream else pa.ipc.new_file
    with opened(sink, table.schema, options=settings) as writer:
        writer.write_table(table, max_chunksize=rows)
    return sink.getvalue()


def feather(table: pa.Table) -> bytes:
    sink = io.BytesIO()
    pyarrow.feather.write_feather(table, sink, compression="zstd")
    return sink.getvalue()


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("a.arrow", arrow(TABLE)),
        ("a.arrows", arrow(TABLE, stream=True)),
        ("no-extension", arrow(TABLE, stream=True)),
        ("a.arrow", arrow(TABLE, rows=1)),
        ("a.arrow", arrow(TABLE, compression="lz4")),
        ("a.arrow.gz", gzip.compress(arrow(TABLE, compression="zstd"))),
        ("a.feather", feather(TABLE)),
    ],
)
def test_arrow_rows(name: str, data: bytes) -> None:
    one, two, three = results(data, name)
    assert isinstance(one, Record)
    assert (one.record, one.content, one.byte_start, one.title) == ("10", "a", None, "A")
    assert (one.document_date, one.date_from) == (datetime.date(2024, 5, 6), "field")
    assert one.metadata == {"id": 10, "title": "A", "published": "2024-05-06T07:00:00"}
    assert (two.record, isinstance(two, ReadError) and two.error) == ("11", "empty text field")
    assert isinstance(three, Record)
    assert three.media_type == "text/html"


def test_arrow_in_many_batches_and_without_rows() -> None:
    table = pa.table({"text": [f"row {number}" for number in range(3000)]})
    found = results(arrow(table, rows=700), "a.arrow")
    assert [(r.record, r.content) for r in found if isinstance(r, Record)] == [
        (str(n), f"row {n}") for n in range(3000)
    ]
    assert results(arrow(table.slice(0, 0)), "a.arrow") == []


def test_arrow_text_that_is_not_utf8_costs_its_row() -> None:
    text = pa.array([b"good", b"\xff\xfe", b"fine"], pa.binary()).view(pa.string())
    assert outline(results(arrow(pa.table({"text": text})), "a.arrow")) == [
        ("0", "good"),
        ("1", "not UTF-8"),
        ("2", "fine"),
    ]


@pytest.mark.parametrize(
    ("table", "expected"),
    [
        (pa.table({"number": [1]}), "missing text field"),
        (pa.table({"text": [1]}), "text field is not text"),
        (pa.Table.from_arrays([pa.array(["a"]), pa.array(["b"])], names=["text", "text"]), None),
    ],
)
def test_arrow_columns(table: pa.Table, expected: str | None) -> None:
    (result,) = results(arrow(table), "a.arrow")
    assert (result.error if isinstance(result, ReadError) else None) == expected


def test_every_truncation_and_many_damages_of_arrow_end_in_rows_or_errors() -> None:
    data = arrow(TABLE, compression="zstd")
    for end in range(8, len(data), 7):
        for result in results(data[:end], "a.arrow"):
            assert isinstance(result, Record) or result.error in (
                "truncated Arrow",
                "damaged Arrow",
                "empty text field",
            )
    for at in range(8, len(data), 3):
        damaged = bytearray(data)
        damaged[at] ^= 0xFF
        results(bytes(damaged), "a.arrow")


def test_arrow_bomb_is_refused_by_what_it_declares() -> None:
    bomb = arrow(pa.table({"text": ["x" * (4 * FREE_BYTES)]}), compression="zstd")
    assert len(bomb) < 100_000
    assert outline(results(bomb, "a.arrow")) == [(None, "too large")]
    liar = bytearray(arrow(pa.table({"text": ["x" * 1000]}), compression="zstd"))
    declared = (1000).to_bytes(8, "little")
    liar[liar.rindex(declared) : liar.rindex(declared) + 8] = (2**45).to_bytes(8, "little")
    assert outline(results(bytes(liar), "a.arrow")) == [(None, "too large")]


def test_arrow_batch_beyond_the_limit_is_too_large() -> None:
    data = arrow(pa.table({"text": ["x" * 1000] * 100}))
    assert outline(results(data, "a.arrow", max_file_bytes=50_000)) == [(None, "too large")]


# ---- WARC


def warc(kind: str, block: bytes, **headers: str) -> bytes:
    given = {"WARC-Type": kind, "WARC-Date": "2024-05-06T07:08:09Z", "Content-Length": str(len(block))}
    if kind == "response":
        given["Content-Type"] = "application/http; msgtype=response"
    given |= {name.replace("_", "-"): value for name, value in headers.items()}
    lines = [f"{name}: {value}" for name, value in given.items() if value]
    return ("WARC/1.0\r\n" + "\r\n".join(lines) + "\r\n\r\n").encode() + block + b"\r\n\r\n"


def http(body: bytes, content_type: str = "text/html", status: str = "200 OK", **headers: str) -> bytes:
    given = {"Content-Type": content_type} | {
        name.replace("_", "-"): value for name, value in headers.items()
    }
    lines = [f"HTTP/1.1 {status}", *(f"{name}: {value}" for name, value in given.items() if value)]
    return ("\r\n".join(lines) + "\r\n\r\n").encode() + body


def page(uri: str, body: bytes = b"<html><p>x", **headers: str) -> bytes:
    return warc("response", http(body, **headers), WARC_Target_URI=uri, WARC_Record_ID="<urn:uuid:1>")


def test_warc_pages_with_places_and_dates() -> None:
    first = page(
        "http://a/1", "<html><p>Größe".encode("iso-8859-1"), content_type="text/html; charset=iso-8859-1"
    )
    second = page("http://a/2", Last_Modified="Tue, 31 Aug 2021 10:00:00 GMT")
    data = (
        warc("warcinfo", b"software: x\r\n")
        + first
        + warc("request", b"GET / HTTP/1.1\r\n\r\n")
        + second
        + first
    )
    for form in (data, gzip.compress(data)):
        one, two, three = results(form, "crawl.warc") if form is data else results(form, "crawl.warc.gz")
        assert isinstance(one, Record)
        assert isinstance(two, Record)
        assert [one.record, two.record, three.record] == ["http://a/1", "http://a/2", "http://a/1#2"]
        assert (one.content, one.encoding, one.media_type) == ("<html><p>Größe", "cp1252", "text/html")
        assert data[one.byte_start : one.byte_end] + b"\r\n\r\n" == first
        assert (one.document_date, one.date_from) == (datetime.date(2024, 5, 6), "warc_date")
        assert (two.document_date, two.date_from) == (datetime.date(2021, 8, 31), "last_modified")
        assert one.metadata["uri"] == "http://a/1"
        assert one.metadata["warc_record_id"] == "urn:uuid:1"


def test_warc_members_compressed_one_by_one() -> None:
    data = b"".join(gzip.compress(page(f"http://a/{number}")) for number in range(3))
    assert [r.record for r in results(data, "a.warc.gz")] == ["http://a/0", "http://a/1", "http://a/2"]


def test_warc_records_that_are_no_documents_are_passed_over() -> None:
    data = b"".join(
        [
            page("http://a/image", b"\x89PNG", content_type="image/png"),
            page("http://a/style", b"p {}", content_type="text/css"),
            page("http://a/missing", status="404 Not Found"),
            page("http://a/moved", status="301 Moved", Location="x"),
            page("http://a/empty", b""),
            warc("response", b"dns", WARC_Target_URI="dns:a", Content_Type="text/dns"),
            warc("revisit", b"", WARC_Target_URI="http://a/again"),
            warc("metadata", b"<html>", WARC_Target_URI="http://a/m", Content_Type="text/html"),
            warc("conversion", "Größe".encode(), WARC_Target_URI="http://a/wet", Content_Type="text/plain"),
            warc("resource", b"%PDF-1.7 x", WARC_Target_URI="http://a/pdf", Content_Type="application/pdf"),
            page("http://a/untyped", content_type=""),
        ]
    )
    found = results(data, "a.warc")
    assert [(r.record, r.media_type) for r in found if isinstance(r, Record)] == [
        ("http://a/wet", "text/plain"),
        ("http://a/pdf", "application/pdf"),
        ("http://a/untyped", "text/html"),
    ]
    assert len(found) == 3


BODY = b"<html><p>" + b"words and more words " * 50


def chunked(body: bytes) -> bytes:
    pieces = [body[at : at + 100] for at in range(0, len(body), 100)]
    return b"".join(b"%x;ext=1\r\n%s\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        ({"Content_Encoding": "gzip"}, gzip.compress(BODY)),
        ({"Content_Encoding": "gzip"}, BODY),
        ({"Content_Encoding": "deflate"}, zlib.compress(BODY)),
        ({"Content_Encoding": "deflate"}, zlib.compress(BODY)[2:-4]),
        ({"Content_Encoding": "br"}, brotli.compress(BODY)),
        ({"Transfer_Encoding": "chunked"}, chunked(BODY)),
        ({"Transfer_Encoding": "chunked"}, BODY),
        ({"Transfer_Encoding": "chunked", "Content_Encoding": "gzip"}, chunked(gzip.compress(BODY))),
    ],
)
def test_warc_pages_are_decoded(headers: dict[str, str], body: bytes) -> None:
    assert only(page("http://a/1", body, **headers), "a.warc").content == BODY.decode()


@pytest.mark.parametrize(
    ("headers", "body", "expected"),
    [
        ({"Content_Encoding": "gzip"}, gzip.compress(BODY)[:-20], "truncated HTTP"),
        ({"Content_Encoding": "gzip"}, gzip.compress(BODY)[:20] + bytes(30), "damaged HTTP"),
        ({"Content_Encoding": "br"}, brotli.compress(BODY)[:-9], "truncated HTTP"),
        ({"Content_Encoding": "br"}, b"\xff\xff\xff\xffgarbage", "damaged HTTP"),
        ({"Content_Encoding": "zstd"}, b"x", "unsupported format"),
        ({"Content_Encoding": ", ".join(["gzip"] * 50)}, b"x", "unsupported format"),
        ({"Content_Encoding": "gzip"}, gzip.compress(bytes(2 * FREE_BYTES)), "too large"),
        ({"Content_Encoding": "br"}, brotli.compress(bytes(2 * FREE_BYTES)), "too large"),
        ({"Transfer_Encoding": "chunked"}, chunked(BODY)[:-200], "truncated HTTP"),
        ({"content_type": "application/pdf"}, b"no pdf", "unsupported format"),
    ],
)
def test_warc_damage_inside_a_record_costs_that_record(
    headers: dict[str, str], body: bytes, expected: str
) -> None:
    data = page("http://a/0") + page("http://a/1", body, **headers) + page("http://a/2")
    assert outline(results(data, "a.warc")) == [
        ("http://a/0", "<html><p>x"),
        ("http://a/1", expected),
        ("http://a/2", "<html><p>x"),
    ]


def test_warc_damage_of_a_frame_costs_the_rest() -> None:
    good = page("http://a/0")
    for bad, expected in (
        (page("http://a/1")[:-30], "truncated WARC"),
        (page("http://a/1")[:50], "truncated WARC"),
        (b"no record\r\n", "damaged WARC"),
        (b"WARC/1.0\r\nWARC-Type: response\r\n\r\n", "damaged WARC"),
        (b"WARC/1.0\r\n" + b"a: b\r\n" * 2000, "damaged WARC"),
        (
            warc("response", b"x").replace(b"Content-Length: 1", b"Content-Length: 99999999999999999"),
            "truncated WARC",
        ),
    ):
        assert outline(results(good + bad, "a.warc")) == [("http://a/0", "<html><p>x"), (None, expected)]


def test_warc_record_beyond_the_limit_is_passed_over() -> None:
    data = page("http://a/1", b"<html>" + b"x" * 5000) + page("http://a/2")
    assert outline(results(data, "a.warc", max_record_bytes=2000)) == [
        ("http://a/1", "too large"),
        ("http://a/2", "<html><p>x"),
    ]


# ---- mail


MAIL = """\
From: =?utf-8?q?J=C3=BCrgen?= <j@example.org>
To: list@example.org
Subject: =?iso-8859-1?q?Gr=F6=DFe?=
 continued
Date: Tue, 31 Aug 2021 23:30:00 -0700
Message-ID: <1@example.org>
List-Id: <list.example.org>
Content-Type: text/plain; charset=iso-8859-1
Content-Transfer-Encoding: 8bit

Größe, und
Fr\xfcchte.
""".encode("iso-8859-1")


def multipart(*parts: str, kind: str = "mixed") -> bytes:
    body = "".join(f"--b\r\n{part}\r\n" for part in parts)
    head = "From: a@b\r\nSubject: s\r\nDate: Tue, 31 Aug 2021 10:00:00 +0000\r\n"
    head += f"Content-Type: multipart/{kind}; boundary=b\r\n"
    return f"{head}\r\npreamble\r\n{body}--b--\r\nepilogue\r\n".encode()


def test_mail_is_one_document() -> None:
    for name in ("a.eml", "no-extension"):
        record = only(MAIL, name)
        assert (record.record, record.byte_start, record.byte_end) == (None, 0, len(MAIL))
        assert (record.content, record.media_type, record.encoding) == (
            "Größe, und\nFrüchte.\n",
            "text/plain",
            "cp1252",
        )
        assert (record.title, record.document_date, record.date_from) == (
            "Größe continued",
            datetime.date(2021, 8, 31),
            "header",
        )
        assert record.metadata == {
            "from": "Jürgen <j@example.org>",
            "to": "list@example.org",
            "list_id": "<list.example.org>",
            "date": "Tue, 31 Aug 2021 23:30:00 -0700",
            "message_id": "1@example.org",
        }


@pytest.mark.parametrize(
    ("charset", "subject", "title"),
    [
        ("koi8-r", "Тема".encode("koi8-r"), "Тема"),
        ("us-ascii", "Größe".encode(), "Größe"),
        ("us-ascii", "Größe".encode("cp1252"), "Größe"),
        ("utf-8", b"=?koi8-r?q?=F4=C5=CD=C1?= and =?utf-8?b?R3LDtsOfZQ==?=", "Тема and Größe"),
    ],
)
def test_titles_of_mails_in_raw_bytes(charset: str, subject: bytes, title: str) -> None:
    data = b"Subject: " + subject + b"\nContent-Type: text/plain; charset=" + charset.encode() + b"\n\nx"
    assert only(data, "a.eml").title == title


def test_mail_without_a_date_has_that_of_its_path() -> None:
    record = only(b"Subject: x\nDate: soon\n\ntext", "2024-05-06.eml")
    assert (record.document_date, record.date_from) == (datetime.date(2024, 5, 6), "path")


def test_plain_text_that_begins_like_a_header_is_no_mail() -> None:
    assert only(b"From: me\n\nThis is a letter.", "letter").media_type == "text/plain"
    assert only(b"From: me\n\nThis is a letter.", "letter").content == "From: me\n\nThis is a letter."
    letter = b"From: me\nDate: 1 May 2020\nSubject: hello\n\nThis is a letter."
    assert only(letter, "letter.txt").content == letter.decode()
    assert only(b"A letter\n\nSubject: to change.", "letter.eml").content == "A letter\n\nSubject: to change."
    assert only(b"A letter\n\nSubject: to change.", "letter.eml").media_type == "text/plain"


def test_mail_named_as_text_is_mail() -> None:
    named, mail = only(MAIL, "a.txt"), only(MAIL, "a.eml")
    assert (named.content, named.title) == (mail.content, mail.title)


def test_json_text_named_as_lines_is_read_whole() -> None:
    rows = [{"id": "a", "text": "one"}, {"id": "b", "text": "two"}]
    texts = [json.dumps(rows, indent=2), json.dumps(rows), "[" + ",\n".join(map(json.dumps, rows)) + "]"]
    texts += ["\n".join(json.dumps(row, indent=2) for row in rows)]
    for text in texts:
        found = results(text.encode(), "a.jsonl")
        assert outline(found) == [("a", "one"), ("b", "two")]
    (alone,) = results(json.dumps(rows[0], indent=1).encode(), "a.jsonl")
    assert isinstance(alone, Record)
    assert alone.content == "one"


def test_lines_stay_lines_whatever_the_first_one_is() -> None:
    for first in (b"[1, 2]", b'{"id": "a",', b'{"text": "cut', b'{"text": "a,', b"{}"):
        bad, good = results(first + b'\n{"id": "b", "text": "two"}\n', "a.jsonl")
        assert isinstance(bad, ReadError)
        assert outline([good]) == [("b", "two")]


def test_table_without_tabs_named_tsv_is_sniffed() -> None:
    for delimiter in ",;|\t":
        data = f"id{delimiter}text\na{delimiter}one\nb{delimiter}two\n".encode()
        assert outline(results(data, "a.tsv")) == [("a", "one"), ("b", "two")]
    (row,) = results(
        b"id\ttext, and more, text\na\tone, two, three\n", "a.tsv", text_field="text, and more, text"
    )
    assert outline([row]) == [("a", "one, two, three")]


def test_plain_parts_win_over_html_and_attachments_are_listed() -> None:
    plain = "Content-Type: text/plain; charset=utf-8\r\n\r\nplain text"
    html = "Content-Type: text/html\r\n\r\n<p>html"
    attached = (
        "Content-Type: application/pdf; name=a.pdf\r\nContent-Transfer-Encoding: base64\r\n"
        "Content-Disposition: attachment; filename*=utf-8''%C3%BCber.pdf\r\n\r\n"
        + base64.b64encode(b"x" * 99).decode()
    )
    notes = "Content-Disposition: attachment; filename=notes.txt\r\n\r\nnot the text"
    record = only(multipart(html, plain, attached, notes, plain), "a.eml")
    assert (record.content, record.media_type) == ("plain text\n\nplain text", "text/plain")
    assert record.metadata["attachments"] == [
        {"name": "über.pdf", "media_type": "application/pdf", "bytes": 99},
        {"name": "notes.txt", "media_type": "text/plain", "bytes": 12},
    ]
    assert only(multipart(html, attached), "a.eml").media_type == "text/html"
    assert only(multipart(attached), "a.eml").content == ""


def test_parts_inside_parts_and_transfer_encodings() -> None:
    quoted = "Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n"
    quoted += "Gr=C3=B6=\r\n=C3=9Fe"
    inner = (
        multipart(quoted, kind="alternative")
        .decode()
        .replace("--b", "--c")
        .replace("boundary=b", 'boundary="c"')
    )
    assert only(multipart(inner), "a.eml").content == "Größe"
    for encoded in ("R3LDtsOfZQ==", "R3LDtsOfZQ", "R3LDts\r\nOfZQ==\r\n"):
        part = (
            f"Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: base64\r\n\r\n{encoded}"
        )
        assert (only(multipart(part), "a.eml").content or "").startswith("Größ")


@pytest.mark.parametrize(
    "data",
    [
        b"Subject: x\nContent-Type: text/plain; charset=no-such\n\ntext",
        b"Subject: x\nContent-Type: text/plain; charset=hex\n\ntext",
        b"Subject: =?no-such?q?x?=\n\ntext",
        b"Subject: =?utf-8?b?x?=\nDate: never\n\ntext",
        b"Subject: x\nContent-Transfer-Encoding: x-unknown\n\ntext",
        b"Subject: x\nContent-Type: multipart/mixed\n\ntext",
        b"Subject: x\nContent-Type: ;;;\n\ntext",
        b"Date: Tue, 31 Aug 99999 10:00:00\n\ntext",
        b"\xff\xfe: \xff\nSubject: x\n\ntext",
        b"Content-Type: text/plain; charset*=utf\x008''x; name*=utf\x008''\n\ntext",
    ],
)
def test_odd_headers_never_cost_the_text(data: bytes) -> None:
    assert only(data, "a.eml").content == "text"


def test_charset_that_does_not_fit_is_not_believed() -> None:
    for charset in ("us-ascii", "utf-8", "iso-8859-1", "shift_jis"):
        data = (
            f"Subject: x\nContent-Type: text/plain; charset={charset}\n\n".encode()
            + "Größe für Übung".encode()
        )
        assert only(data, "a.eml").content == "Größe für Übung"


def mbox(*messages: bytes) -> bytes:
    return b"".join(b"From a@b Tue Aug 31 10:00:00 2021\n" + message + b"\n" for message in messages)


def test_mbox_messages_with_exact_bytes() -> None:
    second = b"Subject: two\nMessage-ID: <2@b>\n\n>From here\n>>From there\nFrom the start of a line\n"
    data = mbox(MAIL, second, b"Subject: three\n\nno id\n", MAIL)
    found = results(data, "a.mbox")
    assert [r.record for r in found] == ["1@example.org", "2@b", "2", "1@example.org#2"]
    assert all(isinstance(r, Record) for r in found)
    assert data[found[1].byte_start : found[1].byte_end] == second + b"\n"
    assert found[1].content == "From here\n>From there\nFrom the start of a line\n\n"  # type: ignore[union-attr]
    assert [r.record for r in results(data, "2021-August.txt")] == [r.record for r in found]
    assert [r.record for r in results(gzip.compress(data), "a.mbox.gz")] == [r.record for r in found]


def test_text_that_begins_with_from_is_no_mbox() -> None:
    assert only(b"From the beginning at 10:00 we knew\nthat it was so.", "a.txt").media_type == "text/plain"


def test_mbox_without_messages_is_an_error() -> None:
    assert outline(results(b"Dear all,\n", "a.txt", format="mbox")) == [(None, "unsupported format")]


def test_mbox_message_beyond_the_limit_costs_that_message() -> None:
    data = mbox(MAIL, b"Subject: big\n\n" + b"line\n" * 2000, b"Subject: three\n\nlast\n")
    found = results(data, "a.mbox", max_record_bytes=2000)
    assert [r.error if isinstance(r, ReadError) else r.title for r in found] == [
        "Größe continued",
        "too large",
        "three",
    ]


def test_mail_nested_or_repeated_beyond_the_limits() -> None:
    deep = b"".join(b"Content-Type: multipart/mixed; boundary=b%d\n\n--b%d\n" % (n, n) for n in range(200))
    (refused,) = results(b"Subject: x\n" + deep, "a.eml")
    assert isinstance(refused, ReadError)
    assert refused.error == "too deep"
    (refused,) = results(multipart(*["\r\nx"] * 500), "a.eml", max_members=100)
    assert isinstance(refused, ReadError)
    assert refused.error == "too large"


@pytest.mark.parametrize(
    "hostile",
    [
        b"Content-Type: text/plain" + b";" * 200_000 + b"\n\nx",
        b"Subject: " + b"=?a?q?" * 50_000 + b"\n\nx",
        b"Subject: " + b"\n " * 100_000 + b"\n\nx",
        b"From: " + b"(" * 100_000 + b"\nDate: " + b"(" * 100_000 + b"\n\nx",
        b"Content-Type: multipart/mixed; boundary=b\n\n" + b"--b" * 100_000,
        b"Content-Type: multipart/mixed; boundary=b\n\n" + b"--b\n" * 100_000,
        b"".join(b"Content-Type: multipart/mixed; boundary=b%d\n\n--b%d\n" % (n, n) for n in range(90))
        + b"\n" * 500_000,
    ],
)
def test_hostile_mail_is_read(hostile: bytes) -> None:
    """Each would take minutes if time grew with the square of its size."""
    assert isinstance(results(hostile, "a.eml")[0], Record | ReadError)


# ---- labels and fields


def test_labels_come_from_fields_and_else_from_constants() -> None:
    data = b'{"text": "a", "license_name": "MIT", "n": 3}\n{"text": "b", "license_name": null}\n'
    options = {
        "fields": (("licence", "license_name"), ("n", "n")),
        "labels": (("licence", "CC-BY-4.0"), ("variety", "en-GB"), ("weight", 2)),
    }
    one, two = results(data, "a.jsonl", **options)
    assert isinstance(one, Record)
    assert isinstance(two, Record)
    assert one.labels == {"licence": "MIT", "variety": "en-GB", "weight": 2, "n": 3}
    assert two.labels == {"licence": "CC-BY-4.0", "variety": "en-GB", "weight": 2}
    assert only(b"plain", "a.txt", **options).labels == two.labels
    assert only(MAIL, "a.eml", fields=(("list", "list_id"),)).labels == {"list": "<list.example.org>"}
    assert only(b"plain", "a.txt").labels == {}


def test_fields_that_were_taken_are_named() -> None:
    record = only(b'{"url": "u", "BODY": "b", "headline": "h", "created": "2024-05-06", "x": 1}', "a.jsonl")
    assert record.fields == {"text": "BODY", "id": "url", "title": "headline", "date": "created"}
    chosen = only(b'{"url": "u", "BODY": "b", "headline": "h", "x": "t"}', "a.jsonl", title_field="x")
    assert (chosen.title, chosen.fields["title"]) == ("t", "x")
    assert only(b"# x", "a.md").fields == {}


def test_options_and_results_travel_between_processes() -> None:
    import pickle

    options = ReadOptions(labels=(("a", 1),), fields=(("b", "c"),))
    assert pickle.loads(pickle.dumps(options)) == options
    for data, name in ((MAIL, "a.eml"), (b"{", "a.jsonl"), (arrow(TABLE), "a.arrow")):
        found = results(data, name)
        assert pickle.loads(pickle.dumps(found)) == found


def test_of_the_guessed_text_fields_the_first_with_text_counts() -> None:
    def read_one(row: dict[str, object], **options: str) -> Record | ReadError:
        (result,) = results(json.dumps(row).encode(), "a.jsonl", **options)
        return result

    for empty in ("", " \n", None):
        found = read_one({"id": "a", "text": empty, "body": "a long text"})
        assert isinstance(found, Record)
        assert (found.content, found.fields["text"]) == ("a long text", "body")
    chosen = read_one({"text": "", "body": "a long text"}, text_field="text")
    assert isinstance(chosen, Record)
    assert chosen.content == ""
    empty_all = read_one({"text": "", "body": ""})
    assert isinstance(empty_all, Record)
    assert empty_all.fields["text"] == "text"
    assert isinstance(read_one({"text": 42, "body": "a long text"}), ReadError)
