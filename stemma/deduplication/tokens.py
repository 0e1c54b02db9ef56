"""Texts as words and their 64-bit hashes, for all scripts, on whole blocks of texts with numpy.

Words are the runs of `\\w` in the text after NFKC and case folding, with these additions:
- Combining marks belong to the character before them; without one they are punctuation.
- Invisible format characters (soft hyphen, joiners, variation selectors) are as if they were not there.
- In scripts written without spaces each character is a word.
- A word of more than LONGEST_WORD code points (base64, unbroken lines) is cut into words of that length,
  so that nothing needs memory in proportion to a word.

The tables come from Python's `unicodedata`, so the results depend on `unicodedata.unidata_version`.
"""

import re
import unicodedata
from collections.abc import Iterator, Sequence
from functools import cache, lru_cache
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from stemma.codepoints import CODE_POINTS, Pages
from stemma.deduplication.mixing import mix64

LONGEST_WORD = 256
SPACE = ord(" ")

# Sizes that keep the working arrays of a block in a processor's caches.
BLOCK_CHARACTERS = 1 << 19
HASHED_WORDS = 1 << 14

# glibc gives the memory of arrays back to the system, to be taken anew page by page, until an array of this
# size was freed: without it a cold process has four times the page faults, a tenth of its time.
KEPT_BYTES = 1 << 24

MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)
FIRST_BYTES = np.array([(1 << 8 * count) - 1 for count in range(9)], np.uint64)

GAP, WORD, SOLO, MARK, IGNORED = range(5)

# Scripts that do not put spaces between words, by their Unicode blocks.
UNSPACED = (
    (0x0E00, 0x0FFF),  # Thai, Lao, Tibetan
    (0x1000, 0x109F),  # Myanmar
    (0x1780, 0x17FF),  # Khmer
    (0x1950, 0x19DF),  # Tai Le, New Tai Lue
    (0x1A20, 0x1AAF),  # Tai Tham
    (0x3005, 0x3007),  # Han iteration mark, closing mark and zero
    (0x3021, 0x30FF),  # Hangzhou numerals, Hiragana, Katakana
    (0x31F0, 0x31FF),  # Katakana extensions
    (0x3400, 0x4DBF),  # Han
    (0x4E00, 0x9FFF),  # Han
    (0xA9E0, 0xA9FF),  # Myanmar extended B
    (0xAA60, 0xAADF),  # Myanmar extended A, Tai Viet
    (0xF900, 0xFAFF),  # Han compatibility
    (0x1AFF0, 0x1B16F),  # Kana supplements and extensions
    (0x20000, 0x3FFFF),  # Han, planes 2 and 3
)
VARIATION_SELECTORS = ((0x034F, 0x034F), (0x180B, 0x180F), (0xFE00, 0xFE0F), (0xE0100, 0xE01EF))
CONJOINING_JAMO = (0x1100, 0x11FF)
FOLLOWING_JAMO = (0x1160, 0x11FF)  # vowels and final consonants
ZERO_WIDTH_SPACE = "\u200b"

# Code points to look up one by one: planes 2 and 3 hold Han alone, 4 to 13 nothing, 15 and 16 private ones.
TABULATED = ((0x00000, 0x1FFFF), (0x2F800, 0x2FA1F), (0xE0000, 0xE0FFF))
HAN_PLANES = (0x20000, 0x3FFFF)


class Words(NamedTuple):
    """The words of several texts.

    `data` holds all words as UTF-8, each followed by one space; text i owns data[bounds[i] : bounds[i + 1]],
    and `ends` are the positions of the spaces.
    """

    data: bytes
    bounds: np.ndarray
    ends: np.ndarray


