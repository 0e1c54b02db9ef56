"""The order of priority among documents, in SQL: the same that the families go by."""

from collections.abc import Callable

import numpy as np
import pyarrow as pa

from stemma.resources.engine.run import Run
from stemma.resources.memo import quoted


def source_rank(run: Run, source: str) -> int:
    """Return the place of a source among the precious ones; all others share the last."""
    priority = run.config.deduplicate.priority
    return priority.index(source) if source in priority else len(priority)


def source_ranks(run: Run, sources: pa.ChunkedArray) -> np.ndarray:
    """Return the place of each source (string) among the precious ones (int64)."""
    names = sources.combine_chunks().dictionary_encode()
    ranks = [source_rank(run, name) for name in names.dictionary.to_pylist()]
    return np.array(ranks, np.int64)[names.indices.to_numpy()]


def by_priority(run: Run) -> str:
    """Return the order of priority in SQL, over the columns of dedup_documents."""
    keep = run.config.deduplicate.keep
    best = {"longest": "length DESC,", "best": "quality DESC NULLS LAST,"}.get(keep, "")
    rank = by_source(run, "source", lambda source: source_rank(run, source))
    return f"{rank}, {best} document_date {'DESC' if keep == 'newest' else 'ASC'} NULLS LAST, document_id"


def by_source(run: Run, column: str, value: Callable[[str], int | bool]) -> str:
    """Return the SQL expression of a value that depends on the source in a column.

    Sources that the configuration does not name any more all have one.
    """
    names = {"", *(source.name for source in run.config.sources), *run.config.deduplicate.priority}
    cases = "".join(f" WHEN {quoted(name)} THEN {value(name)}" for name in sorted(names))
    return f"(CASE {column}{cases} ELSE {value('')} END)"
