"""Duplicate families: words of all scripts, signatures, candidates, similarities, and who is kept."""

import gzip
import json
import random
import re
import unicodedata
from functools import cache
from itertools import combinations
from uuid import UUID

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sentences import SENTENCES

from stemma.deduplication import (
    SIGNED,
    band_keys,
    band_parameters,
    candidate_pairs,
    jaccard,
    plausible_pairs,
    shingle_sets,
    sign,
    signature_array,
    signatures,
    sketch_array,
)
from stemma.deduplication.candidates import OPTIMA, WEIGHTS
from stemma.deduplication.tokens import LONGEST_WORD, normal_forms, words_of
from stemma.hashing import digest, uuid_array

UNSPACED = re.compile(
    "CJK |HIRAGANA|KATAKANA|HENTAIGANA|IDEOGRAPHIC (?!TALLY)|HANGZHOU|VERTICAL KANA|VERTICAL IDEO|MASU MARK|"
    "THAI |LAO |KHMER |MYANMAR |TIBETAN |TAI |NEW TAI LUE "
)


@cache
def kind(character: str) -> str:
    category = unicodedata.category(character)
    if re.match("VARIATION SEL|COMBINING GRAPHEME|MONGOLIAN FREE|MONGOLIAN VOWEL SEP", name(character)):
        return "ignored"
    if category == "Cf":
        return "gap" if character == "\u200b" else "ignored"
    if category.startswith("M"):
        return "mark"
    if character.isalnum() or character == "_":
        return "solo" if UNSPACED.match(name(character)) else "word"
    return "gap"


def words_in_plain_python(text: str) -> list[str]:
    """The definition of words, a character at a time."""
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    words: list[str] = []
    before = "gap"
    for character in folded:
        now = kind(character)
        if now == "ignored":
            continue
        if now == "mark":
            if before != "gap":
                words[-1] += character
            continue
        if now == "word" and before == "word":
            words[-1] += character
        elif now != "gap":
            words.append(character)
        before = now
    cuts = ((word, range(0, len(word), LONGEST_WORD)) for word in words)
    return [word[start : start + LONGEST_WORD] for word, starts in cuts for start in starts]


def name(character: str) -> str:
    return unicodedata.name(character, "")


def words(text: str) -> list[str]:
    (form,) = normal_forms(words_of([text]))
    return form.decode().split()


def shingles_in_plain_python(text: str, size: int = 5) -> set[tuple[str, ...]]:
    found = words_in_plain_python(text)
    return {
        tuple(found[start : start + size]) for start in range(max(len(found) - size + 1, min(len(found), 1)))
    }


def similarity_in_plain_python(a: set, b: set) -> float:
    return len(a & b) / len(a | b) if a or b else 0.0


def signed(texts: list[str], **parameters: int) -> list[dict]:
    return sign(pa.table({"text": pa.array(texts, pa.string())}), **parameters).to_pylist()


def uuid(number: int) -> UUID:
    return UUID(int=number)


def uuids(numbers: list[int]) -> pa.Array:
    return uuid_array(number.to_bytes(16, "big") for number in numbers)


def near_copies(count: int, seed: int) -> list[str]:
    """Random texts, and copies of them with a few words exchanged."""
    choose = random.Random(seed)
    vocabulary = [f"word{number}" for number in range(500)] + ["été", "слово", "λόγος", "語"]
    texts: list[list[str]] = []
    for _ in range(count):
        if texts and choose.random() < 0.8:
            text = list(choose.choice(texts))
            for _ in range(choose.randrange(3)):
                text[choose.randrange(len(text))] = choose.choice(vocabulary)
        else:
            text = choose.choices(vocabulary, k=choose.randrange(1, 200))
        texts.append(text)
    return [" ".join(text) for text in texts]


def verified_pairs(texts: list[str], threshold: float, witnesses: int) -> dict[tuple[int, int], float]:
    """The library's way from texts to verified pairs; positions in texts, without exact duplicates."""
    table = sign(pa.table({"text": texts}))
    hashes = [value.bytes for value in table["norm_hash"].to_pylist()]
    first = {
        value: position
        for position, value in reversed(list(enumerate(hashes)))
        if table["shingles"][position].as_py()
    }
    members = [first[value] for value in sorted(first)]
    bands, rows = band_parameters(threshold, 128)
    keys = band_keys(signature_array(table["signature"].take(members)), bands, rows)
    pairs = candidate_pairs(keys.ravel(), np.repeat(np.arange(len(members)), bands), witnesses=witnesses)
    similarities = jaccard(shingle_sets([texts[position] for position in members]), pairs)
    return {
        tuple(sorted((members[a], members[b]))): similarity
        for (a, b), similarity in zip(pairs.tolist(), similarities.tolist(), strict=True)
        if similarity >= threshold
    }


