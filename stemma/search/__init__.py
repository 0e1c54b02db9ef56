"""Search of the published corpus, by vectors, by words and by both."""

from stemma.search.searcher import MODES, TEXT_WEIGHT, Searcher

__all__ = ["MODES", "TEXT_WEIGHT", "Searcher"]
