"""Passages: runs of words that two texts share, whatever else they hold.

The way of a corpus: `sign_passages` each text; `passage_buckets` of the signatures; `shared_passages` of the
candidate pairs' texts; and, where they are to be cut, `owned_cuts` of the passages and `cut_spans` of the
texts. Fifty words are the minimum of Lee et al. 2021 (Deduplicating Training Data Makes Language Models
Better). Runs of words are compared by 64-bit hashes, which are exact for practical purposes (`shingles`).
"""

import re
from bisect import bisect_right
from collections.abc import Callable, Sequence
from itertools import pairwise
from operator import itemgetter
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from stemma.deduplication.buckets import Buckets
from stemma.deduplication.mixing import mix64
from stemma.deduplication.runs import differs
from stemma.deduplication.tokens import word_blocks, word_hashes, word_spans

MIN_WORDS = 50

SIGNED_PASSAGES = pa.schema(
    [pa.field("signature", pa.binary()), pa.field("words", pa.int32(), nullable=False)]
)
PASSAGES = pa.schema(
    [
        pa.field("pair", pa.int64(), nullable=False),
        *(
            pa.field(name, pa.int32(), nullable=False)
            for name in (
                "start",
                "end",
                "source_start",
                "source_end",
                "words",
                "first_word",
                "source_first_word",
            )
        ),
    ]
)

# Stretches of a text, sorted and disjoint; of words or of characters.
SPANS = pa.list_(
    pa.struct([pa.field("start", pa.int32(), nullable=False), pa.field("end", pa.int32(), nullable=False)])
)
OWNED = pa.schema(
    [
        pa.field("cut_words", SPANS, nullable=False),
        pa.field("share", pa.float64(), nullable=False),
        pa.field("witness", pa.int64()),
    ]
)

Spans = list[tuple[int, int]]

# Texts turned into Python strings at a time, so that memory does not follow the table.
TEXTS = 1024

# Occurrences of the same `min_words` words in the earlier text that are followed up, and how many there may be
# in all; the first of each are enough to find all words that are shared.
OCCURRENCES = 16
FOLLOWED = 1 << 22

# Leaps by which runs are followed on where occurrences were left out.
LEAPS = 1 << 24

# What follows a word without a space.
PUNCTUATION = re.compile(r"[^\w\s]*")

MULTIPLIER = np.uint64(0xD6E8FEB86659FD93)


def sign_passages(table: pa.Table, *, min_words: int = MIN_WORDS) -> pa.Table:
    """Sign the column `text` (string): one row out for each row in, in the same order.

    Returns the columns
    - signature (binary): the distinct fingerprints of the text, sorted uint64, little-endian; null for a text
      of fewer than `min_words` words. Two texts that share a run of `min_words` words share a fingerprint.
      There is one for about each 13 words at 50;
    - words (int32): the number of words.

    Winnowing (Schleimer, Wilkerson and Aiken 2003): the least hash of half as many words in each window that
    a run of `min_words` words fills. Which of several equal hashes it is does not matter to a set.

    Raises ValueError if a text is null or `min_words` less than 1.
    """
    _check(min_words)
    if table.column("text").null_count:
        raise ValueError("a text is null: only texts can be signed")
    batches = table.select(["text"]).to_batches(max_chunksize=TEXTS)
    signed = [_sign(batch.column("text").to_pylist(), min_words) for batch in batches]
    return pa.Table.from_batches(signed, schema=SIGNED_PASSAGES)


