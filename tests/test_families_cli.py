"""stemma families and stemma lookup: what differs within families, and what a new text has in the corpus."""

import io
import json
import os
import re
import shutil
import sys
import threading
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from harness import WORDS, Corpus, published_bytes, sentence
from hypothesis import given, settings
from hypothesis import strategies as st

from stemma.cli import main
from stemma.commands.differences import COMPARED_CHARACTERS, Part, differences, excerpts
from stemma.config import SourceConfig

Stemma = Callable[..., Any]


@pytest.fixture
def stemma(capsys: pytest.CaptureFixture[str]) -> Stemma:
    """Run a command on a corpus in this process; returns its code, out and err, and out as JSON."""

    def call(corpus: Corpus, *arguments: str) -> Any:
        capsys.readouterr()
        try:
            code = main([arguments[0], "--config", str(corpus.root / "stemma.toml"), *arguments[1:]])
        except SystemExit as stop:
            code = int(stop.code or 0)
        out, err = capsys.readouterr()
        return SimpleNamespace(
            code=code, out=out, err=err, json=json.loads(out) if "--json" in arguments and not code else None
        )

    return call


def changed(text: str, *, at: tuple[int, ...], by: str = "changed") -> str:
    """Return a text with the words at these places replaced."""
    words = text.split(" ")
    for place in at:
        words[place] = by
    return " ".join(words)


GUIDE = sentence("guide", 200)


def fill(corpus: Corpus) -> None:
    """Write families of 4, 2, 2 and 2 members, and two documents without duplicates."""
    corpus.write("2019-03-01/guide.md", GUIDE)
    corpus.write("2021-03-01/guide.md", changed(GUIDE, at=(20,)))
    corpus.write("2024-03-01/guide.md", changed(GUIDE, at=(20, 120)))
    corpus.write("copies/guide.md", GUIDE)
    corpus.write("note.txt", sentence("note", 90))
    corpus.write("copies/note.txt", changed(sentence("note", 90), at=(0, 45), by="different"))
    rows = [sentence("alone", 50), *(sentence(seed, 50) for seed in ("row", "row", "line", "line"))]
    corpus.write(
        "rows.jsonl",
        "".join(json.dumps({"id": f"r{n}", "text": text}) + "\n" for n, text in enumerate(rows)),
    )
    corpus.write("alone.txt", sentence("nobody", 60))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    """A corpus with families, for tests that only read."""
    corpus = Corpus(tmp_path_factory.mktemp("families"))
    fill(corpus)
    corpus.run()
    return corpus


def cluster(corpus: Corpus, name: str) -> str:
    return str(
        corpus.value(
            f"SELECT cluster_id FROM lineage.members JOIN corpus.raw USING (document_id) WHERE uri LIKE '%/docs/{name}'"
        )
    )


# -- differences ---------------------------------------------------------------------------------------------------

PIECES = st.sampled_from(
    [*WORDS[:6], "Straße", "北京", "ประเทศ", "नमस्ते", "e\u0301", ".", ", ", "。", "\n", "\n\n", " ", "½", "3"]
)
TEXTS = st.lists(PIECES, max_size=30).map(" ".join)


def glued(parts: list[Part], without: str) -> str:
    return "".join("".join(part.text for part in parts if part.kind != without).split())


@settings(deadline=None, max_examples=150)
@given(TEXTS, TEXTS)
def test_the_parts_make_up_both_texts(before: str, after: str) -> None:
    parts = differences(before, after)
    assert glued(parts, "added") == "".join(before.split())
    assert glued(parts, "removed") == "".join(after.split())
    if before.split() == after.split():
        assert all(part.kind == "same" for part in parts)


def test_only_the_words_that_changed_are_told() -> None:
    before = "# Title\n\nThe first line stays. The second one goes.\nA last line."
    after = "# Title\n\nThe first line stays. The third one goes!\nA last line. And more."
    told = [(part.kind, part.text.strip()) for part in differences(before, after) if part.kind != "same"]
    assert told == [
        *(("removed", "second"), ("added", "third"), ("removed", "."), ("added", "!")),
        ("added", "And more."),
    ]


def test_scripts_without_spaces_are_compared_by_character() -> None:
    told = [part for part in differences("我们去北京", "我们去南京") if part.kind != "same"]
    assert told == [Part("removed", "北"), Part("added", "南")]


