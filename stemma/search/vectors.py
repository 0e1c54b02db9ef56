"""Cosine similarity of a query to every vector of the corpus: exact, by looking at each."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import duckdb
import numpy as np
import numpy.typing as npt

from stemma.errors import StemmaError, UsageError

Floats = npt.NDArray[np.float32]
Numbers = npt.NDArray[np.int64]

# Rows that are read and multiplied at once.
BATCH_ROWS = 16_384


@dataclass
class Vectors:
    """The vectors of a published corpus by their chunks' numbers in the text index.

    Attributes:
        keep_bytes: up to this size they stay in memory, scaled to length 1, after they were first read: 100,000 of 384
            dimensions are then looked through in 5 ms. Larger ones are read for each query anew.
    """

    connection: duckdb.DuckDBPyConnection
    keep_bytes: int = 1 << 31
    _kept: list[tuple[Numbers, Floats]] = field(default_factory=list)

    def similarities(self, query: Sequence[float], size: int) -> Floats:
        """Return the cosine similarity to each of `size` numbers, -inf where there is no vector.

        Raises UsageError for a query of another length, StemmaError where the corpus has no vectors.
        """
        scores = np.full(size, -np.inf, np.float32)
        wanted = self.fitting(query)
        for numbers, vectors in self._batches(len(wanted)):
            # Each row for itself: in a matrix product the last digits depend on the other rows.
            scores[numbers] = np.vecdot(vectors, wanted)
        return scores

    def fitting(self, query: Sequence[float]) -> Floats:
        """Return a query scaled to length 1; raises as `similarities` does."""
        description = (
            self.connection.execute("SELECT embedding FROM corpus.embedded LIMIT 0").description or []
        )
        found = re.search(r"\[(\d+)\]$", str(description[0][1]))
        if found is None:
            raise StemmaError(f"corpus.embedded has no vectors of a fixed length, but {description[0][1]}")
        if int(found[1]) != len(query):
            raise UsageError(
                f"the query has {len(query)} dimensions and the corpus {found[1]}: "
                "it was embedded by another model"
            )
        return unit(np.array(query, np.float32)[None, :])[0]

    def _batches(self, dimensions: int) -> Iterator[tuple[Numbers, Floats]]:
        if self._kept:
            yield from self._kept
            return
        kept, room = [], self.keep_bytes
        reader = self.connection.execute(
            f"""SELECT n.number, e.embedding::FLOAT[{dimensions}] AS embedding
            FROM corpus.embedded AS e JOIN search.numbers AS n USING (chunk_id)"""
        ).to_arrow_reader(BATCH_ROWS)
        for batch in reader:
            numbers = batch["number"].to_numpy().astype(np.int64)
            vectors = unit(batch["embedding"].flatten().to_numpy().reshape(-1, dimensions))
            room -= vectors.nbytes
            if room >= 0:
                kept.append((numbers, vectors))
            yield numbers, vectors
        if room >= 0:
            self._kept = kept


def unit(vectors: Floats) -> Floats:
    """Return vectors scaled to length 1; one of zeros as it is."""
    lengths = np.sqrt(np.einsum("ij,ij->i", vectors, vectors, dtype=np.float32))
    lengths[lengths == 0] = 1
    return vectors / lengths[:, None]
