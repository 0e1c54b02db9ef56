"""The stage that cuts cleaned texts into chunks."""

import hashlib
from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from stemma.chunking.boundaries import Boundaries, find_boundaries, find_sentences
from stemma.chunking.characters import breakable
from stemma.chunking.joined import Joined, Positions, groups, join
from stemma.chunking.lines import find_lines
from stemma.chunking.strategies import Layout, Sizes, Span, fixed, recursive, semantic, structure
from stemma.chunking.tokens import TokenCounter, TokenIndex
from stemma.chunking.user_spans import split_by
from stemma.errors import UsageError
from stemma.functions import is_function, load_function

CHUNK_TYPE = pa.struct(
    [
        pa.field("char_start", pa.int32(), nullable=False),
        pa.field("char_end", pa.int32(), nullable=False),
        pa.field("byte_start", pa.int32(), nullable=False),
        pa.field("byte_end", pa.int32(), nullable=False),
        pa.field("tokens", pa.int32(), nullable=False),
        pa.field("section", pa.string(), nullable=False),
        pa.field("text", pa.string(), nullable=False),
        pa.field("text_hash", pa.string(), nullable=False),
    ]
)
CHUNKS_TYPE = pa.list_(pa.field("item", CHUNK_TYPE, nullable=False))

Strategy = Callable[[Layout, Sizes], list[Span]]
STRATEGIES: dict[str, Strategy] = {
    "structure": structure,
    "semantic": semantic,
    "recursive": recursive,
    "fixed": fixed,
}
# Chunks aim at three fifths of the budget, 96 of 160 tokens: the best measured row that is above every published one
# in recall and precision (benchmarks/RESULTS.md, Chunks), and room for a cut to wait for a good boundary.
_TARGET_SHARE = (3, 5)
_HASH_DIGITS = 32

# char_start, char_end, byte_start, byte_end, tokens, section, text, text_hash
Chunk = tuple[int, int, int, int, int, str, str, str]
Cut = dict[str, int]  # start, end


