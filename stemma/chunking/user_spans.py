"""A user's own way to cut: what it returns, checked."""

from collections.abc import Callable, Iterable
from operator import index
from typing import Any

from stemma.chunking.strategies import Layout, Sizes, Span, limited

# Called with a text, the most tokens of a chunk and the overlap; returns (start, end) in code points of the text.
Splitter = Callable[[str, int, int], Iterable[tuple[int, int]]]


def split_by(splitter: Splitter, name: str, layout: Layout, sizes: Sizes) -> list[Span]:
    """Cut each text where a function says. What is over the limit is cut further, as `recursive` does.

    Raises:
        ValueError: what the function returned are not spans of the text in order, with nothing but white space left
            out between them. It names the function and the place.
    """
    spans: list[Span] = []
    for start, text in zip(layout.joined.starts.tolist(), layout.joined.texts, strict=True):
        found = _checked(name, text, splitter(text, sizes.most, sizes.overlap)) if text.strip() else []
        spans.extend((start + low, start + high) for low, high in found)
    return limited(layout, spans, sizes.most)


def _checked(name: str, text: str, returned: Any) -> list[Span]:
    try:
        spans = [(index(start), index(end)) for start, end in returned]
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name} must return pairs of whole numbers, (start, end): {error}") from error
    done, last_start = 0, -1
    for start, end in spans:
        if not 0 <= start < end <= len(text):
            raise ValueError(f"{name} returned ({start}, {end}) for a text of {len(text)} characters")
        if start <= last_start or end <= done:
            raise ValueError(
                f"{name} returned ({start}, {end}) after a span to {done}: they must be in order"
            )
        _check_between(name, text, done, start)
        done, last_start = end, start
    _check_between(name, text, done, len(text))
    return spans


def _check_between(name: str, text: str, start: int, end: int) -> None:
    if lost := text[start:end].strip():
        raise ValueError(f"{name} left out characters {start} to {end}: {lost[:40]!r}")