def test_what_would_take_long_is_removed_and_added_as_a_whole() -> None:
    # Two words in no order: each of 90,000 pieces equals half of the others.
    before, after = (" ".join("ab"[ord(c) % 2] for c in sentence(seed, 12_000)) for seed in (1, 2))
    assert [part.kind for part in differences(before, after) if part.kind != "same"] == ["removed", "added"]


def test_texts_are_compared_up_to_a_length() -> None:
    long = "\n".join(sentence(number, 20) for number in range(4000))
    assert len(long) > 2 * COMPARED_CHARACTERS
    parts = differences(long, long.replace("\n", "\nnew ", 1))
    assert [part.kind for part in parts] == ["same", "added", "same"], (
        "the end that was cut off is no difference"
    )


def test_what_did_not_change_is_left_out() -> None:
    before = sentence("long", 300)
    (first, second) = excerpts(differences(before, changed(before, at=(50, 250))))
    for line in (first, second):
        assert [part.kind for part in line] == ["same", "removed", "added", "same"]
        assert line[0].text.startswith("… ")
        assert line[-1].text.endswith(" …")
        assert sum(len(part.text) for part in line) < 140
    (near,) = excerpts(differences(before, changed(before, at=(50, 53))))
    assert [part.kind for part in near].count("added") == 2, "what lies close together is on one line"


# -- families ------------------------------------------------------------------------------------------------------


def test_families_lists_the_largest_first(made: Corpus, stemma: Stemma) -> None:
    told = stemma(made, "families")
    assert told.code == 0, told.err
    lines = told.out.splitlines()
    heads = ["cluster id", "members", "kept", "sources", "dates", "methods", "least similarity", "title"]
    assert lines[0].split() == " ".join(heads).split()
    assert lines[2].split()[:4] == [cluster(made, "2019-03-01/guide.md"), "4", "1", "docs"]
    assert "2019-03-01 – 2024-03-01" in lines[2]
    assert "exact, near" in lines[2]
    found = stemma(made, "families", "--json").json
    assert [row["members"] for row in found] == [4, 2, 2, 2]
    assert found == stemma(made, "families", "--json", "--sort", "members").json


def test_families_sorts_filters_and_limits(made: Corpus, stemma: Stemma) -> None:
    def asked(*arguments: str) -> list[str]:
        return [row["cluster_id"] for row in stemma(made, "families", "--json", *arguments).json]

    guide, note = cluster(made, "2019-03-01/guide.md"), cluster(made, "note.txt")
    assert asked("--sort", "days")[0] == guide
    assert asked("--sort", "similarity")[0] == note
    assert asked("--sort", "characters")[0] == guide
    assert asked("-n", "1") == [guide]
    assert "1 of 4 families" in stemma(made, "families", "-n", "1").out
    assert asked("--method", "exact", "--sort", "characters")[0] == guide
    assert note not in asked("--method", "exact")
    assert len(asked("--source", "docs")) == 4
    assert asked("--source", "elsewhere") == []
    assert "no families" in stemma(made, "families", "--source", "elsewhere").out


@pytest.mark.parametrize("given", ["id", "member", "prefix", "path", "end of the path"])
def test_a_family_is_named_by_an_id_or_a_path(made: Corpus, stemma: Stemma, given: str) -> None:
    family = cluster(made, "2019-03-01/guide.md")
    path = "2024-03-01/guide.md"
    member = str(made.value(f"SELECT document_id FROM corpus.raw WHERE uri LIKE '%{path}'"))
    names = {"id": family, "member": member, "prefix": member.replace("-", "")[:9]}
    names |= {"path": str(made.docs / path), "end of the path": path}
    found = stemma(made, "families", names[given], "--json").json
    assert found["cluster_id"] == family
    assert len(found["documents"]) == 4
    assert [row["kept"] for row in found["documents"]] == [True, False, False, False]


def test_a_family_shows_its_members_and_what_differs(made: Corpus, stemma: Stemma) -> None:
    told = stemma(made, "families", "copies/note.txt")
    assert told.code == 0, told.err
    assert "2 documents, 1 kept" in told.out
    assert "\x1b" not in told.out, "no colours where there is no terminal"
    marked = [line for line in told.out.splitlines() if "[-" in line]
    assert len(marked) == 2
    assert all("different" in line for line in marked)
    kept, removed = stemma(made, "families", "copies/note.txt", "--json").json["documents"]
    assert removed["kept_document_id"] == kept["document_id"]
    assert kept["difference"] is None
    texts = dict(made.query("SELECT document_id::VARCHAR, text FROM corpus.cleaned"))
    for document, other in ((kept, "added"), (removed, "removed")):
        rebuilt = "".join(part["text"] for part in removed["difference"] if part["kind"] != other)
        assert rebuilt.split() == texts[document["document_id"]].split()