def word_blocks(texts: Sequence[str]) -> Iterator[tuple[np.ndarray, Words]]:
    """Yield the words of `texts` in blocks of bounded size (one text at least) with the texts' positions.

    ASCII texts come in blocks of their own: a byte a character makes them several times faster.
    """
    np.empty(KEPT_BYTES, np.uint8)
    ascii_texts = np.fromiter(map(str.isascii, texts), bool, len(texts))
    lengths = np.fromiter(map(len, texts), np.int64, len(texts))
    for positions in (np.flatnonzero(ascii_texts), np.flatnonzero(~ascii_texts)):
        block = np.cumsum(lengths[positions]) // BLOCK_CHARACTERS
        for part in np.split(positions, np.flatnonzero(np.diff(block)) + 1):
            if len(part):
                yield part, words_of([texts[place] for place in part.tolist()])


def words_of(texts: Sequence[str]) -> Words:
    """Find the words of each text; raises UnicodeEncodeError on lone surrogates."""
    joined = _joined(texts)
    codes, bounds, ends = (_ascii_words if joined.isascii() else _wide_words)(joined, texts)
    lengths = np.diff(ends, prepend=-1) - 1
    if lengths.max(initial=0) > LONGEST_WORD:
        codes, bounds = _with_spaces(codes, bounds, _cuts(ends, lengths))
        ends = np.flatnonzero(codes == SPACE)
    if codes.dtype == np.uint8:
        return Words(codes.tobytes(), bounds, ends)
    offsets = _byte_offsets(codes)
    return Words(codes.tobytes().decode("utf-32-le").encode(), offsets[bounds], offsets[ends])


def normal_forms(words: Words) -> Iterator[bytes]:
    """Yield each text's words, joined by single spaces, as UTF-8 (empty where a text has no word)."""
    for first, last in pairwise(words.bounds.tolist()):
        yield words.data[first : max(first, last - 1)]


def word_hashes(words: Words) -> tuple[np.ndarray, np.ndarray]:
    """Hash every word: returns the hashes (uint64) and the bounds of each text's run of hashes (int64).

    Words are read eight bytes at a time and mixed by a bijection, so words of up to eight bytes never
    collide, and longer ones with the odds of a random 64-bit hash.
    """
    data = np.frombuffer(words.data + bytes(8), np.uint8)
    octets = np.ndarray(len(words.data) + 1, "<u8", buffer=data, strides=(1,))
    hashes = np.empty(len(words.ends), np.uint64)
    origin = 0
    for first in range(0, len(hashes), HASHED_WORDS):
        ends = words.ends[first : first + HASHED_WORDS]
        starts = np.concatenate(([origin], ends[:-1] + 1))
        hashes[first : first + HASHED_WORDS] = _hashed(octets, starts, ends - starts)
        origin = ends[-1] + 1
    return hashes, np.searchsorted(words.ends, words.bounds)


