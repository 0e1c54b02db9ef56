"""Repetition after Gopher (Rae et al. 2021, table A1): lines, paragraphs and word n-grams that occur again.

All pieces are compared by 64-bit hashes: two different ones of one text are taken for equal with the odds of
5e-20 a pair.
"""

from typing import NamedTuple

import numpy as np

from stemma.cleaning.filters.characters import SPACE
from stemma.cleaning.filters.text_blocks import Block, Spans, mixed, powers, running
from stemma.deduplication.mixing import mix64

TOP_N_GRAMS = (2, 3, 4)
DUPLICATE_N_GRAMS = (5, 6, 7, 8, 9, 10)

_TEXT_MULTIPLIER = np.uint64(0xD6E8FEB86659FD93)
_WORD_MULTIPLIER = np.uint64(0xC2B2AE3D27D4EB4F)
# Word n-grams of so many characters can only be equal where their first ones are.
_PREFIXES = {5: 16, 7: 32}
_PLACE_BITS = 36
_LAST_PLACE = (1 << _PLACE_BITS) - 1


class Repeats(NamedTuple):
    """The pieces that occur more than once in their text, grouped by equality.

    `places` are the pieces' positions, group after group and ascending in each; group g has counts[g] of them,
    and first[g] is the first.
    """

    places: np.ndarray
    counts: np.ndarray
    first: np.ndarray


def repeats(hashes: np.ndarray, salts: np.ndarray, places: np.ndarray) -> Repeats:
    """Find the pieces with equal hashes in one text.

    Args:
        hashes: uint64, one a piece.
        salts: uint64, what `salts_of` gives for the text of each piece.
        places: the position by which each piece goes in the result, ascending.
    """
    keys = _keys(hashes, salts)
    order, is_new = _sorted(keys)
    alike = np.flatnonzero(~is_new[1:-1])
    if (keys[order[alike]] != keys[order[alike + 1]]).any():
        # Keys that are alike in their upper bits only.
        order = np.argsort(keys, kind="stable")
        is_new[1:-1] = keys[order[1:]] != keys[order[:-1]]
    counts = np.diff(np.flatnonzero(is_new))
    counts = counts[counts > 1]
    found = places[order[~(is_new[:-1] & is_new[1:])]]
    return Repeats(found, counts, found[np.cumsum(counts) - counts])


def salts_of(texts: np.ndarray) -> np.ndarray:
    """Return what keeps equal pieces of different texts apart, given the texts' numbers."""
    return texts.astype(np.uint64) * _TEXT_MULTIPLIER


def _keys(hashes: np.ndarray, salts: np.ndarray) -> np.ndarray:
    return mix64(hashes + salts)