def test_a_member_that_is_the_same_says_so(made: Corpus, stemma: Stemma) -> None:
    told = stemma(made, "families", "guide.md", "--method", "exact")
    assert told.code == 0, told.err
    assert "the same words" in told.out
    assert "2 of 4 documents" in told.out
    assert "[-" not in told.out


def test_n_limits_the_kept_and_the_others(made: Corpus, stemma: Stemma) -> None:
    found = stemma(made, "families", cluster(made, "2019-03-01/guide.md"), "-n", "2", "--json").json
    assert found["members"] == 4
    assert [row["kept"] for row in found["documents"]] == [True, False, False]


def test_a_path_of_several_families_lists_them(made: Corpus, stemma: Stemma) -> None:
    found = stemma(made, "families", "guide.md", "--json").json
    assert found["cluster_id"] == cluster(made, "2019-03-01/guide.md"), (
        "all files of that name are of one family"
    )
    found = stemma(made, "families", "rows.jsonl", "--json").json
    assert [row["methods"] for row in found] == [["exact"], ["exact"]], "and one of its records is alone"
    told = stemma(made, "families", "rows.jsonl", "-n", "1").out
    assert "1 of 2 families" in told


def test_what_is_in_no_family_is_one_clear_line(made: Corpus, stemma: Stemma) -> None:
    for name, part in {
        "alone.txt": "no other document is a duplicate",
        "nowhere.txt": "no document",
        "12345678-1234-1234-1234-123456789abc": "no document",
        "abcdef": "8 digits",
    }.items():
        told = stemma(made, "families", name)
        assert told.code == 2
        assert len(told.err.strip().splitlines()) == 1
        assert part in told.err


def test_an_ambiguous_prefix_names_the_documents(
    tmp_path: Path, stemma: Stemma, monkeypatch: pytest.MonkeyPatch
) -> None:
    # No two ids of a small corpus have eight digits in common, so fewer must do here.
    corpus = Corpus(tmp_path)
    corpus.fill(40)
    corpus.run()
    ids = [str(document) for (document,) in corpus.query("SELECT document_id FROM corpus.raw ORDER BY 1")]
    first, second = next((a, b) for a, b in pairwise(ids) if a[0] == b[0])
    monkeypatch.setattr("stemma.commands.families.PREFIX", re.compile("[0-9a-f]+"))
    told = stemma(corpus, "families", first[0])
    assert told.code == 2
    assert first in told.err
    assert second in told.err


def test_colours_only_where_they_are_wanted(
    made: Corpus, stemma: Stemma, monkeypatch: pytest.MonkeyPatch
) -> None:
    def coloured(*arguments: str) -> bool:
        told = stemma(made, "families", "copies/note.txt", *arguments)
        assert told.code == 0
        assert ("\x1b[" in told.out) != ("[-" in told.out.replace("\x1b[", ""))
        return "\x1b[" in told.out

    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    assert not coloured()
    assert coloured("--color", "always")
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    assert coloured()
    assert not coloured("--color", "never")
    monkeypatch.setenv("NO_COLOR", "1")
    assert not coloured()
    assert coloured("--color", "always")


@pytest.mark.parametrize("colour", ["always", "never"])
def test_texts_and_names_are_never_markup_nor_control_characters(
    tmp_path: Path, stemma: Stemma, colour: str
) -> None:
    corpus = Corpus(tmp_path, clean={"repair": False})
    evil = "[bold red]loud[/] :smile: \x1b[2J\x1b]0;title\x07 \u202egnol\u202c end"
    corpus.write("a [red]x[/red].txt", GUIDE)
    corpus.write("b\x1b[31m.txt", f"{GUIDE} {evil}")
    corpus.run()
    told = stemma(corpus, "families", cluster(corpus, "a%"), "--color", colour)
    assert told.code == 0, told.err
    assert "[bold red]loud[/] :smile: �[2J�]0;title� �gnol�" in told.out
    assert "a [red]x[/red].txt" in told.out
    assert "b�[31m.txt" in told.out
    ours = ("\x1b[9;31m", "\x1b[32m", "\x1b[0m")
    rest = told.out
    for sequence in ours:
        rest = rest.replace(sequence, "")
    assert "\x1b" not in rest


