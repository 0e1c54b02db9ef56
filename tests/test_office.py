"""DOCX, PPTX, XLSX and EPUB: structure, metadata, places, and what is refused before a parser sees it."""

import datetime
import io
import subprocess
import sys
import zipfile
from collections.abc import Mapping
from datetime import date

import openpyxl
import pytest
from pptx import Presentation
from pptx.chart.data import CategoryChartData, XyChartData
from pptx.enum.chart import XL_CHART_TYPE
from pptx.util import Inches

from stemma.cleaning.extraction import Extraction, Origin
from stemma.cleaning.extraction.extract import OFFICE, extract
from stemma.cleaning.extraction.limits import MIB, Limits
from stemma.cleaning.extraction.metadata import day, language_tag
from stemma.cleaning.extraction.office import KINDS, extract_office
from stemma.cleaning.extraction.placed_text import Blocks, table

# ---- writing documents

_W = (
    'xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main"'
    ' xmlns:r="http://schemas.openxmlformats.org/officeDocument/2006/relationships"'
)
_RELATIONSHIPS = (
    '<Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships"><Relationship Id="r1"'
    ' Type="http://schemas.openxmlformats.org/officeDocument/2006/relationships/officeDocument"'
    ' Target="word/document.xml"/></Relationships>'
)
_STYLES = {
    "T": "Title",
    "H1": "heading 1",
    "H2": "Heading 2",
    "H9": "heading 9",
    "C": "Source Code",
    "C1": "toc 1",
}
_CORE = """<cp:coreProperties xmlns:cp="http://schemas.openxmlformats.org/package/2006/metadata/core-properties"
 xmlns:dc="http://purl.org/dc/elements/1.1/" xmlns:dcterms="http://purl.org/dc/terms/"><dc:title>On
 rivers</dc:title><dc:creator>Ann</dc:creator><dc:language>en-GB</dc:language>
 <dcterms:created>2024-02-29T23:00:00Z</dcterms:created><dcterms:modified>2025-01-01T00:00:00Z</dcterms:modified>
 </cp:coreProperties>"""


