"""Passages: where words stand, fingerprints that miss nothing, shared runs, and cuts that lose nothing."""

import random
import unicodedata
from collections import Counter
from itertools import combinations
from unittest import mock

import numpy as np
import pyarrow as pa
import pytest
from harness import examples
from hypothesis import given, settings
from hypothesis import strategies as st
from sentences import SENTENCES

from stemma.chunking import chunk, load_tokenizer
from stemma.deduplication.passages import (
    OCCURRENCES,
    OWNED,
    PASSAGES,
    SIGNED_PASSAGES,
    SPANS,
    cut_spans,
    owned_cuts,
    passage_buckets,
    shared_passages,
    sign_passages,
    window_hashes,
)
from stemma.deduplication.tokens import LONGEST_WORD, normal_forms, word_spans, words_of

# Letters and marks that fold together, apart, or into several.
JOINING = "\u0345\u1100\u1161\u11a8\u3131\u314f가각½ﬁß\u0301\u0323\u0338<=ｶ\uff9eΐᾳ\u0f73"

hostile_texts = st.text(
    st.one_of(
        st.sampled_from("".join(SENTENCES.values()) + JOINING),
        st.characters(codec="utf-8", max_codepoint=0x2FFFF, exclude_categories=["Cs", "Cn"]),
        st.characters(max_codepoint=127),
        st.characters(categories=["Mn", "Mc", "Cf"]),
    )
)


def words(text: str) -> list[str]:
    (form,) = normal_forms(words_of([text]))
    return form.decode().split()


def spans(text: str) -> list[tuple[int, int]]:
    starts, ends = word_spans(text)
    return list(zip(starts.tolist(), ends.tolist(), strict=True))


def signed(texts: list[str], **parameters: int) -> list[dict]:
    return sign_passages(pa.table({"text": pa.array(texts, pa.string())}), **parameters).to_pylist()


def fingerprints(text: str, min_words: int = 50) -> set[int]:
    (row,) = signed([text], min_words=min_words)
    return set(np.frombuffer(row["signature"] or b"", "<u8").tolist())


def passages(earlier: str, later: str, min_words: int = 50) -> list[dict]:
    table = shared_passages([earlier, later], np.array([[0, 1]]), min_words=min_words)
    assert table.schema == PASSAGES
    return table.to_pylist()


def shared_runs(earlier: list[str], later: list[str], min_words: int) -> dict[tuple[int, int], int]:
    """The definition: longest stretches of the later words that the earlier ones hold, with the first place."""
    runs: dict[tuple[int, int], int] = {}
    for start in range(len(later)):
        for end in range(len(later), start + min_words - 1, -1):
            size = end - start
            places = [p for p in range(len(earlier) - size + 1) if earlier[p : p + size] == later[start:end]]
            if places:
                runs[start, end] = places[0]
                break
    return {
        (start, end): place
        for (start, end), place in runs.items()
        if not any(s <= start and end <= e and (s, e) != (start, end) for s, e in runs)
    }


def random_words(count: int, seed: int) -> list[str]:
    choose = random.Random(seed)
    return [f"w{choose.randrange(100_000)}" for _ in range(count)]


# --- where words stand


@pytest.mark.parametrize("text", SENTENCES.values(), ids=SENTENCES)
def test_spans_hold_the_words_of_a_script(text):
    found = spans(text)
    assert len(found) == len(words(text))
    for (start, end), word in zip(found, words(text), strict=True):
        assert word in words(text[start:end])
    assert found == sorted(found)


def test_spans_are_what_readers_expect():
    def pieces(text: str) -> list[str]:
        return [text[start:end] for start, end in spans(text)]

    assert pieces("Don’t STOP, déjà vu…") == ["Don", "t", "STOP", "déjà", "vu"]
    assert pieces("“Straße” de\u0301ja\u0300!") == ["Straße", "de\u0301ja\u0300"]
    assert pieces("中文字 abc漢 ที่นี่") == ["中", "文", "字", "abc", "漢", "ที่", "นี่"]
    assert pieces("exam\u00adple می\u200cخواهم.") == ["exam\u00adple", "می\u200cخواهم"]
    assert pieces(unicodedata.normalize("NFD", "한국어로 쓰인")) == [
        unicodedata.normalize("NFD", word) for word in ("한국어로", "쓰인")
    ]
    assert pieces("a½b ﬁ") == ["a½", "½b", "ﬁ"]
    assert pieces(".\u1100\u1161 ㄱㅏ") == ["\u1100\u1161", "ㄱㅏ"]
    assert pieces("") == pieces("…\u0301 \u200d") == []


