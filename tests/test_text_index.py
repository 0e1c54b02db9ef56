"""The text index: words of all scripts, postings against a plain count, and the same after any update as anew."""

import tempfile
import unicodedata
from collections import Counter
from pathlib import Path

import duckdb
import pytest
from harness import Corpus, long_document, sentence
from hypothesis import given, settings
from hypothesis import strategies as st
from sentences import SENTENCES

from stemma.deduplication.tokens import normal_forms, words_of
from stemma.resources.engine import search_index
from stemma.search import words
from stemma.search.words import QueryWord, postings, query_words, without_diacritics

PLAIN_UNSPACED = (*words.UNSPACED, words.HANGUL_SYLLABLES)


def is_unspaced(character: str) -> bool:
    return any(first <= ord(character) <= last for first, last in PLAIN_UNSPACED)


def is_hangul(character: str) -> bool:
    return "가" <= character <= "힣"


def plain_words(text: str) -> list[str]:
    """The words of a text, one by one in plain Python."""
    (form,) = normal_forms(words_of([text]))
    pieces: list[tuple[str, int]] = []
    for number, word in enumerate(form.decode().split()):
        piece = ""
        for character in word:
            if piece and (is_hangul(character) or is_hangul(piece[-1])):
                pieces.append((piece, number))
                piece = ""
            piece += character
        pieces.append((piece, number))
    found: list[str] = []
    paired = False
    for here, following in zip(pieces, [*pieces[1:], None], strict=False):
        makes_pair = following is not None and _is_pair(here, following)
        if makes_pair:
            assert following is not None
            found.append(here[0] + following[0])
        elif not paired:
            found.append(here[0])
        paired = makes_pair
    return found


def _is_pair(here: tuple[str, int], following: tuple[str, int]) -> bool:
    first, second = here[0][0], following[0][0]
    if not (is_unspaced(first) and is_unspaced(second)) or is_hangul(first) != is_hangul(second):
        return False
    return not is_hangul(first) or here[1] == following[1]


def plain_postings(texts: list[str]) -> list[tuple[str, int, int]]:
    rows = []
    for number, text in enumerate(texts):
        counts: Counter[str] = Counter()
        for word in plain_words(text):
            counts.update({word, without_diacritics(word)})
        rows += [(word, number, count) for word, count in counts.items()]
    return sorted(rows)


def rows_of(texts: list[str]) -> list[tuple[str, int, int]]:
    table, _lengths = postings(texts)
    return list(zip(*(table[name].to_pylist() for name in ("word", "text", "frequency")), strict=True))


TEXTS = st.lists(
    st.text(st.sampled_from("ab Zü_1é,。中文猫가나ไทй\u0301\u00ad\n한ſ½"))
    | st.sampled_from([*SENTENCES.values()]),
    max_size=6,
)


@settings(max_examples=150, deadline=None)
@given(TEXTS)
def test_postings_are_a_plain_count(texts: list[str]) -> None:
    assert rows_of(texts) == plain_postings(texts)
    assert postings(texts)[1].tolist() == [len(plain_words(text)) for text in texts]


def test_postings_do_not_depend_on_the_other_texts() -> None:
    texts = list(SENTENCES.values())
    together = {(word, texts[number], count) for word, number, count in rows_of(texts)}
    alone = {(word, text, count) for text in texts for word, _number, count in rows_of([text])}
    assert together == alone


@pytest.mark.parametrize(
    ("text", "form"),
    [
        ("zürich", "zurich"),
        ("việt", "viet"),
        ("λόγος", "λογος"),
        ("שָׁלוֹם", "שלום"),
        ("हिन्दी", "हिन्दी"),
        ("น้ำ", "น้ำ"),
        ("\u0301", "\u0301"),
    ],
)
def test_diacritics_go_and_vowel_signs_stay(text: str, form: str) -> None:
    assert without_diacritics(unicodedata.normalize("NFC", text)) == unicodedata.normalize("NFC", form)


