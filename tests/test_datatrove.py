"""The filters decide as datatrove's do, for the same reason, where words and sentences are split in the same way."""

import re
from collections.abc import Callable
from itertools import chain

import duckdb
import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from real_texts import real_texts, xquad

from stemma.cleaning.filters import c4, characters, fineweb2
from stemma.cleaning.filters.metrics import measure
from stemma.cleaning.filters.recipes import rules_of
from stemma.cleaning.filters.stop_words import STOP_WORDS
from stemma.cleaning.filters.verdict import EMPTY, Rule, decisions_sql

datatrove = pytest.importorskip("datatrove")

from datatrove.data import Document  # noqa: E402
from datatrove.pipeline.filters import (  # noqa: E402
    C4QualityFilter,
    FineWebQualityFilter,
    GopherQualityFilter,
    GopherRepetitionFilter,
    c4_filters,
    fineweb_quality_filter,
    gopher_quality_filter,
    gopher_repetition_filter,
)
from datatrove.utils import text as datatrove_text  # noqa: E402

REASONS = {
    "non_symbol_words_min": "gopher_short_doc",
    "non_symbol_words_max": "gopher_long_doc",
    "mean_word_length_min": "gopher_below_avg_threshold",
    "mean_word_length_max": "gopher_above_avg_threshold",
    "hash_to_word_ratio_max": "gopher_too_many_hashes",
    "ellipsis_to_word_ratio_max": "gopher_too_many_ellipsis",
    "bullet_line_fraction_max": "gopher_too_many_bullets",
    "ellipsis_line_fraction_max": "gopher_too_many_end_ellipsis",
    "alpha_word_fraction_min": "gopher_below_alpha_threshold",
    "stop_words_min": "gopher_enough_stop_words",
    "language_stop_words_min": "gopher_enough_stop_words",
    "duplicate_paragraph_fraction_max": "dup_para_frac",
    "duplicate_paragraph_character_fraction_max": "dup_para_char_frac",
    "duplicate_line_fraction_max": "dup_line_frac",
    "duplicate_line_character_fraction_max": "dup_line_char_frac",
    **{f"top_{n}_gram_character_fraction_max": f"top_{n}_gram" for n in (2, 3, 4)},
    **{f"duplicate_{n}_gram_character_fraction_max": f"duplicated_{n}_n_grams" for n in range(5, 11)},
    "c4_lorem_ipsum_lines_max": "lorem_ipsum",
    "c4_curly_bracket_lines_max": "curly_bracket",
    "c4_sentences_min": "too_few_sentences",
    "c4_lorem_ipsum_lines_any_ending_max": "lorem_ipsum",
    "c4_curly_bracket_lines_any_ending_max": "curly_bracket",
    "c4_sentences_any_ending_min": "too_few_sentences",
    "lines_min": "empty",
    "terminal_punctuation_line_fraction_min": "line_punct_ratio",
    "short_line_fraction_max": "short_line_ratio",
    "repeated_character_fraction_max": "char_dup_ratio",
    "newline_to_word_ratio_max": "list_ratio",
    "c4_kept_lines_any_ending_min": "empty",
}

BOTH = ["lorem_ipsum", "curly_bracket"]

QUALITY, REPETITION = (
    [rule for rule in rules_of("gopher") if rule.name.removeprefix("gopher_").startswith(names) == wanted]
    for names, wanted in ((("top", "dup"), False), (("top", "dup"), True))
)
C4_OF_FINEWEB = [rule for rule in rules_of("fineweb") if "c4" in rule.name and "kept" not in rule.name]


class FineWeb:
    """FineWeb's filters one after the other; C4's changes the text for the last one."""

    def __init__(self) -> None:
        steps = (
            GopherRepetitionFilter(),
            GopherQualityFilter(),
            C4QualityFilter(filter_no_terminal_punct=False),
        )
        self.steps = [*steps, FineWebQualityFilter()]

    def filter(self, document: Document) -> bool | tuple[bool, str]:
        answers = (step.filter(document) for step in self.steps)
        return next((answer for answer in answers if answer is not True), True)


