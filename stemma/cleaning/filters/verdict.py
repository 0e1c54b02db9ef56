"""Rules over what is known of a cleaned document, as SQL: which documents are dropped or flagged, and why.

Rules read metrics and never texts, so a changed threshold is one statement and cleans nothing again. They expect
the columns `scores` (a STRUCT of the metrics), `language`, `language_score`, `words` and `text_length`
(characters). Which rules there are say `stemma.cleaning.filters.recipes` and, for those of the user,
`stemma.cleaning.filters.user_rules`.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from stemma.cleaning.language import known_languages

_LANGUAGE_CODE = re.compile(r"[a-z]{2,3}(-[a-zA-Z0-9]+)*")
# Codes for what the detector names otherwise.
_SYNONYMS = {"nb": "no", "fil": "tl", "iw": "he"}
# A document is in an excluded language when at least half of it is.
_MIN_LANGUAGE_SCORE = 0.5


@dataclass(frozen=True)
class Rule:
    """A reason to drop or flag a document.

    Attributes:
        name: the rule's name in `lineage.decisions`.
        condition: SQL boolean, true when the document fails the rule; null counts as false.
        score: SQL double, what was compared.
        threshold: what it was compared with.
    """

    name: str
    condition: str
    score: str
    threshold: float


def metric(name: str) -> str:
    """Return the SQL expression of one metric.

    Raises:
        ValueError: `name` is no identifier.
    """
    if not name.isidentifier():
        raise ValueError(f"no name of a metric: {name!r}")
    return f"scores.{name}"


def below(rule: str, name: str, threshold: float) -> Rule:
    """Return the rule that a document fails with a metric below the threshold."""
    return _limit(rule, name, "<", threshold)


def above(rule: str, name: str, threshold: float) -> Rule:
    """Return the rule that a document fails with a metric above the threshold."""
    return _limit(rule, name, ">", threshold)


def _limit(rule: str, name: str, comparison: str, threshold: float) -> Rule:
    score = metric(name)
    return Rule(rule, f"{score} {comparison} {float(threshold)!r}", f"{score}::DOUBLE", float(threshold))


EMPTY = Rule("empty", "text_length < 1", "CAST(text_length AS DOUBLE)", 1.0)


def excluded_language(languages: Sequence[str]) -> Rule:
    """Return the rule that drops documents mainly in a language that is not in the list.

    A text of unknown language is kept. "zh" allows "zh-hant" as well, and "pt-BR" allows "pt": the detector
    does not tell regions apart.

    Raises:
        ValueError: a code is no language tag, or one that language identification never answers, so that the
            rule would drop every text of that language.
    """
    allowed = sorted({_checked(code) for code in languages})
    matches = " OR ".join(_matches(code) for code in allowed)
    return Rule(
        "language",
        f"language_score >= {_MIN_LANGUAGE_SCORE} AND NOT ({matches})",
        "language_score",
        _MIN_LANGUAGE_SCORE,
    )


def _matches(code: str) -> str:
    # A checked code holds letters, digits and hyphens only, so it can stand in the statement as it is.
    language, *subtags = code.split("-")
    less_specific = f" OR language = '{language}'" if subtags else ""
    return f"language = '{code}' OR starts_with(language, '{code}-'){less_specific}"


def _checked(code: str) -> str:
    if not _LANGUAGE_CODE.fullmatch(code):
        raise ValueError(f"no language code: {code!r} (expected one such as 'en', 'ceb' or 'zh-Hant')")
    language, *subtags = code.lower().split("-")
    language = _SYNONYMS.get(language, language)
    if language not in known_languages():
        raise ValueError(
            f"language {code!r} cannot be identified (two-letter codes where a language has one)"
        )
    return "-".join([language, *subtags])


def contamination_rule(min_share: float) -> Rule:
    """Return the rule for documents that hold an evaluation item: any n-gram of it, or this share of them."""
    condition = f"contamination > 0 AND contamination >= {float(min_share)!r}"
    return Rule("contamination", condition, "contamination", float(min_share))


def in_language(code: str) -> str:
    """Return the SQL condition that a document is in a language, in any script or region; null when unknown.

    Raises:
        ValueError: as `excluded_language`.
    """
    code = _checked(code)
    return f"(language = '{code}' OR starts_with(language, '{code}-'))"


def decisions_sql(rules: Sequence[Rule], relation: str) -> str:
    """Return the query for every failed rule of every document.

    One filtered scan a rule: it reads only the columns that the rule names.

    Args:
        rules: the rules, in order of evaluation.
        relation: what stands behind FROM: the columns of the rules and `document_id`.

    Returns:
        A query with the columns `document_id`, `rule` VARCHAR, `score` DOUBLE, `threshold` DOUBLE and `position`
        INTEGER (of the rule, from 0: the least of a document is its first reason); no order.
    """
    scans = [
        f"SELECT document_id, '{rule.name}' AS rule, ({rule.score})::DOUBLE AS score, "
        f"({rule.threshold!r})::DOUBLE AS threshold, {position}::INTEGER AS position "
        f"FROM {relation} WHERE {rule.condition}"
        for position, rule in enumerate(rules)
    ]
    nothing = (
        f"SELECT document_id, NULL::VARCHAR AS rule, NULL::DOUBLE AS score, NULL::DOUBLE AS threshold, "
        f"NULL::INTEGER AS position FROM {relation} WHERE false"
    )
    return "\nUNION ALL ".join(scans or [nothing])
