"""Decontamination: which documents hold word n-grams of evaluation sets, exactly and with the evidence.

Words are those of `stemma.deduplication.tokens`: case, punctuation and Unicode form don't matter. Hashes of
n-grams only propose; a match is one of the words themselves. The default of 13 words is that of GPT-3 (Brown et
al. 2020, appendix C), where items of fewer words are matched as a whole. In scripts without spaces each
character is a word; items in them need twice as many in a row.
"""

import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from stemma.deduplication.tokens import LONGEST_WORD, Words, word_blocks, word_hashes, words_of
from stemma.hashing import key

NGRAM_WORDS = 13
MINIMUM_WORDS = 8

MATCHES = pa.schema(
    [
        pa.field(
            "matches",
            pa.list_(
                pa.struct(
                    [
                        pa.field("set", pa.string(), nullable=False),
                        pa.field("item", pa.string(), nullable=False),
                        pa.field("ngram", pa.string(), nullable=False),
                        pa.field("char_start", pa.int32(), nullable=False),
                        pa.field("char_end", pa.int32(), nullable=False),
                        pa.field("matched", pa.int32(), nullable=False),
                        pa.field("total", pa.int32(), nullable=False),
                    ]
                )
            ),
            nullable=False,
        )
    ]
)

# Texts turned into Python strings at a time, so that memory does not follow the table.
TEXTS = 1024


class Match(NamedTuple):
    """A document holds n-grams of an item of an evaluation set.

    Attributes:
        set, item: the names of the set and of the item in it.
        ngram: the first of them in the document, as normal words joined by spaces.
        char_start, char_end: where that one stands in the document's text.
        matched: how many distinct n-grams of the item the document holds.
        total: how many distinct n-grams the item has.
    """

    set: str
    item: str
    ngram: str
    char_start: int
    char_end: int
    matched: int
    total: int


class Grams(NamedTuple):
    """The n-grams of one length, in the order of their hashes, each with its item and its words.

    `sieve` tells for the first bits of a hash, shifted by `shift`, whether there is any: one look-up in cache
    instead of a binary search, for nearly all n-grams of a document.
    """

    hashes: np.ndarray
    owners: np.ndarray
    starts: np.ndarray
    stops: np.ndarray
    sieve: np.ndarray
    shift: np.uint64


@dataclass(frozen=True)
class EvaluationIndex:
    """The n-grams of evaluation sets.

    Attributes:
        ngram_words, minimum_words: as given to `build_index`.
        digest: changes with the items and these two; for a stage's recipe.
        items: set and name of each item.
        totals: the number of distinct n-grams of each item, 0 for items with too few words.
        grams: the n-grams by their number of words.
        data: what their `starts` and `stops` are places in.
    """

    ngram_words: int
    minimum_words: int
    digest: str
    items: list[tuple[str, str]]
    totals: np.ndarray = field(repr=False)
    grams: dict[int, Grams] = field(repr=False)
    data: bytes = field(repr=False)


def build_index(
    sets: Mapping[str, Iterable[tuple[str, str]]],
    *,
    ngram_words: int = NGRAM_WORDS,
    minimum_words: int = MINIMUM_WORDS,
) -> EvaluationIndex:
    """Index the items (name, text) of evaluation sets by name of the set.

    An item of fewer than `ngram_words` words is matched as a whole; one of fewer than `minimum_words` is never
    matched, because so short a text stands in many documents by chance.

    Raises:
        ValueError: a number of words is below 1, or `minimum_words` the larger one.
    """
    if not 1 <= minimum_words <= ngram_words:
        raise ValueError(f"minimum_words must be from 1 to ngram_words ({ngram_words}), not {minimum_words}")
    rows = [(name, item, text) for name, items in sets.items() for item, text in items]
    entries: dict[int, list[np.ndarray]] = {}
    parts, offset = [], 0
    for positions, words in word_blocks([text for _, _, text in rows]):
        hashes, bounds = word_hashes(words)
        sums = _sums(hashes)
        counts = np.diff(bounds)
        times = _times(counts, [len(rows[position][2]) for position in positions.tolist()])
        sizes = np.minimum(counts, times * ngram_words)
        sizes[counts < times * minimum_words] = 0
        for size in np.unique(sizes[sizes > 0]).tolist():
            places = _places_of(bounds, sizes == size, size)
            owners = positions[np.searchsorted(bounds, places, side="right") - 1]
            starts, stops = _word_spans(words, places, size)
            grams = np.stack(
                [
                    _windows(sums, size)[places],
                    *(column.astype(np.uint64) for column in (owners, starts + offset, stops + offset)),
                ]
            )
            entries.setdefault(size, []).append(grams)
        parts.append(words.data)
        offset += len(words.data)
    index = {size: _sorted(np.concatenate(found, axis=1)) for size, found in sorted(entries.items())}
    totals = np.zeros(len(rows), np.int64)
    for found in index.values():
        totals += np.bincount(found.owners, minlength=len(rows))
    return EvaluationIndex(
        ngram_words,
        minimum_words,
        key(str(ngram_words), str(minimum_words), *(part for row in rows for part in row)).hex(),
        [(name, item) for name, item, _ in rows],
        totals,
        index,
        b"".join(parts),
    )


