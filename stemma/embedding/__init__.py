"""Vectors of chunks: by a sentence-transformers model, or by feature hashing without any model."""

from stemma.embedding.encoding import encode, encode_query
from stemma.embedding.feature_hashing import hash_embed
from stemma.embedding.graph import encode_graph, encode_graph_query

__all__ = ["encode", "encode_graph", "encode_graph_query", "encode_query", "hash_embed"]
