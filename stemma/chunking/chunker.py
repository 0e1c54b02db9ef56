"""The stage that cuts cleaned texts into chunks."""

import hashlib
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from stemma.chunking.characters import breakable
from stemma.chunking.joined import Positions, groups, join
from stemma.chunking.strategies import Layout, Span, fixed, recursive, structure
from stemma.chunking.tokens import TokenCounter, TokenIndex
from stemma.errors import UsageError

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

STRATEGIES: dict[str, Callable[[Layout, int, int], list[Span]]] = {
    "structure": structure,
    "recursive": recursive,
    "fixed": fixed,
}
_HASH_DIGITS = 32

# char_start, char_end, byte_start, byte_end, tokens, section, text, text_hash
Chunk = tuple[int, int, int, int, int, str, str, str]


def chunk(
    table: pa.Table, *, strategy: str, max_tokens: int, overlap: int, tokenizer: str, model: TokenCounter
) -> pa.Table:
    """Cut each text into chunks.

    Args:
        table: with the column `text` (string), the cleaned text.
        strategy: "structure" (headings, paragraphs, list items, sentences, by the cheapest cuts), "recursive"
            (paragraph, line, sentence, word, character) or "fixed" (windows of tokens).
        max_tokens: no chunk has more tokens, special tokens not counted, nor 16 times as many bytes.
        overlap: tokens at most that a chunk repeats of the one before; less than `max_tokens`.
        tokenizer: names the counter that `model` is; it is part of the recipe and not used otherwise.
        model: what `load_tokenizer` gave.

    Returns:
        One column, `chunks`: a list for each text, empty where that holds nothing but white space, of structs
        of char_start and char_end (code points of the text), byte_start and byte_end (of its UTF-8), tokens, section
        (the path of headings above, joined by " > ", or ""), text (exactly text[char_start:char_end], white space
        stripped) and text_hash (first 32 hexadecimal digits of the SHA-256 of its UTF-8). Without overlap, nothing
        but white space lies between chunks.

    Raises:
        UsageError: for an unknown strategy or a size out of range.
    """
    if strategy not in STRATEGIES:
        raise UsageError(f"unknown chunk strategy {strategy!r}: one of {', '.join(STRATEGIES)}")
    if not 0 <= overlap < max_tokens:
        raise UsageError(f"overlap ({overlap}) must be at least 0 and less than max_tokens ({max_tokens})")
    texts = ["" if text is None else text for text in table["text"].to_pylist()]
    chunks: list[list[Chunk]] = []
    for group in groups(texts):
        chunks.extend(_chunk_group(group, strategy, max_tokens, overlap, model))
    return pa.table({"chunks": _chunks_array(chunks)})


def _chunk_group(
    texts: list[str], strategy: str, max_tokens: int, overlap: int, counter: TokenCounter
) -> list[list[Chunk]]:
    joined = join(texts)
    layout = Layout(joined, TokenIndex(joined, counter.token_starts(joined)))
    spans = _stripped(joined.text, STRATEGIES[strategy](layout, max_tokens, overlap))
    spans, counts = _counted(layout, spans, max_tokens, counter)
    starts = np.array([start for start, _ in spans], dtype=np.intp)
    bodies = [joined.text[start:end] for start, end in spans]
    documents = np.searchsorted(joined.starts, starts, side="right") - 1
    sections = _sections(layout, starts, documents)
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
    text = layout.joined.text
    counts = counter.count([text[start:end] for start, end in spans])
    if counts is None:
        starts, ends = np.array(spans, dtype=np.intp).reshape(-1, 2).T
        return spans, (layout.tokens.last(ends) - layout.tokens.first(starts)).tolist()
    fitting: list[Span] = []
    fitting_counts: list[int] = []
    for span, tokens in zip(spans, counts, strict=True):
        if tokens <= max_tokens or span[1] - span[0] == 1:
            fitting.append(span)
            fitting_counts.append(tokens)
        else:
            halves, halves_counts = _counted(layout, _halves(layout, span), max_tokens, counter)
            fitting.extend(halves)
            fitting_counts.extend(halves_counts)
    return fitting, fitting_counts


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


def _sections(layout: Layout, starts: Positions, documents: Positions) -> list[str]:
    boundaries = layout.boundaries
    if not boundaries.sections:
        return [""] * len(starts)
    index = np.searchsorted(boundaries.section_starts, starts, side="right") - 1
    inside = (index >= 0) & (boundaries.section_starts[index] >= layout.joined.starts[documents])
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