def _sorted(keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sort by the upper bits of the keys and then by position; say where the upper bits change, and at the end.

    Numbers that carry their position in the lower bits sort several times faster than `np.argsort` does.
    """
    mask = np.uint64((1 << len(keys).bit_length()) - 1)
    packed = (keys & ~mask) | np.arange(len(keys), dtype=np.uint64)
    packed.sort()
    is_new = np.ones(len(keys) + 1, bool)
    np.greater(packed[1:] ^ packed[:-1], mask, out=is_new[1:-1])
    packed &= mask
    return packed.astype(np.int64), is_new


class Words(NamedTuple):
    """The words of a block, as the n-grams need them.

    Attributes:
        hashes: the polynomial of each word's characters.
        keys: the same, mixed.
        texts: the number of each word's text.
        salts: the same as `repeats` takes it.
        room: the words from each to the end of its text.
        offsets: the characters of the words before each, and of all.
    """

    hashes: np.ndarray
    keys: np.ndarray
    texts: np.ndarray
    salts: np.ndarray
    room: np.ndarray
    offsets: np.ndarray


def words_of(block: Block, hashes: np.ndarray) -> Words:
    """Prepare the words of a block, given the polynomials of their characters."""
    spans, texts = block.words, block.words.texts
    room = spans.bounds[1:][texts] - np.arange(len(texts))
    return Words(hashes, mixed(hashes, spans.lengths), texts, salts_of(texts), room, running(spans.lengths))


def duplicates(
    lengths: np.ndarray, hashes: np.ndarray, places: np.ndarray, bounds: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Count, for each text, those of the pieces at `places` that occurred before, and their characters.

    `lengths` and `hashes` are of all pieces, of which the texts have those between the bounds.
    """
    texts = np.repeat(np.arange(len(bounds) - 1), np.diff(bounds))
    found = repeats(mixed(hashes[places], lengths[places]), salts_of(texts[places]), places)
    pieces, characters = np.zeros((2, len(bounds) - 1), np.int64)
    np.add.at(pieces, texts[found.first], found.counts - 1)
    np.add.at(characters, texts[found.first], (found.counts - 1) * lengths[found.first])
    return pieces, characters


def paragraphs_of(block: Block) -> Spans:
    """Return what two and more line feeds separate in each text, without the white space around the text."""
    words = block.words
    filled = np.flatnonzero(np.diff(words.bounds))
    begins, stops = words.starts[words.bounds[filled]], words.ends[words.bounds[filled + 1] - 1]
    feeds = block.lines.ends
    joined = np.flatnonzero(np.diff(feeds) == 1)
    is_first, is_last = np.ones((2, len(joined)), bool)
    is_first[1:] = is_last[:-1] = np.diff(joined) > 1
    gaps, ends = feeds[joined[is_first]], feeds[joined[is_last] + 1] + 1
    text = np.searchsorted(begins, gaps, side="right") - 1
    inside = (text >= 0) & (gaps < stops[np.maximum(text, 0)]) if len(stops) else np.zeros(len(gaps), bool)
    starts = np.sort(np.concatenate((begins, ends[inside])))
    return Spans(
        starts, np.sort(np.concatenate((stops, gaps[inside]))), np.searchsorted(starts, block.bounds)
    )


def top_n_grams(words: Words, bounds: np.ndarray) -> tuple[np.ndarray, list[np.ndarray]]:
    """Return how many different words each text has, and the characters of its most frequent n-grams.

    These are, for each n, the characters of the word n-gram that occurs most often, times how often it does. The
    words of an n-gram are joined by single spaces; of several that are as frequent the first counts.
    """
    found = repeats(words.keys, words.salts, np.arange(len(words.texts)))
    distinct = np.diff(bounds)
    np.subtract.at(distinct, words.texts[found.first], found.counts - 1)
    results = []
    repeated = np.zeros(len(words.texts) + 1, bool)
    for size in TOP_N_GRAMS:
        # An n-gram can only repeat where the two shorter ones in it do.
        repeated[:] = False
        repeated[found.places] = True
        places = np.flatnonzero(repeated[:-1] & repeated[1:])
        places = places[words.room[places] >= size]
        keys = words.keys[places]
        for step in range(1, size):
            keys = keys * _WORD_MULTIPLIER + words.keys[places + step]
        found = repeats(keys, words.salts[places], places)
        results.append(_most_frequent(words, bounds, size, found))
    return distinct, results


def _most_frequent(words: Words, bounds: np.ndarray, size: int, found: Repeats) -> np.ndarray:
    counts = np.diff(bounds)
    scores = np.where(counts >= size, (1 << _PLACE_BITS) + (_LAST_PLACE - bounds[:-1]), 0)
    ranked = (found.counts << _PLACE_BITS) + (_LAST_PLACE - found.first)
    np.maximum.at(scores, words.texts[found.first], ranked)
    times = scores >> _PLACE_BITS
    first = np.where(times > 0, _LAST_PLACE - (scores & _LAST_PLACE), 0)
    last = np.minimum(first + size, len(words.texts))
    return times * (words.offsets[last] - words.offsets[first] + size - 1)


def duplicate_n_grams(block: Block, words: Words) -> list[np.ndarray]:
    """Return, for each n, the characters of each text in word n-grams that occurred before.

    Words are joined without spaces. The text is read from its start; after an n-gram that occurred before,
    reading goes on behind it, so that no character counts twice.
    """
    sums = np.zeros(len(words.texts) + 1, np.uint64)
    np.cumsum(words.hashes * powers(words.offsets[:-1]), out=sums[1:])
    places = np.flatnonzero(words.room >= DUPLICATE_N_GRAMS[0])
    octets = _octets(block)
    results = []
    for size in DUPLICATE_N_GRAMS:
        if size in _PREFIXES:
            places = _with_repeated_prefix(octets, words, places, size)
            scales = powers(-words.offsets[places])
        is_inside = words.room[places] >= size
        places, scales = places[is_inside], scales[is_inside]
        found = repeats((sums[places + size] - sums[places]) * scales, words.salts[places], places)
        results.append(_read_through(found, size, words, len(block.texts)))
    return results


def _octets(block: Block) -> np.ndarray:
    """Return the lowest byte of the characters of all words, from each eight of them as one number."""
    # np.compress takes a third of the time of a boolean index.
    kept = np.compress(np.bitwise_and(block.classes, SPACE) == 0, block.codes).astype(np.uint8)
    padded = np.concatenate((kept, np.zeros(max(_PREFIXES.values()) + 8, np.uint8)))
    return np.ndarray(len(padded) - 7, "<u8", buffer=padded, strides=(1,))


def _with_repeated_prefix(octets: np.ndarray, words: Words, places: np.ndarray, size: int) -> np.ndarray:
    """Return those of the places whose n-grams may repeat: their first characters do, or they are short."""
    first, characters = words.offsets[places], _PREFIXES[size]
    keys = octets[first]
    for step in range(8, characters, 8):
        keys = keys * _WORD_MULTIPLIER + octets[first + step]
    order, is_new = _sorted(_keys(keys, words.salts[places]))
    may_repeat = words.offsets[np.minimum(places + size, len(words.texts))] - first < characters
    may_repeat[order[~(is_new[:-1] & is_new[1:])]] = True
    return places[may_repeat]


def _read_through(found: Repeats, size: int, words: Words, texts: int) -> np.ndarray:
    """Read each text from its start and sum the characters of the n-grams that are read for the second time."""
    is_later = np.ones(len(found.places), bool)
    is_later[np.cumsum(found.counts) - found.counts] = False
    starts = _spaced(np.sort(found.places[is_later]), size)
    # An n-gram is known from its first place on, unless that lies within another that is passed over.
    before = np.searchsorted(starts, found.first) - 1
    passed = (before >= 0) & (found.first < starts[before] + size) if len(starts) else before >= 0
    if passed.any():
        unsure = np.zeros(texts, bool)
        unsure[words.texts[found.first[passed]]] = True
        exact = _read_one_by_one(found, size, unsure[words.texts[found.places]])
        starts = np.concatenate((starts[~unsure[words.texts[starts]]], exact))
    characters = np.zeros(texts, np.int64)
    np.add.at(characters, words.texts[starts], words.offsets[starts + size] - words.offsets[starts])
    return characters


def _spaced(places: np.ndarray, size: int) -> np.ndarray:
    """Take the first place, the first that is `size` or more behind it, and so on."""
    following = np.searchsorted(places, places + size).tolist()
    taken, number = [], 0
    while number < len(following):
        taken.append(number)
        number = following[number]
    return places[np.array(taken, np.int64)]


def _read_one_by_one(found: Repeats, size: int, chosen: np.ndarray) -> np.ndarray:
    """Return where n-grams that were read before begin, of the chosen places."""
    groups = np.repeat(np.arange(len(found.counts)), found.counts)[chosen]
    order = np.argsort(found.places[chosen])
    known = bytearray(len(found.counts))
    starts, free = [], 0
    for place, group in zip(found.places[chosen][order].tolist(), groups[order].tolist(), strict=True):
        if place >= free:
            if known[group]:
                starts.append(place)
                free = place + size
            known[group] = 1
    return np.array(starts, np.int64)
