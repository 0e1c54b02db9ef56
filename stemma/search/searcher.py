"""Search of a published corpus: by meaning, by words, or by both."""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from stemma.datasets import CLEANED
from stemma.errors import StemmaError, UsageError
from stemma.lineage.views import SOURCE_BYTES, source_places
from stemma.search.approximate import Neighbours, open_neighbours
from stemma.search.bm25 import Scores, bm25
from stemma.search.filters import checked_condition
from stemma.search.vectors import Vectors
from stemma.search.words import query_words

MODES = ("hybrid", "vector", "text")
# What the best chunk by words is worth beside a cosine similarity of 1. Chosen on two corpora of Chroma's evaluation
# (state of the union, wikitexts); benchmarks/RESULTS.md has the others, and XQuAD.
TEXT_WEIGHT = 0.5

# What a search by the approximate index takes of each kind of candidates at first.
CANDIDATES = 64

# Texts are read by row number: a join would read those of all rows.
_HITS = f"""
WITH hits AS (SELECT unnest($numbers::UINTEGER[]) AS number, unnest($score::DOUBLE[]) AS score,
        unnest($similarity::DOUBLE[]) AS similarity, unnest($bm25::DOUBLE[]) AS bm25),
    named AS MATERIALIZED (
        SELECT number, chunk_id FROM search.numbers WHERE number IN (SELECT number FROM hits)),
    best AS MATERIALIZED (
        SELECT h.*, chunk_id FROM hits AS h JOIN named USING (number) ORDER BY score DESC, chunk_id LIMIT $k),
    chunks AS MATERIALIZED (
        SELECT chunk_id, document_id, section, ordinal, char_start, char_end, byte_start, byte_end, text
        FROM main.chunked WHERE rowid IN (
            SELECT rowid FROM main.chunked WHERE chunk_id IN (SELECT chunk_id FROM best))),
    documents AS MATERIALIZED (SELECT document_id, title, origins, pii{{text}} FROM {CLEANED.base} WHERE rowid IN (
            SELECT rowid FROM {CLEANED.base} WHERE document_id IN (SELECT document_id FROM chunks))),
    {source_places("chunks", "documents")}
SELECT h.score, h.similarity, h.bm25, c.chunk_id::VARCHAR AS chunk_id, c.document_id::VARCHAR AS document_id,
    r.source, r.uri, r.record, d.title, c.section, c.ordinal, c.char_start, c.char_end, r.byte_start, r.byte_end,
    c.place, c.source_char_start, c.source_char_end, {SOURCE_BYTES},
    c.text, {{before}} AS before, {{after}} AS after
FROM best AS h JOIN places AS c USING (chunk_id)
JOIN main.raw AS r ON r.document_id = c.document_id JOIN documents AS d ON d.document_id = c.document_id
ORDER BY h.score DESC, c.chunk_id
"""
_BEFORE = "substring(d.text, greatest(c.char_start - $context, 0) + 1, least(c.char_start, $context))"
_AFTER = "substring(d.text, c.char_end + 1, $context)"

Numbers = npt.NDArray[np.intp]