def _hashed(octets: np.ndarray, starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Hash the words that start at `starts` in the overlapping eight-byte numbers `octets`."""
    hashes = mix64(octets[starts] & FIRST_BYTES[np.minimum(lengths, 8)])
    longer = np.flatnonzero(lengths > 8)
    done = 8
    while len(longer):
        rest = octets[starts[longer] + done] & FIRST_BYTES[np.minimum(lengths[longer] - done, 8)]
        hashes[longer] = mix64(hashes[longer] * MULTIPLIER + rest)
        done += 8
        longer = longer[lengths[longer] > done]
    return hashes


def _joined(texts: Sequence[str]) -> str:
    return "\n".join(texts) + "\n"


def _bounds(texts: Sequence[str]) -> np.ndarray:
    """Return where each text starts in the joined string, and the end."""
    lengths = np.fromiter(map(len, texts), np.int64, len(texts))
    return np.concatenate(([0], np.cumsum(lengths + 1)))


def _ascii_words(joined: str, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    codes = np.frombuffer(joined.encode("ascii").translate(_ascii_table()), np.uint8)
    is_word = codes != SPACE
    borders = np.flatnonzero(np.diff(is_word, prepend=False))
    starts, stops = borders[::2], borders[1::2]
    ends = np.cumsum(stops - starts + 1) - 1
    bounds = np.append(0, ends + 1)[np.searchsorted(starts, _bounds(texts))]
    return codes[_separated(is_word)], bounds, ends


@cache
def _ascii_table() -> bytes:
    return bytes(ord(c.lower()) if c.isalnum() or c == "_" else SPACE for c in map(chr, range(256)))


def _wide_words(joined: str, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    codes, bounds = _folded(joined, texts)
    classes = _alphabet().classes[codes]
    ignored = classes == IGNORED
    attached = ignored | (classes == MARK)
    if attached.any():
        # Marks and invisible characters take the class of the character that they stand on.
        places = np.arange(len(classes), dtype=np.int32)
        classes = classes[np.maximum.accumulate(np.where(attached, 0, places))]
    is_word = (classes == WORD) | (classes == SOLO)
    breaks = np.zeros(len(codes), bool)
    breaks[1:] = is_word[1:] & is_word[:-1] & ((classes[1:] == SOLO) | (classes[:-1] == SOLO)) & ~attached[1:]
    codes = np.where(is_word, codes, np.uint32(SPACE))
    keep = _separated(is_word) & ~ignored
    codes, bounds = _with_spaces(*_squeezed(codes, keep, bounds), np.flatnonzero(breaks[keep]))
    return codes, bounds, np.flatnonzero(codes == SPACE)


def _folded(joined: str, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Return the folded code points of the joined texts and the texts' bounds.

    Folding is a table look-up but for texts with characters that expand or join with their neighbours:
    these go through `unicodedata`, ten times slower.
    """
    alphabet = _alphabet()
    codes, bounds = np.frombuffer(joined.encode("utf-32-le"), "<u4"), _bounds(texts)
    alphabet.need(codes)
    contextual = np.flatnonzero(alphabet.contextual[codes])
    if len(contextual):
        is_crowded = np.any(contextual[29:] - contextual[:-29] == 29)
        folded = list(texts)
        for position in np.unique(np.searchsorted(bounds, contextual, side="right") - 1).tolist():
            text = stream_safe(folded[position]) if is_crowded else folded[position]
            folded[position] = fold(text)
        codes, bounds = np.frombuffer(_joined(folded).encode("utf-32-le"), "<u4"), _bounds(folded)
        alphabet.need(codes)
    codes = alphabet.folded[codes]
    alphabet.need(codes)
    return codes, bounds


def fold(text: str) -> str:
    """Apply NFKC and case folding, and NFKC again because folding can leave characters that compose."""
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())


def stream_safe(text: str) -> str:
    """Put a grapheme joiner after every 30 combining marks in a row (Stream-Safe Text Format, UAX 15).

    NFKC takes quadratic time in such runs: hours for a hostile megabyte. Other texts stay as they are.
    """
    return _crowded_marks().sub("\\1\u034f", text)


@cache
def _crowded_marks() -> re.Pattern[str]:
    marks = "".join(c for c in map(chr, range(0x300, 0x20000)) if unicodedata.combining(c))
    return re.compile(f"([{marks}]{{30}})")


class Alphabet:
    """What each code point is: its folded form, the class of that, and whether its neighbours matter.

    The tables are right for the code points that `need` was asked for.
    """

    def __init__(self) -> None:
        self.folded = np.arange(CODE_POINTS, dtype=np.uint32)
        self.classes = np.full(CODE_POINTS, GAP, np.uint8)
        self.classes[HAN_PLANES[0] : HAN_PLANES[1] + 1] = SOLO
        self.contextual = np.zeros(CODE_POINTS, bool)
        self.need = Pages(self._fill).need

    def _fill(self, first: int, last: int) -> None:
        for low, high in TABULATED:
            self._tabulate(max(first, low), min(last, high + 1))

    def _tabulate(self, first: int, last: int) -> None:
        if first >= last:
            return
        characters = [chr(code) for code in range(first, last)]
        classes = _classes(characters)
        self.classes[first:last] = classes
        self.contextual[first:last] = (classes == MARK) | _within((CONJOINING_JAMO,), first, last - first)
        # One call folds them all, because no character joins with a line feed.
        forms = fold("\n".join(c if c != "\n" else " " for c in characters)).split("\n")
        for code, character, form in zip(range(first, last), characters, forms, strict=True):
            if form != character:
                self._fold(code, form)

    def _fold(self, code: int, form: str) -> None:
        kinds = [int(_classes([character])[0]) for character in form]
        if set(kinds) == {GAP}:
            self.classes[code] = GAP
        elif len(form) == 1 and kinds[0] != MARK and not _within((CONJOINING_JAMO,), ord(form), 1)[0]:
            self.folded[code], self.classes[code] = ord(form), kinds[0]
        else:
            self.contextual[code] = True