def passage_buckets(signed: pa.Table, ranks: np.ndarray) -> Buckets:
    """Return the buckets of signed texts: one for each fingerprint.

    `ranks` (int64[n]) are the texts' places in the order of priority. Each text is to be compared with the
    first in its buckets, because the first owns what they share.
    """
    signatures = signed.column("signature").to_pylist()
    sizes = np.fromiter((len(each or b"") // 8 for each in signatures), np.int64, len(signatures))
    keys = np.frombuffer(b"".join(each for each in signatures if each), "<u8").astype(np.uint64)
    rows = np.repeat(np.arange(len(sizes)), sizes)
    return Buckets(keys, rows, np.asarray(ranks, np.int64)[rows], np.ones(len(rows), bool))


def shared_passages(texts: Sequence[str], pairs: np.ndarray, *, min_words: int = MIN_WORDS) -> pa.Table:
    """Find the runs of at least `min_words` words that the two texts of each pair share.

    `pairs` (int64[m, 2]) are positions in `texts`: the earlier text, which has the better claim, and the
    later one. A run is a stretch of the later text that occurs in the earlier one, word for word, and is part
    of no longer such stretch. It is told once, with its first occurrence there. Runs may overlap, but one
    that adds no word to those before and after it is left out, so that they have twice the words of the
    later text at most.

    Where the earlier text has the same `min_words` words more than 16 times, the runs may be shorter and more;
    they still hold every shared word. So time and memory stay in proportion to the two texts. (Eight bytes a
    word of all texts in pairs are held at once, besides the index of one.)

    Returns the columns pair (int64, position in `pairs`); start and end (int32, characters of the later
    text, from the first of the first word to the last of the last); source_start and source_end (int32, of
    the earlier text); words (int32, the length); first_word and source_first_word (int32, the run's place
    among the words of the two texts). Rows are sorted by pair and start.

    Raises UnicodeEncodeError on lone surrogates, ValueError if `min_words` is less than 1.
    """
    _check(min_words)
    windows = _windows_of(texts, pairs, min_words)
    runs = [np.empty((0, 4), np.int64)]
    index, indexed = None, -1
    for number in np.argsort(pairs[:, 0], kind="stable").tolist():
        earlier, later = pairs[number].tolist()
        if len(windows[earlier]) and len(windows[later]):
            if index is None or indexed != earlier:
                index, indexed = _index(windows[earlier]), earlier
            found = _runs(index, windows[later], min_words)
            runs.append(np.column_stack((np.full(len(found), number), found)))
    return _passages(texts, pairs, _sorted(np.concatenate(runs)))


def owned_cuts(documents: pa.Table, passages: pa.Table, *, min_rest: int = 10) -> pa.Table:
    """Decide which words are cut from which documents, so that each stays in the first that has it.

    Takes `documents` with priority (int64, unique; the lowest is the best) and words (int32, how many the
    text has), and `passages` with document and source_document (int64, rows of `documents`, the source of
    better priority), first_word, source_first_word and words (int32), as `shared_passages` finds them.

    Documents are gone through by priority. What a passage holds is cut from the document as far as the
    source's own words are not cut there: so every word that is cut has an equal one that stays, in the
    document that it is cut for. A document of which fewer than `min_rest` words would stay is removed.

    Returns a row for each document, in the same order: cut_words (list of start and end, int32, in words;
    sorted, disjoint); share (float64, of its words that are cut; 0 for a text without words); and for a
    document to be removed witness (int64): the document, which itself stays, for which most of it is cut,
    ties by priority.

    Raises ValueError if a source has not a better priority than the document.
    """
    priority = documents.column("priority").to_numpy()
    totals = documents.column("words").to_pylist()
    names = ("document", "source_document", "first_word", "source_first_word", "words")
    document, source, *places = (passages.column(name).to_numpy() for name in names)
    if np.any(priority[source] >= priority[document]):
        raise ValueError("the source of a passage must have a better priority than the document")
    cuts: list[Spans] = [[] for _ in totals]
    missing: list[Spans] = [[] for _ in totals]
    witnesses: list[int | None] = [None] * len(totals)
    order = np.argsort(priority[document], kind="stable")
    for rows in np.split(order, np.flatnonzero(np.diff(document[order])) + 1):
        if not len(rows):
            continue
        number = int(document[rows[0]])
        claims = _claims(missing, source[rows].tolist(), *(place[rows].tolist() for place in places))
        cuts[number] = missing[number] = _merged([span for spans in claims.values() for span in spans])
        if cuts[number] and totals[number] - _length(cuts[number]) < min_rest:
            missing[number] = [(0, totals[number])]
            witnesses[number] = min(claims, key=lambda owner: (-_length(claims[owner]), priority[owner]))
    shares = [_length(spans) / max(total, 1) for spans, total in zip(cuts, totals, strict=True)]
    return pa.Table.from_arrays(
        [_spans_array(cuts), pa.array(shares, pa.float64()), pa.array(witnesses, pa.int64())], schema=OWNED
    )


def cut_spans(table: pa.Table) -> pa.Table:
    """Turn cuts in words into cuts in characters: one row out for each row in, in the same order.

    Takes the columns text (string) and cut_words (as `owned_cuts` returns it, or null for none). Returns
    the column cuts (list of start and end, int32, in characters; sorted, disjoint). A cut takes the
    punctuation that follows its last word without a space, and never a part of a word that stays.
    """
    rows = zip(table.column("text").to_pylist(), table.column("cut_words").to_pylist(), strict=True)
    cuts = [_cut_characters(text, spans) if spans else [] for text, spans in rows]
    return pa.table({"cuts": _spans_array(cuts)})


def _check(min_words: int) -> None:
    if min_words < 1:
        raise ValueError(f"a passage has at least one word, not {min_words}")


def _sign(texts: Sequence[str], min_words: int) -> pa.RecordBatch:
    counts = np.zeros(len(texts), np.int32)
    signatures: list[bytes | None] = [None] * len(texts)
    for positions, words in word_blocks(texts):
        hashes, bounds = word_hashes(words)
        counts[positions] = np.diff(bounds)
        minima = _window_minima(hashes, min_words)
        for position, (first, last) in zip(positions.tolist(), pairwise(bounds.tolist()), strict=True):
            if last - first >= min_words:
                signatures[position] = _distinct(minima[first : last - min_words + 1]).tobytes()
    return pa.record_batch([pa.array(signatures, pa.binary()), pa.array(counts)], schema=SIGNED_PASSAGES)


def _window_minima(hashes: np.ndarray, min_words: int) -> np.ndarray:
    """Return the least hash of half as many words in each run of `min_words` words, by where that starts."""
    size = max(1, min_words // 2)
    minima = mix64(window_hashes(hashes, size))
    return _combined(minima, min_words - size + 1, lambda left, right, _: np.minimum(left, right))


def window_hashes(hashes: np.ndarray, size: int) -> np.ndarray:
    """Hash each run of `size` hashes (uint64[n]) to one (uint64[max(n - size + 1, 0)]).

    A polynomial, put together from windows of half the length.
    """

    def appended(left: np.ndarray, right: np.ndarray, length: int) -> np.ndarray:
        return left * np.uint64(pow(int(MULTIPLIER), length, 1 << 64)) + right

    return _combined(hashes, size, appended)


def _combined(
    values: np.ndarray, size: int, combine: Callable[[np.ndarray, np.ndarray, int], np.ndarray]
) -> np.ndarray:
    """Combine each run of `size` values to one: `combine` gets two neighbouring runs and the length of the second."""
    total, length = values, 1
    for digit in f"{size:b}"[1:]:
        total = combine(total[:-length], total[length:], length)
        length *= 2
        if digit == "1":
            total = combine(total[:-1], values[length:], 1)
            length += 1
    return total


def _distinct(values: np.ndarray) -> np.ndarray:
    """Return the values sorted, each once; runs of equal ones are short work."""
    values = np.sort(values[differs(values)])
    return values[differs(values)]


def _windows_of(texts: Sequence[str], pairs: np.ndarray, min_words: int) -> dict[int, np.ndarray]:
    """Return the hashes of each run of `min_words` words of the texts that are in pairs."""
    used = np.unique(pairs)
    windows: dict[int, np.ndarray] = {}
    for positions, words in word_blocks([texts[position] for position in used.tolist()]):
        hashes, bounds = word_hashes(words)
        for text, (first, last) in zip(used[positions].tolist(), pairwise(bounds.tolist()), strict=True):
            windows[text] = window_hashes(hashes[first:last], min_words)
    return windows


class _Index(NamedTuple):
    """The windows of a text, and where each stands: `places[starts[i] : starts[i] + counts[i]]` for `names[i]`."""

    windows: np.ndarray
    names: np.ndarray
    places: np.ndarray
    starts: np.ndarray
    counts: np.ndarray


def _index(windows: np.ndarray) -> _Index:
    places = np.argsort(windows, kind="stable")
    ordered = windows[places]
    starts = np.flatnonzero(differs(ordered))
    return _Index(windows, ordered[starts], places, starts, _gaps(starts, len(ordered)))


def _gaps(starts: np.ndarray, end: int) -> np.ndarray:
    return np.concatenate((starts[1:], [end])) - starts


def _runs(index: _Index, windows: np.ndarray, min_words: int) -> np.ndarray:
    """Return the runs (int64[n, 3]) of a later text in an earlier one: their places in both and their lengths."""
    names = np.minimum(np.searchsorted(index.names, windows), len(index.names) - 1)
    hits = np.flatnonzero(index.names[names] == windows)
    if not len(hits):
        return np.empty((0, 3), np.int64)
    names = names[hits]
    counts = np.minimum(index.counts[names], OCCURRENCES)
    if counts.sum() > FOLLOWED:
        counts = np.ones_like(counts)
    ends = np.cumsum(counts)
    places = np.repeat(hits, counts)
    sources = index.places[np.arange(len(places)) + np.repeat(index.starts[names] - ends + counts, counts)]
    if len(places) > len(hits):
        order = np.lexsort((places, sources - places))
        places, sources = places[order], sources[order]
    # Windows that follow one another in both texts are one run.
    first = np.ones(len(places), bool)
    first[1:] = (places[1:] != places[:-1] + 1) | (sources[1:] != sources[:-1] + 1)
    starts = np.flatnonzero(first)
    lengths = _gaps(starts, len(places))
    places, sources = places[starts], sources[starts]
    if (counts < index.counts[names]).any():
        lengths = _followed(index.windows, windows, sources, places, lengths, min_words)
    return _needed(np.column_stack((places, sources, lengths + min_words - 1)))


def _followed(
    earlier: np.ndarray,
    later: np.ndarray,
    sources: np.ndarray,
    places: np.ndarray,
    lengths: np.ndarray,
    min_words: int,
) -> np.ndarray:
    """Follow runs of windows on to where the two texts part; returns their lengths."""
    lengths = lengths.copy()
    leaps = LEAPS
    for leap in (min_words, 1):
        active = np.arange(len(lengths))
        while len(active) and leaps > 0:
            leaps -= len(active)
            source, place = (side[active] + lengths[active] + leap - 1 for side in (sources, places))
            inside = (source < len(earlier)) & (place < len(later))
            active, source, place = active[inside], source[inside], place[inside]
            active = active[earlier[source] == later[place]]
            lengths[active] += leap
    return lengths


def _needed(runs: np.ndarray) -> np.ndarray:
    """Keep the runs that lie in no other one, and of these as few as hold the same words."""
    places, sources, lengths = runs.T
    runs = runs[np.lexsort((sources, -lengths, places))]
    ends = runs[:, 0] + runs[:, 2]
    furthest = np.maximum.accumulate(ends)
    runs = runs[differs(furthest)]
    places, ends = runs[:, 0], runs[:, 0] + runs[:, 2]
    following = np.maximum(np.searchsorted(places, ends, side="right") - 1, np.arange(1, len(runs) + 1))
    following = following.tolist()
    kept = []
    run = 0
    while run < len(runs):
        kept.append(run)
        run = following[run]
    return runs[kept]


def _sorted(runs: np.ndarray) -> np.ndarray:
    return runs[np.lexsort((runs[:, 1], runs[:, 0]))]


def _passages(texts: Sequence[str], pairs: np.ndarray, runs: np.ndarray) -> pa.Table:
    """Return the table of runs (int64[n, 4]: pair, place, source's place, length) with their characters."""
    numbers, places, sources, lengths = runs.T
    owners = pairs[numbers].T[::-1].ravel()
    firsts = np.concatenate((places, sources))
    starts, ends = _characters(texts, owners, firsts, firsts + np.tile(lengths, 2) - 1)
    (start, source_start), (end, source_end) = starts.reshape(2, -1), ends.reshape(2, -1)
    columns = [numbers, start, end, source_start, source_end, lengths, places, sources]
    arrays = [pa.array(column, field.type) for column, field in zip(columns, PASSAGES, strict=True)]
    return pa.Table.from_arrays(arrays, schema=PASSAGES)


def _characters(
    texts: Sequence[str], owners: np.ndarray, firsts: np.ndarray, lasts: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return where words `firsts` start and `lasts` end in the texts `owners`; each text is read once."""
    starts, ends = np.empty(len(owners), np.int64), np.empty(len(owners), np.int64)
    order = np.argsort(owners, kind="stable")
    for rows in np.split(order, np.flatnonzero(np.diff(owners[order])) + 1):
        if len(rows):
            word_starts, word_ends = word_spans(texts[owners[rows[0]]])
            starts[rows], ends[rows] = word_starts[firsts[rows]], word_ends[lasts[rows]]
    return starts, ends


def _claims(
    missing: list[Spans], sources: list[int], firsts: list[int], source_firsts: list[int], lengths: list[int]
) -> dict[int, Spans]:
    """Return what each source still has of a document's passages, as spans of the document."""
    claims: dict[int, Spans] = {}
    for source, first, source_first, length in zip(sources, firsts, source_firsts, lengths, strict=True):
        shift = first - source_first
        for start, end in _without(source_first, source_first + length, missing[source]):
            claims.setdefault(source, []).append((start + shift, end + shift))
    return {source: _merged(spans) for source, spans in claims.items()}


def _without(start: int, end: int, missing: Spans) -> Spans:
    """Return what is left from `start` to `end` without the missing spans, which are sorted and disjoint."""
    left = []
    for low, high in missing[bisect_right(missing, start, key=itemgetter(1)) :]:
        if low >= end:
            break
        if start < low:
            left.append((start, low))
        start = max(start, high)
    if start < end:
        left.append((start, end))
    return left


def _merged(spans: Spans) -> Spans:
    merged: Spans = []
    for start, end in sorted(spans):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    return merged


def _length(spans: Spans) -> int:
    return sum(end - start for start, end in spans)


def _cut_characters(text: str, spans: list[dict[str, int]]) -> Spans:
    word_starts, word_ends = (places.tolist() for places in word_spans(text))
    cuts = []
    for span in spans:
        before = word_ends[span["start"] - 1] if span["start"] else 0
        after = word_starts[span["end"]] if span["end"] < len(word_starts) else len(text)
        start = max(word_starts[span["start"]], before)
        end = min(next(PUNCTUATION.finditer(text, word_ends[span["end"] - 1])).end(), after)
        if start < end:
            cuts.append((start, end))
    return cuts


def _spans_array(rows: Sequence[Spans]) -> pa.ListArray:
    values = [[{"start": start, "end": end} for start, end in spans] for spans in rows]
    return pa.array(values, SPANS)
