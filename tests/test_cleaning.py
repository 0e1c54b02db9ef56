"""Cleaning: extraction, repair, titles, language, metrics, and the rules over them."""

import gzip
import json
import lzma
import math
import re
import subprocess
import sys
import tarfile
import unicodedata
from collections import Counter

import pyarrow as pa
import pypdfium2
import pytest

from stemma.cleaning.clean import INPUTS, OUTPUTS, clean
from stemma.cleaning.extraction.extract import extract
from stemma.cleaning.extraction.html import extract_html
from stemma.cleaning.extraction.limits import Limits
from stemma.cleaning.extraction.markup import markdown_title, split_front_matter, underlined_title
from stemma.cleaning.extraction.pdf import extract_pdf, join_divided_words
from stemma.cleaning.extraction.texinfo import extract_texinfo
from stemma.cleaning.repair import repair
from stemma.hashing import hash_texts

SENTENCE = "The river rose in the night and by morning the lower fields had become a lake. "
PARAGRAPH = SENTENCE * 5


def documents(*rows: tuple[str | bytes | None, str]) -> pa.Table:
    return pa.Table.from_pylist(
        [
            {
                "content": content if isinstance(content, str) else None,
                "content_bytes": content if isinstance(content, bytes) else None,
                "media_type": media_type,
            }
            for content, media_type in rows
        ],
        schema=INPUTS,
    )


def clean_one(content: str | bytes | None, media_type: str = "text/plain", **parameters) -> dict:
    return clean(documents((content, media_type)), **parameters).to_pylist()[0]


def word_f1(text: str, truth: str) -> float:
    found, wanted = (Counter(re.findall(r"\w+", part.lower())) for part in (text, truth))
    common = (found & wanted).total()
    return 2 * common / (found.total() + wanted.total()) if common else 0.0


@pytest.fixture(scope="module")
def hostile(shared) -> dict[str, bytes]:
    with tarfile.open(shared / "data" / "f1_hostile" / "hostile_seed1.tar.gz") as archive:
        members = (member for member in archive if member.isfile() and member.size < 5_000_000)
        return {
            member.name.removeprefix("./").removeprefix("files/"): archive.extractfile(member).read()
            for member in members
        }


