"""Every metric of Gopher, C4 and FineWeb for each text, computed for many texts at once with numpy.

Words are what white space separates, in every language: the metrics and the thresholds on them are only
comparable where words are split in the same way. Definitions and order of tests are those of datatrove's filters.
"""

from collections.abc import Sequence
from functools import cache

import numpy as np
import pyarrow as pa

from stemma.cleaning.filters.c4 import c4_metrics, ending_in_dots, line_facts
from stemma.cleaning.filters.characters import CONTENT, LETTER
from stemma.cleaning.filters.fineweb import fineweb_metrics, kept_metrics, kept_spans
from stemma.cleaning.filters.repetition import (
    DUPLICATE_N_GRAMS,
    TOP_N_GRAMS,
    duplicate_n_grams,
    duplicates,
    paragraphs_of,
    top_n_grams,
    words_of,
)
from stemma.cleaning.filters.stop_words import STOP_WORDS
from stemma.cleaning.filters.text_blocks import (
    LINE_FEED,
    Block,
    Spans,
    block_of,
    mixed,
    ratios,
    span_hashes,
    split_lines,
    text_blocks,
    totals,
    words_within,
)

COUNTS = (
    "characters",
    "words",
    "non_symbol_words",
    "lines",
    "stop_words",
    "language_stop_words",
    "c4_kept_lines",
    "c4_sentences",
    "c4_lorem_ipsum_lines",
    "c4_curly_bracket_lines",
    "c4_kept_lines_any_ending",
    "c4_sentences_any_ending",
    "c4_lorem_ipsum_lines_any_ending",
    "c4_curly_bracket_lines_any_ending",
    "javascript_lines",
    "policy_lines",
    "citation_lines",
)
RATIOS = (
    "mean_word_length",
    "hash_to_word_ratio",
    "ellipsis_to_word_ratio",
    "newline_to_word_ratio",
    "alpha_word_fraction",
    "unique_word_fraction",
    "bullet_line_fraction",
    "ellipsis_line_fraction",
    "terminal_punctuation_line_fraction",
    "short_line_fraction",
    "repeated_character_fraction",
    "kept_terminal_punctuation_line_fraction",
    "kept_short_line_fraction",
    "kept_repeated_character_fraction",
    "kept_newline_to_word_ratio",
    "duplicate_line_fraction",
    "duplicate_line_character_fraction",
    "duplicate_paragraph_fraction",
    "duplicate_paragraph_character_fraction",
    *(f"top_{size}_gram_character_fraction" for size in TOP_N_GRAMS),
    *(f"duplicate_{size}_gram_character_fraction" for size in DUPLICATE_N_GRAMS),
)
METRICS = pa.struct(
    [
        *(pa.field(name, pa.int64(), nullable=False) for name in COUNTS),
        *(pa.field(name, pa.float64(), nullable=False) for name in RATIOS),
    ]
)

# Above, a word costs a call of its own, and below, eight bytes a character.
_LONG_WORD = 100
_BULLETS = ("•", "-")
_ELLIPSIS = "…"


def measure(texts: Sequence[str], languages: Sequence[str | None] | None = None) -> pa.StructArray:
    """Measure each text.

    Args:
        texts: the texts; lone surrogates count as characters.
        languages: the identified language of each text, as `stemma.cleaning.language` names it; only
            `language_stop_words` depends on it.

    Returns:
        An array of type `METRICS`, one element a text, all of them finite and 0 for an empty text. A result
        depends on its text and language alone; each ratio is one division of integers.

        characters: code points. words: separated by white space. non_symbol_words: those that are not
        punctuation alone. lines: separated by line feeds, with more than white space on them.
        stop_words: how many of Gopher's eight English stop words occur. language_stop_words: how many of those
        of the text's language, 0 where it has none in `stemma.cleaning.filters.stop_words`.

        mean_word_length: in characters, of the non_symbol_words.
        hash_to_word_ratio, ellipsis_to_word_ratio, newline_to_word_ratio: `#`, ellipses (… or three full
        stops) and line feeds by words.
        alpha_word_fraction: words with a letter. unique_word_fraction: different words by words.
        bullet_line_fraction, ellipsis_line_fraction: lines (of `str.splitlines`, blank ones too) that begin
        with • or -, or end in an ellipsis.

        terminal_punctuation_line_fraction, short_line_fraction: of `lines`, those that end in a sign that ends
        a sentence in any script, and those of at most 30 characters.
        repeated_character_fraction: characters of `lines` that occurred before, by those of the text without
        line feeds.

        duplicate_line_fraction, duplicate_line_character_fraction: lines (separated by one or more line feeds)
        that occurred before, by lines, and their characters by those of the text; duplicate_paragraph_…: the
        same for what two or more line feeds separate.
        top_n_gram_character_fraction: length of the most frequent n words (the first of several) times their
        number, by characters; above 1 where they overlap.
        duplicate_n_gram_character_fraction: characters (without spaces) in n words that occurred before, read
        from the start and each counted once, by all characters.

        c4_…: what C4's line filter finds and leaves (see `stemma.cleaning.filters.c4`); …_any_ending: the same without
        asking that a line ends a sentence. kept_…: FineWeb's four metrics of the lines that are left then, which
        is where FineWeb takes them. javascript_lines, policy_lines, citation_lines: the lines of any
        kind that name JavaScript, hold a phrase of policies, and a citation mark.
    """
    columns = {name: np.zeros(len(texts), np.int64) for name in COUNTS}
    columns |= {name: np.zeros(len(texts), np.float64) for name in RATIOS}
    for positions, block in text_blocks(texts):
        known = None if languages is None else [languages[place] for place in positions.tolist()]
        for name, values in _measure_block(block, known).items():
            columns[name][positions] = values
    arrays = [pa.array(columns[field.name], field.type) for field in METRICS]
    return pa.StructArray.from_arrays(arrays, fields=list(METRICS))


