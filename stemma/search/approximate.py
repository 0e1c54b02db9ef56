"""The approximate index of vectors: a graph (HNSW) in a file beside the published one, named after its content.

The published file says which index is its own, by the SHA-256 of the index's file. So a reader never takes the index of
another state, and one that finds none, or one that is damaged, looks at every vector instead.
"""

import hashlib
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import duckdb
import numpy as np

from stemma.lineage.views import work_folder
from stemma.search.vectors import Floats, Numbers, unit

if TYPE_CHECKING:
    from usearch.index import Index

# Malkov and Yashunin (2018), "Efficient and robust approximate nearest neighbor search using HNSW graphs": neighbours
# of a node, and candidates looked at when one is put in. usearch's own defaults.
CONNECTIVITY = 16
EXPANSION_ADD = 128
# As the corpus has them, so that similarities are worked out from the index to the last digit.
PRECISION = "f32"
LIBRARY = "usearch"


def has_library() -> bool:
    """Tell whether the package of the extra `ann` is installed."""
    return importlib.util.find_spec(LIBRARY) is not None


def index_path(published: Path, digest: str) -> Path:
    """Return where the index of this SHA-256 lies that belongs to a published file."""
    return work_folder(published) / "vectors" / f"{digest}.{LIBRARY}"


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def new_index(dimensions: int) -> "Index":
    """Return an empty index by cosine, its keys being numbers of chunks in the text index."""
    from usearch.index import Index

    return Index(
        ndim=dimensions,
        metric="cos",
        dtype=PRECISION,
        connectivity=CONNECTIVITY,
        expansion_add=EXPANSION_ADD,
    )


def load_index(path: Path, digest: str, size: int, *, view: bool) -> "Index":
    """Open an index, to be changed or (`view`) only to be read, straight from the file.

    Raises:
        OSError: if there is no such file, or it cannot be read.
        ValueError: if its bytes are others than they were.
    """
    if path.stat().st_size != size or file_digest(path) != digest:
        raise ValueError(f"{path}: damaged")
    from usearch.index import Index

    index = Index.restore(path, view=view)
    if index is None:
        raise ValueError(f"{path}: not an index of {LIBRARY}")
    index.expansion_add = EXPANSION_ADD  # type: ignore[misc]  # the library declares its setters apart
    return index


@dataclass
class Neighbours:
    """The index that belongs to a published file.

    Attributes:
        index: opened to be read.
        expansion: candidates that a search looks at, at least.
    """

    index: "Index"
    expansion: int

    def __len__(self) -> int:
        return len(self.index)

    def nearest(self, query: Floats, count: int) -> Numbers:
        """Return the numbers of the `count` chunks nearest to a query, but for those that the search misses.

        It misses none where half of them are asked for: then each is looked at, which takes hardly longer.
        """
        self.index.expansion_search = max(self.expansion, count)  # type: ignore[misc]
        exact = 2 * count >= len(self.index)
        return np.asarray(self.index.search(query, count, exact=exact).keys).astype(np.int64)

    def similarities(self, query: Floats, numbers: Numbers) -> Floats:
        """Return the cosine similarity of a query of length 1 to each chunk, -inf where there is no vector."""
        keys = numbers.astype(np.uint64)
        scores = np.full(len(keys), -np.inf, np.float32)
        there = np.atleast_1d(self.index.contains(keys))
        if there.any():
            scores[there] = np.vecdot(unit(np.asarray(self.index.get(keys[there]))), query)
        return scores


def open_neighbours(connection: duckdb.DuckDBPyConnection, warn: Callable[[str], None]) -> Neighbours | None:
    """Open the index of a published file; None where it has none that can be used.

    `warn` is told of one that is damaged. One that is not there is not missed: the file may be a copy, or a later one
    may have been published since it was opened.
    """
    try:
        row = connection.execute("SELECT digest, bytes, expansion FROM search.vector_index").fetchone()
        place = connection.execute(
            "SELECT path FROM duckdb_databases() WHERE database_name = current_database()"
        ).fetchone()
    except duckdb.CatalogException:
        return None
    if row is None or place is None or place[0] is None or not has_library():
        return None
    digest, size, expansion = row
    path = index_path(Path(place[0]), digest)
    try:
        return Neighbours(load_index(path, digest, size, view=True), expansion)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RuntimeError) as error:
        warn(f"{error}; every vector is looked at instead (the next run that changes vectors makes it anew)")
        return None
