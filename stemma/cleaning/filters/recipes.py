"""The published filters as rules over the metrics, and the profiles that choose among them.

A rule is named by its filter, its metric and which bound it is: `gopher_mean_word_length_min`. The rules of a
recipe stand in the order in which datatrove tests them, so that the first that fails is datatrove's reason.

gopher: quality and repetition (Rae et al. 2021, table A1, appendix A.1.1).
c4: sentences left by the line filter, lorem ipsum, curly brackets (Raffel et al. 2020, section 2.2).
fineweb: all of FineWeb's filters (Penedo et al. 2024, https://arxiv.org/abs/2406.17557): Gopher's, C4's for lines
with any ending, and its own for the lines that C4 leaves. English only: FineWeb has removed other languages before.
fineweb_quality: its own filter alone, for the whole text.
fineweb2:<language>: FineWeb2's filters with the settings of one language, for documents in it (see
`stemma.cleaning.filters.fineweb2`).
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches

from stemma.cleaning.filters.fineweb2 import languages as fineweb2_languages
from stemma.cleaning.filters.fineweb2 import settings_of
from stemma.cleaning.filters.repetition import DUPLICATE_N_GRAMS, TOP_N_GRAMS
from stemma.cleaning.filters.verdict import EMPTY, Rule, above, below, excluded_language, in_language

# In all of these: the metric, which bound, and the published threshold.
GOPHER_QUALITY = (
    ("non_symbol_words", "min", 50),
    ("non_symbol_words", "max", 100_000),
    ("mean_word_length", "min", 3),
    ("mean_word_length", "max", 10),
    ("hash_to_word_ratio", "max", 0.1),
    ("ellipsis_to_word_ratio", "max", 0.1),
    ("bullet_line_fraction", "max", 0.9),
    ("ellipsis_line_fraction", "max", 0.3),
    ("alpha_word_fraction", "min", 0.8),
    ("stop_words", "min", 2),
)
GOPHER_REPETITION = (
    ("duplicate_paragraph_fraction", "max", 0.3),
    ("duplicate_paragraph_character_fraction", "max", 0.2),
    ("duplicate_line_fraction", "max", 0.3),
    ("duplicate_line_character_fraction", "max", 0.2),
    ("top_2_gram_character_fraction", "max", 0.2),
    ("top_3_gram_character_fraction", "max", 0.18),
    ("top_4_gram_character_fraction", "max", 0.16),
    ("duplicate_5_gram_character_fraction", "max", 0.15),
    ("duplicate_6_gram_character_fraction", "max", 0.14),
    ("duplicate_7_gram_character_fraction", "max", 0.13),
    ("duplicate_8_gram_character_fraction", "max", 0.12),
    ("duplicate_9_gram_character_fraction", "max", 0.11),
    ("duplicate_10_gram_character_fraction", "max", 0.1),
)
C4 = (
    ("c4_lorem_ipsum_lines", "max", 0),
    ("c4_curly_bracket_lines", "max", 0),
    ("c4_sentences", "min", 5),
)
FINEWEB = (
    ("lines", "min", 1),
    ("terminal_punctuation_line_fraction", "min", 0.12),
    ("short_line_fraction", "max", 0.67),
    ("repeated_character_fraction", "max", 0.01),
    ("newline_to_word_ratio", "max", 0.3),
)
_C4_OF_FINEWEB = tuple((f"{name}_any_ending", bound, threshold) for name, bound, threshold in C4)
_FINEWEB_AFTER_C4 = (
    ("c4_kept_lines_any_ending", "min", 1),
    *((f"kept_{name}", bound, threshold) for name, bound, threshold in FINEWEB[1:]),
)
_RECIPES = ("gopher", "c4", "fineweb", "fineweb_quality")
_FINEWEB2 = "fineweb2:"

_Limits = Iterable[tuple[str, str, float]]


@dataclass(frozen=True)
class Profile:
    """The recipes that drop documents, and those that only flag them."""

    drop: tuple[str, ...] = ()
    flag: tuple[str, ...] = ()


PROFILES = {
    "retrieval": Profile(flag=("gopher", "c4", "fineweb")),
    "pretraining": Profile(drop=("fineweb",), flag=("c4",)),
}


def recipe_names() -> list[str]:
    """Return the names of all recipes."""
    return [*_RECIPES, *(_FINEWEB2 + language for language in fineweb2_languages())]


def rules_of(recipe: str) -> list[Rule]:
    """Return a recipe's rules in datatrove's order of evaluation.

    Raises:
        ValueError: there is no such recipe.
    """
    if recipe.startswith(_FINEWEB2):
        return _fineweb2(recipe.removeprefix(_FINEWEB2))
    gopher, repetition = _rules("gopher", GOPHER_QUALITY), _rules("gopher", GOPHER_REPETITION)
    recipes = {
        "gopher": [*gopher, *repetition],
        "c4": _rules("", C4),
        "fineweb": [*repetition, *gopher, *_rules("fineweb", (*_C4_OF_FINEWEB, *_FINEWEB_AFTER_C4))],
        "fineweb_quality": _rules("fineweb", FINEWEB),
    }
    if recipe not in recipes:
        raise ValueError(_unknown("recipe", recipe, recipe_names()))
    return recipes[recipe]


def _rules(prefix: str, limits: _Limits) -> list[Rule]:
    rules = []
    for name, bound, threshold in limits:
        rule = "_".join(filter(None, (prefix, name, bound)))
        rules.append((below if bound == "min" else above)(rule, name, threshold))
    return rules


def _fineweb2(language: str) -> list[Rule]:
    settings = settings_of(language)
    if settings is None:
        names = [_FINEWEB2 + code for code in fineweb2_languages()]
        raise ValueError(
            f"{_unknown('recipe', _FINEWEB2 + language, names)}; English has the recipe fineweb, and languages "
            "written without spaces have none: FineWeb2's thresholds for them need a segmenter"
        )
    tops = zip(TOP_N_GRAMS, settings.top_n_grams, strict=True)
    repeats = zip(DUPLICATE_N_GRAMS, settings.duplicate_n_grams, strict=True)
    limits = [
        ("duplicate_line_fraction", "max", settings.duplicate_lines),
        *((f"top_{size}_gram_character_fraction", "max", threshold) for size, threshold in tops),
        *((f"duplicate_{size}_gram_character_fraction", "max", threshold) for size, threshold in repeats),
        ("lines", "min", 1),
        ("terminal_punctuation_line_fraction", "min", settings.terminal_punctuation),
        ("repeated_character_fraction", "max", 0.1),
        ("newline_to_word_ratio", "max", settings.newlines),
        ("non_symbol_words", "min", 50),
        ("non_symbol_words", "max", 100_000),
        ("mean_word_length", "min", settings.shortest_mean_word),
        ("mean_word_length", "max", settings.longest_mean_word),
        *GOPHER_QUALITY[4:8],
        ("alpha_word_fraction", "min", settings.alpha_words),
        ("language_stop_words", "min", 2),
    ]
    return [_only(in_language(language), rule) for rule in _rules(f"fineweb2_{language}", limits)]


def _only(condition: str, rule: Rule) -> Rule:
    """Return the rule for the documents of which the condition is true."""
    return replace(rule, condition=f"{rule.condition} AND {condition}")


def profile_rules(
    profile: str = "retrieval",
    languages: Sequence[str] = (),
    *,
    drop: Sequence[str] = (),
    flag: Sequence[str] = (),
    thresholds: Mapping[str, float] | None = None,
    user_drop: Sequence[Rule] = (),
    user_flag: Sequence[Rule] = (),
) -> tuple[list[Rule], list[Rule]]:
    """Return the rules that drop documents and those that flag them, each in order of evaluation.

    First of all a document is dropped when nothing is left of its text, or when it is in an excluded language. A
    rule that both drops and flags drops. Where `languages` names some that FineWeb2 has settings for, the
    recipe `fineweb` of the profile `pretraining` leaves documents in these to `fineweb2:<language>`.

    Args:
        profile: a key of `PROFILES`.
        languages: the language codes to keep; none keeps all.
        drop, flag: recipes or single rules, by name, besides those of the profile.
        thresholds: other thresholds, by the rule's name.
        user_drop, user_flag: the user's own rules (see `stemma.cleaning.filters.user_rules`).

    Raises:
        ValueError: an unknown profile, recipe, rule or language, or a threshold of a rule that is not used.
    """
    if profile not in PROFILES:
        raise ValueError(_unknown("profile", profile, sorted(PROFILES)))
    chosen = PROFILES[profile]
    excluded = [excluded_language(languages)] if languages else []
    dropping = [EMPTY, *excluded, *_profile_drops(chosen, languages), *_named(drop), *user_drop]
    flagging = [*_named(chosen.flag), *_named(flag), *user_flag]
    changed = _with_thresholds([*dropping, *flagging], thresholds or {})
    first_flag = len(dropping)
    dropped = {rule.name: rule for rule in reversed(changed[:first_flag])}
    flagged = {rule.name: rule for rule in reversed(changed[first_flag:]) if rule.name not in dropped}
    return list(reversed(dropped.values())), list(reversed(flagged.values()))


def check_names(names: Sequence[str]) -> None:
    """Check names of the user's own rules. Raises ValueError for one that a rule or recipe of ours bears."""
    known = {rule.name for recipe in _RECIPES for rule in rules_of(recipe)}
    known |= {*_RECIPES, EMPTY.name, "language", "contamination", "exact", "near"}
    for name in names:
        if name in known or name.startswith("fineweb2_"):
            raise ValueError(f"rule {name!r}: a rule or recipe of Stemma has this name; take another")


