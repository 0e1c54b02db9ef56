"""Public suites of awkward files, with the outcome that was decided for each written down here."""

import codecs
import csv
import io
import json
import subprocess
import sys
import tarfile
from collections import Counter, defaultdict
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from harness import Corpus, slow

from stemma.config import SourceConfig
from stemma.reading import ReadError, ReadOptions, Record, read
from stemma.resources.sources import ListingError, list_files, read_stable


def results(data: bytes, name: str, **options) -> list[Record | ReadError]:
    return list(read(io.BytesIO(data), name, ReadOptions(**options)))


def faults(found: list[Record | ReadError]) -> list[str]:
    return [result.error for result in found if isinstance(result, ReadError)]


# ---- hostile trees: ../shared/tools/make_hostile.py (the archive of seed 1 is in test_reading.py)


# What ends otherwise than expect.jsonl says, and why.
DECIDED = {
    "gz/trailing_garbage.txt.gz": "what follows the end is damage; either is allowed",
    "dedup/bridge_events.jsonl": "its delete events have no text",
    "pdf/truncated.pdf": "seen by cleaning",
    "pdf/header_only.pdf": "seen by cleaning",
    "fs/.hidden.txt": "hidden files are passed over",
    "fs/noperm.txt": "root may read it",
    "fs/bad_\\xff\\xfe.txt": "a name that is not UTF-8 is reported, and asks to be changed",
}


@pytest.mark.parametrize("seed", [2, *slow(*range(3, 13))])
def test_hostile_trees_end_as_expected(shared: Path, tmp_path: Path, seed: int) -> None:
    tool = shared / "tools/make_hostile.py"
    arguments = [sys.executable, str(tool), "--out", str(tmp_path), "--seed", str(seed), "--fs"]
    subprocess.run(arguments, check=True, capture_output=True)
    root = tmp_path / "files"
    good: Counter[str] = Counter()
    bad: Counter[str] = Counter()
    for item in list_files(SourceConfig("hostile", str(root))):
        if isinstance(item, ListingError):
            bad[item.uri.removeprefix(f"{root}/")] += 1
            continue
        try:
            file, _hash, found = read_stable(item)
        except OSError:
            bad[item.relative] += 1
            continue
        for result in read(file, found.relative):
            (good if isinstance(result, Record) else bad)[found.relative] += 1
    cases = [json.loads(line) for line in (tmp_path / "expect.jsonl").read_text().splitlines()]
    assert len(cases) > 158
    for case in cases:
        name = case["path"]
        if name in DECIDED:
            continue
        if case["expect"] == "ok" and case.get("rows") != 0:
            assert (good[name] > 0, bad[name]) == (True, 0), name
        elif case["expect"] == "quarantine":
            assert bad[name] > 0, name
        assert good[name] >= case.get("min_good", 0), name
        assert bad[name] >= case.get("min_bad", 0), name
    links = ("loop", "self.txt", "dangling.txt", "outside.txt", "up", "ping.txt", "pong.txt")
    assert all(bad[f"fs/{name}"] == 1 for name in links)


# ---- JSON: nst/JSONTestSuite


# What the standard leaves open, and what we make of it: the value that is kept, or the error that the line costs.
OPEN_JSON = {
    "i_number_huge_exp.json": [None],
    "i_number_real_pos_overflow.json": [None],
    "i_number_too_big_neg_int.json": [-123123123123123123123123123123],
    "i_number_too_big_pos_int.json": [100000000000000000000],
    "i_object_key_lone_2nd_surrogate.json": {"\ufffd": 0},
    "i_string_1st_surrogate_but_2nd_missing.json": ["\ufffd"],
    "i_string_incomplete_surrogate_and_escape_valid.json": ["\ufffd\n"],
    "i_string_UTF-16LE_with_BOM.json": "not UTF-8",
    "i_string_UTF-8_invalid_sequence.json": "not UTF-8",
    "i_string_iso_latin_1.json": "not UTF-8",
    "i_string_lone_utf8_continuation_byte.json": "not UTF-8",
    "i_string_not_in_unicode_range.json": "not UTF-8",
    "i_string_overlong_sequence_6_bytes.json": "not UTF-8",
    "i_string_overlong_sequence_6_bytes_null.json": "not UTF-8",
    "i_string_truncated-utf-8.json": "not UTF-8",
    # A byte order mark is one only at the beginning of the file.
    "i_structure_UTF-8_BOM_empty_object.json": "invalid JSON",
    "number_-9223372036854775808.json": [-9223372036854775808],
    "number_1000000000000000.json": [1000000000000000],
    "number_10000000000000000999.json": [10000000000000000999],
    "number_1e6.json": [1000000.0],
    "number_9223372036854775808.json": [9223372036854775808],
    "object_same_key_unclear_values.json": {"a": 0},
    "string_1_invalid_codepoint.json": "not UTF-8",
    "string_3_escaped_invalid_codepoints.json": ["\ufffd\ufffd\ufffd"],
    "string_3_invalid_codepoints.json": "not UTF-8",
}