def test_spans_of_long_words():
    text = "a " + "é" * (2 * LONGEST_WORD + 3)
    assert spans(text) == [(0, 1), (2, 258), (258, 514), (514, 517)]
    crowded = "a" + "\u0301\u0323" * 50_000 + " b"
    assert spans(crowded)[-1] == (100_002, 100_003)
    assert len(spans(crowded)) == len(words(crowded))


@settings(max_examples=examples(400), deadline=None)
@given(hostile_texts)
def test_spans_hold_the_words_of_any_text(text):
    found = spans(text)
    assert len(found) == len(words(text))
    for (start, end), word in zip(found, words(text), strict=True):
        assert 0 <= start < end <= len(text)
        assert word in words(text[start:end])
    assert found == sorted(found)
    # Nothing outside of the spans is a word.
    outside = list(text)
    for start, end in found:
        outside[start:end] = [" "] * (end - start)
    assert words("".join(outside)) == []


# --- fingerprints


def test_window_hashes_tell_windows_apart():
    values = np.array([3, 1, 2, 3, 1, 2, 9], np.uint64)
    for size in range(1, 9):
        hashes = window_hashes(values, size).tolist()
        windows = [tuple(values[start : start + size]) for start in range(len(values) - size + 1)]
        assert len(hashes) == len(windows)
        assert len(set(zip(windows, hashes, strict=True))) == len(set(windows)) == len(set(hashes))


@settings(max_examples=examples(200), deadline=None)
@given(
    st.integers(1, 12),
    st.data(),
)
def test_texts_that_share_a_run_share_a_fingerprint(min_words, data):
    word = st.sampled_from("abcdefgh")
    run = data.draw(st.lists(word, min_size=min_words, max_size=min_words + 4))
    sides = [data.draw(st.lists(word, max_size=15)) for _ in range(4)]
    a, b = (" ".join(sides[2 * n] + run + sides[2 * n + 1]) for n in (0, 1))
    assert fingerprints(a, min_words) & fingerprints(b, min_words)
    assert fingerprints(" ".join(run), min_words) <= fingerprints(a, min_words)


