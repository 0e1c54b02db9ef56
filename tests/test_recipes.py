"""Recipes, profiles, a user's rules, and the decisions that follow from them."""

import duckdb
import pyarrow as pa
import pytest
from harness import slow

from stemma.cleaning.filters.fineweb2 import languages as fineweb2_languages
from stemma.cleaning.filters.fineweb2 import settings_of
from stemma.cleaning.filters.metrics import METRICS, measure
from stemma.cleaning.filters.recipes import (
    PROFILES,
    check_names,
    profile_rules,
    recipe_names,
    rules_of,
    with_threshold,
)
from stemma.cleaning.filters.stop_words import STOP_WORDS
from stemma.cleaning.filters.user_rules import user_rule
from stemma.cleaning.filters.verdict import (
    EMPTY,
    Rule,
    above,
    below,
    decisions_sql,
    excluded_language,
    metric,
)
from stemma.cleaning.language import known_languages

PROSE = "The river rose in the night, and by morning the lower fields had become a lake of mud. " * 10
OTHER = (
    "Nobody who lived there had seen that before. Children went out with boats to the barn.\n"
    "They had to be called back for supper, which was cold. An old man told of the flood of his youth.\n"
    "Then the water fell, and it left a line on each of the walls. People have shown it to visitors since.\n"
    "Whoever reads the numbers beside it learns the date of every flood, and of those that will come."
)


def decide(rules: list[Rule], *rows: tuple) -> list[list[tuple]]:
    """Return, for each document (text, language, language score), the decisions in order of the rules."""
    padded = [(*row, None, 0.0)[:3] for row in rows]
    texts = [row[0] for row in padded]
    scores = measure(texts, [row[1] for row in padded])
    table = pa.table(
        {
            "document_id": range(len(rows)),
            "scores": scores,
            "language": pa.array([row[1] for row in padded], pa.string()),
            "language_score": pa.array([row[2] for row in padded], pa.float64()),
            "words": scores.field("words").cast(pa.int32()),
            "text_length": scores.field("characters"),
        }
    )
    with duckdb.connect() as connection:
        connection.register("documents", table)
        query = f"FROM ({decisions_sql(rules, 'documents')}) ORDER BY document_id, position"
        found = connection.execute(query).fetchall()
    return [[row[1:4] for row in found if row[0] == number] for number in range(len(rows))]


def names(rules: list[Rule]) -> list[str]:
    return [rule.name for rule in rules]


def test_every_failed_rule_has_its_row_with_score_and_threshold():
    rules = [below("few", "words", 5), above("symbols", "hash_to_word_ratio", 0.1), EMPTY]
    prose, symbols, empty = decide(rules, (PROSE,), ("# # a",), ("",))
    assert prose == []
    assert symbols == [("few", 3.0, 5.0), ("symbols", 2 / 3, 0.1)]
    assert empty == [("few", 0.0, 5.0), ("empty", 0.0, 1.0)]


def test_decisions_of_no_rules_are_none():
    assert decide([], (PROSE,)) == [[]]


def test_a_name_that_is_no_identifier_is_no_metric():
    assert metric("words") == "scores.words"
    with pytest.raises(ValueError, match="metric"):
        above("rule", "x') OR 1=1 --", 0)


# Recipes ------------------------------------------------------------------------------------------


def test_recipes_hold_the_published_thresholds():
    thresholds = {rule.name: rule.threshold for rule in rules_of("gopher")}
    assert len(thresholds) == 23
    assert thresholds["gopher_mean_word_length_min"] == 3
    assert thresholds["gopher_top_2_gram_character_fraction_max"] == 0.2
    assert thresholds["gopher_duplicate_10_gram_character_fraction_max"] == 0.1
    assert names(rules_of("c4")) == [
        "c4_lorem_ipsum_lines_max",
        "c4_curly_bracket_lines_max",
        "c4_sentences_min",
    ]
    fineweb = names(rules_of("fineweb"))
    assert set(names(rules_of("gopher"))) < set(fineweb)
    assert fineweb[-5:] == [
        "fineweb_c4_kept_lines_any_ending_min",
        "fineweb_kept_terminal_punctuation_line_fraction_min",
        "fineweb_kept_short_line_fraction_max",
        "fineweb_kept_repeated_character_fraction_max",
        "fineweb_kept_newline_to_word_ratio_max",
    ]


