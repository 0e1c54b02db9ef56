"""Stemma: piles of documents into a corpus for retrieval or training, incrementally and with lineage."""

__version__ = "0.1.0"
