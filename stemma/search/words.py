"""Texts as the words that a text index knows them by, for all scripts.

They are the words of `stemma.deduplication.tokens` (after NFKC and case folding), but that

- in scripts written without spaces, and in Hangul, whose words carry their grammar at the end, the words are the
  pairs of neighbouring characters (Lucene's CJK analysis; a character without a neighbour stands alone);
- a word with diacritics is known by its form without them as well: "Zürich" is found by "zurich".

Nothing is cut off words when they are indexed. A query's word also stands for all that begin as it does
(`query_words`), which takes the place of a stemmer for every language at once.
"""

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, lru_cache

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from stemma.codepoints import CODE_POINTS
from stemma.deduplication.tokens import SPACE, UNSPACED, Words, word_blocks

HANGUL_SYLLABLES = (0xAC00, 0xD7A3)
# A query's word also stands for the words that share so many of its first characters. On XQuAD (ten languages with
# spaces) it raises the mean reciprocal rank of BM25 from 90.1 to 92.9: McNamee and Mayfield (2004), "Character
# n-gram tokenization for European language text retrieval", found the same of words cut to five letters.
PREFIX_CHARACTERS = 5
# What is above every word that begins as a given one does.
LAST_CHARACTER = "\U0010ffff"
# Virama and nukta have a combining class, but are no diacritics: without them the word is another.
_KEPT_CLASSES = (0, 7, 9)
_CACHED_WORDS = 1 << 16
_MOST_FREQUENT = np.iinfo(np.uint16).max


@dataclass(frozen=True)
class QueryWord:
    """One word of a query: what is indexed from `low` to `high` (by code points) stands for it."""

    low: str
    high: str


def postings(texts: Sequence[str]) -> tuple[pa.Table, npt.NDArray[np.int32]]:
    """Count the words of each text.

    Args:
        texts: without lone surrogates (UnicodeEncodeError).

    Returns:
        A table of `text` (uint32, position in `texts`), `word` (dictionary of string) and `frequency` (uint16, at
        most 65,535), sorted by word and text, one row for each pair; and the number of words of each text, forms
        without diacritics not counted.
    """
    lengths = np.zeros(len(texts), np.int32)
    parts = [_POSTINGS.empty_table()]
    for positions, block in word_blocks(texts):
        words, owners = _words(block)
        lengths[positions] = np.bincount(owners, minlength=len(positions))
        parts.append(_counted(words, positions[owners]))
    return _sorted(pa.concat_tables(parts)), lengths


_POSTINGS = pa.schema(
    [("text", pa.uint32()), ("word", pa.dictionary(pa.int32(), pa.string())), ("frequency", pa.uint16())]
)


def query_words(text: str) -> list[QueryWord]:
    """Return what to look for in an index: each word of the text once, in the order of their code points.

    A word stands for itself and, where it is one of letters alone, for the words that begin with the same five
    characters; a single character of a script without spaces stands for all pairs that begin with it. A word with
    diacritics is looked for as it is, too.
    """
    found: set[QueryWord] = set()
    for _positions, block in word_blocks(_between_gaps(text)):
        for word in _words(block)[0].to_pylist():
            plain = without_diacritics(word)
            if plain != word:
                found.add(QueryWord(word, word))
            if len(plain) == 1 and _unspaced()[ord(plain)]:
                found.add(QueryWord(plain, plain + LAST_CHARACTER))
            elif len(plain) > PREFIX_CHARACTERS and _is_of_letters(plain):
                prefix = plain[:PREFIX_CHARACTERS]
                found |= {QueryWord(plain, plain), QueryWord(prefix, prefix + LAST_CHARACTER)}
            else:
                found.add(QueryWord(plain, plain))
    return sorted(found, key=lambda word: (word.low, word.high))


def _between_gaps(text: str) -> list[str]:
    """Cut a query at spaces and punctuation: no pair of characters is meant across them."""
    return "".join(" " if _is_gap(character) else character for character in text).split()


def _is_gap(character: str) -> bool:
    return character != "_" and unicodedata.category(character)[0] in "PZ"


@lru_cache(maxsize=_CACHED_WORDS)
def without_diacritics(word: str) -> str:
    """Return a word without the combining marks that are diacritics: accents, vowel points, tone marks.

    Vowel signs of Indic scripts have no combining class and stay, and so do marks of scripts without spaces, where
    they tell words apart.
    """
    if word.isascii() or _unspaced()[ord(word[0])]:
        return word
    decomposed = unicodedata.normalize("NFD", word)
    kept = "".join(mark for mark in decomposed if unicodedata.combining(mark) in _KEPT_CLASSES)
    return unicodedata.normalize("NFC", kept) or word


def _is_of_letters(word: str) -> bool:
    """Tell words from numbers, versions and identifiers, of which only the whole is meant."""
    return not any(character.isdigit() or character == "_" for character in word)


@cache
def _unspaced() -> npt.NDArray[np.bool_]:
    table = np.zeros(CODE_POINTS, bool)
    for first, last in (*UNSPACED, HANGUL_SYLLABLES):
        table[first : last + 1] = True
    return table


def _words(block: Words) -> tuple[pa.StringArray, npt.NDArray[np.intp]]:
    """Return the words of a block of texts, and for each which of the texts it is of."""
    counts = np.diff(np.searchsorted(block.ends, block.bounds))
    owners = np.repeat(np.arange(len(counts)), counts)
    if len(block.data) == 0 or block.data.isascii():
        return _strings(np.frombuffer(block.data, np.uint8), block.ends), owners
    codes = np.frombuffer(block.data.decode().encode("utf-32-le"), "<u4")
    return _paired(codes, owners)