# One language in eight, and all in the slow suite.
SOME = [
    name for number, name in enumerate(recipe_names()) if not name.startswith("fineweb2") or number % 8 == 0
]


@pytest.mark.parametrize("recipe", [*SOME, *slow(*(name for name in recipe_names() if name not in SOME))])
def test_rules_of_every_recipe_can_be_asked_and_have_their_own_names(recipe):
    rules = rules_of(recipe)
    assert len(set(names(rules))) == len(rules)
    assert decide(rules, (PROSE, "zz"), ("", "zz"))[1] or recipe.startswith("fineweb2")


def test_prose_passes_and_a_list_of_links_does_not():
    for recipe in ("gopher", "c4", "fineweb"):
        assert decide(rules_of(recipe), (OTHER,)) == [[]]
    links = "\n".join(f"* Link number {number % 7}" for number in range(40))
    (failed,) = decide(rules_of("fineweb"), (links,))
    reasons = [name for name, _, _ in failed]
    assert "gopher_duplicate_line_fraction_max" in reasons
    assert "fineweb_kept_terminal_punctuation_line_fraction_min" in reasons


def test_fineweb2_judges_only_documents_in_its_language():
    rules = rules_of("fineweb2:de")
    assert names(rules)[0] == "fineweb2_de_duplicate_line_fraction_max"
    german, regional, other, unknown = decide(
        rules, ("zu kurz", "de"), ("zu kurz", "de-at"), ("x", "fr"), ("x", None)
    )
    assert ("fineweb2_de_non_symbol_words_min", 2.0, 50.0) in german
    assert regional == german
    assert other == unknown == []


def test_fineweb2_has_settings_and_stop_words_for_languages_that_are_identified():
    known = fineweb2_languages()
    assert len(known) > 60
    assert set(known) <= known_languages()
    assert {*known, "en"} == STOP_WORDS.keys()
    for language in known:
        settings = settings_of(language)
        assert 0 < settings.duplicate_lines < 1
        assert all(0 < share < 1 for share in (*settings.top_n_grams, *settings.duplicate_n_grams))
        assert list(settings.duplicate_n_grams) == sorted(settings.duplicate_n_grams, reverse=True)
        assert settings.shortest_mean_word < settings.longest_mean_word
        assert len(set(STOP_WORDS[language].split())) >= 2
    assert settings_of("de").longest_mean_word == 15


@pytest.mark.parametrize(
    "recipe", ["fineweb2:zh", "fineweb2:en", "fineweb2:", "gophr", "fineweb3:de", "", "Gopher"]
)
def test_unknown_recipes_are_errors(recipe):
    with pytest.raises(ValueError, match="unknown recipe"):
        rules_of(recipe)


# Profiles -----------------------------------------------------------------------------------------


def test_retrieval_drops_what_is_empty_or_in_an_excluded_language_and_flags_the_rest():
    drop, flag = profile_rules("retrieval", ["en", "de-AT"])
    rows = [
        (PROSE, "en", 0.9),
        ("", None, 0.0),
        ("Ceci est", "fr", 0.9),
        ("Das ist", "de", 0.8),
        ("xk7", None, 0.0),
    ]
    kept, empty, french, german, unknown = decide(drop, *rows)
    assert kept == german == unknown == []
    assert empty == [("empty", 0.0, 1.0)]
    assert french == [("language", 0.9, 0.5)]
    assert set(names(flag)) == {
        rule for recipe in PROFILES["retrieval"].flag for rule in names(rules_of(recipe))
    }
    assert len(set(names(flag))) == len(flag)


def test_without_languages_only_the_empty_are_dropped():
    assert names(profile_rules()[0]) == ["empty"]


def test_pretraining_drops_by_all_of_fineweb():
    drop, flag = profile_rules("pretraining")
    assert names(drop) == ["empty", *names(rules_of("fineweb"))]
    assert names(flag) == names(rules_of("c4"))