def test_a_query_word_stands_for_what_begins_alike() -> None:
    last = words.LAST_CHARACTER
    assert query_words("Migrations") == [
        QueryWord("migra", f"migra{last}"),
        QueryWord("migrations", "migrations"),
    ]
    assert query_words("short") == [QueryWord("short", "short")]
    assert query_words("abcdef_1") == [QueryWord("abcdef_1", "abcdef_1")]
    assert query_words("Zürich") == [
        QueryWord("zuric", f"zuric{last}"),
        QueryWord("zurich", "zurich"),
        QueryWord("zürich", "zürich"),
    ]
    assert query_words("猫") == [QueryWord("猫", f"猫{last}")]
    assert query_words("中文，猫") == [QueryWord("中文", "中文"), QueryWord("猫", f"猫{last}")]
    assert query_words("한국어 말") == [
        QueryWord("국어", "국어"),
        QueryWord("말", f"말{last}"),
        QueryWord("한국", "한국"),
    ]
    assert query_words(" … ") == []


def test_the_index_follows_every_change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search_index, "FEW_POSTINGS", 60)
    monkeypatch.setattr(search_index, "BATCH_CHUNKS", 3)
    corpus = Corpus(tmp_path, chunk={"max_tokens": 60})
    corpus.steady = True
    corpus.fill(8)
    corpus.write("long.txt", long_document("a", 6))
    for name, text in SENTENCES.items():
        corpus.write(f"{name}.txt", text)
    corpus.run()
    written = corpus.value("SELECT postings FROM search.index")
    rewritten = 0
    for number in range(3):
        corpus.write("long.txt", long_document("a", 6) + sentence(number, 50))
        corpus.write(f"new{number}.txt", sentence(("new", number), 300))
        corpus.delete(f"doc00{number}.txt")
        corpus.run(allow_deletes=True)
        rewritten += corpus.value("SELECT postings FROM search.index") != written
    assert rewritten > 0
    assert corpus.differences() == []
    texts = dict(corpus.query("SELECT chunk_id::VARCHAR, text FROM corpus.chunked ORDER BY chunk_id"))
    expected = [
        (word, list(texts)[number], count) for word, number, count in plain_postings([*texts.values()])
    ]
    found = corpus.query("SELECT word, chunk_id::VARCHAR, frequency FROM search.postings")
    assert sorted(found) == sorted(expected)
    assert corpus.count("search.chunks") == len(texts)
    assert corpus.query("SELECT chunk_id FROM search.numbers GROUP BY ALL HAVING count(*) > 1") == []


def test_another_recipe_makes_the_index_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    corpus = Corpus(tmp_path)
    corpus.write("a.txt", "Zürich in winter")
    corpus.run()
    assert corpus.count("search.postings WHERE word = 'zurich'") == 1
    monkeypatch.setattr(words, "without_diacritics", lambda word: word)
    assert corpus.run().publication.published
    assert corpus.count("search.postings WHERE word = 'zurich'") == 0


def test_a_file_without_an_index_gets_one(tmp_path: Path) -> None:
    """What an earlier version published has no schema `search`."""
    corpus = Corpus(tmp_path)
    corpus.steady = True
    corpus.fill(3)
    corpus.run()
    before = sorted(corpus.query("FROM search.postings"))
    corpus.path.chmod(0o644)
    with duckdb.connect(str(corpus.path)) as connection:
        connection.execute("DROP SCHEMA search CASCADE")
    corpus.run()
    assert sorted(corpus.query("FROM search.postings")) == before


def test_verify_sees_a_posting_that_is_gone() -> None:
    with tempfile.TemporaryDirectory() as folder:
        corpus = Corpus(Path(folder))
        corpus.steady = True
        corpus.fill(3)
        corpus.run()
        corpus.path.chmod(0o644)
        with duckdb.connect(str(corpus.path)) as connection:
            connection.execute("DELETE FROM search.posting_rows WHERE rowid = 0")
        assert [each.table for each in corpus.differences()] == ["search.postings"]