def true_pairs(texts: list[str], threshold: float) -> dict[tuple[int, int], float]:
    """All pairs, compared one by one."""
    forms: dict[str, int] = {}
    for position, text in enumerate(texts):
        forms.setdefault(" ".join(words_in_plain_python(text)), position)
    sets = {position: shingles_in_plain_python(texts[position]) for position in forms.values()}
    similarities = {
        (a, b): similarity_in_plain_python(sets[a], sets[b]) for a, b in combinations(sorted(sets), 2)
    }
    return {pair: similarity for pair, similarity in similarities.items() if similarity >= threshold}


def licences(shared) -> list[str]:
    with gzip.open(
        shared / "data" / "b4_licence_clusters" / "docs.jsonl.gz", "rt", encoding="utf-8"
    ) as lines:
        return [json.loads(line)["text"] for line in lines]


# --- words


@pytest.mark.parametrize("text", SENTENCES.values(), ids=SENTENCES)
def test_words_of_a_script(text):
    assert words(text) == words_in_plain_python(text)


def test_words_are_what_readers_expect():
    assert words("Don’t STOP, déjà vu…") == ["don", "t", "stop", "déjà", "vu"]
    assert words("Straße STRASSE") == ["strasse", "strasse"]
    assert words("中文字 abc漢") == ["中", "文", "字", "abc", "漢"]
    assert words("ที่นี่") == ["ที่", "นี่"]
    assert words("हिन्दी कर्म") == ["हिन्दी", "कर्म"]
    assert words("exam\u00adple می\u200cخواهم ❤️") == ["example", "میخواهم"]


@settings(max_examples=300, deadline=None)
@given(
    st.lists(
        st.text(
            st.one_of(
                st.sampled_from("".join(SENTENCES.values())),
                st.characters(codec="utf-8", max_codepoint=0x2FFFF, exclude_categories=["Cs", "Cn"]),
                st.characters(max_codepoint=127),
                st.characters(categories=["Mn", "Mc", "Cf"]),
            )
        ),
        min_size=1,
        max_size=4,
    )
)
def test_words_of_any_text_equal_plain_python(texts):
    forms = [form.decode() for form in normal_forms(words_of(texts))]
    assert forms == [" ".join(words_in_plain_python(text)) for text in texts]


@pytest.mark.parametrize("text", SENTENCES.values(), ids=SENTENCES)
def test_case_white_space_punctuation_and_composition_do_not_matter(text):
    variants = [
        text.upper(),
        text.title(),
        unicodedata.normalize("NFD", text),
        unicodedata.normalize("NFC", text),
        f"\n\t “{text}” !\r\n",
        text.replace(" ", " \u00a0— "),
        text.replace(",", ";"),
    ]
    if "ı" in text.upper().lower() or "SS" in text.upper():
        variants = variants[2:]
    (expected, *others) = signed([text, *variants])
    assert expected["shingles"] > 0
    assert others == [expected] * len(others)


def test_a_change_of_one_word_matters():
    a, b, c = signed(
        ["one two three four five six", "one two three four five seven", "onetwo three four five six"]
    )
    assert len({row["norm_hash"] for row in (a, b, c)}) == 3


def test_norm_hash_is_the_hash_of_the_words():
    (row,) = signed(["Ça va?  Très-bien! 中文"])
    assert row["norm_hash"].bytes == digest("ça va très bien 中 文".encode())


def test_a_long_word_is_cut():
    word = "é" * (2 * LONGEST_WORD + 3)
    assert [len(part) for part in words(f"a {word} b")] == [1, LONGEST_WORD, LONGEST_WORD, 3, 1]
    assert words("x" * LONGEST_WORD) == ["x" * LONGEST_WORD]
    assert shingle_sets(["x" * 1000], shingle_words=2)[0].size == 2


@pytest.mark.timeout(120)  # seconds; it hangs where the time does not follow the length
def test_hostile_texts_take_bounded_time():
    marks, word, spaces = signed(["a" + "\u0301\u0323" * 250_000, "z" * 3_000_000, " " * 3_000_000])
    assert marks["shingles"] > 0
    assert word["shingles"] > 0
    assert spaces["shingles"] == 0


def test_lone_surrogates_are_refused():
    with pytest.raises(UnicodeEncodeError):
        shingle_sets(["\ud800"])


# --- shingles and similarity