def test_pretraining_judges_languages_that_are_wanted_by_fineweb2():
    drop, _ = profile_rules("pretraining", ["en", "de"])
    assert names(drop)[:2] == ["empty", "language"]
    short = "zu kurz für alles"
    german, english, unknown = decide(drop, (short, "de", 0.9), (short, "en", 0.9), (short, None, 0.0))
    assert {name.split("_")[0] for name, _, _ in german} == {"fineweb2"}
    assert {name.split("_")[0] for name, _, _ in english} == {"gopher", "fineweb"}
    assert unknown == english


def test_recipes_and_single_rules_are_added_by_name():
    drop, flag = profile_rules(drop=["c4", "gopher_stop_words_min"], flag=["fineweb2_de_lines_min"])
    assert names(drop) == ["empty", *names(rules_of("c4")), "gopher_stop_words_min"]
    assert names(flag)[-1] == "fineweb2_de_lines_min"
    assert not set(names(drop)) & set(names(flag))


def test_a_threshold_is_changed_by_the_name_of_its_rule():
    drop, flag = profile_rules(
        drop=["gopher"], thresholds={"gopher_mean_word_length_min": 2.5, "c4_sentences_min": 3}
    )
    changed = {rule.name: rule for rule in [*drop, *flag]}
    assert changed["gopher_mean_word_length_min"].condition == "scores.mean_word_length < 2.5"
    assert changed["gopher_mean_word_length_min"].threshold == 2.5
    assert changed["c4_sentences_min"].threshold == 3.0
    guarded = with_threshold(rules_of("fineweb2:de")[0], 0.5)
    assert guarded.condition.startswith("scores.duplicate_line_fraction > 0.5 AND (language = 'de'")
    with pytest.raises(ValueError, match="cannot be changed"):
        with_threshold(excluded_language(["de"]), 0.9)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"profile": "retrievl"}, "unknown profile 'retrievl'.*did you mean 'retrieval'"),
        ({"drop": ["gohper"]}, "unknown recipe or rule 'gohper'.*did you mean 'gopher'"),
        ({"flag": ["gopher_stop_word_min"]}, "did you mean 'gopher_stop_words_min'"),
        ({"thresholds": {"gopher_mean_word_min": 2}}, "did you mean 'gopher_mean_word_length_"),
        ({"profile": "pretraining", "thresholds": {"fineweb2_de_lines_min": 2}}, "unknown rule among those"),
        ({"languages": ["deu"]}, "language"),
        ({"drop": ["fineweb2:xx"]}, "unknown recipe"),
    ],
)
def test_unknown_names_are_errors_that_name_the_nearest(arguments, message):
    with pytest.raises(ValueError, match=message):
        profile_rules(**arguments)


# Languages ----------------------------------------------------------------------------------------


def test_chinese_allows_both_scripts_and_norwegian_its_names():
    chinese, norwegian = (excluded_language([code]).condition for code in ("zh", "nb"))
    row = "SELECT 'zh-hant' AS language, 0.9 AS language_score"
    assert duckdb.sql(f"SELECT {chinese} FROM ({row})").fetchone() == (False,)
    assert duckdb.sql(f"SELECT {norwegian} FROM ({row})").fetchone() == (True,)
    assert duckdb.sql(
        f"SELECT {norwegian} FROM (SELECT 'no' AS language, 0.9 AS language_score)"
    ).fetchone() == (False,)


@pytest.mark.parametrize("code", ["", "EN", "english", "e", "en'; DROP TABLE x; --", "en_US", "deu", "xx"])
def test_bad_language_codes_are_errors(code):
    with pytest.raises(ValueError, match="language"):
        profile_rules("retrieval", ["en", code])


# The user's rules ---------------------------------------------------------------------------------