def _times(counts: np.ndarray, lengths: Sequence[int]) -> np.ndarray:
    """Return 2 for texts that are mostly written without spaces between words, 1 for the others."""
    # With spaces, so many words take at least twice as many characters, less one.
    return np.where(np.array(lengths) < 2 * counts - 1, 2, 1)


def contamination(
    table: pa.Table,
    *,
    ngram_words: int = NGRAM_WORDS,
    minimum_words: int = MINIMUM_WORDS,
    model: EvaluationIndex,
) -> pa.Table:
    """Find n-grams of evaluation sets in the column `text` (string): one row out for each row in, in order.

    Returns a table of schema `MATCHES`: for each document a list of `Match`, empty where nothing matches.

    Raises:
        ValueError: a text is null, or the index was built with other parameters.
    """
    if (model.ngram_words, model.minimum_words) != (ngram_words, minimum_words):
        raise ValueError("the index of the evaluation sets was built with other numbers of words")
    if table.column("text").null_count:
        raise ValueError("a text is null: only texts can be compared")
    found = [
        [match._asdict() for match in matches]
        for batch in table.select(["text"]).to_batches(max_chunksize=TEXTS)
        for matches in find_contamination(batch.column("text").to_pylist(), model)
    ]
    return pa.table([pa.array(found, MATCHES.field("matches").type)], schema=MATCHES)


def find_contamination(texts: Sequence[str], index: EvaluationIndex) -> list[list[Match]]:
    """Find for each text the items that it shares n-grams with, in the order of their first n-grams in it.

    Raises UnicodeEncodeError on lone surrogates.
    """
    found: list[list[Match]] = [[] for _ in texts]
    for positions, words in word_blocks(texts):
        hashes, bounds = word_hashes(words)
        sums = _sums(hashes)
        hits: dict[int, dict[int, _Hit]] = {}
        for size, grams in index.grams.items():
            for text, place, entry in _candidates(sums, bounds, size, grams):
                _verify(hits.setdefault(text, {}), words, place, size, entry, grams, index.data)
        for text, by_item in hits.items():
            position = int(positions[text])
            first_word = int(bounds[text])
            found[position] = _matches(texts[position], by_item, words, first_word, index)
    return found


@dataclass(slots=True)
class _Hit:
    """The first n-gram of an item in a document (first word, number of words), and how many there are."""

    place: int
    size: int
    count: int


def _verify(
    by_item: dict[int, _Hit], words: Words, place: int, size: int, entry: int, grams: Grams, data: bytes
) -> None:
    """Count the items that have the very words that start at a place, of those with the same hash."""
    start, stop = _word_span(words, place, size)
    ngram = words.data[start:stop]
    while True:
        if data[grams.starts[entry] : grams.stops[entry]] == ngram:
            owner = int(grams.owners[entry])
            if owner in by_item:
                by_item[owner].count += 1
            else:
                by_item[owner] = _Hit(place, size, 1)
        entry += 1
        if entry == len(grams.hashes) or grams.hashes[entry] != grams.hashes[entry - 1]:
            return


def _matches(
    text: str, by_item: dict[int, _Hit], words: Words, first_word: int, index: EvaluationIndex
) -> list[Match]:
    locate = _Locator(text)
    matches = []
    for owner, hit in by_item.items():
        start, stop = _word_span(words, hit.place, hit.size)
        first = hit.place - first_word
        char_start, char_end = locate.span(first, first + hit.size - 1)
        ngram = words.data[start:stop].decode()
        total = int(index.totals[owner])
        matches.append(Match(*index.items[owner], ngram, char_start, char_end, hit.count, total))
    return sorted(matches, key=lambda match: (match.char_start, match.set, match.item, match.char_end))


# Hashes of n-grams --------------------------------------------------------------------------------

MULTIPLIER = 0xD6E8FEB86659FD93
# Bits of a hash that the sieve looks at: so many slots for an n-gram that one of sixteen gets past by chance.
SLOTS = 16
SIEVE_BITS = (12, 26)


class _Sums(NamedTuple):
    """The prefix sums of words' hashes times the powers of an odd number, and the powers of its inverse.

    The hash of n words from a place on is the sum of theirs, each times a power: a difference of two prefix
    sums, brought to the same powers by the inverse, modulo 2^64 (Karp and Rabin 1987). Two passes for any n.
    """

    sums: np.ndarray
    inverses: np.ndarray


def _sums(hashes: np.ndarray) -> _Sums:
    sums = np.zeros(len(hashes) + 1, np.uint64)
    np.cumsum(hashes * _powers(MULTIPLIER, len(hashes)), out=sums[1:])
    return _Sums(sums, _powers(pow(MULTIPLIER, -1, 1 << 64), len(hashes)))


def _windows(sums: _Sums, size: int) -> np.ndarray:
    """Return the hash of the `size` words from each word on (uint64), as many as there are such words."""
    windows = sums.sums[size:] - sums.sums[: max(0, len(sums.sums) - size)]
    windows *= sums.inverses[: len(windows)]
    return windows


