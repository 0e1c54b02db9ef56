"""Search of the published corpus."""

from stemma.search.vectors import search

__all__ = ["search"]