def chunk(
    table: pa.Table,
    *,
    strategy: str,
    max_tokens: int,
    target_tokens: int | None = None,
    overlap: int,
    tokenizer: str,
    model: TokenCounter,
) -> pa.Table:
    """Cut each text into chunks.

    Args:
        table: with the column `text` (string), the cleaned text, and optionally `cuts` (list of structs of start
            and end, code points of the text, sorted and disjoint; null for none): stretches that no chunk may
            touch. What lies between them is chunked piece by piece; a piece without a letter or digit has no chunk.
        strategy: "structure" (headings, paragraphs, list items, sentences, by the cheapest cuts), "semantic" (the
            same, but cheap is where few words are the same on both sides), "recursive" (paragraph, line, sentence,
            word, character), "fixed" (windows of tokens), or "module:function", a function of text, max_tokens and
            overlap that returns (start, end) of each chunk, with nothing but white space left out between them.
        max_tokens: no chunk has more tokens, special tokens not counted, nor 16 times as many bytes, unless it is a
            single character that has.
        target_tokens: what "structure" and "semantic" aim at; None is three fifths of `max_tokens` - `overlap`.
        overlap: tokens at most that a chunk repeats of the one before; less than `max_tokens`.
        tokenizer: names the counter that `model` is; it is part of the recipe and not used otherwise.
        model: what `load_tokenizer` gave.

    Returns:
        One column, `chunks`: a list for each text, empty where that holds nothing but white space, of structs
        of char_start and char_end (code points of the text), byte_start and byte_end (of its UTF-8), tokens, section
        (the path of headings above, joined by " > ", or ""), text (exactly text[char_start:char_end], white space
        stripped) and text_hash (first 32 hexadecimal digits of the SHA-256 of its UTF-8). Without overlap and cuts,
        nothing but white space lies between chunks.

    Raises:
        UsageError: for an unknown strategy or a size out of range.
        ValueError: if cuts are not sorted, overlap or reach out of the text; if a function returned no such spans.
    """
    if not 0 <= overlap < max_tokens:
        raise UsageError(f"overlap ({overlap}) must be at least 0 and less than max_tokens ({max_tokens})")
    if target_tokens is not None and not 1 <= target_tokens <= max_tokens:
        raise UsageError(f"target_tokens ({target_tokens}) must be at least 1 and at most {max_tokens}")
    numerator, denominator = _TARGET_SHARE
    target = target_tokens or max(1, (max_tokens - overlap) * numerator // denominator)
    texts = ["" if text is None else text for text in table["text"].to_pylist()]
    sizes = Sizes(max_tokens, target, overlap)
    cut = partial(_chunk_texts, strategy=_strategy(strategy), sizes=sizes, counter=model)
    if "cuts" in table.column_names:
        return pa.table({"chunks": _chunks_array(_chunk_between(texts, table["cuts"].to_pylist(), cut))})
    return pa.table({"chunks": _chunks_array(cut(texts))})


def _strategy(name: str) -> Strategy:
    if is_function(name):
        return partial(split_by, load_function(name), name)
    if name not in STRATEGIES:
        known = ", ".join(STRATEGIES)
        raise UsageError(f"unknown chunk strategy {name!r}: one of {known}, or module:function")
    return STRATEGIES[name]


def _chunk_texts(
    texts: list[str], strategy: Strategy, sizes: Sizes, counter: TokenCounter
) -> list[list[Chunk]]:
    chunks: list[list[Chunk]] = []
    for group in groups(texts):
        chunks.extend(_chunk_group(group, strategy, sizes, counter))
    return chunks


def _chunk_between(
    texts: list[str], cuts: list[list[Cut] | None], cut: Callable[[list[str]], list[list[Chunk]]]
) -> list[list[Chunk]]:
    """Chunk what lies between the cuts of each text."""
    spans = [_between(text, each or []) for text, each in zip(texts, cuts, strict=True)]
    pieces = [text[start:end] for text, each in zip(texts, spans, strict=True) for start, end in each]
    found = iter(cut(pieces))
    result: list[list[Chunk]] = []
    for text, each in zip(texts, spans, strict=True):
        chunks = [(start, next(found)) for start, _ in each]
        is_whole = each == [(0, len(text))]
        result.append(chunks[0][1] if is_whole else _placed(text, chunks))
    return result


def _between(text: str, cuts: list[Cut]) -> list[Span]:
    """Return the pieces between the cuts that hold a letter or a digit; all of a text that has no cuts."""
    if not cuts:
        return [(0, len(text))]
    edges = [0, *(place for cut in cuts for place in (cut["start"], cut["end"])), len(text)]
    if any(edge > following for edge, following in pairwise(edges)):
        raise ValueError(f"cuts must be sorted, disjoint and inside the text of {len(text)} characters")
    pieces = zip(edges[::2], edges[1::2], strict=True)
    return [(start, end) for start, end in pieces if any(map(str.isalnum, text[start:end]))]


def _placed(text: str, pieces: list[tuple[int, list[Chunk]]]) -> list[Chunk]:
    """Shift the chunks of pieces to where these start in a text, under the headings that the whole of it has."""
    joined = join([text])
    boundaries = find_boundaries(joined, find_lines(joined), find_sentences(joined))
    starts = np.array([start + chunk[0] for start, chunks in pieces for chunk in chunks], dtype=np.intp)
    sections = iter(_sections(joined, boundaries, starts + joined.starts[0], np.zeros_like(starts)))
    bytes_before = _bytes_before(joined.codes)[joined.starts[0] :] - joined.starts[0]
    result: list[Chunk] = []
    for start, chunks in pieces:
        byte = int(bytes_before[start])
        for low, high, byte_low, byte_high, tokens, _, body, text_hash in chunks:
            places = (low + start, high + start, byte_low + byte, byte_high + byte)
            result.append((*places, tokens, next(sections), body, text_hash))
    return result


def _chunk_group(
    texts: list[str], strategy: Strategy, sizes: Sizes, counter: TokenCounter
) -> list[list[Chunk]]:
    joined = join(texts)
    layout = Layout(joined, TokenIndex(joined, counter.token_starts(joined)))
    spans = _stripped(joined.text, strategy(layout, sizes))
    spans, counts = _advancing(*_counted(layout, spans, sizes.most, counter))
    starts = np.array([start for start, _ in spans], dtype=np.intp)
    bodies = [joined.text[start:end] for start, end in spans]
    documents = np.searchsorted(joined.starts, starts, side="right") - 1
    sections = _sections(joined, layout.boundaries, starts, documents)
    offsets = joined.starts[documents]
    bytes_before = _bytes_before(joined.codes)
    byte_starts = bytes_before[starts] - bytes_before[offsets]
    result: list[list[Chunk]] = [[] for _ in texts]
    for document, start, byte_start, tokens, section, body in zip(
        documents.tolist(),
        (starts - offsets).tolist(),
        byte_starts.tolist(),
        counts,
        sections,
        bodies,
        strict=True,
    ):
        data = body.encode()
        span = (start, start + len(body), byte_start, byte_start + len(data))
        text_hash = hashlib.sha256(data).hexdigest()[:_HASH_DIGITS]
        result[document].append((*span, tokens, section, body, text_hash))
    return result


def _bytes_before(codes: npt.NDArray[np.uint32]) -> npt.NDArray[np.int64]:
    """Return how many bytes of UTF-8 stand before each code point, and before the end."""
    widths = 1 + (codes > 0x7F).astype(np.int64) + (codes > 0x7FF) + (codes > 0xFFFF)
    return np.concatenate(([0], np.cumsum(widths)))


def _stripped(text: str, spans: list[Span]) -> list[Span]:
    result = []
    for start, end in spans:
        body = text[start:end]
        stripped_start = start + len(body) - len(body.lstrip())
        stripped_end = start + len(body.rstrip())
        if stripped_start < stripped_end:
            result.append((stripped_start, stripped_end))
    return result


def _counted(
    layout: Layout, spans: list[Span], max_tokens: int, counter: TokenCounter
) -> tuple[list[Span], list[int]]:
    """Count the tokens of each span; halve those that are over the budget when they are encoded alone."""
    fitting: list[Span] = []
    fitting_counts: list[int] = []
    starts, ends = np.array(spans, dtype=np.intp).reshape(-1, 2).T
    for span, count in zip(spans, counter.counts(layout.tokens, starts, ends), strict=True):
        if count <= max_tokens or span[1] - span[0] == 1:
            fitting.append(span)
            fitting_counts.append(count)
        else:
            halves, counts = _counted(layout, _halves(layout, span), max_tokens, counter)
            fitting.extend(halves)
            fitting_counts.extend(counts)
    return fitting, fitting_counts


def _advancing(spans: list[Span], counts: list[int]) -> tuple[list[Span], list[int]]:
    """Leave out spans that lie within another one: half of a halved one may be overlap alone."""
    kept: list[tuple[Span, int]] = []
    for span, tokens in zip(spans, counts, strict=True):
        while kept and span[0] <= kept[-1][0][0] and kept[-1][0][1] <= span[1]:
            kept.pop()
        if not kept or span[1] > kept[-1][0][1]:
            kept.append((span, tokens))
    return [span for span, _ in kept], [tokens for _, tokens in kept]


def _halves(layout: Layout, span: Span) -> list[Span]:
    """Cut a span at the space nearest to its middle, or else between two characters there."""
    start, end = span
    middle = (start + end + 1) // 2
    places = np.arange(start + 1, end)
    whole = places[breakable(layout.joined.codes, layout.joined.flags, places)]
    words = layout.joined.word_starts
    for candidates in (words[np.searchsorted(words, start + 1) : np.searchsorted(words, end)], whole, places):
        if len(candidates):
            cut = int(candidates[np.argmin(np.abs(candidates - middle))])
            return _stripped(layout.joined.text, [(start, cut), (cut, end)])
    return [span]


def _sections(joined: Joined, boundaries: Boundaries, starts: Positions, documents: Positions) -> list[str]:
    if not boundaries.sections:
        return [""] * len(starts)
    index = np.searchsorted(boundaries.section_starts, starts, side="right") - 1
    inside = (index >= 0) & (boundaries.section_starts[index] >= joined.starts[documents])
    return [
        boundaries.sections[section] if found else ""
        for section, found in zip(index.tolist(), inside.tolist(), strict=True)
    ]


def _chunks_array(documents: Sequence[list[Chunk]]) -> pa.ListArray:
    offsets = np.zeros(len(documents) + 1, dtype=np.int32)
    np.cumsum([len(chunks) for chunks in documents], out=offsets[1:])
    fields = [CHUNK_TYPE.field(number) for number in range(CHUNK_TYPE.num_fields)]
    rows = [each for chunks in documents for each in chunks]
    columns = list(zip(*rows, strict=True)) if rows else [()] * len(fields)
    arrays = [pa.array(column, type=field.type) for column, field in zip(columns, fields, strict=True)]
    values = pa.StructArray.from_arrays(arrays, fields=fields)
    return pa.ListArray.from_arrays(pa.array(offsets), values, type=CHUNKS_TYPE)
