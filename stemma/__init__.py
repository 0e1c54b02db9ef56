"""Stemma: piles of documents into a corpus for retrieval or training, incrementally and with lineage."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import os

    import duckdb

__version__ = "0.1.0"


def open(
    corpus: str | os.PathLike[str] | None = None, *, as_of: str | None = None
) -> duckdb.DuckDBPyConnection:
    """Open a published corpus read-only in DuckDB, with `embed(text)` as an SQL function.

    `corpus` is a stemma.toml or a published file; None takes the configuration that the command line would take.
    `as_of` is a run (its id, the beginning of it, or "-1" for the last publication but one): then everything is as it
    was published when that run had ended. Raises StemmaError when nothing has been published yet, and for a run that
    the file cannot answer for.
    """
    from stemma.search.corpus import open_corpus

    return open_corpus(corpus, as_of=as_of)