@pytest.mark.slow
def test_versions_are_counted(tmp_path: Path, stemma: Stemma) -> None:
    corpus = Corpus(tmp_path)
    fill(corpus)
    corpus.run()
    corpus.write("2024-03-01/guide.md", changed(GUIDE, at=(20, 121)))
    corpus.run()
    found = stemma(corpus, "families", "2024-03-01/guide.md", "--json").json
    versions = {Path(row["uri"]).parent.name: row["versions"] for row in found["documents"]}
    assert versions == {"2019-03-01": 1, "2021-03-01": 1, "2024-03-01": 2, "copies": 1}
    assert found["superseded"] == 1


# -- lookup --------------------------------------------------------------------------------------------------------


def shingles(text: str) -> set[tuple[str, ...]]:
    words = text.lower().replace(".", "").split()
    return {tuple(words[place : place + 5]) for place in range(len(words) - 4)}


def matches(told: Any) -> list[dict[str, Any]]:
    (text,) = told.json["texts"]
    return text["matches"]


def test_lookup_ranks_by_exact_similarity(made: Corpus, stemma: Stemma) -> None:
    new = changed(GUIDE, at=(20, 60))
    told = stemma(made, "lookup", new, "--json", "-k", "10")
    assert told.code == 0, told.err
    assert told.json["index"] == "lsh"
    assert told.json["notes"] == []
    found = matches(told)
    assert [row["rank"] for row in found] == [1, 2, 3, 4]
    assert [row["similarity"] for row in found] == sorted((row["similarity"] for row in found), reverse=True)
    texts = dict(made.query("SELECT document_id::VARCHAR, text FROM corpus.cleaned"))
    for row in found:
        ours, theirs = shingles(new), shingles(texts[row["document_id"]])
        shared = len(ours & theirs)
        assert row["similarity"] == pytest.approx(shared / len(ours | theirs))
        assert row["of_text"] == pytest.approx(shared / len(ours))
        assert row["of_document"] == pytest.approx(shared / len(theirs))
    assert {row["cluster_size"] for row in found} == {4}
    assert [row["uri"] for row in found if row["would_drop"]] == [str(made.docs / "2019-03-01" / "guide.md")]


def test_lookup_prints_what_became_of_each_document(made: Corpus, stemma: Stemma) -> None:
    told = stemma(made, "lookup", changed(GUIDE, at=(60,)))
    assert told.code == 0, told.err
    kept, removed = str(made.docs / "2019-03-01" / "guide.md"), str(made.docs / "2021-03-01" / "guide.md")
    lines = told.out.splitlines()
    assert any(line.endswith(kept) and line[0].isdigit() for line in lines)
    assert any(line.endswith(removed) and line[0].isdigit() for line in lines)
    assert "   kept, family of 4" in lines
    assert f"   removed (near) for {kept}, family of 4" in lines
    assert lines.count("   a run would drop the text for it") == 1


def test_lookup_finds_the_same_words_in_another_dress(made: Corpus, stemma: Stemma) -> None:
    (first, *_rest) = matches(stemma(made, "lookup", sentence("nobody", 60).upper() + "!", "--json"))
    assert first["uri"].endswith("alone.txt")
    assert first["similarity"] == 1
    assert first["same_words"]
    assert first["would_drop"]


def test_lookup_of_nothing_similar_exits_0(made: Corpus, stemma: Stemma) -> None:
    told = stemma(made, "lookup", sentence("never seen", 80))
    assert told.code == 0
    assert told.out == "text: no near-duplicate\n\n"
    half = changed(GUIDE, at=tuple(range(100, 200, 2)))
    told = stemma(made, "lookup", half)
    assert told.code == 0
    assert "no near-duplicate: the most similar has 0.3" in told.out
    assert stemma(made, "lookup", "!!! …").code == 0


def test_a_threshold_below_the_index_shows_more_and_says_that_some_are_missed(
    made: Corpus, stemma: Stemma
) -> None:
    half = changed(GUIDE, at=tuple(range(100, 200, 2)))
    assert matches(stemma(made, "lookup", half, "--json")) == []
    told = stemma(made, "lookup", half, "--json", "--threshold", "0.2")
    assert told.json["threshold"] == 0.2
    assert len(matches(told)) >= 1
    assert not any(row["would_drop"] for row in matches(told))
    assert "some are missed" in told.json["notes"][0]
    assert "some are missed" in stemma(made, "lookup", half, "--threshold", "0.2").out
    assert stemma(made, "lookup", half, "--threshold", "1.2").code == 2