FILTERS: dict[str, tuple[list[Rule], Callable]] = {
    "gopher quality": (QUALITY, GopherQualityFilter),
    "gopher repetition": ([EMPTY, *REPETITION], GopherRepetitionFilter),
    "c4": (rules_of("c4"), C4QualityFilter),
    "c4 of fineweb": (C4_OF_FINEWEB, lambda: C4QualityFilter(filter_no_terminal_punct=False)),
    "fineweb quality": (rules_of("fineweb_quality"), FineWebQualityFilter),
    "fineweb": ([EMPTY, *rules_of("fineweb")], FineWeb),
}


@pytest.fixture(autouse=True, scope="module")
def same_words():
    """Let datatrove split words and sentences as we do."""
    patch = pytest.MonkeyPatch()
    for module in (gopher_quality_filter, gopher_repetition_filter, fineweb_quality_filter):
        patch.setattr(module, "split_into_words", lambda text, language: text.split())
    patch.setattr(c4_filters, "split_into_sentences", lambda line, language: range(c4.count_sentences(line)))
    yield
    patch.undo()


def reason_of(rule: str) -> str:
    """Return datatrove's reason for what fails a rule of ours."""
    return (
        "empty" if rule == EMPTY.name else REASONS[re.sub("^(gopher|fineweb(2_[a-z]+)?)_(kept_)?", "", rule)]
    )


def ours(texts: list[str], *rules: list[Rule], language: str | None = None) -> list[list[list[str]]]:
    """Return, for each list of rules, the rules that each text fails, in order."""
    table = pa.table(
        {
            "document_id": range(len(texts)),
            "scores": measure(texts, [language] * len(texts)),
            "language": pa.array([language] * len(texts), pa.string()),
            "text_length": pa.array(map(len, texts), pa.int64()),
        }
    )
    failed: list[list[list[str]]] = [[[] for _ in texts] for _ in rules]
    with duckdb.connect() as connection:
        connection.register("documents", table)
        for each, found in zip(rules, failed, strict=True):
            query = f"SELECT document_id, rule FROM ({decisions_sql(each, 'documents')}) ORDER BY position"
            for number, rule in connection.execute(query).fetchall():
                found[number].append(rule)
    return failed


def theirs(texts: list[str], judge) -> list[str | None]:
    answers = [judge.filter(Document(text=text, id="")) for text in texts]
    return [None if answer is True else answer[1] for answer in answers]


def differences(texts: list[str], *names: str) -> list[tuple]:
    """Return filter, text, our reasons and datatrove's where they differ.

    Of lorem ipsum and a curly bracket datatrove names what it meets first, and we name both.
    """
    unlike = []
    for name, failed in zip(names, ours(texts, *(FILTERS[name][0] for name in names)), strict=True):
        for text, rules, wanted in zip(texts, failed, theirs(texts, FILTERS[name][1]()), strict=True):
            reasons = [reason_of(rule) for rule in rules]
            same = wanted in BOTH if reasons[:2] == BOTH else wanted == next(iter(reasons), None)
            if not same:
                unlike.append((name, text, reasons, wanted))
    return unlike


@pytest.fixture(scope="module")
def corpora(shared) -> dict[str, list[str]]:
    texts = real_texts(shared)
    return {**texts, "declarations": texts["declarations"][::16], "paragraphs": texts["paragraphs"][::4]}


@pytest.fixture(scope="module")
def many(corpora) -> list[str]:
    """Real texts, the long ones cut: datatrove takes its time."""
    return [text[:1500] for text in chain.from_iterable(corpora.values())]


@pytest.mark.parametrize("name", FILTERS)
def test_verdict_and_reason_are_those_of_datatrove(many, name):
    assert len(many) > 3000
    assert differences(many, name) == []
    assert len({tuple(failed[:1]) for failed in ours(many, FILTERS[name][0])[0]}) > 2


def test_long_texts_whole(corpora):
    texts = [text for text in corpora["peps"] + corpora["pages"] if len(text) > 40_000][:12]
    assert len(texts) == 12
    assert differences(texts, *FILTERS) == []