def _powers(base: int, count: int) -> np.ndarray:
    powers = np.full(count, base, np.uint64)
    powers[:1] = 1
    return np.multiply.accumulate(powers)


def _places_of(bounds: np.ndarray, chosen: np.ndarray, size: int) -> np.ndarray:
    """Return the words that n-grams of one size start at, within each of the chosen texts."""
    ranges = [
        np.arange(start, stop - size + 1)
        for (start, stop), is_chosen in zip(pairwise(bounds.tolist()), chosen.tolist(), strict=True)
        if is_chosen
    ]
    return np.concatenate(ranges)


def _sorted(entries: np.ndarray) -> Grams:
    """Sort n-grams (hash, item, start, stop) by hash and item, each item's distinct ones once."""
    entries = entries[:, np.lexsort(entries[::-1])]
    is_new = np.ones(entries.shape[1], bool)
    is_new[1:] = (entries[:2, 1:] != entries[:2, :-1]).any(axis=0)
    hashes, owners, starts, stops = entries[:, is_new]
    low, high = SIEVE_BITS
    bits = min(max(low, (len(hashes) * SLOTS).bit_length()), high)
    shift = np.uint64(64 - bits)
    sieve = np.zeros(1 << bits, bool)
    sieve[hashes >> shift] = True
    owners, starts, stops = (column.astype(np.int64) for column in (owners, starts, stops))
    return Grams(hashes, owners, starts, stops, sieve, shift)


def _candidates(sums: _Sums, bounds: np.ndarray, size: int, grams: Grams) -> Iterator[tuple[int, int, int]]:
    """Yield text, first word and first index entry of each text's distinct n-grams with a hash of the index."""
    windows = _windows(sums, size)
    places = np.flatnonzero(grams.sieve[windows >> grams.shift])
    entries = np.searchsorted(grams.hashes, windows[places])
    texts = np.searchsorted(bounds, places, side="right") - 1
    is_hit = grams.hashes[np.minimum(entries, len(grams.hashes) - 1)] == windows[places]
    is_hit &= places + size <= bounds[texts + 1]
    hits = np.stack([texts[is_hit], entries[is_hit]])
    _, firsts = np.unique(hits, axis=1, return_index=True)
    firsts.sort()
    yield from zip(
        hits[0, firsts].tolist(), places[is_hit][firsts].tolist(), hits[1, firsts].tolist(), strict=True
    )


# Places -------------------------------------------------------------------------------------------


def _word_spans(words: Words, places: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Return where runs of words begin and end in the words' data."""
    return np.where(places > 0, words.ends[places - 1] + 1, 0), words.ends[places + size - 1]


def _word_span(words: Words, place: int, size: int) -> tuple[int, int]:
    return int(words.ends[place - 1]) + 1 if place else 0, int(words.ends[place + size - 1])


_WORD = re.compile(r"\w+")


class _Locator:
    """Finds words in a text by their number.

    Normal words have no places of their own (folding changes lengths). But white space separates words however
    they are folded, so counting words by piece finds the piece, and halving the piece finds the character.
    """

    def __init__(self, text: str) -> None:
        self._text = text
        self._pieces = [match.span() for match in re.finditer(r"\S+", text)]
        self._before = np.concatenate(([0], np.cumsum(_counts([text[a:b] for a, b in self._pieces]))))

    def span(self, first: int, last: int) -> tuple[int, int]:
        """Return where the words from number `first` to number `last` begin and end."""
        return self._start(first), self._end(last)

    def _start(self, word: int) -> int:
        index, start, stop, ordinal = self._piece(word)
        piece = self._text[start:stop]
        if piece.isascii() and len(piece) <= LONGEST_WORD:
            return start + [found.start() for found in _WORD.finditer(piece)][ordinal]
        if self._before[index + 1] - self._before[index] == 1:
            return start + next((at for at, char in enumerate(piece) if _is_of_a_word(char)), 0)
        low, high = start, stop - 1  # the first character that brings the word
        while low < high:
            middle = (low + high) // 2
            if _counts([self._text[start : middle + 1]])[0] > ordinal:
                high = middle
            else:
                low = middle + 1
        return low

    def _end(self, word: int) -> int:
        index, start, stop, _ = self._piece(word)
        end = self._start(word + 1) if word + 1 < self._before[index + 1] else stop
        while end > start + 1 and not _is_of_a_word(self._text[end - 1]):
            end -= 1
        return end

    def _piece(self, word: int) -> tuple[int, int, int, int]:
        """Return which piece a word is in, where that begins and ends, and the word's number in it."""
        index = int(np.searchsorted(self._before, word, side="right")) - 1
        return index, *self._pieces[index], word - int(self._before[index])


def _counts(pieces: Sequence[str]) -> np.ndarray:
    """Return how many words each piece has."""
    words = words_of(pieces)
    return np.diff(np.searchsorted(words.ends, words.bounds))


def _is_of_a_word(character: str) -> bool:
    return character == "_" or unicodedata.category(character)[0] in "LMN"