def packed(members: Mapping[str, str | bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return file.getvalue()


def docx(body: str, members: Mapping[str, str | bytes] | None = None) -> bytes:
    """Write a Word document of this body, with more members."""
    styles = "".join(
        f'<w:style w:type="paragraph" w:styleId="{key}"><w:name w:val="{name}"/></w:style>'
        for key, name in _STYLES.items()
    )
    levels = '<w:lvl w:ilvl="0"><w:numFmt w:val="bullet"/></w:lvl><w:lvl w:ilvl="1"><w:numFmt w:val="decimal"/></w:lvl>'
    numbering = (
        f'<w:abstractNum w:abstractNumId="0">{levels}</w:abstractNum>'
        '<w:num w:numId="1"><w:abstractNumId w:val="0"/></w:num>'
    )
    return packed(
        {
            "[Content_Types].xml": '<Types xmlns="http://schemas.openxmlformats.org/package/2006/content-types"/>',
            "_rels/.rels": _RELATIONSHIPS,
            "word/document.xml": f"<w:document {_W}><w:body>{body}</w:body></w:document>",
            "word/styles.xml": f"<w:styles {_W}>{styles}</w:styles>",
            "word/numbering.xml": f"<w:numbering {_W}>{numbering}</w:numbering>",
            **(members or {}),
        }
    )


def paragraph(text: str, style: str | None = None, level: int | None = None) -> str:
    properties = f'<w:pStyle w:val="{style}"/>' if style else ""
    if level is not None:
        properties += f'<w:numPr><w:ilvl w:val="{level}"/><w:numId w:val="1"/></w:numPr>'
    return f"<w:p><w:pPr>{properties}</w:pPr>{run(text)}</w:p>"


def run(text: str, font: str = "") -> str:
    properties = f'<w:rPr><w:rFonts w:ascii="{font}"/></w:rPr>' if font else ""
    return f'<w:r>{properties}<w:t xml:space="preserve">{text}</w:t></w:r>'


def cell(content: str, properties: str = "") -> str:
    return f"<w:tc><w:tcPr>{properties}</w:tcPr>{content}</w:tc>"


def rows(*lines: list[str]) -> str:
    return "<w:tbl>" + "".join("<w:tr>" + "".join(line) + "</w:tr>" for line in lines) + "</w:tbl>"


def from_docx(body: str, members: Mapping[str, str | bytes] | None = None) -> Extraction:
    return extract_office(docx(body, members), "docx")


def saved(document: object) -> bytes:
    file = io.BytesIO()
    document.save(file)  # type: ignore[attr-defined]
    return file.getvalue()


def places(found: Extraction) -> list[tuple[str | None, str]]:
    """Return each place with the text that comes from it."""
    ends = [origin.char_start for origin in found.origins[1:]] + [len(found.text)]
    return [
        (origin.place, found.text[origin.char_start : end].strip())
        for origin, end in zip(found.origins, ends, strict=True)
    ]


# ---- Word


def test_docx_structure() -> None:
    found = from_docx(
        paragraph("The title", "T")
        + paragraph("Intro ... 1", "C1")
        + paragraph("Intro", "H1")
        + paragraph("Some text.")
        + paragraph("one", level=0)
        + paragraph("first", level=1)
        + paragraph("second", level=1)
        + paragraph("two", level=0)
        + paragraph("  ")
        + paragraph("x = 1", "C")
        + paragraph("  y = 2", "C")
        + paragraph("Deep", "H9")
    )
    assert found.text == (
        "# The title\n\n# Intro\n\nSome text.\n\n- one\n  1. first\n  2. second\n- two\n\n"
        "```\nx = 1\n  y = 2\n```\n\n###### Deep"
    )
    assert found.title == "The title"
    assert places(found)[1] == ("paragraph 3", "# Intro")
    assert places(found)[-2:] == [
        ("paragraph 10", "```\nx = 1\n  y = 2\n```"),
        ("paragraph 12", "###### Deep"),
    ]


def test_docx_numbers_begin_again_in_another_list() -> None:
    items = [paragraph("a", level=1), paragraph("b", level=1)]
    found = from_docx("".join([*items, paragraph("between"), *items]))
    assert found.text == "  1. a\n  2. b\n\nbetween\n\n  1. a\n  2. b"


def test_docx_tables() -> None:
    found = from_docx(
        rows(
            [cell(paragraph("wide"), '<w:gridSpan w:val="2"/>'), cell(paragraph("c"))],
            [
                cell(paragraph("tall"), '<w:vMerge w:val="restart"/>'),
                cell(paragraph("1")),
                cell(paragraph("2")),
            ],
            [cell(paragraph(""), "<w:vMerge/>"), cell(paragraph("3") + paragraph("4")), cell(paragraph("5"))],
        )
        + rows([cell(paragraph("A frame.") + paragraph("Two of it."))])
    )
    assert found.text == (
        "| wide |  | c |\n|---|---|---|\n| tall | 1 | 2 |\n|  | 3 4 | 5 |\n\nA frame.\n\nTwo of it."
    )
    assert [place for place, _ in places(found)] == ["paragraph 1", "paragraph 9", "paragraph 10"]


def test_docx_text_of_a_paragraph() -> None:
    body = (
        "<w:p>" + run("kept ") + f'<w:del w:id="1">{run("deleted ")}</w:del>'
        f'<w:ins w:id="2">{run("inserted ")}</w:ins>'
        f'<w:hyperlink w:anchor="x">{run("linked")}</w:hyperlink>'
        "<w:r><w:tab/><w:t>tab</w:t><w:br/><w:t>break</w:t></w:r>"
        '<w:r><w:footnoteReference w:id="7"/></w:r></w:p>'
        f"<w:p>{run('code()', 'Consolas')}</w:p>"
    )
    notes = f'<w:footnotes {_W}><w:footnote w:id="7">{paragraph("The note.")}</w:footnote></w:footnotes>'
    found = from_docx(body, {"word/footnotes.xml": notes})
    assert found.text == "kept inserted linked\ttab\nbreak[^1]\n\n```\ncode()\n```\n\n[^1]: The note."
    assert places(found)[-1] == ("note 1", "[^1]: The note.")


def test_docx_font_of_code() -> None:
    """It tells code from text, but for a document that is written in it as a whole."""
    code, prose = f"<w:p>{run('  x = 1', 'Consolas')}</w:p>", paragraph("text")
    assert from_docx(prose + code).text == "text\n\n```\n  x = 1\n```"
    assert from_docx(prose + code * 2).text == "text\n\nx = 1\n\nx = 1"
    assert from_docx(prose * 2 + f"<w:p>{run('x', 'Consolas')}{run('y')}</w:p>").text == "text\n\ntext\n\nxy"


def test_docx_formulas() -> None:
    """a/b, x_1^2, the third root, a sum, a bracket, a limit, a matrix; what is between them stays."""

    def m(name: str, *parts: str) -> str:
        return f"<m:{name}>{''.join(parts)}</m:{name}>"

    def r(text: str) -> str:
        return m("r", m("t", text))

    def value(name: str, what: str) -> str:
        return f'<m:{name} m:val="{what}"/>'

    formulas = [
        m("f", m("num", r("a+b")), m("den", r("2"))),
        m("sSubSup", m("e", r("x")), m("sub", r("1")), m("sup", r("2"))),
        m("rad", m("deg", r("3")), m("e", r("-8"))),
        m("nary", m("naryPr", value("chr", "∑")), m("sub", r("i=1")), m("sup", r("n")), m("e", r("i"))),
        m("d", m("dPr", value("begChr", "["), value("endChr", "]")), m("e", r("a")), m("e", r("b"))),
        m("d", m("e", r("c"))),
        m("limLow", m("e", r("lim")), m("lim", r("n→∞"))),
        m("m", m("mr", m("e", r("1")), m("e", r("0"))), m("mr", m("e", r("0")), m("e", r("1")))),
    ]
    namespace = 'xmlns:m="http://schemas.openxmlformats.org/officeDocument/2006/math"'
    inside = "".join(f"<m:oMath {namespace}>{formula}</m:oMath>{run(' and ')}" for formula in formulas)
    whole = f"<m:oMathPara {namespace}><m:oMath>{r('E')}</m:oMath></m:oMathPara>"
    assert from_docx(f"<w:p>{run('Let ')}{inside}</w:p><w:p>{whole}</w:p>").text == (
        "Let (a+b)/2 and x_1^2 and 3√(-8) and ∑_(i=1)^n i and [a|b] and (c) and lim_(n→∞) and 1, 0; 0, 1 and\n\nE"
    )


def test_docx_pictures_are_never_fetched() -> None:
    """mammoth would open what a linked picture names; its bytes are nothing that we want."""
    picture = (
        '<w:p><w:r><w:drawing><wp:inline xmlns:wp="http://schemas.openxmlformats.org/drawingml/2006/wordprocessingDrawing">'
        '<a:graphic xmlns:a="http://schemas.openxmlformats.org/drawingml/2006/main"><a:graphicData>'
        '<pic:pic xmlns:pic="http://schemas.openxmlformats.org/drawingml/2006/picture"><pic:blipFill>'
        '<a:blip r:link="p1"/></pic:blipFill></pic:pic></a:graphicData></a:graphic></wp:inline></w:drawing></w:r></w:p>'
    )
    links = (
        '<Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships"><Relationship Id="p1"'
        ' Type="http://schemas.openxmlformats.org/officeDocument/2006/relationships/image"'
        ' Target="file:///etc/passwd" TargetMode="External"/></Relationships>'
    )
    data = docx(picture + paragraph("text"), {"word/_rels/document.xml.rels": links})
    assert extract_office(data, "docx").text == "text"


@pytest.mark.parametrize("kind", ["docx", "pptx", "xlsx"])
def test_core_properties(kind: str) -> None:
    data = {"docx": docx(paragraph("x", "H1")), "pptx": saved(slides()), "xlsx": saved(openpyxl.Workbook())}[
        kind
    ]
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    found = extract_office(packed({**members, "docProps/core.xml": _CORE}), kind)
    assert (found.title, found.author, found.published, found.language) == (
        "On rivers",
        "Ann",
        date(2024, 2, 29),
        "en-gb",
    )


# ---- PowerPoint


def slides() -> "Presentation":  # type: ignore[valid-type]
    """Three slides: a list with notes, a table with a group, and a hidden one."""
    made = Presentation()
    first = made.slides.add_slide(made.slide_layouts[1])
    first.shapes.title.text = "Levels"
    body = first.placeholders[1].text_frame
    body.text = "one"
    added = body.add_paragraph()
    added.text, added.level = "below one", 1
    first.notes_slide.notes_text_frame.text = "Say hello."
    second = made.slides.add_slide(made.slide_layouts[5])
    second.shapes.title.text = "Prices"
    cells = second.shapes.add_table(2, 2, 0, 0, Inches(2), Inches(2)).table
    for index, text in enumerate("ab12"):
        cells.cell(index // 2, index % 2).text = text
    group = second.shapes.add_group_shape()
    group.shapes.add_textbox(0, 0, 9, 9).text_frame.text = "in a group\vsecond line"
    hidden = made.slides.add_slide(made.slide_layouts[5])
    hidden.shapes.title.text = "Hidden"
    hidden.element.set("show", "0")
    last = made.slides.add_slide(made.slide_layouts[6])
    last.shapes.add_textbox(0, 0, 9, 9).text_frame.text = "the end"
    return made


def test_pptx() -> None:
    found = extract_office(saved(slides()), "pptx")
    assert places(found) == [
        ("slide 1", "## Levels\n\n- one\n  - below one"),
        ("slide 1, notes", "Say hello."),
        ("slide 2", "## Prices\n\n| a | b |\n|---|---|\n| 1 | 2 |\n\nin a group\nsecond line"),
        ("slide 4", "the end"),
    ]
    # "PowerPoint Presentation" is what a presentation without a title has for one.
    assert found.title == "Levels"


def test_pptx_charts() -> None:
    data = CategoryChartData()
    data.categories = ["north", "south", "west"]
    data.add_series("2023", (1.5, None, 3))
    data.add_series("2024", (4, 5, 6))
    points = XyChartData()
    points.add_series("way").add_data_point(0.5, 7)
    made = Presentation()
    slide = made.slides.add_slide(made.slide_layouts[6])
    chart = slide.shapes.add_chart(XL_CHART_TYPE.LINE, 0, 0, 9, 9, data).chart
    chart.chart_title.text_frame.text = "Rain by region"
    slide.shapes.add_chart(XL_CHART_TYPE.XY_SCATTER, 0, 0, 9, 9, points)
    found = extract_office(saved(made), "pptx")
    assert found.text == (
        "Rain by region\n\n|  | 2023 | 2024 |\n|---|---|---|\n| north | 1.5 | 4 |\n| south |  | 5 |\n| west | 3 | 6 |"
        "\n\n|  | way |\n|---|---|\n| 0.5 | 7 |"
    )
    with pytest.raises(ValueError, match="a chart has more points than max_cells"):
        extract_office(saved(made), "pptx", limits=Limits(max_cells=5))


def test_pptx_limit_of_slides() -> None:
    with pytest.raises(ValueError, match="PPTX cannot be read: it has 4 slides, more than max_pages=3"):
        extract_office(saved(slides()), "pptx", limits=Limits(max_pages=3))


# ---- Excel


def test_xlsx() -> None:
    book = openpyxl.Workbook()
    sheet = book.active
    sheet.title = "Prices"
    for row in (
        ["item", "price", None, "since"],
        ["pen", 1.5, None, datetime.datetime(2024, 1, 2)],
        ["a  cup\nof tea", 0.1 + 0.2, None, datetime.datetime(2024, 1, 2, 3, 4)],
        [],
        [None, "a note"],
        [None, True],
    ):
        sheet.append(row)
    hidden = book.create_sheet("Hidden")
    hidden["A1"], hidden.sheet_state = "secret", "hidden"
    book.create_sheet("Empty")
    book.create_sheet("Last")["C3"] = 7
    found = extract_office(saved(book), "xlsx")
    assert places(found) == [
        (
            "sheet Prices",
            "## Prices\n\n| item | price | since |\n|---|---|---|\n| pen | 1.5 | 2024-01-02 |\n"
            "| a cup of tea | 0.3 | 2024-01-02 03:04:00 |\n\na note\nTRUE",
        ),
        ("sheet Last", "## Last\n\n7"),
    ]


def sheet_xml(content: str) -> bytes:
    """Return a workbook whose one sheet has this content."""
    with zipfile.ZipFile(io.BytesIO(saved(openpyxl.Workbook()))) as archive:
        members: dict[str, str | bytes] = {name: archive.read(name) for name in archive.namelist()}
    namespace = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
    members["xl/worksheets/sheet1.xml"] = f'<worksheet xmlns="{namespace}">{content}</worksheet>'
    return packed(members)


def test_xlsx_cell_in_the_last_corner() -> None:
    """What a sheet claims to hold is not believed, and the way to its last cell is bearable."""
    last = '<row r="1048576"><c r="XFD1048576"><v>7</v></c></row>'
    data = sheet_xml(f'<dimension ref="A1:XFD1048576"/><sheetData>{last}</sheetData>')
    assert extract_office(data, "xlsx").text == "## Sheet\n\n7"


@pytest.mark.parametrize(
    "content",
    [
        "".join(f'<row r="{row}"><c r="XFD{row}"><v>7</v></c></row>' for row in range(1, 2000)),
        '<row r="2000000000"><c r="A2000000000"><v>7</v></c></row>',
    ],
    ids=["wide rows", "a row beyond the last"],
)
def test_xlsx_limit_of_cells(content: str) -> None:
    with pytest.raises(ValueError, match="XLSX cannot be read: it has more cells than max_cells"):
        extract_office(sheet_xml(f"<sheetData>{content}</sheetData>"), "xlsx")


def test_xlsx_limit_of_characters() -> None:
    """One long string, which 10,000 cells show, is no text of 300 MB."""
    text = "<t>" + "x" * 30_000 + "</t>"
    with zipfile.ZipFile(io.BytesIO(sheet_xml(""))) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    namespace = b'xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"'
    kind = b"application/vnd.openxmlformats-officedocument.spreadsheetml.sharedStrings+xml"
    part = b'<Override PartName="/xl/sharedStrings.xml" ContentType="%s"/></Types>' % kind
    members["[Content_Types].xml"] = members["[Content_Types].xml"].replace(b"</Types>", part)
    members["xl/sharedStrings.xml"] = b"<sst %s><si>%s</si></sst>" % (namespace, text.encode())
    cells = b"".join(
        b'<row r="%d"><c r="A%d" t="s"><v>0</v></c></row>' % (row, row) for row in range(1, 10_000)
    )
    members["xl/worksheets/sheet1.xml"] = b"<worksheet %s><sheetData>%s</sheetData></worksheet>" % (
        namespace,
        cells,
    )
    with pytest.raises(ValueError, match="the text has more than max_characters"):
        extract_office(packed(members), "xlsx")


# ---- EPUB

_CONTAINER = (
    '<container xmlns="urn:oasis:names:tc:opendocument:xmlns:container"><rootfiles>'
    '<rootfile full-path="OEBPS/book.opf"/></rootfiles></container>'
)
_OPF = """<package xmlns="http://www.idpf.org/2007/opf" xmlns:dc="http://purl.org/dc/elements/1.1/"
 xmlns:opf="http://www.idpf.org/2007/opf"><metadata><dc:title>The book</dc:title><dc:creator>Ann</dc:creator>
<dc:creator>Bo</dc:creator><dc:date opf:event="modification">2020-01-01</dc:date>
<dc:date opf:event="publication">2019-05-06</dc:date><dc:language>pt_BR</dc:language></metadata>
<manifest><item id="nav" href="nav.xhtml" properties="nav" media-type="application/xhtml+xml"/>
<item id="one" href="ch%201.xhtml" media-type="application/xhtml+xml"/>
<item id="pic" href="p.png" media-type="image/png"/>
<item id="two" href="../two.html" media-type="text/html"/></manifest>
<spine><itemref idref="nav"/><itemref idref="two"/><itemref idref="one"/><itemref idref="one"/><itemref idref="gone"/>
<itemref idref="pic"/></spine></package>"""
_ONE = """<?xml version="1.0" encoding="utf-8"?>
<!DOCTYPE html PUBLIC "-//W3C//DTD XHTML 1.1//EN" "http://www.w3.org/TR/xhtml11/DTD/xhtml11.dtd">
<html xmlns="http://www.w3.org/1999/xhtml"><head><title/><style>p {}</style><script src="x"/></head>
<body><h1>One</h1><p>Text&nbsp;a &amp; b&hellip; &lt;c&gt;</p><aside><p>Kept aside.</p></aside><pre>x
 y</pre></body></html>"""


def epub(members: Mapping[str, str | bytes] | None = None) -> bytes:
    standard: dict[str, str | bytes] = {
        "mimetype": "application/epub+zip",
        "META-INF/container.xml": _CONTAINER,
        "OEBPS/book.opf": _OPF,
        "OEBPS/nav.xhtml": "<html><body>contents</body></html>",
        "OEBPS/ch 1.xhtml": _ONE,
        "two.html": "<html><body><h2>Two<p>not closed &eacute; <b>t</body>",
    }
    return packed({**standard, **(members or {})})


def test_epub() -> None:
    found = extract_office(epub(), "epub")
    assert places(found) == [
        ("two.html", "## Two\n\nnot closed é t"),
        ("OEBPS/ch 1.xhtml", "# One\n\nText a & b… <c>\n\nKept aside.\n\n```\nx\n y\n```"),
    ]
    assert (found.title, found.author, found.published, found.language) == (
        "The book",
        "Ann, Bo",
        date(2019, 5, 6),
        "pt-br",
    )


@pytest.mark.parametrize(
    ("data", "text"),
    [
        ("<html><body>Größe</body></html>".encode("utf-16"), "Größe"),
        (
            '<?xml version="1.0" encoding="iso-8859-2"?><html><body>Łódź</body></html>'.encode("iso-8859-2"),
            "Łódź",
        ),
        ("<html><body>Größe</body></html>".encode("cp1252"), "Größe"),
        (b"<html><body>" + "é".encode() + b"</body></html>", "é"),
        (b"", ""),
        (b"no markup", "no markup"),
    ],
)
def test_epub_chapter_encodings(data: bytes, text: str) -> None:
    assert dict(places(extract_office(epub({"two.html": data}), "epub"))).get("two.html", "") == text


def test_epub_with_encrypted_chapters() -> None:
    def encryption(path: str) -> str:
        return (
            '<encryption xmlns:e="http://www.w3.org/2001/04/xmlenc#"><e:CipherReference'
            f' URI="{path}"/></encryption>'
        )

    assert extract_office(epub({"META-INF/encryption.xml": encryption("font.otf")}), "epub").text
    with pytest.raises(ValueError, match="EPUB cannot be read: its chapters are encrypted"):
        extract_office(epub({"META-INF/encryption.xml": encryption("OEBPS/ch%201.xhtml")}), "epub")


def test_epub_entities_of_its_own_are_not_expanded() -> None:
    entities = '<!ENTITY x SYSTEM "file:///etc/passwd"><!ENTITY y "ha">'
    chapter = f"<!DOCTYPE html [{entities}]><html><body>a &x; &y; b</body></html>"
    assert places(extract_office(epub({"two.html": chapter}), "epub"))[0] == ("two.html", "a &x; &y; b")


@pytest.mark.parametrize("inside", ["<p>x</p>", "<p>x<br>"], ids=["xml", "html"])
def test_epub_limit_of_depth(inside: str) -> None:
    chapter = "<html><body>" + "<div>" * 150 + inside + "</div>" * 150 + "</body></html>"
    with pytest.raises(ValueError, match=r"two\.html: nested deeper than max_depth=100"):
        extract_office(epub({"two.html": chapter}), "epub")


# ---- hostile archives and XML

LAUGHS = '<!DOCTYPE d [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;">]>'
MAIN = {
    "docx": "word/document.xml",
    "pptx": "ppt/presentation.xml",
    "xlsx": "xl/workbook.xml",
    "epub": "OEBPS/book.opf",
}


def plain(kind: str) -> dict[str, bytes]:
    """Return the members of a small sound document."""
    data = {
        "docx": lambda: docx(paragraph("text")),
        "pptx": lambda: saved(slides()),
        "xlsx": lambda: sheet_xml("<sheetData/>"),
        "epub": epub,
    }[kind]()
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("damage", "complaint"),
    [
        (lambda data: data[: len(data) // 2], "cannot be read"),
        (lambda data: b"", "cannot be read"),
        (lambda data: b"PK\x05\x06" + bytes(18), "cannot be read"),
        (lambda data: b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + data, "encrypted with a password"),
        (lambda data: data + b"PK\x01\x02" * 10_001, "more than max_members"),
    ],
    ids=["cut", "nothing", "empty", "encrypted", "members"],
)
def test_hostile_archives(kind: str, damage, complaint: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError, match=f"^{kind.upper()} .*{complaint}") as caught:
        extract_office(damage(packed(plain(kind))), kind)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", KINDS)
def test_hostile_members(kind: str) -> None:
    members, main = plain(kind), MAIN[kind]
    sound = extract_office(packed(members), kind)
    root = (
        members[main][members[main].index(b"<", 2) :] if members[main].startswith(b"<?xml") else members[main]
    )
    for data, complaint in (
        ({**members, main: LAUGHS.encode() + root}, "it declares entities"),
        ({**members, main: b"<a>" * 101 + b"</a>" * 101}, "nested deeper than max_depth=100"),
        ({**members, main: b"<a>" * 10}, "no element found"),
        ({**members, main: b"<other/>"}, "cannot be read"),
        ({**members, "big.bin": bytes(100 * MIB)}, "too large: .* expand to"),
    ):
        with pytest.raises(ValueError, match=f"^{kind.upper()} .*{complaint}"):
            extract_office(packed(data), kind)
    del members[main]
    with pytest.raises(ValueError, match=f"^{kind.upper()} cannot be read"):
        extract_office(packed(members), kind)
    # What is no part of the text may be anything.
    harmless = {"../../evil.txt": b"x", "word/media/a.svg": LAUGHS.encode() + b"<svg/>", "a.bin": bytes(MIB)}
    assert extract_office(packed({**plain(kind), **harmless}), kind) == sound


@pytest.mark.parametrize("kind", KINDS)
def test_encrypted_members_and_other_methods(kind: str) -> None:
    data = bytearray(packed(plain(kind)))
    flagged = bytes(data).replace(
        b"PK\x01\x02\x14\x03\x14\x00\x00\x00", b"PK\x01\x02\x14\x03\x14\x00\x01\x00"
    )
    assert flagged != data
    with pytest.raises(ValueError, match=f"{kind.upper()} is encrypted"):
        extract_office(flagged, kind)
    with pytest.raises(ValueError, match="other than deflate"):
        extract_office(packed(plain(kind), zipfile.ZIP_LZMA), kind)


def test_a_size_that_lies_is_not_believed() -> None:
    """The header says 100 bytes, the data unpack to 64 MiB: no more of them is unpacked than the header says."""
    members = {**plain("docx"), "word/document.xml": b"<a>" + b" " * (64 * MIB) + b"</a>"}
    size = len(members["word/document.xml"]).to_bytes(4, "little")
    data = packed(members).replace(size, (100).to_bytes(4, "little"))
    with pytest.raises(ValueError, match=r"DOCX cannot be read: word/document\.xml"):
        extract_office(data, "docx")


def test_limit_of_xml_that_is_held_as_a_tree() -> None:
    with pytest.raises(ValueError, match="DOCX has more than 1000 bytes of XML"):
        extract_office(docx(paragraph("x" * 2000)), "docx", limits=Limits(max_tree_bytes=1000))


def test_limit_of_open_fields() -> None:
    """mammoth takes quadratic time for runs inside of fields: 20,000 of both, 6 KB packed, took 19 s."""
    begin, end = (
        '<w:r><w:fldChar w:fldCharType="begin"/></w:r>',
        '<w:r><w:fldChar w:fldCharType="end"/></w:r>',
    )
    assert from_docx(f"<w:p>{begin * 100}{run('x')}{end * 100}{begin}{run('y')}{end}</w:p>").text == "xy"
    for opened in (begin * 101, begin.replace("begin", "&#98;egin")):
        with pytest.raises(ValueError, match="DOCX cannot be read: more than 100 fields are open at a time"):
            from_docx(f"<w:p>{opened}{run('x')}</w:p>")


def test_limit_of_attributes() -> None:
    attributes = " ".join(f'a{number}="{number}"' for number in range(2000))
    assert extract_office(epub({"two.html": f"<html><body><p {attributes}>x</p></body></html>"}), "epub").text
    with pytest.raises(ValueError, match="more than 500 attributes"):
        extract_office(epub({"two.html": f"<html><body><p {attributes}>x<br></body></html>"}), "epub")


def test_limit_of_characters() -> None:
    with pytest.raises(ValueError, match="the text has more than max_characters=5"):
        extract_office(docx(paragraph("x" * 6)), "docx", limits=Limits(max_characters=5))


def test_tables_inside_of_tables_are_read_whatever_called() -> None:
    """Depth is limited so that recursion in mammoth ends far from Python's limit, however deep the caller is."""
    body = paragraph("x")
    for _ in range(30):
        body = rows([cell(body + paragraph("y"))])

    def called(depth: int) -> str:
        return called(depth - 1) if depth else from_docx(body).text

    assert called(400) == called(0)
    assert called(0).startswith("x\n\ny")


# ---- the rest


def test_every_kind_has_a_media_type() -> None:
    assert set(OFFICE.values()) == set(KINDS)
    for media_type, kind in OFFICE.items():
        data = packed(plain(kind))
        assert extract(None, data, media_type) == extract_office(data, kind)
    with pytest.raises(ValueError, match="no text can be extracted"):
        extract(None, b"x", "application/x-other")


def test_libraries_are_loaded_when_they_are_needed() -> None:
    code = (
        "import sys, stemma.cleaning.extraction.extract; "
        "print(*{'mammoth', 'pptx', 'openpyxl', 'pypdfium2', 'lxml', 'markitdown', 'defusedxml'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("2024-01-31T12:00:00Z", date(2024, 1, 31)),
        ("D:20240131", date(2024, 1, 31)),
        ("20240131T10", date(2024, 1, 31)),
        ("2024", None),
        ("2024-13-01", None),
        ("31.1.2024", None),
        (None, None),
    ],
)
def test_day(value: str | None, expected: date | None) -> None:
    assert day(value) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [("en-US", "en-us"), (" PT_br ", "pt-br"), ("und", None), ("", None), ("English", None), ("x", None)],
)
def test_language_tag(value: str, expected: str | None) -> None:
    assert language_tag(value) == expected


def test_table_writes_what_is_there() -> None:
    assert table([["", ""], ["a", ""], ["b\nc", ""]]) == "a\nb c"
    assert table([["a", "", "b"], ["1"], ["", "", "2"]]) == "| a | b |\n|---|---|\n| 1 |  |\n|  | 2 |"
    assert table([]) == table([["", " "]]) == ""


def test_blocks_join_places() -> None:
    blocks = Blocks(100)
    for text, place in (("one", "p 1"), ("two", "p 1"), (" ", "p 2"), ("three", "p 3")):
        blocks.add(text, place)
    assert blocks.text == "one\n\ntwo\n\nthree"
    assert blocks.origins == (Origin(0, place="p 1"), Origin(10, place="p 3"))
