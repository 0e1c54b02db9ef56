"""PDF: text by page, metadata, what is refused; and every file of the f7_pdf suite with the outcome we decided."""

import zlib
from datetime import date
from pathlib import Path

import pytest

from stemma.cleaning.extraction import Extraction, Origin
from stemma.cleaning.extraction.extract import extract
from stemma.cleaning.extraction.limits import FREE_BYTES, MIB, Limits
from stemma.cleaning.extraction.pdf import extract_pdf

# By file: how the text begins ("" where there is none), its pages with text, title, day of creation, language.
# A picture without words is no error: cleaning drops it as empty.
SUITE = {
    "002-trivial-libre-office-writer": ("Lorem ipsum dolor sit amet", 1, None, date(2022, 4, 3), "en-us"),
    "004-pdflatex-4-pages": ("Hello, here is some text", 4, None, date(2022, 4, 3), None),
    "006-pdflatex-outline": ("Contents\n1 Foo 2", 4, None, date(2022, 4, 6), None),
    "007-imagemagick-images": ("", 0, "imagemagick-ASCII85Decode", date(2022, 4, 15), None),
    "010-pdflatex-forms": ("Name\nCheck\nSubmit", 1, None, date(2022, 4, 8), None),
    "012-libreoffice-form": ("Example for a Form", 1, None, date(2022, 6, 26), "en-us"),
    "013-reportlab-overlay": ("Name: Foo Bar\nFingerprint", 1, None, None, None),
    "015-arabic": ("يبيبَح", 1, "habibi", None, None),
    "016-libre-office-link": ("This is a link to an awesome blog.", 1, None, date(2022, 7, 31), "en-us"),
    "019-grayscale-image": ("", 0, None, None, None),
    "020-xmp": ("Hello, World!", 1, None, date(2023, 4, 10), None),
    "021-pdfa": ("The Crazy Ones\nOctober 14, 1998", 1, None, date(2023, 4, 23), None),
    "024-annotations": ("Some text.\nLine 1", 1, "Annotated PDF", date(1990, 4, 28), None),
    "026-latex-multicolumn": ("Two-Column Document with Lorem Ipsum", 3, None, date(2024, 1, 3), None),
}
REFUSED = {"005-libreoffice-writer-password": "password"}


def suite_file(shared: Path, folder: str) -> bytes:
    (path,) = (shared / "data" / "f7_pdf" / folder).glob("*.pdf")
    return path.read_bytes()


@pytest.mark.parametrize("folder", SUITE)
def test_suite(shared: Path, folder: str) -> None:
    start, pages, title, published, language = SUITE[folder]
    found = extract_pdf(suite_file(shared, folder))
    assert found.text.startswith(start)
    assert bool(found.text) == bool(start)
    assert (len(found.origins), found.title, found.published, found.language) == (
        pages,
        title,
        published,
        language,
    )
    assert found.visible_characters == len(found.text)


@pytest.mark.parametrize("folder", REFUSED)
def test_suite_refused(shared: Path, folder: str) -> None:
    with pytest.raises(ValueError, match=REFUSED[folder]):
        extract_pdf(suite_file(shared, folder))


def test_suite_is_whole(shared: Path) -> None:
    folders = {path.parent.name for path in (shared / "data" / "f7_pdf").rglob("*.pdf")}
    assert folders == {*SUITE, *REFUSED}


def test_places_are_pages(shared: Path) -> None:
    found = extract_pdf(suite_file(shared, "004-pdflatex-4-pages"))
    starts = [origin.char_start for origin in found.origins]
    assert [origin.place for origin in found.origins] == ["page 1", "page 2", "page 3", "page 4"]
    assert starts[0] == 0
    assert all(found.text[start - 2 : start] == "\n\n" for start in starts[1:])


# ---- hand-written files


def pdf(objects: list[bytes], trailer: bytes = b"") -> bytes:
    """Write a PDF of these objects, the first of which is the catalogue."""
    data, offsets = b"%PDF-1.4\n", []
    for number, body in enumerate(objects, 1):
        offsets.append(len(data))
        data += b"%d 0 obj\n" % number + body + b"\nendobj\n"
    entries = b"".join(b"%010d 00000 n \n" % offset for offset in offsets)
    head = b"xref\n0 %d\n0000000000 65535 f \n" % (len(objects) + 1)
    end = b"trailer\n<</Size %d/Root 1 0 R%s>>\nstartxref\n%d\n%%%%EOF\n" % (
        len(objects) + 1,
        trailer,
        len(data),
    )
    return data + head + entries + end


