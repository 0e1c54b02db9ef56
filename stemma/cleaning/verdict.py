"""Which documents are dropped, and why: rules over the columns of the cleaned table, as SQL.

A profile is a list of rules in order of evaluation; the first that holds names the reason. Rules read metrics
and never texts, so a changed threshold is one statement and cleans nothing again. They expect the columns
`text_length` (characters), `language`, `language_score`, `words` and `quality` (JSON).
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from stemma.cleaning.language import known_languages

_LANGUAGE_CODE = re.compile(r"[a-z]{2,3}(-[a-zA-Z0-9]+)*")
# Codes for what the detector names otherwise.
_SYNONYMS = {"nb": "no", "fil": "tl", "iw": "he"}
# A document is in an excluded language when at least half of it is.
_MIN_LANGUAGE_SCORE = 0.5


@dataclass(frozen=True)
class Rule:
    """A reason to drop a document.

    Attributes:
        name: the rule's name in `lineage.decisions`.
        condition: SQL boolean, true when the document must be dropped; null counts as false.
        score: SQL double, what was compared.
        threshold: what it was compared with.
    """

    name: str
    condition: str
    score: str
    threshold: float


def metric(name: str) -> str:
    """Return the SQL expression that reads one metric of the `quality` column as a double.

    Raises:
        ValueError: `name` is no identifier.
    """
    if not name.isidentifier():
        raise ValueError(f"no name of a metric: {name!r}")
    return f"scores.{name}"


def below(name: str, threshold: float) -> Rule:
    """Return the rule that drops what has a metric below a threshold; it bears the metric's name."""
    return Rule(name, f"{metric(name)} < {float(threshold)!r}", metric(name), float(threshold))


def above(name: str, threshold: float) -> Rule:
    """Return the rule that drops what has a metric above a threshold; it bears the metric's name."""
    return Rule(name, f"{metric(name)} > {float(threshold)!r}", metric(name), float(threshold))


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


def _retrieval(languages: Sequence[str]) -> list[Rule]:
    return [EMPTY, *([excluded_language(languages)] if languages else [])]


PROFILES: dict[str, Callable[[Sequence[str]], list[Rule]]] = {"retrieval": _retrieval}


def decide_sql(profile: str = "retrieval", languages: Sequence[str] = ()) -> list[Rule]:
    """Return a profile's rules in order of evaluation.

    Args:
        profile: a key of `PROFILES`. "retrieval" drops only what is empty or in an excluded language.
        languages: the language codes to keep; none keeps all.

    Raises:
        ValueError: an unknown profile, or a bad language code.
    """
    if profile not in PROFILES:
        raise ValueError(f"unknown profile {profile!r} (known: {', '.join(sorted(PROFILES))})")
    return PROFILES[profile](languages)


def decisions_sql(rules: Sequence[Rule], relation: str) -> str:
    """Return the query of (document_id, rule, score, threshold, position): a row for each rule that holds."""
    return " UNION ALL ".join(
        f"SELECT document_id, '{rule.name}' AS rule, ({rule.score})::DOUBLE AS score,"
        f" {rule.threshold!r}::DOUBLE AS threshold, {position} AS position FROM {relation} WHERE {rule.condition}"
        for position, rule in enumerate(rules)
    )
