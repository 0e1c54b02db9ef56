"""Cheap, well-known metrics of a text, after Gopher (Rae et al. 2021, table A1) and C4 (Raffel et al. 2020).

Words are what white space separates, as in Gopher; lines are those with something on them. Every metric is 0
for an empty text. They are kept for each document whatever becomes of it: rules over them are SQL.
"""

from collections import Counter
from collections.abc import Sequence

import pyarrow as pa

# Gopher asks for at least two of these.
_STOP_WORDS = frozenset({"the", "be", "to", "of", "and", "that", "have", "with"})
_BULLETS = ("•", "‣", "▪", "◦", "●", "-", "*", "+")
_ELLIPSES = ("...", "…")
# C4 keeps only lines that end in one of these; the full-width forms do the same for Chinese and Japanese.
_TERMINAL_PUNCTUATION = (".", "!", "?", '"', "”", "'", "’", "。", "！", "？", "」", "』", "।", "؟")


METRICS = pa.struct(
    [
        *((name, pa.int64()) for name in ("characters", "words", "lines", "stop_words")),
        *(
            (name, pa.float64())
            for name in (
                "symbol_to_word_ratio",
                "mean_word_length",
                "alpha_word_fraction",
                "unique_word_fraction",
                "bullet_line_fraction",
                "ellipsis_line_fraction",
                "terminal_punctuation_line_fraction",
                "duplicate_line_fraction",
                "duplicate_line_character_fraction",
            )
        ),
    ]
)


def measure(texts: Sequence[str]) -> pa.StructArray:
    """Measure each text; the names are the fields of `METRICS`.

    characters, words, lines: counts.
    mean_word_length: characters to a word (Gopher: 3 to 10).
    symbol_to_word_ratio: `#` and ellipses by words (Gopher: at most 0.1).
    alpha_word_fraction: words with a letter in them (Gopher: at least 0.8).
    stop_words: how many of the, be, to, of, and, that, have, with occur (Gopher: at least 2).
    unique_word_fraction: different words by words.
    bullet_line_fraction, ellipsis_line_fraction: lines that begin with a bullet, end in an ellipsis (Gopher:
    at most 0.9 and 0.3).
    duplicate_line_fraction, duplicate_line_character_fraction: lines that occurred before, and their
    characters by those of all lines (Gopher: at most 0.3 and 0.2).
    terminal_punctuation_line_fraction: lines that end a sentence (C4).
    """
    return pa.array([_measure_one(text) for text in texts], METRICS)


def _measure_one(text: str) -> dict[str, float]:
    words = text.split()
    lines = [line for line in map(str.strip, text.split("\n")) if line]
    symbols = text.count("#") + text.count("...") + text.count("…")
    return {
        "characters": len(text),
        "words": len(words),
        "lines": len(lines),
        "symbol_to_word_ratio": _ratio(symbols, len(words)),
        **_word_metrics(words),
        **_line_metrics(lines),
    }


def _word_metrics(words: list[str]) -> dict[str, float]:
    # Words repeat: what is a property of the word is computed once for each different one.
    counts = Counter(words)
    alphabetic = sum(
        [count for word, count in counts.items() if word[0].isalpha() or any(map(str.isalpha, word))]
    )
    return {
        "mean_word_length": _ratio(sum(map(len, words)), len(words)),
        "alpha_word_fraction": _ratio(alphabetic, len(words)),
        "stop_words": len(counts.keys() & _STOP_WORDS),
        "unique_word_fraction": _ratio(len(counts), len(words)),
    }


def _line_metrics(lines: list[str]) -> dict[str, float]:
    unique = set(lines)
    characters = sum(map(len, lines))
    bullets = sum([line.startswith(_BULLETS) for line in lines])
    ellipses = sum([line.endswith(_ELLIPSES) for line in lines])
    sentences = sum([line.endswith(_TERMINAL_PUNCTUATION) for line in lines])
    return {
        "bullet_line_fraction": _ratio(bullets, len(lines)),
        "ellipsis_line_fraction": _ratio(ellipses, len(lines)),
        "terminal_punctuation_line_fraction": _ratio(sentences, len(lines)),
        "duplicate_line_fraction": _ratio(len(lines) - len(unique), len(lines)),
        "duplicate_line_character_fraction": _ratio(characters - sum(map(len, unique)), characters),
    }


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else 0.0