def json_cases(shared: Path) -> dict[str, bytes]:
    with tarfile.open(shared / "data/f2_jsontestsuite/tests.tar.gz") as tar:
        return {m.name.rpartition("/")[2]: tar.extractfile(m).read() for m in tar if m.isfile()}  # type: ignore[union-attr]


def test_json_that_the_standard_leaves_open(shared: Path) -> None:
    """Values as they stand inside a line; y_ and n_ are in test_reading.py."""
    cases = {name: data for name, data in json_cases(shared).items() if not name.startswith(("y_", "n_"))}
    outcomes: dict[str, object] = {}
    for name, data in cases.items():
        line = b'{"text": "x", "v": ' + data.replace(b"\n", b" ") + b"}\n"
        result, after = results(line + b'{"text": "after"}', "a.jsonl")
        assert isinstance(after, Record), name
        outcomes[name] = result.metadata["v"] if isinstance(result, Record) else result.error
    # Only the last of equal keys is left, and which of the suite's two files it is makes no difference.
    assert (
        outcomes.keys()
        == {*OPEN_JSON} | {"object_key_nfc_nfd.json", "object_key_nfd_nfc.json"} & outcomes.keys()
    )
    assert {name: outcomes[name] for name in OPEN_JSON} == OPEN_JSON


def test_json_files_as_they_are_never_raise_and_never_invent(shared: Path) -> None:
    """As one .json document: no case has a text field, so none may become a document but empty files."""
    found = Counter(
        result.error if isinstance(result, ReadError) else "document"
        for name, data in json_cases(shared).items()
        for result in results(data, "a.json")[:1]
    )
    assert set(found) <= {
        *("invalid JSON", "truncated JSON", "not UTF-8", "not an object", "missing text field", "too deep"),
        *("document", "unsupported format"),
    }
    assert found["document"] <= 4


# ---- the big list of naughty strings


