"""Decisions: every rule that a document fails is on record, and other rules touch only the documents that they move."""

import json

import duckdb
import pytest
from harness import NOTHING, Corpus, sentence

from stemma.errors import StemmaError, UsageError
from stemma.resources.engine import Setup

PROSE = (
    "The river carried the timber to the mill, and with it the news of the town. Nobody asked who had sent it. "
    "They have always known that the water brings what it wants. Later that day the miller wrote a letter to his "
    "brother, who lived beyond the hills. He had to be careful with words. The answer came after a month."
)


@pytest.fixture
def corpus(tmp_path):
    corpus = Corpus(tmp_path)
    corpus.write("prose.txt", PROSE)
    corpus.write("shouting.txt", "#buy #now ... " * 40)
    corpus.write("short.txt", "Only a few words stand here, no more.")
    return corpus


def decided(corpus):
    """Return {file: [the rules that dropped it, in order]}."""
    rows = corpus.query(
        """SELECT parse_filename(uri), rule FROM lineage.decisions JOIN lineage.rules USING (rule)
        WHERE stage = 'cleaned' ORDER BY uri, position"""
    )
    found = {}
    for name, rule in rows:
        found.setdefault(name, []).append(rule)
    return found


def test_retrieval_drops_nothing_and_flags(corpus):
    corpus.run()
    assert decided(corpus) == {}
    flags = corpus.query("SELECT DISTINCT parse_filename(uri) FROM lineage.flags ORDER BY ALL")
    assert flags == [("short.txt",), ("shouting.txt",)] or ("shouting.txt",) in flags
    assert corpus.query(
        """SELECT score, threshold FROM lineage.flags
        WHERE rule = 'gopher_hash_to_word_ratio_max' AND uri LIKE '%shouting.txt'"""
    ) == [(pytest.approx(2 / 3), 0.1)]


def test_pretraining_records_every_failed_rule(corpus):
    corpus.set(clean={"profile": "pretraining"})
    corpus.run()
    rules = decided(corpus)
    assert len(rules["shouting.txt"]) > 3
    assert "gopher_hash_to_word_ratio_max" in rules["shouting.txt"]
    assert "gopher_non_symbol_words_min" in rules["short.txt"]
    assert (
        corpus.value(
            "SELECT count(*) FROM lineage.decisions AS d ANTI JOIN lineage.rules AS r"
            " ON d.rule = r.rule AND d.threshold = r.threshold AND r.action = 'drop'"
        )
        == 0
    )


def test_another_profile_cleans_nothing_again(corpus):
    corpus.run()
    corpus.set(clean={"profile": "pretraining"})
    result = corpus.run()
    assert result.computed == NOTHING
    assert result.counts["cleaned"].rows_removed == len(decided(corpus)) > 0
    assert corpus.differences() == []
    corpus.set(clean={"profile": "retrieval"})
    result = corpus.run()
    assert result.computed == NOTHING
    assert decided(corpus) == {}
    assert corpus.differences() == []


def test_a_threshold_moves_only_what_it_decides(corpus):
    corpus.set(clean={"drop": ("gopher_non_symbol_words_min",)})
    corpus.run()
    assert decided(corpus) == {"short.txt": ["gopher_non_symbol_words_min"]}
    corpus.set(clean={"thresholds": (("gopher_non_symbol_words_min", 5.0),)})
    result = corpus.run()
    assert result.computed["cleaned"] == 0
    assert (result.counts["cleaned"].rows_added, result.counts["cleaned"].rows_removed) == (1, 0)
    assert decided(corpus) == {}
    assert corpus.differences() == []


@pytest.mark.slow
def test_a_new_threshold_updates_the_ledger_of_what_stays_dropped(corpus):
    corpus.set(clean={"drop": ("gopher_non_symbol_words_min",)})
    corpus.run()
    corpus.set(clean={"thresholds": (("gopher_non_symbol_words_min", 40.0),)})
    result = corpus.run()
    assert result.counts["cleaned"].decisions_changed == 1
    assert corpus.query("SELECT score, threshold FROM lineage.decisions") == [(8.0, 40.0)]
    assert corpus.differences() == []


def test_rules_of_ones_own(corpus):
    from stemma.config import RuleConfig

    rules = (
        RuleConfig("tiny", "scores.words < 20 AND language = 'en'", "scores.words", 20.0),
        RuleConfig("hashes", "scores.hash_to_word_ratio > 0.2", action="flag"),
    )
    corpus.set(clean={"rules": rules})
    corpus.run()
    assert decided(corpus) == {"short.txt": ["tiny"]}
    assert corpus.query("SELECT score, threshold FROM lineage.decisions") == [(8.0, 20.0)]
    assert corpus.value("SELECT count(*) FROM lineage.flags WHERE rule = 'hashes'") == 1


