"""Fuzzing: whatever readers, cleaner, tokeniser, chunker, configuration and command line are given, no bug shows.

Each target makes its inputs from a number. By default it gets the first few; in the slow suite new ones, for
FUZZ_SECONDS. What fails is printed with its number, from which FUZZ_FROM begins again. What was found stands as a
test of its own where it was mended.
"""

import argparse
import contextlib
import io
import os
import random
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from harness import Corpus, long_document, sentence, slow
from test_chunking import ESTIMATE, LINES, check_spans, cut_all, minilm_file  # noqa: F401
from test_office import cell, docx, paragraph, rows
from test_pdf import pages, words
from test_reading_mutations import FILES, check_found, mutated

from stemma import cli
from stemma.chunking import STRATEGIES, TokenCounter, load_tokenizer
from stemma.cleaning.clean import INPUTS, OUTPUTS, clean
from stemma.config import Config, all_sections, load_config, to_toml
from stemma.deduplication.tokens import normal_forms, word_hashes, word_spans, words_of
from stemma.errors import StemmaError, UsageError
from stemma.reading import ReadOptions, Record, read
from stemma.resources.engine import Setup
from stemma.search.words import postings, query_words

SECONDS = float(os.environ.get("FUZZ_SECONDS", "60"))
# Of processor time for one input; the largest are of some kilobytes.
MOST_SECONDS = 30
SAMPLE = Path(__file__).resolve().parents[1] / "sample" / "corpus"