@pytest.mark.parametrize("size", [1, 2, 5])
def test_shingle_sets_are_those_of_plain_python(size):
    texts = [
        *near_copies(60, seed=3),
        *SENTENCES.values(),
        "",
        "one",
        "one two",
        "a a a a a a a a",
        "...",
        "a b c d e",
    ]
    sets = shingle_sets(texts, shingle_words=size)
    assert [len(members) for members in sets] == [len(shingles_in_plain_python(text, size)) for text in texts]
    assert all(members.dtype == np.uint64 and np.all(members[1:] > members[:-1]) for members in sets)
    names: dict[tuple[str, ...], set[int]] = {}
    for text, members in zip(texts, sets, strict=True):
        for shingle in shingles_in_plain_python(text, size):
            names.setdefault(shingle, set(members.tolist())).intersection_update(members.tolist())
    assert all(names.values())


def test_jaccard_equals_python_sets():
    texts = [*near_copies(80, seed=5), "", "!", "one", "one two"]
    oracle = [shingles_in_plain_python(text) for text in texts]
    pairs = np.array([(a, b) for a in range(len(texts)) for b in range(len(texts))])
    expected = [similarity_in_plain_python(oracle[a], oracle[b]) for a, b in pairs.tolist()]
    assert jaccard(shingle_sets(texts), pairs).tolist() == expected


def test_jaccard_of_no_pairs():
    assert jaccard(shingle_sets(["a"]), np.empty((0, 2), np.int64)).tolist() == []
    assert jaccard(shingle_sets(["", ""]), np.array([[0, 1]])).tolist() == [0.0]


# --- signatures


@pytest.mark.parametrize(("permutations", "seed"), [(128, 1), (32, 7)])
def test_signatures_are_datasketch_bit_for_bit(permutations, seed):
    from datasketch import MinHash

    texts = [
        *near_copies(40, seed=1),
        *SENTENCES.values(),
        " ".join(f"w{number}" for number in range(150_000)),
        "one",
    ]
    rows = signed(texts, permutations=permutations, seed=seed)
    for row, members in zip(rows, shingle_sets(texts), strict=True):
        sketch = MinHash(num_perm=permutations, seed=seed, scheme="affine32", hashfunc=int)
        sketch.update_batch((members & np.uint64(0xFFFFFFFF)).tolist())
        assert row["signature"] == sketch.hashvalues.astype("<u4").tobytes()
        assert row["sketch"] == bytes(value & 255 for value in sketch.hashvalues.tolist())
        assert row["shingles"] == len(members)


def test_signing_does_not_depend_on_the_batch(monkeypatch):
    texts = [*near_copies(300, seed=2), *SENTENCES.values(), "", "?", "long " * 300_000, "größe " * 200_000]
    random.Random(1).shuffle(texts)
    together = signed(texts)
    alone = [row for text in texts for row in signed([text])]
    assert together == alone
    backwards = signed(texts[::-1])
    assert together == backwards[::-1]
    chunks = pa.chunked_array([texts[:7], [], texts[7:]], pa.large_string())
    assert sign(pa.table({"text": chunks})).to_pylist() == together
    monkeypatch.setattr(signatures, "TEXTS", 7)
    monkeypatch.setattr(signatures, "TEXT_BYTES", 900)
    assert signed(texts) == together


def test_texts_without_words_equal_only_themselves():
    texts = ["", " ", "!!!", "???", "❤️", "\u0301", "…"]
    rows = signed([*texts, *texts])
    assert [row["norm_hash"] for row in rows[: len(texts)]] == [
        row["norm_hash"] for row in rows[len(texts) :]
    ]
    assert len({row["norm_hash"] for row in rows}) == len(texts)
    assert all(row["shingles"] == 0 and row["signature"] is row["sketch"] is None for row in rows)


def test_sign_keeps_its_schema():
    empty = sign(pa.table({"text": pa.array([], pa.string())}))
    assert empty.schema == SIGNED
    assert empty.num_rows == 0
    assert sign(pa.table({"text": ["a", ""]})).schema == SIGNED
    with pytest.raises(ValueError, match="null"):
        sign(pa.table({"text": ["a", None]}))


def test_signature_array_refuses_what_is_no_signature():
    with pytest.raises(ValueError, match="512 bytes"):
        signature_array(pa.array([b"short"], pa.binary()))
    with pytest.raises(ValueError, match="null"):
        signature_array(pa.array([bytes(512), None], pa.binary()))
    assert signature_array(pa.array([], pa.binary())).shape == (0, 128)


@pytest.mark.parametrize("kind", [pa.binary(), pa.large_binary(), pa.binary(512)])
def test_signature_array_of_slices_and_chunks(kind):
    table = np.arange(7 * 128, dtype="<u4").reshape(7, 128)
    column = pa.array([row.tobytes() for row in table], kind)
    assert np.array_equal(signature_array(column[2:5]), table[2:5])
    assert np.array_equal(signature_array(pa.chunked_array([column[1:3], column[5:]])), table[[1, 2, 5, 6]])


# --- candidates