def test_a_rule_of_the_user_is_asked_like_any_other():
    rule = user_rule(
        "tiny", "scores.words < 20 AND language = 'en' -- mails", score="scores.words", threshold=20
    )
    assert rule == Rule(
        "tiny",
        "TRY(((scores.words < 20) AND (\"language\" = 'en')))",
        "TRY((scores.words)::DOUBLE)",
        20.0,
    )
    drop, flag = profile_rules(user_drop=[rule], user_flag=[user_rule("odd", "words % 2 = 1")])
    assert names(drop) == ["empty", "tiny"]
    short, german, long = decide(drop, ("a few words", "en"), ("a few words", "de"), (PROSE, "en"))
    assert short == [("tiny", 3.0, 20.0)]
    assert german == long == []
    assert decide(flag[-1:], ("a few words",)) == [[("odd", 1.0, 1.0)]]


@pytest.mark.parametrize(
    "condition",
    [
        "scores.words BETWEEN 3 AND 5",
        "CASE WHEN words > 3 THEN true END",
        "language IN ('en', 'de') OR language IS NULL",
        "regexp_matches(language, '^d')",
        "scores.words / greatest(scores.lines, 1) > 100",
        "list_max([scores.stop_words, scores.language_stop_words]) < 2",
    ],
)
def test_expressions_over_the_document_are_allowed(condition):
    decide([user_rule("rule", condition)], (PROSE, "en"))


@pytest.mark.parametrize(
    ("condition", "message"),
    [
        ("scores.wrods < 3", "unknown metric 'wrods'.*did you mean 'words'"),
        ("no_column < 3", "no_column"),
        ("scores.words", "not true or false"),
        ("scores.words <", "syntax error"),
        ("", "selection list"),
        ("true; DROP TABLE documents", "single"),
        ("words < 3) FROM documents --", "syntax error"),
        ("(SELECT count(*) FROM documents) > 3", "subquery"),
        ("EXISTS (SELECT 1 FROM read_text('/etc/passwd'))", "subquery"),
        ("sum(words) > 3", "aggregate"),
        ("row_number() OVER () > 3", "window"),
        ("random() < 0.1", "random"),
        ("now() > '2020-01-01'", "now"),
        ("current_setting('threads') = '1'", "current_setting"),
        ("COLUMNS(*) IS NULL", "star"),
        ("words < ?", "parameter"),
    ],
)
def test_other_expressions_are_errors_that_name_the_rule(condition, message):
    with pytest.raises(ValueError, match=f"rule 'rule'.*{message}"):
        user_rule("rule", condition)


def test_a_bad_score_or_name_is_an_error():
    with pytest.raises(ValueError, match="rule 'rule'"):
        user_rule("rule", "words < 3", score="language IS")
    with pytest.raises(ValueError, match="rule 'rule'"):
        user_rule("rule", "words < 3", score="[1, 2]")
    for name in ("", "Rule", "a b", "x'; --", "a" * 64):
        with pytest.raises(ValueError, match="name of a rule"):
            user_rule(name, "words < 3")


def test_a_user_may_name_scores_that_are_no_metric_of_ours():
    scores = pa.struct([*METRICS, pa.field("model", pa.float64())])
    assert user_rule("bad", "scores.model < 0.5", scores=scores).condition == "TRY((scores.model < 0.5))"


@pytest.mark.parametrize(
    "condition",
    [
        "current_date > DATE '2020-01-01'",
        "CURRENT_TIMESTAMP > TIMESTAMP '2020-01-01'",
        "localtimestamp > TIMESTAMP '2020-01-01'",
        "age(TIMESTAMP '2020-01-01') > INTERVAL 1 DAY",
        "'now'::TIMESTAMP > TIMESTAMP '2020-01-01'",
        "' Today '::DATE > DATE '2020-01-01'",
        "current_user = 'me'",
    ],
)
def test_a_user_may_not_ask_the_clock_or_the_session(condition):
    with pytest.raises(ValueError, match="not allowed"):
        user_rule("bad", condition)


@pytest.mark.parametrize(
    "name", ["empty", "language", "c4", "gopher_stop_words_min", "fineweb2_deu_x", "near"]
)
def test_a_user_may_not_take_a_name_of_ours(name):
    with pytest.raises(ValueError, match="take another"):
        check_names([name])