@pytest.mark.parametrize("language", ["de", "ru", "ar", "hi", "vi"])
def test_fineweb2_decides_as_its_pipeline(shared, language):
    texts = xquad(shared, language)
    texts += ["\n".join(texts[start : start + 8]) for start in range(0, len(texts), 8)]
    texts += [text + "\n" + text for text in texts[:10]] + [
        "\n".join(text.split()[:60]) for text in texts[:10]
    ]
    settings_ = fineweb2.settings_of(language)
    judges = [
        GopherRepetitionFilter(
            dup_para_frac=0,
            dup_line_char_frac=0,
            dup_para_char_frac=0,
            dup_line_frac=settings_.duplicate_lines,
            top_n_grams=tuple(zip((2, 3, 4), settings_.top_n_grams, strict=True)),
            dup_n_grams=tuple(zip(range(5, 11), settings_.duplicate_n_grams, strict=True)),
        ),
        FineWebQualityFilter(
            short_line_thr=999,
            char_duplicates_ratio=0.1,
            line_punct_thr=settings_.terminal_punctuation,
            new_line_ratio=settings_.newlines,
        ),
        GopherQualityFilter(
            max_avg_word_length=settings_.longest_mean_word,
            min_avg_word_length=settings_.shortest_mean_word,
            stop_words=STOP_WORDS[language].split(),
            max_non_alpha_words_ratio=settings_.alpha_words,
            min_stop_words=2,
        ),
    ]
    rules = rules_of(f"fineweb2:{language}")
    (failed,) = ours(texts, rules, language=language)
    found = [reason_of(names[0]) if names else None for names in failed]
    steps = zip(*(theirs(texts, judge) for judge in judges), strict=True)
    wanted = [next(filter(None, step), None) for step in steps]
    assert found == wanted
    assert len(set(found)) > 3


SENTENCE = "the quick brown fox must be on the way to have a look with that dog. "
GAPS = ["\n", "\n\n", "\r\n", "\r", "\v", "\x85", "\u2028", " ", "\t", "\u3000"]
SIGNS = ["#", "...", "…", "....", "•", "-", "{", "}", "。", "؟", '."', ".)", "'", "💩", "\ud800", "\x00"]
WORDS = ["the", "a", "be of to", "word.", "Word!", "1", "11", "1 1", "ab c", "a bc", "é", "ends here. "]
PHRASES = ["lorem ipsum", "Lorem İpsum", "LOREM[1] IPSUM", "javascript", "java", "script", "Privacy Policy"]
OTHERS = ["[2]", "[٣]", "[edit]", "use coo\u212aies", "x" * 1001, "x" * 1000]
PIECES = st.sampled_from([*GAPS, *SIGNS, *WORDS, *PHRASES, *OTHERS])


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(PIECES, max_size=60).map("".join) | st.text(max_size=80), min_size=1, max_size=4))
@example([""])
@example(["\n", "\n\n", " \n ", "\r", "a\r", "\na\n", "a\n\n\n b \n\nb"])
@example(["word " * 2_000, "x" * 300_000, "1 11 " * 300])
@example(["a b c d ef a b c de f " * 3])
@example(["[1] [2] [3]\n" * 6, (SENTENCE + "[4]\n") * 3, "\t" + SENTENCE + " [5]\n" + SENTENCE])
def test_odd_texts_are_judged_alike(texts):
    texts = [*texts, *(SENTENCE * 4 + text + "\n" + SENTENCE * 2 for text in texts)]
    assert differences(texts, *FILTERS) == []


def test_characters_are_classed_alike():
    assert characters.terminals() == datatrove_text.TERMINAL_PUNCTUATION
    assert characters.punctuation() == datatrove_text.PUNCTUATION_SET
    assert set(c4.POLICY) == set(c4_filters.POLICY_SUBSTRINGS)
    assert set(STOP_WORDS["en"].split()) == set(gopher_quality_filter.STOP_WORDS)
