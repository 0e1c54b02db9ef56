"""Where extracted text comes from, for the formats that are text."""

import gzip
from pathlib import Path

import pytest

from stemma.cleaning.extraction import Extraction, Origin
from stemma.cleaning.extraction.extract import extract
from stemma.cleaning.extraction.limits import Limits
from stemma.cleaning.extraction.texinfo import extract_texinfo


@pytest.mark.parametrize(
    "media_type", ["text/plain", "text/plain; charset=utf-8", "text/x-rst", "text/x-unheard-of"]
)
def test_text_stands_where_it_stood(media_type: str) -> None:
    found = extract("Title\n=====\n\ntext", None, media_type)
    assert found.text == "Title\n=====\n\ntext"
    assert found.origins == (Origin(0, source_char=0),)


@pytest.mark.parametrize("matter", ["", "---\ntitle: x\n---\n", "---\r\nauthor: y\r\n...\r\n"])
def test_markdown_begins_below_its_front_matter(matter: str) -> None:
    source = matter + "# Heading\n\ntext"
    found = extract(source, None, "text/markdown", limits=Limits(max_pages=1))
    (origin,) = found.origins
    assert origin == Origin(0, source_char=len(matter))
    assert source[len(matter) :] == found.text


def test_nothing_comes_from_nowhere() -> None:
    assert extract(None, None, "text/plain") == Extraction("", None, 0)


def source_of(found: Extraction, line: str) -> int:
    """Return the character of the source that a line of the text begins at."""
    start = 0 if found.text.startswith(line) else found.text.index("\n" + line) + 1
    origin = [origin for origin in found.origins if origin.char_start <= start][-1]
    assert origin.source_char is not None
    return origin.source_char + start - origin.char_start


def test_texinfo_lines() -> None:
    source = (
        "\\input texinfo\n@settitle x\n@chapter Levels\nMail @samp{a\nlong @emph{nested} name}.\nThird.\r\n"
        "@cindex level\nFourth.\n@xref{Top, ,\nThe top}.\n@itemize\n@item\none\n@item two\n@end itemize\n"
        "@noindent  plain\n@example\nx = @{1@}\ny\n@end example\nlast"
    )
    found = extract_texinfo(source)
    for line, begins in (
        ("# Levels", "@chapter Levels"),
        ("Mail a", "Mail @samp"),
        ("long nested name.", "long @emph"),
        ("Third.", "Third."),
        ("Fourth.", "Fourth."),
        ("See The top.", "@xref"),
        ("- two", "@item two"),
        ("plain", "@noindent"),
        ("```", "@example"),
        ("x = {1}", "x = @{"),
        ("y", "y\n@end"),
        ("last", "last"),
    ):
        assert source_of(found, line) == source.index(begins), line


def test_texinfo_holds_the_characters_that_mark_its_lines() -> None:
    found = extract_texinfo("a \ue0037\ue004 b\nc")
    assert found.text == "a 7 b\nc"
    assert source_of(found, "c") == 8


def test_texinfo_manual(shared: Path) -> None:
    (path,) = (shared / "data" / "a1_sample_registry").rglob("*.texi.gz")
    source = gzip.decompress(path.read_bytes()).decode()
    found = extract_texinfo(source)
    lines = [line for line in found.text.split("\n") if line.isascii() and line[:1].isalpha()]
    assert len(lines) > 1000
    for line in lines:
        begin = source_of(found, line)
        # A line begins with what it began with, unless a command prints that.
        assert source[begin - 1] == "\n"
        assert source[begin] in (line[0], "@"), line
