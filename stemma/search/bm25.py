"""BM25 scores of all chunks for a query, from the postings of the published text index."""

from collections.abc import Sequence

import duckdb
import numpy as np
import numpy.typing as npt

from stemma.search.words import QueryWord

# Robertson and Zaragoza (2009), "The probabilistic relevance framework: BM25 and beyond", with Lucene's parameters and
# its inverse document frequency, which is never negative.
SATURATION = 1.2
LENGTH_WEIGHT = 0.75

Scores = npt.NDArray[np.float64]


def bm25(
    connection: duckdb.DuckDBPyConnection, words: Sequence[QueryWord], lengths: npt.NDArray[np.int32]
) -> Scores:
    """Score the chunks of a corpus for the words of a query.

    Args:
        connection: to a published file, for search.posting_rows.
        words: in one order, so that sums are the same to the last bit.
        lengths: words of each chunk by its number in the index, -1 where there is no such chunk (any more).

    Returns:
        A score for each number, 0 where no word is found.
    """
    scores = np.zeros(len(lengths))
    alive = lengths >= 0
    chunks = np.count_nonzero(alive)
    if not words or not chunks:
        return scores
    relative = lengths / max(1.0, float(lengths[alive].mean()))
    saturation = SATURATION * (1 - LENGTH_WEIGHT + LENGTH_WEIGHT * relative)
    for frequency in _frequencies(connection, words, len(lengths)):
        frequency[~alive] = 0
        found = np.flatnonzero(frequency)
        if len(found):
            rarity = np.log(1 + (chunks - len(found) + 0.5) / (len(found) + 0.5))
            times = frequency[found]
            scores[found] += rarity * times * (SATURATION + 1) / (times + saturation[found])
    return scores


def _frequencies(
    connection: duckdb.DuckDBPyConnection, words: Sequence[QueryWord], size: int
) -> list[Scores]:
    """Return how often each word of the query stands in each chunk, in the order of the words."""
    # Bounds of a scan are looked up among the smallest and largest words of row groups; those of a join are not.
    part = (
        "SELECT {}::USMALLINT AS place, number, frequency FROM search.posting_rows WHERE word BETWEEN ? AND ?"
    )
    query = " UNION ALL ".join(part.format(place) for place in range(len(words)))
    bounds = [bound for word in words for bound in (word.low, word.high)]
    table = connection.execute(query, bounds).to_arrow_table()
    place, number, frequency = (table[name].to_numpy() for name in ("place", "number", "frequency"))
    order = np.argsort(place, kind="stable")
    ends = np.searchsorted(place[order], np.arange(1, len(words)))
    return [
        np.bincount(number[rows], frequency[rows], size).astype(np.float64, copy=False)
        for rows in np.split(order, ends)
    ]