@dataclass
class Searcher:
    """Answers queries about one published file; what it read for one it keeps for the next.

    Attributes:
        connection: to the file, read-only. One thread at a time may search.
        embed: makes a query's vector, by the model that embedded the corpus; None takes the connection's own
            (`stemma.open`). It is not called for mode "text".
        keep_bytes: vectors of up to this size stay in memory (see Vectors).
        warn: told of an approximate index that cannot be used.
    """

    connection: duckdb.DuckDBPyConnection
    embed: Callable[[str], Sequence[float]] | None = None
    keep_bytes: int = 1 << 31
    warn: Callable[[str], None] = warnings.warn
    _vectors: Vectors = field(init=False)

    def __post_init__(self) -> None:
        self._vectors = Vectors(self.connection, self.keep_bytes)

    def search(
        self,
        text: str,
        k: int = 10,
        *,
        mode: str = "hybrid",
        where: str | None = None,
        context: int = 0,
        text_weight: float = TEXT_WEIGHT,
        exact: bool = False,
    ) -> pa.Table:
        """Return the k best chunks for a text, best first; equal ones in the order of their ids.

        Each chunk is looked at; but where the corpus has an approximate index, there is no filter and vectors matter,
        the nearest by it and the best by words are, and chunks may be missed. Scores are the same either way.

        Args:
            text: what to look for.
            k: how many, at least 1.
            mode: "vector" ranks by cosine similarity, "text" by BM25 (only chunks that have a word of the text),
                "hybrid" by similarity + text_weight × BM25 / the highest BM25 of a chunk that is ranked.
            where: an SQL condition over the columns of search.chunks; only what meets it is ranked.
            context: characters of the document to show before and after each chunk.
            text_weight: of BM25 in hybrid search, at least 0.
            exact: look at each chunk all the same.

        Returns:
            Columns score, similarity and bm25 (DOUBLE, null where not worked out), chunk_id, document_id (text),
            source, uri, record, title, section, ordinal, char_start, char_end, byte_start and byte_end (of the record
            in its file), the chunk's own place as in lineage.trace: place (such as a page), source_char_start,
            source_char_end, source_byte_start and source_byte_end (null where they cannot be told), then text, before
            and after (of the cleaned text).

        Raises:
            UsageError: for an empty text, a bad argument or filter, or a vector of another length.
            StemmaError: if the file has no text index, or no vectors.
        """
        _check(text, k, mode, context, text_weight)
        if mode != "text" and where is None and not exact and self._neighbours is not None:
            words = bm25(self.connection, query_words(text), self._lengths) if mode == "hybrid" else None
            return self._nearest(self._neighbours, text, words, k, context, text_weight)
        wanted = self._wanted(where)
        similarity: Scores | None = None
        bm25_scores: Scores | None = None
        if mode != "text":
            similarity = self._vectors.similarities(self._embedded(text), len(self._lengths)).astype(float)
            wanted &= similarity > -np.inf
        if mode != "vector":
            bm25_scores = bm25(self.connection, query_words(text), self._lengths)
        if similarity is None:
            assert bm25_scores is not None
            score = bm25_scores
            wanted &= score > 0
        elif bm25_scores is None:
            score = similarity
        else:
            highest = bm25_scores.max(initial=0.0, where=wanted)
            score = similarity + text_weight * bm25_scores / (highest or 1.0)
        best = _best(score, wanted, k)
        scores = {"score": score, "similarity": similarity, "bm25": bm25_scores}
        listed = {name: None if values is None else values[best] for name, values in scores.items()}
        return self._hits(best, k, context, **listed)

    def _nearest(
        self, index: Neighbours, text: str, words: Scores | None, k: int, context: int, text_weight: float
    ) -> pa.Table:
        """Search by the approximate index, and by the words' scores if they are given.

        More candidates of both are taken until nothing that is in neither could be among the best (the threshold
        algorithm of Fagin, Lotem and Naor 2003).
        """
        query = self._vectors.fitting(self._embedded(text))
        reach = max(k, CANDIDATES)
        while True:
            near = index.nearest(query, reach)
            by_words = _highest(words, reach) if words is not None else near[:0]
            numbers = np.union1d(near, by_words)
            similarity = index.similarities(query, numbers).astype(float)
            score, highest = similarity, 1.0
            if words is not None:
                highest = words[numbers].max(initial=0.0, where=similarity > -np.inf) or 1.0
                score = similarity + text_weight * words[numbers] / highest
            best = _best(score, similarity > -np.inf, k)
            beyond = float(similarity[np.isin(numbers, near)].min(initial=1.0))
            if words is not None and len(by_words) >= reach:
                beyond += text_weight * float(words[by_words].min()) / highest
            if reach >= len(index) or (len(best) >= k and score[best].min() >= beyond):
                break
            reach *= 4
        chosen = None if words is None else words[numbers[best]]
        return self._hits(
            numbers[best], k, context, score=score[best], similarity=similarity[best], bm25=chosen
        )

    @cached_property
    def _neighbours(self) -> Neighbours | None:
        return open_neighbours(self.connection, self.warn)

    def _embedded(self, text: str) -> Sequence[float]:
        if self.embed is not None:
            return self.embed(text)
        row = self.connection.execute("SELECT embed(?)", [text]).fetchone()
        assert row is not None
        vector: Sequence[float] = row[0]
        return vector

    @cached_property
    def _lengths(self) -> npt.NDArray[np.int32]:
        """Words of each chunk by its number in the text index, -1 for numbers that no chunk has."""
        try:
            cursor = self.connection.execute("SELECT number, words FROM search.numbers")
        except duckdb.CatalogException as error:
            raise StemmaError(
                "the published file has no text index: it is of an older version; 'stemma run' makes it"
            ) from error
        columns = cursor.fetchnumpy()
        numbers = np.asarray(columns["number"])
        lengths = np.full(int(numbers.max(initial=0)) + 1, -1, np.int32)
        lengths[numbers] = columns["words"]
        return lengths

    def _wanted(self, where: str | None) -> npt.NDArray[np.bool_]:
        alive = self._lengths >= 0
        if where is None:
            return alive
        condition = checked_condition(self.connection, where)
        query = f"""SELECT number FROM search.numbers
            WHERE chunk_id IN (SELECT chunk_id FROM search.chunks WHERE ({condition}))"""
        try:
            numbers = self.connection.execute(query).fetchnumpy()["number"]
        except duckdb.Error as error:
            raise UsageError(f"{where!r}: {str(error).splitlines()[0]}") from error
        meets = np.zeros(len(alive), bool)
        meets[np.asarray(numbers)] = True
        return alive & meets

    def _hits(self, numbers: Numbers, k: int, context: int, **scores: Scores | None) -> pa.Table:
        listed = {
            name: [None] * len(numbers) if values is None else values.tolist()
            for name, values in scores.items()
        }
        parameters = {"numbers": numbers.tolist(), **listed, "k": k}
        if not context:
            query = _HITS.format(text="", before="''", after="''")
            return self.connection.execute(query, parameters).to_arrow_table()
        query = _HITS.format(text=", text", before=_BEFORE, after=_AFTER)
        return self.connection.execute(query, {**parameters, "context": context}).to_arrow_table()


def _check(text: str, k: int, mode: str, context: int, text_weight: float) -> None:
    if not text.strip():
        raise UsageError("nothing to look for: the text is empty")
    if mode not in MODES:
        raise UsageError(f"unknown mode {mode!r}: one of {', '.join(MODES)}")
    for name, value, lowest in (("k", k, 1), ("context", context, 0), ("text_weight", text_weight, 0)):
        if value < lowest:
            raise UsageError(f"{name} must be at least {lowest}, not {value}")


def _best(scores: Scores, wanted: npt.NDArray[np.bool_], k: int) -> Numbers:
    """Return the positions of the k highest scores among the wanted, and of all that equal the last of them."""
    positions = np.flatnonzero(wanted)
    ranked = scores[positions]
    if len(ranked) <= k:
        return positions
    least = np.partition(ranked, len(ranked) - k)[len(ranked) - k]
    return positions[ranked >= least]


def _highest(scores: Scores, count: int) -> Numbers:
    """Return the positions of the `count` highest scores above 0."""
    positions = np.flatnonzero(scores > 0)
    if len(positions) <= count:
        return positions
    return positions[np.argpartition(scores[positions], len(positions) - count)[-count:]]
