"""Many texts as arrays: their code points, and where their words and lines begin and end."""

from collections.abc import Iterator, Sequence
from functools import cache
from typing import NamedTuple

import numpy as np

from stemma.cleaning.filters.characters import BREAK, SPACE, alphabet, ascii_classes
from stemma.deduplication.mixing import mix64

# The arrays of a block stay in a processor's second-level cache, and the calls it takes are few by character.
BLOCK_CHARACTERS = 1 << 19

LINE_FEED, CARRIAGE_RETURN = 10, 13
_CHUNK_BITS = 14
_MULTIPLIER = 0x9E3779B97F4A7C15
_LENGTH_MULTIPLIER = np.uint64(0xD6E8FEB86659FD93)


class Spans(NamedTuple):
    """Pieces of the texts of a block in order; text i has those from bounds[i] up to bounds[i + 1]."""

    starts: np.ndarray
    ends: np.ndarray
    bounds: np.ndarray

    @property
    def lengths(self) -> np.ndarray:
        return self.ends - self.starts

    @property
    def texts(self) -> np.ndarray:
        """The number of the text of each piece."""
        return np.repeat(np.arange(len(self.bounds) - 1), np.diff(self.bounds))


class Block(NamedTuple):
    """Several texts, each followed by a line feed.

    `codes` are the code points (uint8 where all are ASCII, else uint32), `classes` their bits as in
    `stemma.cleaning.filters.characters`, `lower` the texts in lower case (one byte a character; what is not ASCII then
    is 0), `words` what white space separates, `lines` what line feeds separate. Text i is
    codes[bounds[i] : bounds[i + 1] - 1].
    """

    texts: Sequence[str]
    codes: np.ndarray
    classes: np.ndarray
    lower: bytes
    bounds: np.ndarray
    words: Spans
    lines: Spans


def text_blocks(texts: Sequence[str]) -> Iterator[tuple[np.ndarray, Block]]:
    """Yield the texts in blocks of bounded size (one text at least) with the texts' positions.

    ASCII texts come in blocks of their own: a byte a character makes them faster.
    """
    is_ascii = np.fromiter((text.isascii() for text in texts), bool, len(texts))
    for positions in (np.flatnonzero(is_ascii), np.flatnonzero(~is_ascii)):
        lengths = np.fromiter((len(texts[place]) for place in positions.tolist()), np.int64, len(positions))
        number = np.cumsum(lengths) // BLOCK_CHARACTERS
        for part in np.split(positions, np.flatnonzero(np.diff(number)) + 1):
            if len(part):
                yield part, block_of([texts[place] for place in part.tolist()])


def block_of(texts: Sequence[str]) -> Block:
    """Lay texts out as one block; lone surrogates are characters like others."""
    joined = "\n".join(texts) + "\n"
    codes: np.ndarray
    if joined.isascii():
        data = joined.encode("ascii")
        codes, lower = np.frombuffer(data, np.uint8), data.lower()
        classes = np.frombuffer(data.translate(ascii_classes()), np.uint8)
    else:
        wide = np.frombuffer(joined.encode("utf-32-le", "surrogatepass"), np.dtype("<u4"))
        tables = alphabet()
        tables.need(wide)
        classes, lower, codes = tables.classes[wide], tables.lower[wide].tobytes(), wide
    lengths = np.fromiter((len(text) + 1 for text in texts), np.int64, len(texts))
    bounds = np.concatenate(([0], np.cumsum(lengths)))
    words, lines = _words(classes, bounds), _lines(np.flatnonzero(codes == LINE_FEED), bounds)
    return Block(texts, codes, classes, lower, bounds, words, lines)


def _words(classes: np.ndarray, bounds: np.ndarray) -> Spans:
    is_space = np.bitwise_and(classes, SPACE).view(bool)
    edges = np.flatnonzero(is_space[1:] != is_space[:-1]) + 1
    if not is_space[0]:
        edges = np.concatenate(([0], edges))
    starts, ends = edges[0::2], edges[1::2]
    return Spans(starts, ends, np.searchsorted(starts, bounds))


def _lines(ends: np.ndarray, bounds: np.ndarray) -> Spans:
    """Cut the texts at these places, of which one is the end of each text."""
    starts = np.concatenate(([0], ends[:-1] + 1))
    return Spans(starts, ends, np.searchsorted(starts, bounds))


