"""What chunks say of themselves, without questions and without a model."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from stemma.chunking.boundaries import find_boundaries, find_sentences
from stemma.chunking.characters import WHITE
from stemma.chunking.joined import Joined, Positions, groups, join
from stemma.chunking.lines import find_lines
from stemma.chunking.similarity import cohesion

# Sentences on each side of a place that are compared.
_BLOCK = 4


def intrinsic_scores(table: pa.Table) -> dict[str, float]:
    """Score the chunks of texts by their boundaries and sizes.

    Args:
        table: with the columns `text` (string) and `chunks`, as `stemma.chunking.chunk` returns it.

    Returns:
        Numbers: `chunks`; `tokens` (mean of a chunk); and from 0 to 1, more being better:

        - `whole`: share of the chunks that begin and end where a sentence, list item, table row or line of code does
        - `even`: mean size over mean and standard deviation; 1 where all have the same
        - `separation`: the chance that the text is more alike on both sides of a place where it was not cut than at
          a cut that is up to four sentences (items, lines) away; 0.5 for cuts at random
        - `score`: the mean of these three

        Without chunks all are 0; `separation` is 0.5 where nothing was cut, or everything.
    """
    texts = ["" if text is None else text for text in table["text"].to_pylist()]
    chunks = table["chunks"].to_pylist()
    tokens = np.array([each["tokens"] for row in chunks for each in row], dtype=np.float64)
    if not len(tokens):
        return dict.fromkeys(("chunks", "tokens", "whole", "even", "separation", "score"), 0.0)
    whole, won, compared, done = 0, 0.0, 0, 0
    for group in groups(texts):
        found = _group(group, chunks[done : done + len(group)])
        done += len(group)
        whole, won, compared = whole + found[0], won + found[1], compared + found[2]
    parts = {
        "whole": whole / len(tokens),
        "even": float(tokens.mean() / (tokens.mean() + tokens.std())),
        "separation": won / compared if compared else 0.5,
    }
    sizes = {"chunks": float(len(tokens)), "tokens": float(tokens.mean())}
    return {**sizes, **parts, "score": sum(parts.values()) / len(parts)}


def _group(texts: list[str], chunks: list[list[dict[str, Any]]]) -> tuple[int, float, int]:
    """Return how many chunks are whole, and what `_won` finds of where they are cut."""
    joined = join(texts)
    boundaries = find_boundaries(joined, find_lines(joined), find_sentences(joined))
    firsts = joined.first_words()
    units = np.union1d(boundaries.positions, firsts[firsts < joined.ends])
    offsets = np.repeat(joined.starts, [len(row) for row in chunks])
    starts = offsets + _column(chunks, "char_start")
    ends = _following(joined, offsets + _column(chunks, "char_end"))
    last = np.repeat(joined.ends, [len(row) for row in chunks])
    whole = np.isin(starts, units) & (np.isin(ends, units) | (ends >= last))
    inside = ~np.isin(units, firsts)
    documents = np.searchsorted(joined.starts, units, side="right") - 1
    similar = cohesion(joined, units, _BLOCK)
    won = _won(similar[inside], np.isin(units, starts)[inside], documents[inside])
    return int(whole.sum()), *won


def _column(chunks: list[list[dict[str, Any]]], name: str) -> Positions:
    return np.array([each[name] for row in chunks for each in row], dtype=np.intp)


def _following(joined: Joined, ends: Positions) -> Positions:
    """Return the first position from each end on that is not white space."""
    words = np.append(joined.word_starts, len(joined.codes))
    at_white = (joined.flags[ends] & WHITE) != 0
    return np.where(at_white, words[np.searchsorted(joined.word_starts, ends)], ends)


def _won(
    similar: npt.NDArray[np.float64], cut: npt.NDArray[np.bool_], documents: Positions
) -> tuple[float, int]:
    """Compare each cut with the places around it that are not cut: how often these are more alike, and of how many.

    A tie is half of one. Only neighbours are compared: in a table or list everything is less alike than in prose.
    """
    won, compared = 0.0, 0
    for distance in range(1, _BLOCK + 1):
        together = documents[distance:] == documents[:-distance]
        for here, there in (
            (slice(distance, None), slice(-distance)),
            (slice(-distance), slice(distance, None)),
        ):
            chosen = together & cut[here] & ~cut[there]
            difference = similar[there][chosen] - similar[here][chosen]
            won += float((difference > 0).sum() + (difference == 0).sum() / 2)
            compared += len(difference)
    return won, compared