def _measure_block(block: Block, languages: Sequence[str | None] | None) -> dict[str, np.ndarray]:
    lines, paragraphs = split_lines(block), paragraphs_of(block)
    first, last = words_within(block, lines)
    facts = line_facts(block, lines, first, last)
    kept = kept_spans(block, facts, lines.bounds, first, last)
    hashes = span_hashes(block.codes, block.words, block.lines, paragraphs, kept)
    word_hashes, line_hashes, paragraph_hashes, kept_hashes = hashes
    return {
        **_words(block, mixed(word_hashes, block.words.lengths), languages),
        **_gopher_lines(block, lines, first, last),
        **fineweb_metrics(block, line_hashes),
        **_repeated_pieces(block, line_hashes, paragraphs, paragraph_hashes),
        **_n_grams(block, word_hashes),
        **c4_metrics(facts, lines.bounds),
        **kept_metrics(block, facts, kept, kept_hashes),
    }


def _characters(block: Block) -> np.ndarray:
    return np.diff(block.bounds) - 1


def _sign_counts(block: Block, sign: str) -> np.ndarray:
    places = np.flatnonzero(block.codes == ord(sign))
    return np.diff(np.searchsorted(places, block.bounds))


def _ellipses(block: Block) -> np.ndarray:
    """Count … and, in each run of full stops, how often three of them fit."""
    stops = np.flatnonzero(block.codes == ord("."))
    is_first = np.diff(stops, prepend=-2) > 1
    runs = np.diff(np.flatnonzero(np.append(is_first, True)))
    bounds = np.searchsorted(stops[is_first], block.bounds)
    counts = totals(runs // 3, bounds)
    return counts if block.codes.itemsize == 1 else counts + _sign_counts(block, _ELLIPSIS)


def _words(block: Block, keys: np.ndarray, languages: Sequence[str | None] | None) -> dict[str, np.ndarray]:
    words, bounds = block.words, block.words.bounds
    classes = _classes_within(block)
    counts, has_content = np.diff(bounds), np.bitwise_and(classes, CONTENT) > 0
    non_symbol_words = totals(has_content, bounds)
    stop_words, language_stop_words = _stop_words(keys, words, languages)
    return {
        "characters": _characters(block),
        "words": counts,
        "non_symbol_words": non_symbol_words,
        "stop_words": stop_words,
        "language_stop_words": language_stop_words,
        "mean_word_length": ratios(totals(words.lengths * has_content, bounds), non_symbol_words),
        "hash_to_word_ratio": ratios(_sign_counts(block, "#"), counts),
        "ellipsis_to_word_ratio": ratios(_ellipses(block), counts),
        "alpha_word_fraction": ratios(totals(np.bitwise_and(classes, LETTER) > 0, bounds), counts),
    }


def _classes_within(block: Block) -> np.ndarray:
    """Return the bits of all characters of each word, as far as LETTER and CONTENT go."""
    words = block.words
    classes = block.classes[words.starts]
    # A letter is content: most words are done with their first character.
    is_unsure = np.bitwise_and(classes, LETTER | CONTENT) < (LETTER | CONTENT)
    for word in np.flatnonzero(is_unsure & (words.lengths > _LONG_WORD)).tolist():
        classes[word] = np.bitwise_or.reduce(block.classes[words.starts[word] : words.ends[word]])
    unsure = np.flatnonzero(is_unsure & (words.lengths <= _LONG_WORD))
    if len(unsure):
        lengths = words.lengths[unsure]
        begins = np.cumsum(lengths) - lengths
        places = np.arange(lengths.sum()) + np.repeat(words.starts[unsure] - begins, lengths)
        classes[unsure] = np.bitwise_or.reduceat(block.classes[places], begins)
    return classes


def _gopher_lines(block: Block, lines: Spans, first: np.ndarray, last: np.ndarray) -> dict[str, np.ndarray]:
    filled = np.flatnonzero(first < last)
    words = last[filled] - 1
    is_bullet, is_cut_off = np.zeros((2, len(first)), bool)
    signs = block.codes[block.words.starts[first[filled]]]
    is_bullet[filled] = (signs == ord(_BULLETS[0])) | (signs == ord(_BULLETS[1]))
    is_cut_off[filled] = block.codes[block.words.ends[words] - 1] == ord(_ELLIPSIS)
    is_cut_off[filled] |= ending_in_dots(block, words)
    counts = np.diff(lines.bounds)
    return {
        "bullet_line_fraction": ratios(totals(is_bullet, lines.bounds), counts),
        "ellipsis_line_fraction": ratios(totals(is_cut_off, lines.bounds), counts),
    }


def _repeated_pieces(
    block: Block, line_hashes: np.ndarray, paragraphs: Spans, paragraph_hashes: np.ndarray
) -> dict[str, np.ndarray]:
    characters = _characters(block)
    occupied = block.lines.lengths > 0
    repeated, repeated_characters = duplicates(
        block.lines.lengths, line_hashes, np.flatnonzero(occupied), block.lines.bounds
    )
    # A line feed at the start and one at the end leave empty lines there, of which the second is a duplicate.
    filled = characters > 0
    opens = filled & (block.codes[block.bounds[:-1]] == LINE_FEED)
    closes = filled & (block.codes[np.maximum(block.bounds[1:] - 2, 0)] == LINE_FEED)
    lines = totals(occupied, block.lines.bounds) + opens + closes
    paragraph_repeats = duplicates(
        paragraphs.lengths, paragraph_hashes, np.arange(len(paragraphs.starts)), paragraphs.bounds
    )
    return {
        "duplicate_line_fraction": ratios(repeated + (opens & closes), lines),
        "duplicate_line_character_fraction": ratios(repeated_characters, characters),
        "duplicate_paragraph_fraction": ratios(paragraph_repeats[0], np.diff(paragraphs.bounds)),
        "duplicate_paragraph_character_fraction": ratios(paragraph_repeats[1], characters),
    }


def _n_grams(block: Block, word_hashes: np.ndarray) -> dict[str, np.ndarray]:
    words, bounds, characters = words_of(block, word_hashes), block.words.bounds, _characters(block)
    (distinct, top), repeated = top_n_grams(words, bounds), duplicate_n_grams(block, words)
    metrics = {"unique_word_fraction": ratios(distinct, np.diff(bounds))}
    for size, found in zip(TOP_N_GRAMS, top, strict=True):
        metrics[f"top_{size}_gram_character_fraction"] = ratios(found, characters)
    for size, found in zip(DUPLICATE_N_GRAMS, repeated, strict=True):
        metrics[f"duplicate_{size}_gram_character_fraction"] = ratios(found, characters)
    return metrics


def _stop_words(
    keys: np.ndarray, words: Spans, languages: Sequence[str | None] | None
) -> tuple[np.ndarray, np.ndarray]:
    """Count the different stop words of each text: Gopher's, and those of its language."""
    known, first, members = _known_stop_words()
    texts = len(words.bounds) - 1
    codes = [(language or "").split("-")[0] for language in languages or [None] * texts]
    rows = np.array([_ROWS.get(code, len(_ROWS)) for code in codes])
    slots = (keys >> np.uint64(64 - _SLOT_BITS)).astype(np.int64)
    found = np.flatnonzero(first[slots] < first[slots + 1])
    number, keys = first[slots[found]], keys[found]
    for _ in range(np.diff(first).max() - 1):
        number += known[number] < keys
    is_known = known[number] == keys
    pairs = np.sort(words.texts[found[is_known]] * len(known) + number[is_known])
    text, number = np.divmod(pairs[np.diff(pairs, prepend=-1) > 0], len(known))
    counts = [
        np.bincount(text[chosen], minlength=texts)
        for chosen in (members[_ROWS["en"], number], members[rows[text], number])
    ]
    return counts[0], counts[1]


_ROWS = {language: row for row, language in enumerate(STOP_WORDS)}
_SLOT_BITS = 16


@cache
def _known_stop_words() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return all stop words as sorted keys, and which language has which.

    In between is where those that begin with the same _SLOT_BITS bits start among them. The last row of
    languages, without any stop words, is for those that are not known.
    """
    block = block_of(list(STOP_WORDS.values()))
    (hashes,) = span_hashes(block.codes, block.words)
    keys = mixed(hashes, block.words.lengths)
    known, number = np.unique(keys, return_inverse=True)
    slots = (known >> np.uint64(64 - _SLOT_BITS)).astype(np.int64)
    first = np.searchsorted(slots, np.arange((1 << _SLOT_BITS) + 1))
    members = np.zeros((len(_ROWS) + 1, len(known) + 1), bool)
    members[block.words.texts, number] = True
    return np.append(known, ~np.uint64(0)), first, members