@cache
def _alphabet() -> Alphabet:
    return Alphabet()


def _classes(characters: Sequence[str]) -> np.ndarray:
    """Classify the characters of one run of code points by their general categories."""
    first = ord(characters[0])
    categories = np.array([unicodedata.category(character) for character in characters])
    is_word = np.array([character.isalnum() or character == "_" for character in characters])
    classes = np.where(is_word, WORD, GAP).astype(np.uint8)
    classes[is_word & _within(UNSPACED, first, len(characters))] = SOLO
    classes[np.char.startswith(categories, "M")] = MARK
    classes[categories == "Cf"] = IGNORED
    classes[_within(VARIATION_SELECTORS, first, len(characters))] = IGNORED
    if first <= ord(ZERO_WIDTH_SPACE) < first + len(characters):
        classes[ord(ZERO_WIDTH_SPACE) - first] = GAP
    return classes


def _within(ranges: Sequence[tuple[int, int]], first: int, size: int) -> np.ndarray:
    """Mark the code points from `first` on that lie in one of the ranges."""
    inside = np.zeros(size, bool)
    for low, high in ranges:
        inside[max(low - first, 0) : max(high + 1 - first, 0)] = True
    return inside


def _separated(is_word: np.ndarray) -> np.ndarray:
    """Mark the word characters and the first character of each gap after a word."""
    keep = is_word.copy()
    keep[1:] |= is_word[:-1]
    return keep