def naughty(shared: Path) -> list[str]:
    strings = json.loads((shared / "data/f3_blns/blns.json").read_text())
    return [text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace") for text in strings]


def test_naughty_strings_pass_unchanged_through_each_format(shared: Path) -> None:
    strings = naughty(shared)
    assert len(strings) == 255
    lines = b"\n".join(json.dumps({"text": text}).encode() for text in strings)
    assert [r.content for r in results(lines, "a.jsonl") if isinstance(r, Record)] == strings
    array = json.dumps([{"text": text} for text in strings], ensure_ascii=False).encode()
    assert [r.content for r in results(array, "a.json") if isinstance(r, Record)] == strings
    buffer = io.StringIO(newline="")
    csv.writer(buffer).writerows([["id", "text"], *([str(n), text] for n, text in enumerate(strings))])
    found = results(buffer.getvalue().encode(), "a.csv")
    assert faults(found) == []
    assert [r.content for r in found if isinstance(r, Record)] == strings


def test_naughty_strings_as_text_key_title_and_label_reach_the_published_table(
    shared: Path, tmp_path: Path
) -> None:
    strings = naughty(shared)
    corpus = Corpus(tmp_path)
    lines = [
        {"id": f"{n} {text}", "text": text, "title": text or "none", "kind": text}
        for n, text in enumerate(strings)
    ]
    corpus.write("rows.jsonl", "\n".join(map(json.dumps, lines)))
    (source,) = corpus.sources
    corpus.sources = [SourceConfig("docs", source.path, fields=(("kind", "kind"),))]
    run = corpus.start()
    try:
        from stemma.resources.engine.raw import update_raw

        update_raw(run)
        with run.warehouse.session() as connection:
            rows = connection.execute(
                "SELECT record, title, labels->>'kind', metadata->>'kind' FROM state.raw"
            ).fetchall()
            errors = connection.execute("SELECT count(*) FROM state.errors").fetchone()
    finally:
        run.warehouse.close()
    assert errors == (0,)
    assert sorted(rows) == sorted((line["id"], line["title"], line["kind"], line["kind"]) for line in lines)


# ---- Parquet: apache/parquet-testing


BAD_PARQUET = {
    ("ARROW-GH-41317.parquet", "string"): "damaged Parquet",
    ("ARROW-GH-41321.parquet", "string"): "damaged Parquet",
    # Neither has a column of text: the damage lies where we do not look.
    ("ARROW-GH-43605.parquet", "min_fl"): "text field is not text",
    ("ARROW-RS-GH-6229-DICTHEADER.parquet", "name"): "text field is not text",
}
# The files with a column of strings: that column, documents, rows whose text is null.
GOOD_PARQUET = {
    "binary_truncated_min_max.parquet": ("utf8_full_truncation", 12, 0),
    "data_index_bloom_encoding_stats.parquet": ("String", 14, 0),
    "data_index_bloom_encoding_with_length.parquet": ("String", 14, 0),
    "datapage_v2.snappy.parquet": ("a", 4, 1),
    "delta_byte_array.parquet": ("c_customer_id", 1000, 0),
    "delta_encoding_optional_column.parquet": ("c_customer_id", 100, 0),
    "delta_encoding_required_column.parquet": ("c_customer_id:", 100, 0),
    "delta_length_byte_array.parquet": ("FRUIT", 1000, 0),
    "geospatial/crs-default.parquet": ("wkt", 1, 0),
    "geospatial/crs-geography.parquet": ("wkt", 1, 0),
    "geospatial/crs-projjson.parquet": ("wkt", 1, 0),
    "geospatial/geospatial.parquet": ("group", 196, 0),
    "lz4_raw_compressed_larger.parquet": ("a", 10000, 0),
    "unknown-logical-type.parquet": ("column with known type", 3, 0),
}
# Of the others these are refused for another reason than that they hold no text.
REFUSED_PARQUET = {
    "incorrect_map_schema.parquet": "damaged Parquet",
    "large_string_map.brotli.parquet": "too large",
}


@pytest.mark.parametrize(("name", "column"), BAD_PARQUET)
def test_bad_parquet_is_an_error_of_the_file(shared: Path, name: str, column: str) -> None:
    data = (shared / "data/f5_parquet/bad_data" / name).read_bytes()
    assert faults(results(data, name, text_field=column)) == [BAD_PARQUET[name, column]]
    assert faults(results(data, name)) == ["missing text field"]


def test_no_bad_parquet_is_left_out(shared: Path) -> None:
    names = {path.name for path in (shared / "data/f5_parquet/bad_data").glob("*.parquet")}
    assert names == {name for name, _column in BAD_PARQUET}


def test_good_parquet_is_read_as_arrow_reads_it(shared: Path) -> None:
    folder = shared / "data/f5_parquet/data"
    for name, (column, documents, empty) in GOOD_PARQUET.items():
        found = results((folder / name).read_bytes(), name, text_field=column)
        texts = [r.content for r in found if isinstance(r, Record)]
        assert (len(texts), faults(found)) == (documents, ["empty text field"] * empty), name
        truth = pq.ParquetFile(folder / name).read(columns=[column])[column].to_pylist()
        assert texts == [text for text in truth if text is not None], name


def test_other_parquet_is_refused_with_the_reason(shared: Path) -> None:
    folder = shared / "data/f5_parquet/data"
    for path in sorted(folder.rglob("*.parquet*")):
        name = path.relative_to(folder).as_posix()
        if name in GOOD_PARQUET:
            continue
        (fault,) = faults(results(path.read_bytes(), path.name))
        encrypted = name.endswith(".encrypted") and "plaintext_footer" not in name
        assert fault == REFUSED_PARQUET.get(
            name, "unsupported format" if encrypted else "missing text field"
        ), name


# ---- CSV: Pollock, one clean file polluted in 90 ways (csv-spectrum is in test_reading.py)


# Kind of pollution: of how many files (documents lost, errors, documents with a wrong text).
POLLOCK = {
    # A space as delimiter: the header cannot be told from prose. A tab is found.
    "file_field_delimiter": Counter({(0, 0, 0): 1, (83, 1, 0): 1}),
    # Two further header rows are read as documents.
    "file_header_multirow": Counter({(-2, 0, 2): 1}),
    # The header is not in the first row: the file is refused, and says which columns it found.
    "file_preamble": Counter({(83, 1, 0): 1}),
    # One row is lost, with an error; where the quote is in the header, the file.
    "row_extra_quote": Counter({(1, 1, 0): 53, (83, 1, 0): 1}),
    "row_field_delimiter": Counter({(1, 1, 0): 7}),
    # One row is lost, with an error. In two files the header lacks a separator, and as the rows end in an empty
    # cell, they fit it one column off: nothing in such a file shows it. In one the missing cell is that empty one.
    "row_less_sep": Counter({(1, 1, 0): 22, (0, 0, 83): 2, (0, 0, 0): 1}),
}


def test_polluted_csv(shared: Path) -> None:
    folder = shared / "data/f9_csv/pollock"
    outcomes: dict[str, Counter[tuple[int, int, int]]] = defaultdict(Counter)
    for path in sorted((folder / "csv").iterdir()):
        clean = (folder / "clean" / path.name).read_text(encoding="utf-8")
        texts = [row[6] for row in list(csv.reader(io.StringIO(clean, newline="")))[1:]]
        found = results(path.read_bytes(), path.name, text_field="ProductDescription")
        good = [r.content for r in found if isinstance(r, Record)]
        kind = "_".join(path.stem.split("_")[:3]).rstrip("0123456789")
        wrong = sum(text not in texts for text in good)
        outcomes[kind][len(texts) - len(good), len(faults(found)), wrong] += 1
    assert outcomes == POLLOCK


# ---- encodings: chardet's tests


def test_encodings(shared: Path) -> None:
    right: Counter[str] = Counter()
    wrong: Counter[str] = Counter()
    for path in sorted((shared / "data/e3_encodings").glob("*/*")):
        label = path.parent.name
        data = path.read_bytes()
        (record,) = results(data, path.name)
        assert isinstance(record, Record), path
        truth = data.decode(_codec(label), "replace").lstrip("\ufeff")
        same = sum(a == b for a, b in zip(record.content or "", truth, strict=False))
        (right if same > 0.98 * len(truth) else wrong)[label] += 1
    assert not wrong
    assert (right.total(), len(right)) == (206, 39)


def _codec(label: str) -> str:
    names = {
        "GB2312": "gb18030",
        "CP932": "cp932",
        "SHIFT_JIS": "cp932",
        "EUC-KR": "cp949",
        "TIS-620": "cp874",
    }
    names |= {"Big5": "big5hkscs", "MacCyrillic": "mac_cyrillic"}
    name = names.get(label, label)
    try:
        codecs.lookup(name)
    except LookupError:
        return name.rpartition("-")[0]
    return name


# ---- web archives: warcio's tests


# Documents; then errors. Bodies are JSON in one file, and ARC, the format before WARC, is not read.
WEB_ARCHIVES = {
    "example.warc.gz": (1, []),
    "example-iana.org-chunked.warc": (1, []),
    "example-wget-bad-target-uri.warc.gz": (1, []),
    # The page says that it is chunked and is not: it is taken as it stands.
    "example-wrong-chunks.warc.gz": (1, []),
    "post-test.warc.gz": (0, []),
    "example-space-in-url.arc": (0, ["unsupported format"]),
}


def test_web_archives(shared: Path) -> None:
    """warcio itself is the oracle for what the pages hold."""
    from warcio.archiveiterator import ArchiveIterator

    folder = shared / "data/f6_warc/test/data"
    assert {path.name for path in folder.iterdir()} == set(WEB_ARCHIVES)
    for name, expected in WEB_ARCHIVES.items():
        data = (folder / name).read_bytes()
        found = results(data, name)
        good = [r for r in found if isinstance(r, Record)]
        assert (len(good), faults(found)) == expected, name
        if good and name != "example-wrong-chunks.warc.gz":
            archive = ArchiveIterator(io.BytesIO(data))
            pages = [record.content_stream().read() for record in archive if record.rec_type == "response"]
            assert [(record.content or "").encode() for record in good] == pages, name
