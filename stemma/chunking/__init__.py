"""Chunks: exact spans of the cleaned text, no longer than a budget of tokens, with their heading path."""

from stemma.chunking.chunker import CHUNKS_TYPE, STRATEGIES, chunk
from stemma.chunking.tokens import TokenCounter, load_tokenizer

__all__ = ["CHUNKS_TYPE", "STRATEGIES", "TokenCounter", "chunk", "load_tokenizer"]