def test_lookup_changes_nothing(made: Corpus, stemma: Stemma, tmp_path: Path) -> None:
    state = made.path.with_suffix(".work") / "state.duckdb"
    before = published_bytes(made.path), state.read_bytes()
    file = tmp_path / "new.txt"
    file.write_text(changed(GUIDE, at=(5,)))
    assert stemma(made, "lookup", str(file)).code == 0
    assert (published_bytes(made.path), state.read_bytes()) == before


def test_lookup_reads_standard_input(made: Corpus, stemma: Stemma, monkeypatch: pytest.MonkeyPatch) -> None:
    page = f"<!doctype html><html><title>T</title><body><p>{GUIDE}</p></body></html>"
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(page.encode())))
    found = matches(stemma(made, "lookup", "-", "--json"))
    assert found[0]["same_words"]


def test_lookup_reads_a_pipe_with_a_name(made: Corpus, stemma: Stemma, tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_text, args=(GUIDE,))
    writer.start()
    found = matches(stemma(made, "lookup", str(pipe), "--json"))
    writer.join()
    assert found[0]["same_words"]


@pytest.mark.parametrize("why", ["layers", "scope", "settings", "state"])
def test_without_an_index_all_documents_are_compared(
    made: Corpus, stemma: Stemma, tmp_path: Path, why: str
) -> None:
    new = changed(GUIDE, at=(20, 60))
    indexed = matches(stemma(made, "lookup", new, "--json"))
    corpus = Corpus(tmp_path)
    shutil.copytree(made.root / ".stemma", corpus.root / ".stemma")
    corpus.set(
        deduplicate={
            "layers": {"layers": ("exact",)},
            "scope": {"scope": "source"},
            "settings": {"permutations": 64},
            "state": {},
        }[why]
    )
    corpus.config()
    if why == "state":
        (corpus.path.with_suffix(".work") / "state.duckdb").unlink()
    told = stemma(corpus, "lookup", new, "--json")
    assert told.code == 0, told.err
    assert told.json["index"] == "none"
    assert "all documents were compared" in told.json["notes"][0]
    plain = [{name: value for name, value in row.items() if name != "would_drop"} for row in matches(told)]
    assert plain == [{name: row[name] for name in row if name != "would_drop"} for row in indexed]
    assert any(row["would_drop"] for row in matches(told)) == (why != "layers")
    assert not (corpus.path.with_suffix(".work") / "state.duckdb").exists() or why != "state"


@pytest.mark.slow
def test_what_a_bloom_filter_removed_has_no_witness(tmp_path: Path, stemma: Stemma) -> None:
    corpus = Corpus(tmp_path, deduplicate={"index": "bloom"})
    fill(corpus)
    corpus.run()
    told = stemma(corpus, "lookup", changed(GUIDE, at=(20,)))
    assert told.code == 0, told.err
    assert "   removed (bloom)" in told.out.splitlines()
    assert "all documents were compared" in told.out
    told = stemma(corpus, "families", "2021-03-01/guide.md")
    assert told.code == 2
    assert "stemma why" in told.err


def test_lookup_of_a_file_looks_at_each_record(made: Corpus, stemma: Stemma, tmp_path: Path) -> None:
    file = tmp_path / "new.jsonl"
    texts = [changed(GUIDE, at=(7,)), "", *(sentence(f"new {n}", 40) for n in range(30))]
    file.write_text("".join(json.dumps({"id": n, "text": text}) + "\n" for n, text in enumerate(texts)))
    told = stemma(made, "lookup", str(file), "--json")
    assert told.code == 0, told.err
    looked_up = told.json["texts"]
    assert [row["record"] for row in looked_up] == [str(n) for n in range(20)]
    assert [bool(row["matches"]) for row in looked_up] == [True] + [False] * 19
    assert told.json["notes"] == ["only the first 20 documents were looked up"]


def test_lookup_says_what_cannot_be_read(made: Corpus, stemma: Stemma, tmp_path: Path) -> None:
    broken = tmp_path / "broken.pdf"
    broken.write_bytes(b"%PDF-1.7\nnothing follows\n")
    told = stemma(made, "lookup", str(broken))
    assert told.code == 0
    assert told.out.startswith(f"{broken}: ")
    assert stemma(made, "lookup", str(broken), "--json").json["texts"][0]["error"]
    picture = tmp_path / "picture.png"
    picture.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(100))
    assert "unsupported" in stemma(made, "lookup", str(picture), "--json").json["texts"][0]["error"]
    assert "no file has this name" in stemma(made, "lookup", str(tmp_path / "nowhere.txt")).out
    assert stemma(made, "lookup", str(tmp_path)).code == 2
    assert stemma(made, "lookup", "  ").code == 2