@pytest.fixture(scope="module")
def udhr(shared) -> list[dict]:
    with gzip.open(shared / "data" / "e1_udhr" / "udhr.jsonl.gz", "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


# The stage ----------------------------------------------------------------------------------------


def test_clean_returns_its_schema_in_row_order():
    table = clean(documents(("first text here", "text/plain"), (None, "text/plain"), ("third", "text/csv")))
    assert table.schema.equals(OUTPUTS)
    assert table["text"].to_pylist() == ["first text here", "", "third"]
    assert table["text_hash"].combine_chunks().equals(hash_texts(["first text here", "", "third"]))
    table.validate(full=True)


def test_clean_of_no_rows_has_the_same_schema():
    assert clean(documents()).schema.equals(OUTPUTS)


def test_scores_are_finite_numbers():
    for content in ("", "one", PARAGRAPH, "#\n" * 100):
        scores = clean_one(content)["scores"]
        assert all(math.isfinite(score) for score in scores.values())
    assert {"characters", "stop_words", "repaired", "extracted_fraction"} <= scores.keys()


def test_rows_do_not_depend_on_batch_or_order(shared, udhr):
    page = "<html><title>T</title><body><article><h1>A page</h1><p>%s</p></article></body></html>"
    rows = [(page % PARAGRAPH, "text/html")] * 5
    rows += [(page % document["text"], "text/html") for document in udhr[:20]]
    rows += [(document["text"], "text/plain") for document in udhr[:20]]
    together = clean(documents(*rows))
    backwards = clean(documents(*reversed(rows))).take(list(range(len(rows) - 1, -1, -1)))
    alone = pa.concat_tables([clean(documents(row)) for row in rows])
    assert together.combine_chunks().equals(backwards.combine_chunks())
    assert together.combine_chunks().equals(alone.combine_chunks())
    assert len(set(together["text"].to_pylist()[:5])) == 1


def test_binary_without_an_extractor_is_an_error():
    with pytest.raises(ValueError, match="application/zip"):
        clean_one(b"PK\x03\x04", "application/zip")


def test_importing_the_stage_loads_no_extraction_library():
    heavy = ["trafilatura", "lxml", "ftfy", "pycld2", "pypdfium2"]
    program = "import sys, stemma.cleaning.clean, stemma.cleaning.filters.verdict;"
    program += f"print([name for name in {heavy} if name in sys.modules])"
    assert subprocess.check_output([sys.executable, "-c", program], text=True).strip() == "[]"


def test_media_type_parameters_and_case_do_not_matter():
    page = f"<html><body><p>{PARAGRAPH}</p></body></html>"
    assert clean_one(page, "Text/HTML; charset=utf-8")["text"] == PARAGRAPH.strip()


# Repair -------------------------------------------------------------------------------------------


def test_repaired_says_whether_characters_changed():
    assert clean_one("cafÃ© au lait")["scores"]["repaired"] == 1
    assert clean_one("white space  \r\n only\u00a0here")["scores"]["repaired"] == 0


def test_without_repair_the_text_stays_as_it_is():
    assert clean_one("cafÃ©\r\n  \x07", repair=False)["text"] == "cafÃ©\r\n  \x07"
    assert clean_one(" \r\n ", repair=False)["text"] == ""


# Extraction ---------------------------------------------------------------------------------------

PAGE = f"""<!DOCTYPE html><html><head><title>Rivers &amp; lakes
  explained</title><script>var x = "secret";</script></head>
<body><nav><a href="/">Home</a> <a href="/about">About us</a></nav>
<article><h1>Rivers</h1><p>{PARAGRAPH}</p><h2>snake_case and code</h2>
<p>Call <code>get_level()</code> first.</p>
<pre>if level &gt; 3:
    warn()</pre>
<ul><li>north</li><li>south <b>bank</b></li></ul><ol><li>rain</li><li>flood</li></ol>
<table><tr><th>Town</th><th>Level</th></tr><tr><td>Ulm</td><td>2.5</td></tr></table>
<p>{PARAGRAPH.upper()}</p></article><footer>Copyright 2024</footer></body></html>"""


def test_html_keeps_structure_as_markdown():
    row = clean_one(PAGE, "text/html")
    assert row["title"] == "Rivers & lakes explained"
    for part in (
        "# Rivers\n",
        "## snake_case and code\n",
        "Call `get_level()` first.",
        "```\nif level > 3:\n    warn()\n```",
        "- north\n- south bank\n",
        "1. rain\n2. flood\n",
        "| Town | Level |\n|---|---|\n| Ulm | 2.5 |",
    ):
        assert part in row["text"]
    for part in ("Home", "About us", "Copyright", "secret"):
        assert part not in row["text"]
    assert 0.8 < row["scores"]["extracted_fraction"] <= 1.1


def test_html_short_pages_keep_their_text():
    assert extract_html("<p>Closed on Mondays.").text == "Closed on Mondays."
    page = "<body><nav>Menu</nav><main><h1>Opening hours</h1><p>Closed on Mondays.</p></main></body>"
    assert extract_html(page).text == "# Opening hours\n\nClosed on Mondays."
    assert extract_html(page).title == "Opening hours"


def test_html_text_that_a_script_would_show_is_read():
    article = json.dumps({"@type": "Article", "articleBody": PARAGRAPH * 2})
    page = f'<html><body><script type="application/ld+json">{article}</script><p>Loading</p></body></html>'
    assert SENTENCE.strip() in extract_html(page).text


def test_html_reads_decoded_content_whatever_the_page_declares():
    page = f'<html><head><meta charset="iso-8859-1"></head><body><p>Zürich – {PARAGRAPH}</p></body></html>'
    assert extract_html(page).text.startswith("Zürich – The river")
    assert (
        extract_html('<?xml version="1.0" encoding="latin-1"?><html><body>Zürich</body></html>').text
        == "Zürich"
    )


@pytest.mark.parametrize(
    "page", ["", "   ", "<!-- x -->", "<html></html>", "<frameset><frame src=a></frameset>"]
)
def test_html_without_text_is_empty(page):
    assert extract_html(page).text == ""


@pytest.mark.timeout(120)  # seconds; it hangs where the time does not follow the length
@pytest.mark.parametrize(
    "page",
    [
        "<div>" * 100_000 + "deep words" + "</div>" * 100_000,
        "<font>" * 50_000 + "deep words" + "</b>" * 50_000,
        "<table><tr><td>" * 1_000 + "deep words",
        "<p " + " ".join(f"a{i}='{i}'" for i in range(60_000)) + ">deep words</p>",
        "<script>" * 50_000 + "</script>deep words",
        "<p>deep words " + "x" * 5_000_000,
        "deep words" + "<p><b><i>" * 30_000,
    ],
    ids=["divs", "crossed", "tables", "attributes", "scripts", "long word", "unclosed"],
)
def test_hostile_html_is_quick_and_keeps_its_words(page):
    assert extract_html(page).text.startswith("deep words")


@pytest.mark.timeout(120)  # seconds; it hangs where the time does not follow the length
@pytest.mark.parametrize(
    "text",
    [
        "x" * 5_000_000,
        "word " * 1_000_000,
        " " * 2_000_000 + "x",
        "\n" * 2_000_000 + "x",
        "e" + "\u0301\u0323" * 200_000,
        "e" + "\u0301\U0001d165" * 100_000,
        "Ã©" * 200_000,
        "@" * 500_000 + "{" * 500_000,
        "---\n" * 200_000,
        "[" * 200_000,
    ],
    ids=[
        "word",
        "line",
        "spaces",
        "newlines",
        "marks",
        "astral marks",
        "mojibake",
        "braces",
        "rules",
        "brackets",
    ],
)
def test_hostile_text_is_quick(text):
    for media_type in ("text/plain", "text/markdown", "text/x-rst", "text/x-texinfo"):
        extraction = extract(text, None, media_type)
    clean_one(extraction.text)


def test_html_extraction_is_as_good_as_measured(shared):
    truth = json.loads((shared / "data" / "c1_article_extraction" / "ground-truth.json").read_text())
    scores = []
    for name in sorted(truth)[:12]:
        path = shared / "data" / "c1_article_extraction" / "html" / f"{name}.html.gz"
        page = gzip.decompress(path.read_bytes()).decode("utf-8", "replace")
        scores.append(word_f1(extract_html(page).text, truth[name]["articleBody"]))
    assert sum(scores) / len(scores) > 0.93


def test_html_mixed_pages_are_as_good_as_measured(shared):
    scores = []
    with lzma.open(shared / "data" / "c4_wcxb" / "pages.jsonl.xz", "rt", encoding="utf-8") as lines:
        for number, line in enumerate(lines):
            if number % 60 == 0:
                page = json.loads(line)
                scores.append(word_f1(extract_html(page["html"]).text, page["main_content"]))
    assert len(scores) > 5
    assert sum(scores) / len(scores) > 0.7


def test_pdf_text_and_title(shared):
    folder = shared / "data" / "f7_pdf"
    four_pages = clean_one(
        (folder / "004-pdflatex-4-pages" / "pdflatex-4-pages.pdf").read_bytes(), "application/pdf"
    )
    assert four_pages["text"].startswith("Hello, here is some text without a meaning.")
    assert not re.search(r"[a-z]-\n[a-z]", four_pages["text"])
    assert four_pages["language"] == "en"
    annotated = (folder / "024-annotations" / "annotated_pdf.pdf").read_bytes()
    assert clean_one(annotated, "application/pdf")["title"] == "Annotated PDF"


def test_pdf_that_cannot_be_read_is_an_error(shared, hostile):
    folder = shared / "data" / "f7_pdf"
    encrypted = (folder / "005-libreoffice-writer-password" / "libreoffice-writer-password.pdf").read_bytes()
    with pytest.raises(ValueError, match="password"):
        clean_one(encrypted, "application/pdf")
    for name in ("pdf/truncated.pdf", "pdf/header_only.pdf", "pdf/html_as.pdf", "pdf/page_loop.pdf"):
        with pytest.raises(ValueError, match="PDF"):
            clean_one(hostile[name], "application/pdf")
    assert clean_one(hostile["pdf/no_text.pdf"], "application/pdf")["text"] == ""


def test_pdf_with_too_many_pages_is_an_error(tmp_path):
    document = pypdfium2.PdfDocument.new()
    for _ in range(3):
        document.new_page(100, 100)
    document.save(tmp_path / "three.pdf")
    data = (tmp_path / "three.pdf").read_bytes()
    assert extract_pdf(data, max_pages=3).text == ""
    with pytest.raises(ValueError, match="3 pages"):
        clean_one(data, "application/pdf", limits=Limits(max_pages=2))


def test_words_divided_at_line_ends_are_joined():
    assert join_divided_words("the infor-\nmation of Baden-\nBaden, 1990-\n1995") == (
        "the information of Baden-\nBaden, 1990-\n1995"
    )
    assert join_divided_words("soft\ufffe\nly") == "softly"


def test_texinfo_becomes_text():
    source = (
        "\\input texinfo\n@settitle The @code{river} manual\n@c a comment\n@node Top\n"
        "@menu\n* A::\n@end menu\n@chapter Levels\nMail me@@example.org about @samp{a\n"
        "long @emph{nested} name} @dots{} @xref{Top, , The top}.\n"
        "@cindex level\n@itemize @bullet\n@item\none\n@item two\n@end itemize\n"
        "@section Code\n@example\nx = @{1@}\n@end example\n@ifhtml\n<b>\n@end ifhtml\n@bye\n"
    )
    extraction = extract_texinfo(source)
    assert extraction.title == "The river manual"
    assert repair(extraction.text).text == (
        "# Levels\n\nMail me@example.org about a\nlong nested name … See The top.\n- one\n- two\n\n"
        "## Code\n\n```\nx = {1}\n```"
    )


def test_texinfo_manual_reads_as_its_other_formats(shared):
    archives = list((shared / "data" / "a1_sample_registry").rglob("*.texi.gz"))
    row = clean_one(gzip.decompress(archives[0].read_bytes()).decode(), "text/x-texinfo")
    assert row["title"].startswith("bzip2 and libbzip2")
    assert "\n## NAME\n" in row["text"]
    assert not re.search(r"@\w+\{|^@\w+", row["text"], re.MULTILINE)


def test_front_matter_is_removed_and_names_the_title():
    source = '---\ntitle: "Rivers: a \\"guide\\""\ntags: [a]\n---\n# Heading\n\ntext'
    row = clean_one(source, "text/markdown")
    assert row["title"] == 'Rivers: a "guide"'
    assert row["text"] == "# Heading\n\ntext"


@pytest.mark.parametrize(
    ("content", "title", "body"),
    [
        ("---\ntitle: 'It''s'\n---\nx", "It's", "x"),
        ("---\r\ntitle: plain title \r\n---\r\nx", "plain title", "x"),
        ("---\nauthor: me\n...\nx", None, "x"),
        ("---\na line between two rules\n---\nx", None, "---\na line between two rules\n---\nx"),
        ("---\ntitle: never closed\nx", None, "---\ntitle: never closed\nx"),
        ("no front matter", None, "no front matter"),
    ],
)
def test_front_matter(content, title, body):
    assert split_front_matter(content) == (title, body)


def test_hostile_front_matter_is_only_text(hostile):
    for name in ("md/yaml_bomb.md", "md/yaml_python.md", "md/broken_front.md"):
        row = clean_one(hostile[name].decode(), "text/markdown")
        assert row["text"]
        assert not row["text"].startswith("---")


@pytest.mark.parametrize(
    ("content", "title"),
    [
        ("intro\n\n## The *first* heading ##\n# later", "The *first* heading"),
        ("Setext\n======\ntext", "Setext"),
        ("```\n# no heading\n```\n\n# Heading\n", "Heading"),
        ("#hashtag\n\ntext", None),
        ("- item\n\n---\n", None),
        ("# C#\n", "C#"),
    ],
)
def test_markdown_title(content, title):
    assert markdown_title(content) == title


@pytest.mark.parametrize(
    ("content", "title"),
    [
        (".. _ref:\n\n=====\nRiver\n=====\n\ntext", "River"),
        ("River\n~~~~~\n", "River"),
        ("A long title\n===\n", None),
        ("no title at all\n", None),
    ],
)
def test_restructured_text_title(content, title):
    assert underlined_title(content) == title


def test_plain_text_has_a_title_only_on_top():
    assert clean_one("\nRiver\n=====\n\ntext")["title"] == "River"
    assert clean_one("some text\n\nName  Level\n-----------\n")["title"] is None


# Hostile inputs -----------------------------------------------------------------------------------

ENCODINGS = {
    "enc/utf8.txt": "utf-8",
    "enc/utf8_bom.txt": "utf-8",
    "enc/utf16_bom.txt": "utf-16",
    "enc/utf32_bom.txt": "utf-32",
    "enc/cp1252.txt": "cp1252",
}


def test_the_same_text_is_the_same_however_it_is_written(shared, hostile):
    with tarfile.open(shared / "data" / "f1_hostile" / "hostile_seed1.tar.gz") as archive:
        lines = next(
            archive.extractfile(member) for member in archive if member.name.endswith("expect.jsonl")
        )
        cases = [json.loads(line) for line in lines.read().splitlines()]
    pairs = [(case["path"], case["same_as"]) for case in cases if case.get("same_as")]
    pairs = [pair for pair in pairs if pair[0].startswith(("uni/", "enc/"))]
    assert len(pairs) >= 7
    for names in pairs:
        first, second = (clean_one(hostile[name].decode(ENCODINGS.get(name, "utf-8"))) for name in names)
        assert first["text"] == second["text"], names
        assert first["text_hash"] == second["text_hash"]


@pytest.mark.timeout(120)  # seconds; it hangs where the time does not follow the length
def test_hostile_files_are_cleaned_in_time(hostile):
    media_types = {"md": "text/markdown", "html": "text/html", "xhtml": "text/html"}
    folders = ("uni/", "enc/", "size/", "md/", "html/")
    for name, data in hostile.items():
        if name.startswith(folders):
            media_type = media_types.get(name.rsplit(".", 1)[1], "text/plain")
            row = clean_one(data.decode("utf-8", "replace"), media_type)
            assert unicodedata.is_normalized("NFC", row["text"]), name


def test_hostile_pages(hostile):
    for name in ("script_only", "empty_body", "frameset", "boilerplate_only"):
        assert extract_html(hostile[f"html/{name}.html"].decode()).text == "", name
    for name, unwanted in (
        ("hidden.html", "comment secret"),
        ("data_uri.html", "AAAA"),
        ("xxe.xhtml", "root:x:0"),
    ):
        text = extract_html(hostile[f"html/{name}"].decode()).text
        assert text
        assert unwanted not in text