@pytest.mark.parametrize("threshold", [0.5, 0.6, 0.7, 0.8, 0.9, 0.95])
def test_bands_find_a_pair_at_the_threshold(threshold):
    bands, rows = band_parameters(threshold, 128)
    assert bands * rows <= 128
    assert 1 - (1 - threshold**rows) ** bands >= 0.995


def test_known_bands_are_those_of_the_optimiser():
    from datasketch import MinHashLSH

    for (threshold, permutations), known in OPTIMA.items():
        index = MinHashLSH(threshold=threshold, num_perm=permutations, weights=WEIGHTS)
        assert known == (index.b, index.r) == band_parameters(threshold, permutations)


def test_band_keys_differ_by_band_and_by_value():
    signatures = np.array([[7, 7, 7, 7], [7, 7, 8, 7], [7, 7, 7, 7]], np.uint32)
    keys = band_keys(signatures, 2, 2)
    assert keys.dtype == np.uint64
    assert len(set(keys[0].tolist())) == 2
    assert keys[0].tolist() == keys[2].tolist()
    assert keys[0, 0] == keys[1, 0]
    assert keys[0, 1] != keys[1, 1]
    with pytest.raises(ValueError, match="3 bands of 2 rows"):
        band_keys(signatures, 3, 2)


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from([0, 1, 2**16, 2**32, 2**32 + 1, 2**48, 2**64 - 1]),
            st.sampled_from([-3, 5, 8, 13, 2**40, 2**62]),
            st.booleans(),
        ),
        max_size=40,
    ),
    st.integers(1, 4),
    st.booleans(),
    st.randoms(use_true_random=False),
)
def test_candidate_pairs_are_those_of_the_definition(rows, witnesses, all_ask, shuffler):
    buckets: dict[int, dict[int, bool]] = {}
    for bucket, member, asks in rows:
        asking = buckets.setdefault(bucket, {})
        asking[member] = asking.get(member, False) or asks or all_ask
    expected = {
        (witness, member)
        for asking in buckets.values()
        for witness in sorted(asking)[:witnesses]
        for member, asks in asking.items()
        if witness < member and asks
    }
    shuffled = list(rows)
    shuffler.shuffle(shuffled)
    keys = np.array([key for key, _, _ in shuffled], np.uint64)
    members = np.array([member for _, member, _ in shuffled], np.int64)
    asks = None if all_ask else np.array([asks for _, _, asks in shuffled], bool)
    pairs = candidate_pairs(keys, members, witnesses=witnesses, asks=asks)
    assert [tuple(pair) for pair in pairs.tolist()] == sorted(expected)
    assert pairs.shape == (len(expected), 2)


def test_a_large_bucket_is_linear():
    members = np.arange(5_000)
    pairs = candidate_pairs(np.zeros(5_000, np.uint64), members, witnesses=16)
    assert len(pairs) == sum(5_000 - 1 - witness for witness in range(16))
    assert pairs[:, 0].max() == 15


@pytest.mark.parametrize("threshold", [0.7, 0.8])
def test_random_texts_precision_and_recall(threshold):
    texts = near_copies(300, seed=11)
    truth, found = true_pairs(texts, threshold), verified_pairs(texts, threshold, witnesses=64)
    assert len(truth) > 200
    assert found.items() <= truth.items()
    assert len(found) >= 0.99 * len(truth)


def test_licences_precision_and_recall(shared):
    texts = licences(shared)[::8]
    similarities = true_pairs(texts, 0.7)
    for threshold, least in ((0.7, 500), (0.8, 200)):
        truth = {pair: similarity for pair, similarity in similarities.items() if similarity >= threshold}
        found = verified_pairs(texts, threshold, witnesses=len(texts))
        assert len(truth) > least
        assert found.items() <= truth.items()
        assert len(found) >= 0.99 * len(truth)


def test_plausible_pairs_keep_every_pair_that_reaches_the_threshold(shared):
    signed = sign(pa.table({"text": licences(shared)[:600]}))
    texts = [
        text for text, count in zip(licences(shared), signed["shingles"].to_pylist(), strict=False) if count
    ]
    signatures = signature_array(signed["signature"].drop_null())
    pairs = np.array(list(combinations(range(len(texts)), 2)))
    exact = jaccard(shingle_sets(texts), pairs)
    plausible = plausible_pairs(signatures, pairs, 0.7)
    assert (exact >= 0.7).sum() > 50
    assert plausible[exact >= 0.7].all()
    assert plausible.mean() < 0.2
    by_sketches = plausible_pairs(sketch_array(signed["sketch"].drop_null()), pairs, 0.7)
    assert by_sketches[plausible].all()
    assert by_sketches.sum() <= 1.05 * plausible.sum()