def _strings(data: npt.NDArray[np.uint8], ends: npt.NDArray[np.int64]) -> pa.StringArray:
    """Return as an array the words of UTF-8 bytes that are each followed by one space, at `ends`."""
    is_word = np.ones(len(data), bool)
    is_word[ends] = False
    offsets = np.concatenate(([0], ends - np.arange(len(ends)))).astype(np.int32)
    return pa.StringArray.from_buffers(len(ends), pa.py_buffer(offsets), pa.py_buffer(data[is_word]))


def _paired(
    codes: npt.NDArray[np.uint32], owners: npt.NDArray[np.intp]
) -> tuple[pa.StringArray, npt.NDArray[np.intp]]:
    """Return words given as code points, each followed by a space, with pairs in the place of unspaced characters.

    A *piece* is a word, or one syllable of a Hangul word. Two unspaced pieces in a row make a pair: syllables of one
    word, or other characters of one text. A piece that is in a pair is no word by itself.
    """
    is_space = codes == SPACE
    low, high = HANGUL_SYLLABLES
    is_hangul = (codes >= low) & (codes <= high)
    begins = np.concatenate(([True], is_space[:-1])) | is_hangul
    begins[1:] |= is_hangul[:-1]
    starts = np.flatnonzero(begins & ~is_space)
    word = (np.cumsum(is_space) - is_space)[starts]
    owners = owners[word]
    ends = np.append(starts[1:], len(codes))
    ends -= is_space[ends - 1]
    hangul = is_hangul[starts]
    alone = _unspaced()[codes[starts]]
    within = np.where(hangul[1:], word[1:] == word[:-1], owners[1:] == owners[:-1])
    paired = np.flatnonzero(alone[1:] & alone[:-1] & (hangul[1:] == hangul[:-1]) & within)
    is_single = np.ones(len(starts), bool)
    is_single[paired] = is_single[paired + 1] = False
    first = np.concatenate((np.flatnonzero(is_single), paired))
    last = np.concatenate((np.flatnonzero(is_single), paired + 1))
    return _slices(codes, starts[first], ends[last]), owners[first]


def _slices(
    codes: npt.NDArray[np.uint32], starts: npt.NDArray[np.intp], ends: npt.NDArray[np.intp]
) -> pa.StringArray:
    """Return stretches of code points, without the spaces in them, as strings."""
    lengths = ends - starts + 1
    stops = np.cumsum(lengths)
    places = np.arange(lengths.sum()) + np.repeat(starts - stops + lengths, lengths)
    is_stop = np.zeros(len(places), bool)
    is_stop[stops - 1] = True
    taken = codes[np.where(is_stop, 0, places)]
    taken[is_stop] = SPACE
    taken = taken[is_stop | (taken != SPACE)]
    data = np.frombuffer(taken.tobytes().decode("utf-32-le").encode(), np.uint8)
    return _strings(data, np.flatnonzero(data == SPACE))


def _counted(words: pa.StringArray, owners: npt.NDArray[np.int64]) -> pa.Table:
    """Count the words of each owner, and the forms without diacritics of those that have any."""
    encoded = words.dictionary_encode()
    codes, distinct = encoded.indices.to_numpy(), encoded.dictionary
    forms = distinct.to_pylist()
    accented = [code for code, form in enumerate(forms) if without_diacritics(form) != form]
    if accented:
        plain = pa.array([without_diacritics(forms[code]) for code in accented], pa.string())
        joined = pa.concat_arrays([distinct, plain]).dictionary_encode()
        distinct, canonical = joined.dictionary, joined.indices.to_numpy()
        plain_of = np.full(len(forms), -1, np.int32)
        plain_of[accented] = canonical[len(forms) :]
        plain_codes = plain_of[codes]
        has_plain = plain_codes >= 0
        codes = np.concatenate((codes, plain_codes[has_plain]))
        owners = np.concatenate((owners, owners[has_plain]))
    pairs, counts = np.unique(codes.astype(np.int64) << 32 | owners, return_counts=True)
    return pa.table(
        [
            pa.array((pairs & 0xFFFFFFFF).astype(np.uint32)),
            pa.DictionaryArray.from_arrays(pa.array((pairs >> 32).astype(np.int32)), distinct),
            pa.array(np.minimum(counts, _MOST_FREQUENT).astype(np.uint16)),
        ],
        schema=_POSTINGS,
    )


def _sorted(table: pa.Table) -> pa.Table:
    """Sort postings by word and text; only the distinct words are compared as strings."""
    if table.num_rows == 0:
        return table
    parts = table["word"].unify_dictionaries().chunks
    distinct = parts[0].dictionary
    order = pc.sort_indices(distinct).to_numpy()
    rank = np.empty(len(order), np.int64)
    rank[order] = np.arange(len(order))
    ranks = rank[np.concatenate([part.indices.to_numpy() for part in parts])]
    places = np.argsort(ranks << 32 | table["text"].to_numpy())
    words = pa.DictionaryArray.from_arrays(
        pa.array(ranks[places].astype(np.int32)), distinct.take(pa.array(order))
    )
    columns = {name: table[name].to_numpy()[places] for name in ("text", "frequency")}
    return pa.table([columns["text"], words, columns["frequency"]], schema=_POSTINGS)