def test_a_file_of_the_corpus_is_told_from_the_others(made: Corpus, stemma: Stemma) -> None:
    told = stemma(made, "lookup", str(made.docs / "2019-03-01" / "guide.md"))
    assert told.out.count("it is this file, as it is in the corpus") == 1
    (same,) = (
        row
        for row in matches(stemma(made, "lookup", str(made.docs / "2019-03-01" / "guide.md"), "--json"))
        if row["kept"]
    )
    assert same["uri"] == str(made.docs / "2019-03-01" / "guide.md")
    assert not same["would_drop"]


def test_lookup_reads_by_the_settings_of_the_source_that_takes_a_file_in(
    tmp_path: Path, stemma: Stemma
) -> None:
    """Where sources share a folder, their globs tell them apart; a file that none takes in is read by no settings."""
    corpus = Corpus(tmp_path)
    corpus.fill(3)
    corpus.sources = [
        SourceConfig("docs", str(corpus.docs), exclude=("*.jsonl",)),
        SourceConfig("rows", f"{corpus.docs}/*/*.jsonl", text_field="said", exclude=("old",)),
    ]
    row = json.dumps({"text": "not this", "said": sentence("said", 60)})
    corpus.write("in/a.jsonl", row + "\n")
    corpus.run()
    for place, similar in (("in/b.jsonl", True), ("old/c.jsonl", False), ("d.jsonl", False)):
        file = corpus.write(place, row)
        assert bool(matches(stemma(corpus, "lookup", str(file), "--json"))) == similar, place


def test_lookup_foretells_what_a_run_drops(tmp_path: Path, stemma: Stemma) -> None:
    corpus = Corpus(tmp_path, deduplicate={"priority": ("docs",), "numbers": "compare"})
    fill(corpus)
    other = tmp_path / "other"
    other.mkdir()
    corpus.sources.append(SourceConfig("other", str(other)))
    (other / "first.txt").write_text(sentence("first", 50))
    corpus.write("form.txt", "Form 17 of 2024. " + sentence("form", 80))
    corpus.run()
    new = {
        "copy.txt": sentence("nobody", 60).title(),
        "near.txt": changed(GUIDE, at=(100,)),
        "far.txt": changed(GUIDE, at=tuple(range(0, 200, 9))),
        "other.txt": sentence("other", 70),
        "form.txt": "Form 18 of 2024. " + sentence("form", 80),
    }
    foretold = {}
    for name, text in new.items():
        (other / name).write_text(text)
        told = stemma(corpus, "lookup", str(other / name), "--json")
        foretold[name] = any(row["would_drop"] for row in matches(told))
    corpus.run()
    dropped = {
        Path(uri).name
        for (uri,) in corpus.query("SELECT uri FROM lineage.decisions WHERE uri LIKE '%/other/%'")
    }
    assert {name for name, drop in foretold.items() if drop} == dropped == {"copy.txt", "near.txt"}


# -- use -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("word", ["families", "lookup"])
def test_the_words_have_help(made: Corpus, stemma: Stemma, word: str) -> None:
    told = stemma(made, word, "--help")
    assert told.code == 0
    assert f"usage: stemma {word}" in told.out


@pytest.mark.parametrize(
    "wrong",
    [
        ["families", "-n", "0"],
        ["families", "--sort", "size"],
        ["families", "--method", "alike"],
        ["families", "--color", "blue"],
        ["lookup"],
        ["lookup", "text", "-k", "0"],
        ["lookup", "text", "--threshold", "high"],
    ],
)
def test_wrong_use_is_one_clear_line(made: Corpus, stemma: Stemma, wrong: list[str]) -> None:
    told = stemma(made, *wrong)
    assert told.code == 2
    assert len(told.err.strip().splitlines()) == 1
    assert told.err.startswith("stemma: ")


@pytest.mark.parametrize("arguments", [["families"], ["lookup", "some text"]])
def test_without_a_corpus_there_is_nothing_to_look_at(
    tmp_path: Path, stemma: Stemma, arguments: list[str]
) -> None:
    corpus = Corpus(tmp_path)
    corpus.config()
    told = stemma(corpus, *arguments)
    assert told.code == 1
    assert "nothing published yet" in told.err
    assert not corpus.path.parent.exists(), "to look makes nothing"