def test_fingerprints_are_the_least_hashes_of_each_window():
    text = " ".join(random_words(400, seed=1))
    for min_words in (1, 2, 3, 10, 50):
        size = max(1, min_words // 2)
        grams = fingerprints(text, 1) if size == 1 else None
        found = fingerprints(text, min_words)
        assert grams is None or found <= grams
        # One window of the text after another adds at most its own least hash.
        parts = [text.split()[start : start + min_words] for start in range(400 - min_words + 1)]
        alone = [fingerprints(" ".join(part), min_words) for part in parts]
        assert all(len(each) == 1 for each in alone)
        assert found == set().union(*alone)


def test_fingerprints_are_few():
    count = len(fingerprints(" ".join(random_words(20_000, seed=2))))
    assert 0.06 < count / 20_000 < 0.09
    assert len(fingerprints("a b " * 20_000)) <= 2
    assert len(fingerprints("x " * 20_000)) == 1


def test_signing_keeps_its_schema_and_does_not_depend_on_the_batch():
    texts = ["", "one", "…", "a " * 49, "a " * 50, *SENTENCES.values()]
    texts += [" ".join(random_words(300, seed=seed)) for seed in range(5)] + ["größe " * 200]
    together = signed(texts)
    assert together == [row for text in texts for row in signed([text])]
    assert signed(texts[::-1]) == together[::-1]
    assert [row["signature"] is None for row in together[:5]] == [True, True, True, True, False]
    assert [row["words"] for row in together[:5]] == [0, 1, 0, 49, 50]
    empty = sign_passages(pa.table({"text": pa.array([], pa.string())}))
    assert empty.schema == SIGNED_PASSAGES
    with pytest.raises(ValueError, match="null"):
        sign_passages(pa.table({"text": ["a", None]}))
    with pytest.raises(ValueError, match="at least one word"):
        signed(["a"], min_words=0)


def test_case_and_punctuation_do_not_matter_to_fingerprints():
    text = " ".join(SENTENCES.values())
    assert fingerprints(text) == fingerprints(text.replace(" ", " — ").replace(",", ";"))
    assert fingerprints(text) == fingerprints(unicodedata.normalize("NFD", text))


def test_buckets_are_the_fingerprints():
    texts = ["short", "a b c d e f", "x a b c d e"]
    table = sign_passages(pa.table({"text": texts}), min_words=4)
    buckets = passage_buckets(table, np.array([5, 9, 7]))
    assert (buckets.keys.dtype, buckets.rows.dtype) == (np.uint64, np.int64)
    assert buckets.asks.all()
    members: dict[int, set[int]] = {1: set(), 2: set()}
    for key, row, rank in zip(
        buckets.keys.tolist(), buckets.rows.tolist(), buckets.rank.tolist(), strict=True
    ):
        assert rank == (5, 9, 7)[row]
        members[row].add(key)
    assert members == {row: fingerprints(texts[row], 4) for row in (1, 2)}
    assert members[1] & members[2]
    assert not len(passage_buckets(table.slice(0, 1), np.array([5])).keys)


# --- shared runs


def test_a_shared_run_is_told_with_its_characters():
    run = random_words(60, seed=3)
    earlier = "Before: " + " ".join(run) + ". After."
    later = "«" + ",\n ".join(run).upper() + "!» and more"
    (row,) = passages(earlier, later)
    assert later[row["start"] : row["end"]] == later[1 : later.index("!»")]
    assert earlier[row["source_start"] : row["source_end"]] == " ".join(run)
    assert (row["pair"], row["words"], row["first_word"], row["source_first_word"]) == (0, 60, 0, 1)


def test_what_is_too_short_is_not_told():
    run = random_words(49, seed=4)
    assert passages(" ".join(["a", *run, "b"]), " ".join(["c", *run, "d"])) == []
    assert len(passages(" ".join(["a", *run, "b"]), " ".join(["a", *run, "d"]))) == 1
    for text in ("", "one", "!"):
        assert passages(text, " ".join(run)) == passages(" ".join(run), text) == []
    assert shared_passages([], np.empty((0, 2), np.int64)).schema == PASSAGES
    with pytest.raises(ValueError, match="at least one word"):
        passages("a", "a", min_words=0)


@pytest.mark.parametrize("text", SENTENCES.values(), ids=SENTENCES)
def test_shared_runs_of_a_script(text):
    count = len(words(text))
    variant = unicodedata.normalize("NFD", text).replace(" ", " \u00a0— ")
    (row,) = passages(f"other, {text} other", f"more {variant} more", min_words=count)
    assert row["words"] == count
    assert words(f"more {variant} more"[row["start"] : row["end"]]) == words(text)
    assert words(f"other, {text} other"[row["source_start"] : row["source_end"]]) == words(text)


@settings(max_examples=examples(400), deadline=None)
@given(
    st.integers(1, 6),
    st.lists(st.sampled_from(["a", "b", "c", "Été", "漢"]), max_size=45),
    st.lists(st.sampled_from(["a", "B", "c", "été", "漢"]), max_size=45),
    st.data(),
)
def test_shared_runs_are_those_of_the_definition(min_words, earlier, later, data):
    if later and earlier:
        start = data.draw(st.integers(0, len(earlier)))
        later = later[: len(later) // 2] + earlier[start : start + 20] + later[len(later) // 2 :]
    rows = passages(" ".join(earlier), ", ".join(later), min_words)
    a, b = words(" ".join(earlier)), words(", ".join(later))
    expected = shared_runs(a, b, min_words)
    found = [(row["first_word"], row["first_word"] + row["words"]) for row in rows]
    assert {word for run in found for word in range(*run)} == {
        word for run in expected for word in range(*run)
    }
    for row in rows:
        start, source, size = row["first_word"], row["source_first_word"], row["words"]
        assert a[source : source + size] == b[start : start + size]
        assert size >= min_words
    assert found == sorted(found)
    assert not any(s <= start and end <= e for (s, e), (start, end) in combinations(found, 2))
    assert all(later_run[0] > run[1] for run, later_run in zip(found, found[2:], strict=False))
    windows = Counter(tuple(a[start : start + min_words]) for start in range(len(a) - min_words + 1))
    if max(windows.values(), default=0) <= OCCURRENCES:
        assert {run: row["source_first_word"] for run, row in zip(found, rows, strict=True)}.items() <= (
            expected.items()
        )


@settings(max_examples=examples(150), deadline=None)
@given(
    st.lists(st.sampled_from("ab"), max_size=40),
    st.lists(st.sampled_from("ab"), max_size=40),
    st.sampled_from([(1, 10**6, 10**6), (2, 5, 10**6), (2, 10**6, 3), (1, 10**6, 0)]),
)
def test_limits_of_work_lose_no_word(earlier, later, limits):
    names = ("OCCURRENCES", "FOLLOWED", "LEAPS")
    with mock.patch.multiple("stemma.deduplication.passages", **dict(zip(names, limits, strict=True))):
        rows = passages(" ".join(earlier), " ".join(later), 3)
    expected = {word for run in shared_runs(earlier, later, 3) for word in range(*run)}
    assert {w for r in rows for w in range(r["first_word"], r["first_word"] + r["words"])} == expected
    for row in rows:
        start, source, size = row["first_word"], row["source_first_word"], row["words"]
        assert earlier[source : source + size] == later[start : start + size]
    assert sum(row["words"] for row in rows) <= 2 * len(later)


def test_many_pairs_at_once_are_those_alone():
    blocks = [random_words(70, seed=seed) for seed in range(6)]
    choose = random.Random(5)
    joined = [" ".join(block) for block in blocks]
    texts = [" ".join(choose.sample(joined, 3)) for _ in range(8)] + ["", f"é {joined[0]}"]
    pairs = np.array(list(combinations(range(len(texts)), 2)))[::-1]
    together = shared_passages(texts, pairs).to_pylist()
    alone = [
        row | {"pair": number}
        for number, (a, b) in enumerate(pairs.tolist())
        for row in passages(texts[a], texts[b])
    ]
    assert len(together) > 20
    assert together == alone


@pytest.mark.parametrize("copies", [1, 400])
def test_repeated_sentences_are_one_run(copies):
    sentence = " ".join(random_words(9, seed=6)) + ". "
    (row,) = passages(sentence * 10_000, sentence * 10_000)
    assert (row["words"], row["first_word"], row["source_first_word"]) == (90_000, 0, 0)
    rows = passages(sentence * 20 * copies, sentence * 10_000)
    # However they are cut, the runs hold every word, and few of them twice.
    assert {word for r in rows for word in range(r["first_word"], r["first_word"] + r["words"])} == set(
        range(90_000)
    )
    assert sum(r["words"] for r in rows) <= 180_000
    (row,) = passages("a b " * 20_000, "b a " * 20_000)[:1]
    assert row["words"] >= 39_999


def test_boilerplate_takes_a_linear_number_of_comparisons():
    boilerplate = random_words(200, seed=7)
    texts = [
        " ".join(random_words(60, seed=100 + n) + boilerplate + random_words(60, seed=5_000 + n))
        for n in range(2_000)
    ]
    table = sign_passages(pa.table({"text": texts}))
    buckets = passage_buckets(table, np.arange(len(texts)))
    order = np.lexsort((buckets.rank, buckets.keys))
    pairs = set()
    for group in np.split(order, np.flatnonzero(np.diff(buckets.keys[order])) + 1):
        members = buckets.rows[group].tolist()
        pairs |= {(witness, member) for witness in members[:4] for member in members if witness < member}
    assert len(pairs) <= 8 * len(texts)
    owned = sorted(pair for pair in pairs if pair[0] == 0)
    assert len(owned) == len(texts) - 1, "each is compared with the owner"
    found = shared_passages(texts, np.array(owned))
    assert found["words"].to_pylist() == [200] * len(owned)


# --- cuts


def owned(totals: list[int], rows: list[tuple[int, int, int, int, int]], **options) -> list[dict]:
    """Documents in the order of priority; rows of document, first word, source, its first word, words."""
    names = ("document", "first_word", "source_document", "source_first_word", "words")
    columns = [list(column) for column in zip(*rows, strict=True)] or [[]] * 5
    table = pa.table(
        {name: pa.array(column, pa.int64()) for name, column in zip(names, columns, strict=True)}
    )
    documents = pa.table(
        {"priority": pa.array(range(len(totals)), pa.int64()), "words": pa.array(totals, pa.int32())}
    )
    result = owned_cuts(documents, table, **options)
    assert result.schema == OWNED
    return result.to_pylist()


def cuts_of(row: dict) -> list[tuple[int, int]]:
    return [(span["start"], span["end"]) for span in row["cut_words"]]


def test_the_first_keeps_what_later_ones_lose():
    first, second, third = owned([100, 100, 200], [(1, 10, 0, 0, 60), (2, 0, 1, 0, 80), (2, 120, 0, 5, 50)])
    assert (cuts_of(first), first["share"], first["witness"]) == ([], 0, None)
    assert (cuts_of(second), second["share"]) == ([(10, 70)], 0.6)
    # Of the second's words 10 to 70 are cut there, so the third keeps them.
    assert cuts_of(third) == [(0, 10), (70, 80), (120, 170)]


def test_a_document_that_is_all_passages_is_removed_for_the_one_that_has_most_of_it():
    rows = [(2, 0, 0, 0, 60), (2, 60, 1, 0, 80), (3, 0, 2, 0, 100), (3, 0, 1, 0, 50)]
    *_, third, fourth = owned([100, 100, 145, 100], rows)
    assert (third["witness"], cuts_of(third)) == (1, [(0, 140)])
    assert third["share"] == 140 / 145
    # The third is gone, so nothing is cut for it.
    assert (fourth["witness"], cuts_of(fourth)) == (None, [(0, 50)])
    assert owned([100, 100, 145, 100], rows, min_rest=5)[2]["witness"] is None
    assert owned([60, 60, 120], [(2, 60, 0, 0, 60), (2, 0, 1, 0, 60)])[2]["witness"] == 0


def test_short_documents_without_passages_stay():
    assert owned([0, 3], []) == [{"cut_words": [], "share": 0.0, "witness": None}] * 2


def test_a_source_comes_before_its_document():
    with pytest.raises(ValueError, match="priority"):
        owned([50, 50], [(0, 0, 1, 0, 50)])


@settings(max_examples=examples(300), deadline=None)
@given(st.data())
def test_a_cut_word_stays_in_the_document_it_is_cut_for(data):
    texts = data.draw(st.lists(st.text("abc", max_size=14), min_size=2, max_size=7))
    order = data.draw(st.permutations(range(len(texts))))
    rank = [order.index(number) for number in range(len(texts))]
    pairs = [(a, b) for a in range(len(texts)) for b in range(len(texts)) if rank[a] < rank[b]]
    chosen = data.draw(st.lists(st.sampled_from(pairs), unique=True))
    spaced = [" ".join(text) for text in texts]
    runs = shared_passages(spaced, np.array(chosen, np.int64).reshape(-1, 2), min_words=3)
    ends = np.array(chosen, np.int64).reshape(-1, 2)[runs["pair"].to_numpy()]
    table = runs.append_column("source_document", pa.array(ends[:, 0]))
    table = table.append_column("document", pa.array(ends[:, 1]))
    documents = pa.table({"priority": rank, "words": pa.array([len(text) for text in texts], pa.int32())})
    min_rest = data.draw(st.integers(0, 4))
    rows = owned_cuts(documents, table, min_rest=min_rest).to_pylist()
    shuffled = table.take(pa.array(data.draw(st.permutations(range(len(table)))), pa.int64()))
    assert owned_cuts(documents, shuffled, min_rest=min_rest).to_pylist() == rows

    stays = [
        set()
        if row["witness"] is not None
        else set(range(len(text))) - {w for c in cuts_of(row) for w in range(*c)}
        for row, text in zip(rows, texts, strict=True)
    ]
    for number in order:
        covered: dict[int, set[int]] = {}
        for run in table.to_pylist():
            if run["document"] == number:
                for offset in range(run["words"]):
                    if run["source_first_word"] + offset in stays[run["source_document"]]:
                        covered.setdefault(run["source_document"], set()).add(run["first_word"] + offset)
        cut = {word for start, end in cuts_of(rows[number]) for word in range(start, end)}
        assert cut == set().union(*covered.values())
        assert rows[number]["share"] == (len(cut) / len(texts[number]) if texts[number] else 0)
        for word in cut:
            assert any(word in words for words in covered.values())
        is_removed = bool(cut) and len(texts[number]) - len(cut) < min_rest
        assert (rows[number]["witness"] is not None) == is_removed
        if is_removed:
            best = min(covered, key=lambda source: (-len(covered[source]), rank[source]))
            assert rows[number]["witness"] == best
            assert rows[best]["witness"] is None
    kept = {text[word] for text, words_left in zip(texts, stays, strict=True) for word in words_left}
    lost = {text[w] for text, row in zip(texts, rows, strict=True) for c in cuts_of(row) for w in range(*c)}
    assert lost <= kept


def cut(text: str, *runs: tuple[int, int]) -> list[str]:
    spans_of_words = [{"start": start, "end": end} for start, end in runs]
    table = cut_spans(pa.table({"text": [text], "cut_words": pa.array([spans_of_words], SPANS)}))
    return [text[span["start"] : span["end"]] for span in table["cuts"][0].as_py()]


def test_cuts_of_words_are_cuts_of_characters():
    text = "One, two; (three) four! five… ½ six."
    assert cut(text, (0, 2), (3, 5)) == ["One, two;", "four! five…"]
    assert cut(text, (2, 3)) == ["three)"]
    assert cut(text, (5, 7)) == ["½"]
    assert cut(text, (5, 6)) == [], "half of a character cannot be cut"
    assert cut("a½b", (0, 1)) == ["a"], "the words are a1 and 2b"
    assert cut("漢字かな", (1, 3)) == ["字か"]
    assert cut("a™b", (0, 1)) == ["a™b"], "one word"
    table = pa.table({"text": ["a b", "c"], "cut_words": pa.array([None, []], SPANS)})
    assert cut_spans(table)["cuts"].to_pylist() == [[], []]
    assert cut_spans(table).schema.field("cuts").type == SPANS


@settings(max_examples=examples(200), deadline=None)
@given(hostile_texts, st.data())
def test_cuts_take_the_words_they_should_and_no_part_of_another(text, data):
    found = spans(text)
    if not found:
        return
    start = data.draw(st.integers(0, len(found) - 1))
    end = data.draw(st.integers(start + 1, len(found)))
    table = pa.table({"text": [text], "cut_words": pa.array([[{"start": start, "end": end}]], SPANS)})
    cuts = [(span["start"], span["end"]) for span in cut_spans(table)["cuts"][0].as_py()]
    assert len(cuts) <= 1
    for first, last in cuts:
        for number, (low, high) in enumerate(found):
            inside = first <= low and high <= last
            outside = last <= low or high <= first
            shares = any(
                other != number and low < found[other][1] and found[other][0] < high
                for other in range(len(found))
            )
            assert shares or (inside if start <= number < end else outside)


def test_from_texts_to_chunks_without_what_an_earlier_text_has():
    run = " ".join(random_words(80, seed=8))
    texts = [
        f"# Origin\n\nFirst said here: {run}.",
        f"# Copy\n\nIntroduction. {run.upper()}!\n\nAfterwards, more.",
    ]
    signed_texts = sign_passages(pa.table({"text": texts}))
    pairs = np.array([[0, 1]])
    passages_found = shared_passages(texts, pairs)
    ends = pairs[passages_found["pair"].to_numpy()]
    passages_found = passages_found.append_column("source_document", pa.array(ends[:, 0]))
    passages_found = passages_found.append_column("document", pa.array(ends[:, 1]))
    documents = pa.table({"priority": [0, 1], "words": signed_texts["words"]})
    result = owned_cuts(documents, passages_found, min_rest=2)
    assert result["witness"].to_pylist() == [None, None]
    cuts = cut_spans(pa.table({"text": texts, "cut_words": result["cut_words"]}))["cuts"]
    chunks = chunk(
        pa.table({"text": texts, "cuts": cuts}),
        strategy="structure",
        max_tokens=400,
        overlap=0,
        tokenizer="estimate",
        model=load_tokenizer(None),
    )["chunks"].to_pylist()
    assert [[each["text"] for each in row] for row in chunks] == [
        [texts[0]],
        ["# Copy\n\nIntroduction.", "Afterwards, more."],
    ]
    assert {each["section"] for each in chunks[1]} == {"Copy"}
    for text, row in zip(texts, chunks, strict=True):
        assert all(text[each["char_start"] : each["char_end"]] == each["text"] for each in row)