def pages(
    *contents: bytes, catalogue: bytes = b"", trailer: bytes = b"", extra: tuple[bytes, ...] = ()
) -> bytes:
    """Write a PDF with a page for each of these content streams, given with their dictionaries."""
    first = 4
    kids = b" ".join(b"%d 0 R" % (first + 2 * index) for index in range(len(contents)))
    objects = [
        b"<</Type/Catalog/Pages 2 0 R" + catalogue + b">>",
        b"<</Type/Pages/Kids[" + kids + b"]/Count %d>>" % len(contents),
        b"<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>",
    ]
    for index, content in enumerate(contents):
        objects.append(
            b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 612 792]/Resources<</Font<</F1 3 0 R>>>>/Contents %d 0 R>>"
            % (first + 2 * index + 1)
        )
        objects.append(content)
    return pdf([*objects, *extra], trailer)


def stream(content: bytes, dictionary: bytes = b"") -> bytes:
    return b"<</Length %d%s>>stream\n%s\nendstream" % (len(content), dictionary, content)


def words(text: str) -> bytes:
    return stream(b"BT /F1 12 Tf 72 720 Td (%s) Tj ET" % text.encode())


def test_metadata() -> None:
    count = 3
    info = b"<</Title(On  rivers)/Author(Ann\n Lee)/CreationDate(D:20240229235959-08'00')>>"
    data = pages(
        words("one"), catalogue=b"/Lang(pt-BR)", trailer=b"/Info %d 0 R" % (count + 3), extra=(info,)
    )
    assert extract_pdf(data) == Extraction(
        "one", "On rivers", 3, "Ann Lee", date(2024, 2, 29), "pt-br", (Origin(0, place="page 1"),)
    )


@pytest.mark.parametrize("created", [b"D:20230230", b"D:2023", b"yesterday", b""])
def test_day_that_is_none(created: bytes) -> None:
    data = pages(words("one"), trailer=b"/Info 6 0 R", extra=(b"<</CreationDate(" + created + b")>>",))
    assert extract_pdf(data).published is None


def test_empty_page_has_no_place() -> None:
    found = extract_pdf(pages(words("one"), stream(b""), words("three")))
    assert found.text == "one\n\nthree"
    assert found.origins == (Origin(0, place="page 1"), Origin(5, place="page 3"))


def test_garbage_before_the_header_is_cut() -> None:
    data = pages(words("one"))
    assert extract_pdf(b"HTTP/1.1 200 OK\r\n" * 200 + data).text == "one"


@pytest.mark.parametrize("data", [b"", b"%PDF-1.7\n", b"<html>", b"%PDF-1.4\n%%EOF"])
def test_broken(data: bytes) -> None:
    with pytest.raises(ValueError, match="PDF cannot be read"):
        extract_pdf(data)


def test_limit_of_pages() -> None:
    data = pages(*[words("x")] * 3)
    assert extract_pdf(data, max_pages=3).text == "x\n\nx\n\nx"
    with pytest.raises(ValueError, match="3 pages, more than max_pages=2"):
        extract(None, data, "application/pdf", limits=Limits(max_pages=2))


def test_limit_of_characters() -> None:
    data = pages(words("river"), words("stone"))
    assert extract_pdf(data, max_characters=12).text == "river\n\nstone"
    for limit in (11, 4):
        with pytest.raises(ValueError, match="more than max_characters"):
            extract_pdf(data, max_characters=limit)


def test_limit_of_expansion() -> None:
    def flate(size: int, times: int = 1) -> bytes:
        content = b" " * size
        for _ in range(times):
            content = zlib.compress(content, 9)
        return stream(content, b"/Filter[" + b"/FlateDecode" * times + b"]")

    assert extract_pdf(pages(words("x"), flate(MIB))).text == "x"
    for bomb in (pages(flate(64 * MIB)), pages(*[flate(4 * MIB)] * 20), pages(flate(64 * MIB, times=2))):
        assert len(bomb) < MIB
        with pytest.raises(ValueError, match=f"expand to more than {max(FREE_BYTES, 200 * len(bomb))}"):
            extract_pdf(bomb)


def test_streams_that_overlap_cost_no_more_than_the_limit() -> None:
    """Each of 20,000 streams seems to reach to the end of the file."""
    inside = b"stream\n" + zlib.compress(b"")[:2]
    data = pages(stream(zlib.compress(inside * 20_000, 0)))
    assert extract_pdf(data).text == ""