def fuzz(target: str, few: int, seconds: float, check: Callable[[random.Random], None]) -> None:
    """Check the first `few` inputs of a target; with `seconds` others, for so long."""
    first = int(os.environ.get("FUZZ_FROM", time.time_ns() // 1_000_000 if seconds else 0))
    ends = time.monotonic() + seconds
    number = first
    while time.monotonic() < ends if seconds else number < first + few:
        began = time.process_time()
        try:
            check(random.Random(f"{target} {number}"))
            assert time.process_time() - began < MOST_SECONDS, "it takes too long"
        except Exception as error:
            raise AssertionError(
                f"{target}: input {number}: {type(error).__name__}: {error}"[:4000]
            ) from error
        number += 1
    print(f"{target}: {number - first} inputs")


LIMITED = pytest.mark.parametrize("seconds", [0.0, *slow(SECONDS)])

# -- readers and cleaner -------------------------------------------------------------------------------------------


def samples() -> dict[str, bytes]:
    """Return small real files of every format, by a name with its suffix."""
    found = dict(FILES)
    for path in sorted(SAMPLE.rglob("*")):
        if path.is_file() and path.stat().st_size < 30_000:
            found[path.name] = path.read_bytes()
    table = rows([cell("one"), cell("two")], [cell("three"), cell("four")])
    found["real.docx"] = docx(paragraph("Title", "Heading1") + paragraph("Some text.") + table)
    found["a.pdf"] = pages(words("Some words of a page"), words("Another page"))
    for suffix in ("xlsx", "pptx"):
        found[f"real.{suffix}"] = office_file(suffix)
    found["a.epub"] = epub()
    found["utf16.txt"] = "A text in UTF-16, with Größe and 漢字.".encode("utf-16")
    found["a.tsv"] = b"id\ttext\n1\tone\n2\ttwo\n"
    found["a.rst"] = b"Title\n=====\n\n:Date: 2024-05-06\n\nText ``code``.\n"
    found["a.texi"] = b"\\input texinfo\n@chapter One\n@code{x} text @footnote{note}\n@bye\n"
    return found


def office_file(suffix: str) -> bytes:
    """Return a small spreadsheet or presentation."""
    sink = io.BytesIO()
    if suffix == "xlsx":
        from openpyxl import Workbook

        book = Workbook()
        for row in (["name", "number"], ["one", 1], ["=A1", 2.5]):
            book.active.append(row)
        book.save(sink)
    else:
        from pptx import Presentation

        show = Presentation()
        slide = show.slides.add_slide(show.slide_layouts[1])
        slide.shapes.title.text, slide.placeholders[1].text = "A title", "Some points"
        show.save(sink)
    return sink.getvalue()


def epub() -> bytes:
    """Return a small book."""
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w") as book:
        book.writestr("mimetype", "application/epub+zip")
        book.writestr(
            "META-INF/container.xml",
            '<container xmlns="urn:oasis:names:tc:opendocument:xmlns:container" version="1.0"><rootfiles><rootfile'
            ' full-path="c.opf" media-type="application/oebps-package+xml"/></rootfiles></container>',
        )
        book.writestr(
            "c.opf",
            '<package xmlns="http://www.idpf.org/2007/opf"><metadata xmlns:dc="http://purl.org/dc/elements/1.1/">'
            "<dc:title>T</dc:title></metadata><manifest>"
            '<item id="a" href="a.xhtml" media-type="application/xhtml+xml"/></manifest>'
            '<spine><itemref idref="a"/></spine></package>',
        )
        book.writestr("a.xhtml", "<html><body><h1>One</h1><p>Some text of a book.</p></body></html>")
    return sink.getvalue()


def inside(data: bytes, chance: random.Random) -> bytes:
    """Damage one member of a ZIP archive and pack it again, so that its checksum is right."""
    sink = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(sink, "w", zipfile.ZIP_DEFLATED) as new:
        names = old.namelist()
        unlucky = chance.choice(names)
        for name in names:
            content = old.read(name)
            new.writestr(name, damaged(content, chance) if name == unlucky else content)
    return sink.getvalue()


TAGS = (
    b"<",
    b">",
    b"</",
    b"&#0;",
    b"&#xD800;",
    b"<!--",
    b"<![CDATA[",
    b"]]>",
    b"<table>",
    b"<pre>",
    b"\xed\xa0\x80",
)


def damaged(data: bytes, chance: random.Random) -> bytes:
    """Change bytes, or put pieces of structure somewhere, or repeat a part many times."""
    kind = chance.randrange(4)
    if kind == 0:
        at = chance.randrange(len(data) + 1)
        return data[:at] + chance.choice(TAGS) * chance.choice((1, 1, 3, 200)) + data[at:]
    if kind == 1:
        start = chance.randrange(len(data) + 1)
        part = data[start : start + chance.randrange(1, 60)]
        return data[:start] + part * chance.choice((2, 50, 400)) + data[start:]
    return mutated(data, chance)


SAMPLES = samples()
SUFFIXES = sorted({name[name.index(".") :] for name in SAMPLES} | {".bin", ""})


def any_file(chance: random.Random) -> tuple[str, bytes]:
    """Return a damaged file, or bytes that are nothing, under a name that may be wrong."""
    name = chance.choice(sorted(SAMPLES))
    data = SAMPLES[name]
    kind = chance.randrange(10)
    if kind == 0:
        data = chance.randbytes(chance.randrange(400))
    elif kind < 5 and zipfile.is_zipfile(io.BytesIO(data)):
        data = inside(data, chance)
    else:
        data = damaged(data, chance)
    if chance.randrange(8) == 0:
        name = f"x{chance.choice(SUFFIXES)}"
    return name, data


OPTIONS = (
    ReadOptions(),
    ReadOptions(fields=(("kind", "title"),), labels=(("a", 1),)),
    ReadOptions(text_field="text", id_field="id", date_field="date"),
)


def read_and_clean(chance: random.Random) -> None:
    name, data = any_file(chance)
    found = list(read(io.BytesIO(data), name, chance.choice(OPTIONS)))
    check_found(found, data)
    settings: dict[str, Any] = {"repair": chance.random() < 0.7, "html": chance.choice(("default", "fast"))}
    for record in found[:20]:
        if isinstance(record, Record):
            check_cleaned({column: getattr(record, column) for column in INPUTS.names}, settings)


def check_cleaned(row: dict[str, Any], settings: dict[str, Any]) -> None:
    """See that a document is refused, or cleaned into a sound row whose spans lie within its text."""
    table = pa.Table.from_pylist([row], INPUTS)
    try:
        cleaned = clean(table, **settings)
    except ValueError:
        return
    assert cleaned.schema == OUTPUTS
    cleaned.validate(full=True)
    (out,) = cleaned.to_pylist()
    text = out["text"]
    text.encode()
    assert 0 <= out["language_score"] <= 1
    starts = [origin["char_start"] for origin in out["origins"]]
    assert starts == sorted(starts)
    assert all(0 <= start <= len(text) for start in starts)
    assert all(0 <= span["char_start"] <= span["char_end"] <= len(text) for span in out["pii"])
    assert clean(table, **settings).equals(cleaned)


@LIMITED
def test_readers_and_cleaner(seconds: float) -> None:
    fuzz("readers", 150, seconds, read_and_clean)


# -- words and chunks ----------------------------------------------------------------------------------------------

ALPHABETS = (
    "ab .\n",
    "aé漢字かな。、ไทยम्ि\u0301\u200d👩🏽🇫🇷 \n\u00ad\u0300\ufe0f가\u1100\u1161\u11a8½ﬁŉǆßİ",
    "".join(map(chr, range(0, 0x250))),
)


def any_text(chance: random.Random, most: int = 400) -> str:
    """Return a text of some alphabet, of any characters, or of lines that mean something to a chunker."""
    kind = chance.randrange(5)
    count = chance.choice((0, 1, 5, chance.randrange(most)))
    if kind < len(ALPHABETS):
        return "".join(chance.choices(ALPHABETS[kind], k=count))
    if kind == len(ALPHABETS):
        codes = (chance.choice((0x80, 0x800, 0x3000, 0x11000, 0x110000)) for _ in range(count))
        return "".join(chr(chance.randrange(code)) for code in codes).encode(errors="replace").decode()
    lines = "\n".join(chance.choices(LINES, k=chance.randrange(30)))
    return lines + chance.choice(("", "\n", chance.choice(lines or "x") * chance.choice((3, 300, 5_000))))


def check_words(chance: random.Random) -> None:
    texts = [any_text(chance) for _ in range(chance.randrange(1, 6))]
    together = words_of(texts)
    hashes, bounds = word_hashes(together)
    for number, (text, form) in enumerate(zip(texts, normal_forms(together), strict=True)):
        alone = words_of([text])
        assert list(normal_forms(alone)) == [form], text
        assert hashes[bounds[number] : bounds[number + 1]].tolist() == word_hashes(alone)[0].tolist(), text
        starts, ends = word_spans(text)
        assert len(starts) == len(alone.ends), text
        assert (starts < ends).all(), text
        assert (starts[1:] >= starts[:-1]).all(), text
        assert not len(ends) or ends.max() <= len(text), text
    table, lengths = postings(texts)
    table.validate(full=True)
    assert len(lengths) == len(texts)
    for text in texts:
        query_words(text)


@LIMITED
def test_words(seconds: float) -> None:
    fuzz("words", 150, seconds, check_words)


def check_chunks(chance: random.Random, counters: list[TokenCounter]) -> None:
    texts = [any_text(chance, 1_500) for _ in range(chance.randrange(1, 5))]
    most = chance.choice((1, 2, 5, 20, 60, 500))
    overlap = chance.choice((0, 0, chance.randrange(most)))
    strategy, counter = chance.choice(sorted(STRATEGIES)), chance.choice(counters)
    chunks = cut_all(texts, strategy, most, overlap, counter)
    for text, each in zip(texts, chunks, strict=True):
        check_spans(text, each, most, overlap, least=1 if counter is ESTIMATE else 0)
    assert chunks == [cut_all([text], strategy, most, overlap, counter)[0] for text in texts]


@LIMITED
def test_chunks(seconds: float, minilm_file: Path) -> None:  # noqa: F811
    counters = [ESTIMATE, load_tokenizer(minilm_file)]
    fuzz("chunks", 60, seconds, lambda chance: check_chunks(chance, counters))


# -- configuration -------------------------------------------------------------------------------------------------

VALUES = (
    r"""
true|false|0|1|-1|3|160|0.5|1.0|nan|inf|-inf|99999999999999999999|1e400|0x10|2024-05-06|10:00:00
""|"a"|"../x"|"/"|"a:b"|"${HOME}"|"${NO_SUCH}"|"${"|"\u0000"|"\n"|"漢字"|"semantic"|"hash:16"|"local"
[]|["a"]|[1]|["a", "a"]|[[]]|["exact", "near"]|["en"]|{}|{a = 1}|{a = "b"}|{a = {}}|[{}]
""".strip()
    .replace("\n", "|")
    .split("|")
)


def any_toml(chance: random.Random) -> str:
    """Return a configuration: of sections and keys that there are, with values that they may have or not."""
    lines = []
    for heading, section in chance.sample(sorted(all_sections().items()), chance.randrange(1, 5)):
        lines.append(heading if chance.randrange(20) else "[" + heading + "]")
        for key in chance.sample(
            sorted(section.__dataclass_fields__), min(3, len(section.__dataclass_fields__))
        ):
            default = section.__dataclass_fields__[key].default
            own = [repr(default).lower()] if isinstance(default, bool | int | float) else []
            rule = section.__dataclass_fields__[key].metadata.get("rule")
            own += [f'"{choice}"' for choice in rule.choices] if rule else []
            value = chance.choice(own) if own and chance.random() < 0.5 else chance.choice(VALUES)
            lines.append(
                f"{key if chance.randrange(20) else chance.choice(('x', key + key, 'a.b'))} = {value}"
            )
    text = "\n".join(lines) + "\n"
    return (
        mutated(text.encode(), chance).decode(errors="surrogateescape") if chance.randrange(6) == 0 else text
    )


def check_config(chance: random.Random, folder: Path) -> None:
    file = folder / "stemma.toml"
    text = any_toml(chance)
    file.write_bytes(text.encode(errors="surrogateescape"))
    refused = None
    try:
        config = load_config(file, environ={"HOME": str(folder)}, cwd=folder)
        file.write_text(to_toml(config), encoding="utf-8")
        again = load_config(file, environ={}, cwd=folder)
        assert again == config, text
        check_setup(config)
    except UsageError as error:
        refused = str(error)
    assert refused is None or (str(file) in refused and "\n" not in refused), (text, refused)


def check_setup(config: Config) -> None:
    """See that what is configured can be set up, or is refused."""
    with contextlib.suppress(StemmaError):
        setup = Setup.of(config)
        assert setup.rules
        assert setup.clean
        assert setup.document_quality is not NotImplemented


@LIMITED
def test_configuration(seconds: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    fuzz("configuration", 200, seconds, lambda chance: check_config(chance, tmp_path))


# -- command line --------------------------------------------------------------------------------------------------

# These start a server, or a run of Dagster, or watch: their arguments are parsed, and that is all.
ONLY_PARSED = {"ui", "run"}
# Words of which an option's value may be made.
WORDS = (
    """
|-|--|0|1|-1|5|0.5|nan|inf|1e999|999999999999999999999999999999|x|docs|cleaned|all|*|.|=|a=b|%s|{0}|漢字|2024-05-06
doc000.txt|docs/doc000.txt|none.toml|out.parquet|out.jsonl|out.csv|no/such/out.jsonl|http://127.0.0.1:9/x|[embed]
river stone|'; DROP TABLE x; --|SELECT 1|FROM corpus.raw|SELECT|source = 'docs'|1 = 1|language = 'en' OR
00000000-0000|00000000-0000-0000-0000-000000000000|chunk.max_tokens=5
""".strip()
    .replace("\n", "|")
    .split("|")
)
WORDS += ["\x00", "\ud800", "a\nb"]


def commands() -> dict[str, list[argparse.Action]]:
    """Return what each command takes."""
    top = cli.parser()
    (choices,) = [action for action in top._actions if isinstance(action, argparse._SubParsersAction)]
    return {name: word._actions for name, word in choices.choices.items()}


def any_arguments(chance: random.Random, actions: list[argparse.Action], ids: list[str]) -> list[str]:
    """Return arguments that a command may take, mostly."""
    options = [a for a in actions if a.option_strings and a.dest not in ("help", "config", "debug")]
    chosen = chance.sample(options, min(len(options), chance.choice((0, 1, 1, 2, 3))))
    chosen += [
        a for a in actions if not a.option_strings and (a.nargs not in ("?", "*") or chance.random() < 0.7)
    ]
    given: list[str] = []
    for action in chosen:
        given += [chance.choice(action.option_strings)] if action.option_strings else []
        if action.nargs != 0:
            pool = [str(c) for c in action.choices] * 4 if action.choices else [*ids, *WORDS]
            given += [chance.choice(pool) for _ in range(chance.choice((1, 1, 1, 2)) if action.nargs else 1)]
    if chance.randrange(15) == 0:
        given.append(chance.choice(("--none", "-q", chance.choice(WORDS))))
    return given


def check_command(chance: random.Random, corpus: Corpus, ids: list[str]) -> None:
    name, actions = chance.choice(sorted(commands().items()))
    given = [name, *any_arguments(chance, actions, ids)]
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            if name in ONLY_PARSED:
                cli.parser().parse_args(given)
                return
            # With it, what is no StemmaError comes out as it is.
            code = cli.main([*given, "--config", str(corpus.root / "stemma.toml"), "--debug"])
        except SystemExit as ended:
            code = int(ended.code or 0)
        except Exception as error:
            raise AssertionError(f"stemma {given}") from error
    assert code in (0, 1, 2), given
    assert code == 0 or err.getvalue().strip() or name == "verify", given
    assert corpus.path.exists(), given
    assert corpus.failed_checks() == [], given


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    corpus = Corpus(tmp_path_factory.mktemp("fuzz"), embed={"model": "hash:16"})
    corpus.fill(6)
    corpus.write("again.txt", sentence("doc001.txt", 30))
    corpus.write("long.md", f"# Title\n\n{long_document('long', 4)}")
    corpus.run()
    corpus.write("doc002.txt", sentence("changed", 30))
    corpus.run()
    return corpus


@pytest.fixture
def ids(small: Corpus) -> list[str]:
    """Ids of all kinds that the corpus has."""
    found = small.query(
        """SELECT min(document_id)::VARCHAR FROM corpus.raw UNION ALL SELECT min(chunk_id)::VARCHAR FROM corpus.chunked
        UNION ALL SELECT min(run_id) FROM lineage.runs UNION ALL SELECT min(cluster_id)::VARCHAR FROM lineage.members"""
    )
    return [value for (value,) in found]


@pytest.fixture
def quiet_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder to be in, which holds all that a command may write, with nothing to read from standard input."""
    place = tmp_path / "here"
    place.mkdir()
    monkeypatch.chdir(place)
    monkeypatch.setenv("STEMMA_CONFIG", "")
    monkeypatch.setenv("DAGSTER_HOME", "")
    monkeypatch.setattr("sys.stdin", io.StringIO(""))
    yield place
    assert {path.name for path in tmp_path.iterdir()} == {"here"}


@LIMITED
def test_command_line(seconds: float, small: Corpus, ids: list[str], quiet_place: Path) -> None:
    fuzz("commands", 60, seconds, lambda chance: check_command(chance, small, ids))