def split_lines(block: Block) -> Spans:
    """Return the lines as `str.splitlines` has them: more breaks than the line feed, no empty line at the end."""
    lines = block.lines
    breaks = np.flatnonzero(np.bitwise_and(block.classes, BREAK))
    if len(breaks):
        paired = (block.codes[breaks] == CARRIAGE_RETURN) & (block.codes[breaks + 1] == LINE_FEED)
        lines = _lines(np.sort(np.concatenate((lines.ends, breaks[~paired]))), block.bounds)
    keep = np.ones(len(lines.starts), bool)
    last = lines.bounds[1:] - 1
    keep[last] = lines.starts[last] < lines.ends[last]
    kept = np.concatenate(([0], np.cumsum(keep)))
    return Spans(lines.starts[keep], lines.ends[keep], kept[lines.bounds])


def words_within(block: Block, lines: Spans) -> tuple[np.ndarray, np.ndarray]:
    """Return the number of the first word of each line, and of the first one behind it.

    `lines` are all lines of the block, but for empty ones.
    """
    first = np.searchsorted(block.words.starts, lines.starts)
    return first, np.append(first[1:], len(block.words.starts))


def totals(values: np.ndarray, bounds: np.ndarray) -> np.ndarray:
    """Sum the values of each text: integers, so that the order of summation does not matter."""
    sums = running(values)
    return sums[bounds[1:]] - sums[bounds[:-1]]


def running(values: np.ndarray) -> np.ndarray:
    """Return the sums of the first 0, 1, 2, … values."""
    sums = np.zeros(len(values) + 1, np.int64)
    np.cumsum(values, out=sums[1:])
    return sums


def ratios(parts: np.ndarray, wholes: np.ndarray) -> np.ndarray:
    """Divide; 0 where there is nothing to divide by."""
    return np.divide(parts, wholes, out=np.zeros(len(parts)), where=wholes > 0)


# Hashes: the characters as a polynomial with an odd multiplier, modulo 2^64, by differences of prefix sums.


def span_hashes(codes: np.ndarray, *spans: Spans) -> list[np.ndarray]:
    """Hash each piece by its characters alone (uint64, not mixed yet): equal pieces have equal hashes."""
    places = [place for span in spans for place in (span.starts, span.ends)]
    sums = _prefix_sums(codes, places)
    pairs = zip(spans, sums[0::2], sums[1::2], strict=True)
    return [(last - first) * powers(-span.starts) for span, first, last in pairs]


def _prefix_sums(codes: np.ndarray, places: list[np.ndarray]) -> list[np.ndarray]:
    """Sum the polynomial up to each of the places (each array ascending), in chunks of bounded size."""
    results = [np.zeros(len(each), np.uint64) for each in places]
    low, chunk = _small_powers(_MULTIPLIER), 1 << _CHUNK_BITS
    firsts = np.arange(0, len(codes), chunk)
    cuts = [np.searchsorted(each, np.append(firsts, len(codes)) + 1).tolist() for each in places]
    before = np.zeros(1, np.uint64)
    for number, (first, scale) in enumerate(zip(firsts.tolist(), powers(firsts), strict=True)):
        terms = codes[first : first + chunk].astype(np.uint64)
        terms += np.uint64(1)
        terms *= low[: len(terms)]
        np.cumsum(terms, out=terms)
        for each, cut, result in zip(places, cuts, results, strict=True):
            part = slice(cut[number], cut[number + 1])
            result[part] = terms[each[part] - (first + 1)] * scale + before
        before = before + terms[-1:] * scale
    return results


def powers(exponents: np.ndarray) -> np.ndarray:
    """Raise the multiplier to integers, which are all positive or all negative."""
    base = _MULTIPLIER
    if exponents.min(initial=0) < 0:
        base, exponents = pow(_MULTIPLIER, -1, 1 << 64), -exponents
    result = _small_powers(base)[exponents & ((1 << _CHUNK_BITS) - 1)]
    highest = int(exponents.max(initial=0)) >> _CHUNK_BITS
    if highest:
        factors = np.full(highest + 1, pow(base, 1 << _CHUNK_BITS, 1 << 64), np.uint64)
        factors[0] = 1
        result *= np.multiply.accumulate(factors)[exponents >> _CHUNK_BITS]
    return result


@cache
def _small_powers(base: int) -> np.ndarray:
    factors = np.full(1 << _CHUNK_BITS, base, np.uint64)
    factors[0] = 1
    return np.multiply.accumulate(factors)


def mixed(hashes: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Spread the hashes of pieces of these lengths evenly over all 64 bits."""
    return mix64(hashes + lengths.astype(np.uint64) * _LENGTH_MULTIPLIER)