@pytest.mark.parametrize(
    ("clean", "words"),
    [
        ({"drop": ("gofer",)}, "gopher"),
        ({"thresholds": (("gopher_mean_word_length_mim", 1.0),)}, "gopher_mean_word_length_min"),
        ({"languages": ("xx",)}, "xx"),
    ],
)
def test_rules_that_make_no_sense_are_named(corpus, clean, words):
    corpus.set(clean=clean)
    with pytest.raises(UsageError, match=words):
        _ = Setup.of(corpus.config()).rules


@pytest.mark.slow
def test_rules_over_a_changed_document_alone(corpus):
    corpus.set(clean={"drop": ("gopher_non_symbol_words_min",)})
    corpus.run()
    corpus.write("short.txt", PROSE + " " + sentence("more", 30))
    result = corpus.run()
    assert result.computed["cleaned"] == 1
    assert decided(corpus) == {}
    assert corpus.differences() == []


def test_quality_is_json_and_scores_are_columns(corpus):
    corpus.run()
    (quality, words), *_ = corpus.query(
        "SELECT quality, scores.words FROM corpus.cleaned WHERE scores.words > 20 ORDER BY ALL"
    )
    assert json.loads(quality)["words"] == words
    assert corpus.value("SELECT bool_and((quality->>'words')::INT = words) FROM corpus.cleaned")


def score_by_length(texts):
    """A quality model for the test below."""
    return [len(text) / 1000 for text in texts]


def test_a_quality_model_is_a_metric(corpus, monkeypatch):
    from stemma.config import ModelConfig, RuleConfig

    (corpus.root / "my_models.py").write_text(
        "def by_length(texts):\n    return [len(text) / 1000 for text in texts]\n"
    )
    rule = RuleConfig("dull", "model_scores['length'] < 0.1", "model_scores['length']", 0.1)
    corpus.set(clean={"models": (ModelConfig("length", "my_models:by_length"),), "rules": (rule,)})
    corpus.run()
    assert decided(corpus) == {"short.txt": ["dull"]}
    assert corpus.value(
        "SELECT bool_and(round(model_scores['length'], 6) = round(length(text) / 1000, 6)) FROM corpus.cleaned"
    )
    assert corpus.value("SELECT bool_and((quality->>'length')::DOUBLE > 0) FROM corpus.cleaned")
    assert corpus.run().computed == NOTHING
    assert corpus.differences() == []


@pytest.mark.slow
def test_a_quality_model_that_fails_for_a_document_costs_that_document(corpus):
    from stemma.config import ModelConfig

    (corpus.root / "picky_models.py").write_text(
        "def picky(texts):\n"
        "    if any('Only a few' in text for text in texts):\n"
        "        raise ValueError('I refuse')\n"
        "    return [0.5] * len(texts)\n"
    )
    corpus.set(clean={"models": (ModelConfig("taste", "picky_models:picky"),)})
    corpus.run()
    assert corpus.query("SELECT parse_filename(uri), stage, error, detail FROM lineage.errors") == [
        ("short.txt", "cleaned", "ValueError", "I refuse")
    ]
    corpus.set(clean={"models": ()})
    corpus.run()
    assert corpus.value("SELECT count(*) FROM lineage.errors") == 0
    assert corpus.differences() == []


def test_a_state_of_another_layout_is_made_anew(corpus):
    first = corpus.run()
    with duckdb.connect(str(corpus.path.with_suffix(".work") / "state.duckdb")) as connection:
        connection.execute("ALTER TABLE cleaned DROP COLUMN author")
        connection.execute("UPDATE layout SET digest = 'of an earlier version'")
    result = corpus.run()
    assert result.computed == NOTHING, "everything is in the memo"
    assert corpus.differences() == []
    assert corpus.value("SELECT count(DISTINCT run_id) FROM lineage.runs") == 2, "the history goes on"
    assert first.run_id != result.run_id


def test_a_rule_that_makes_no_sense_for_a_document_does_not_hold(corpus):
    from stemma.config import RuleConfig

    rules = (
        RuleConfig("odd", "CAST(language AS INTEGER) > 1"),
        RuleConfig("odd_score", "words > 1", "CAST(language AS INTEGER)", action="flag"),
    )
    corpus.set(clean={"rules": rules})
    corpus.run()
    assert decided(corpus) == {}
    assert corpus.query("SELECT DISTINCT score FROM lineage.flags WHERE rule = 'odd_score'") == [(None,)]


def test_a_model_that_returns_too_few_scores_stops_the_run(corpus):
    from stemma.config import ModelConfig

    (corpus.root / "short_models.py").write_text("def short(texts):\n    return [1.0] * (len(texts) - 1)\n")
    corpus.set(clean={"models": (ModelConfig("short", "short_models:short"),)})
    with pytest.raises(StemmaError, match="scores for"):
        corpus.run()


def test_a_model_may_not_be_named_like_a_metric(corpus):
    from stemma.config import ModelConfig

    corpus.set(clean={"models": (ModelConfig("words", "json:dumps"),)})
    with pytest.raises(UsageError, match="metric"):
        corpus.run()
