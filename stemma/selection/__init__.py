"""Subsets of a corpus: by diversity, by coverage, or by likeness to examples."""

from stemma.selection.vectors import Selection, alike, covering, diverse, document_vectors

__all__ = ["Selection", "alike", "covering", "diverse", "document_vectors"]