def _squeezed(codes: np.ndarray, keep: np.ndarray, bounds: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Drop what is not to be kept from the codes and move the texts' bounds with it."""
    kept = np.flatnonzero(keep)
    return codes[kept], np.searchsorted(kept, bounds)


def _with_spaces(
    codes: np.ndarray, bounds: np.ndarray, positions: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Insert a space before each of the given positions, all of them inside texts."""
    if not len(positions):
        return codes, bounds
    return np.insert(codes, positions, SPACE), bounds + np.searchsorted(positions, bounds)


def _cuts(ends: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Return where the words of more than LONGEST_WORD code points are to be cut."""
    long = np.flatnonzero(lengths > LONGEST_WORD)
    starts = (ends - lengths)[long].tolist()
    return np.concatenate(
        [
            np.arange(start + LONGEST_WORD, end, LONGEST_WORD)
            for start, end in zip(starts, ends[long].tolist(), strict=True)
        ]
    )


def _byte_offsets(codes: np.ndarray) -> np.ndarray:
    """Return where each code point, and the end, stands in the UTF-8 form."""
    sizes = np.ones(len(codes), np.uint8)
    for limit in (0x7F, 0x7FF, 0xFFFF):
        sizes += codes > limit
    return np.concatenate(([0], np.cumsum(sizes, dtype=np.int64)))


# Clusters of characters and single ones whose folding is remembered, and how long these may be.
CACHED = 1 << 14
CACHED_LENGTH = 16


def word_spans(text: str) -> tuple[np.ndarray, np.ndarray]:
    """Return where each word of a text starts and ends (int64, in characters of the text as it is).

    They are the words of `words_of`, in the same order. A word's span holds its marks and the invisible
    characters within it. Words that come from one character (½ is 1 and 2) or from characters that fold
    together have the span of these all. Raises UnicodeEncodeError on lone surrogates.
    """
    words = words_of([text])
    codes, starts, stops = _folded_places(text)
    classes = _alphabet().classes[codes]
    ignored = classes == IGNORED
    attached = ignored | (classes == MARK)
    classes = np.concatenate(([GAP], classes))
    places = np.arange(len(classes), dtype=np.int32)
    places[1:][attached] = 0
    classes = classes[np.maximum.accumulate(places)][1:]
    kept = np.flatnonzero(((classes == WORD) | (classes == SOLO)) & ~ignored)
    data = np.frombuffer(words.data, np.uint8)
    characters = np.cumsum((data & 0xC0) != 0x80)[words.ends] - np.arange(1, len(words.ends) + 1)
    if characters.max(initial=0) != len(kept):
        raise AssertionError("the places of a text's characters do not match its words")
    firsts = np.concatenate(([0], characters[:-1])) if len(characters) else characters
    return starts[kept[firsts]], stops[kept[characters - 1]]


def _folded_places(text: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the folded code points of a text, and from where to where in the text each comes from."""
    alphabet = _alphabet()
    raw = np.frombuffer(text.encode("utf-32-le"), "<u4")
    alphabet.need(raw)
    joins = _joining(text, raw)
    joins[:1] = False
    clusters = np.cumsum(~joins) - 1
    firsts = np.append(np.flatnonzero(~joins), len(raw))
    # What stands alone and folds by the table is left to the table.
    crowded = np.unique(clusters[alphabet.contextual[raw]])
    plain = np.flatnonzero(~np.isin(clusters, crowded))
    folded: list[str] = []
    starts: list[int] = []
    stops: list[int] = []
    for first, last in zip(firsts[crowded].tolist(), firsts[crowded + 1].tolist(), strict=True):
        cluster = text[first:last]
        pieces = _folded_cluster(cluster) if len(cluster) <= CACHED_LENGTH else _fold_cluster(cluster)
        for form, start, stop in pieces:
            folded.append(form)
            starts += [first + start] * len(form)
            stops += [first + stop] * len(form)
    codes = np.concatenate((raw[plain], np.frombuffer("".join(folded).encode("utf-32-le"), "<u4")))
    alphabet.need(codes)
    codes = alphabet.folded[codes]
    alphabet.need(codes)
    places = np.concatenate((plain, np.array(starts, np.int64)))
    order = np.argsort(places, kind="stable")
    return codes[order], places[order], np.concatenate((plain + 1, np.array(stops, np.int64)))[order]


def _fold_cluster(cluster: str) -> tuple[tuple[str, int, int], ...]:
    """Fold characters that may join, each for itself where that makes no difference; with their places."""
    alone = [fold(character) for character in cluster]
    together = fold(stream_safe(cluster))
    if "".join(alone) == together:
        return tuple((form, place, place + 1) for place, form in enumerate(alone))
    return ((together, 0, len(cluster)),)


@lru_cache(maxsize=CACHED)
def _folded_cluster(cluster: str) -> tuple[tuple[str, int, int], ...]:
    return _fold_cluster(cluster)


def _joining(text: str, codes: np.ndarray) -> np.ndarray:
    """Mark the characters that may fold together with the one before them: marks and following jamo."""
    joins = np.zeros(len(codes), bool)
    for place in np.flatnonzero(_alphabet().contextual[codes]).tolist():
        is_mark, is_following_jamo, _ = _joints(text[place])
        joins[place] = is_mark or (is_following_jamo and place > 0 and _joints(text[place - 1])[2])
    return joins


@lru_cache(maxsize=CACHED)
def _joints(character: str) -> tuple[bool, bool, bool]:
    """Tell whether a character begins with a mark or a following jamo, and whether it ends with a jamo."""
    form = unicodedata.normalize("NFKD", character)
    is_mark = any(unicodedata.category(first).startswith("M") for first in (character, form[0]))
    is_following_jamo = FOLLOWING_JAMO[0] <= ord(form[0]) <= FOLLOWING_JAMO[1]
    return is_mark, is_following_jamo, CONJOINING_JAMO[0] <= ord(form[-1]) <= CONJOINING_JAMO[1]