def _profile_drops(profile: Profile, languages: Sequence[str]) -> list[Rule]:
    rules = _named(profile.drop)
    others = [code for code in dict.fromkeys(languages) if settings_of(code)]
    if not profile.drop or not others:
        return rules
    elsewhere = " OR ".join(in_language(code) for code in others)
    rules = [_only(f"({elsewhere}) IS NOT TRUE", rule) for rule in rules]
    return [*rules, *(rule for code in others for rule in _fineweb2(code))]


def _named(names: Iterable[str]) -> list[Rule]:
    """Return the rules of these recipes and the single rules with these names."""
    rules: list[Rule] = []
    for name in names:
        if name in _RECIPES or ":" in name:
            rules += rules_of(name)
        else:
            rules.append(_single(name))
    return rules


def _single(name: str) -> Rule:
    recipes = list(_RECIPES)
    if name.startswith("fineweb2_"):
        recipes = [_FINEWEB2 + name.split("_")[1]]
    known = {rule.name: rule for recipe in recipes for rule in rules_of(recipe)}
    if name not in known:
        raise ValueError(_unknown("recipe or rule", name, [*recipe_names(), *known]))
    return known[name]


def _with_thresholds(rules: list[Rule], thresholds: Mapping[str, float]) -> list[Rule]:
    names = {rule.name for rule in rules}
    for name in thresholds:
        if name not in names:
            raise ValueError(_unknown("rule among those of this profile", name, sorted(names)))
    return [
        with_threshold(rule, thresholds[rule.name]) if rule.name in thresholds else rule for rule in rules
    ]


def with_threshold(rule: Rule, threshold: float) -> Rule:
    """Return the rule with another threshold.

    Raises:
        ValueError: its condition is no comparison with its threshold (as in a rule of the user).
    """
    before, after = (f" {value!r}" for value in (rule.threshold, float(threshold)))
    for comparison in (" <", " >"):
        start = rule.score.removesuffix("::DOUBLE") + comparison
        if rule.condition.startswith(start + before):
            condition = start + after + rule.condition.removeprefix(start + before)
            return replace(rule, condition=condition, threshold=float(threshold))
    raise ValueError(f"the threshold of rule {rule.name!r} cannot be changed by its name")


def _unknown(what: str, name: str, known: Sequence[str]) -> str:
    nearest = get_close_matches(name, known, 1)
    hint = f"did you mean {nearest[0]!r}?" if nearest else f"known: {', '.join(known[:8])}, …"
    return f"unknown {what} {name!r} ({hint})"
