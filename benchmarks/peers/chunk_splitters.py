"""Splitters of other libraries, each as its users would set it up, with MiniLM's tokenizer or that of the report.

Reads a JSON list of texts, and prints a JSON line for each splitter asked for: the chunks of each text, and the
seconds that splitting took, the tokenizer being loaded. Splitters are named `name/size/overlap`.
"""

import argparse
import json
import os
import time
from collections.abc import Callable
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

Split = Callable[[str], list[str]]


def openai_encoding() -> Any:
    """The encoding of the report, cl100k, from the copy that llama-index carries."""
    (folder,) = find_spec("llama_index.core").submodule_search_locations
    os.environ["TIKTOKEN_CACHE_DIR"] = str(Path(folder) / "_static/tiktoken_cache")
    import tiktoken

    return tiktoken.get_encoding("cl100k_base")


def chroma_recursive(size: int, overlap: int, _tokenizer: Tokenizer) -> Split:
    """The report's RecursiveTokenChunker: LangChain's splitter with stops among the separators."""
    from langchain_text_splitters import RecursiveCharacterTextSplitter

    encoding = openai_encoding()
    return RecursiveCharacterTextSplitter(
        separators=["\n\n", "\n", ".", "?", "!", " ", ""],
        chunk_size=size,
        chunk_overlap=overlap,
        length_function=lambda text: len(encoding.encode(text, disallowed_special=())),
    ).split_text


def chroma_tokens(size: int, overlap: int, _tokenizer: Tokenizer) -> Split:
    """The report's TokenTextSplitter: windows of tokens."""
    encoding = openai_encoding()

    def split(text: str) -> list[str]:
        tokens = encoding.encode(text, disallowed_special=())
        starts = range(0, max(len(tokens) - overlap, 1), size - overlap)
        return [encoding.decode(tokens[start : start + size], errors="ignore") for start in starts]

    return split


def langchain_recursive(size: int, overlap: int, tokenizer: Tokenizer) -> Split:
    from langchain_text_splitters import RecursiveCharacterTextSplitter

    return RecursiveCharacterTextSplitter(
        chunk_size=size, chunk_overlap=overlap, length_function=lambda text: count(tokenizer, text)
    ).split_text


def llama_index(size: int, overlap: int, tokenizer: Tokenizer) -> Split:
    from llama_index.core.node_parser import SentenceSplitter

    return SentenceSplitter(
        chunk_size=size,
        chunk_overlap=overlap,
        tokenizer=lambda text: tokenizer.encode(text, add_special_tokens=False).ids,
    ).split_text


def semchunk(size: int, overlap: int, tokenizer: Tokenizer) -> Split:
    from semchunk import chunkerify

    chunker = chunkerify(lambda text: count(tokenizer, text), size)
    return lambda text: chunker(text, overlap=overlap or None)


def chonkie(kind: str) -> Callable[[int, int, Tokenizer], Split]:
    def make(size: int, overlap: int, tokenizer: Tokenizer) -> Split:
        import chonkie as library

        settings = {} if kind == "RecursiveChunker" else {"chunk_overlap": overlap}
        chunker = getattr(library, kind)(tokenizer=tokenizer, chunk_size=size, **settings)
        return lambda text: [chunk.text for chunk in chunker.chunk(text)]

    return make


SPLITTERS = {
    "chroma-recursive": chroma_recursive,
    "chroma-tokens": chroma_tokens,
    "langchain": langchain_recursive,
    "llama-index": llama_index,
    "semchunk": semchunk,
    "chonkie-token": chonkie("TokenChunker"),
    "chonkie-sentence": chonkie("SentenceChunker"),
    "chonkie-recursive": chonkie("RecursiveChunker"),
}


def count(tokenizer: Tokenizer, text: str) -> int:
    return len(tokenizer.encode(text, add_special_tokens=False).ids)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--texts", type=Path, required=True, help="JSON list of texts")
    parser.add_argument("--tokenizer", required=True, help="tokenizer.json of the model")
    parser.add_argument("splitters", nargs="+", metavar="NAME/SIZE/OVERLAP")
    arguments = parser.parse_args()
    texts = json.loads(arguments.texts.read_text(encoding="utf-8"))
    tokenizer = Tokenizer.from_file(arguments.tokenizer)
    tokenizer.no_truncation()
    tokenizer.no_padding()
    for splitter in arguments.splitters:
        name, size, overlap = splitter.split("/")
        split = SPLITTERS[name](int(size), int(overlap), tokenizer)
        split("One text first. It loads what is loaded late.")
        started = time.perf_counter()
        chunks = [split(text) if text.strip() else [] for text in texts]
        seconds = time.perf_counter() - started
        print(json.dumps({"splitter": splitter, "seconds": seconds, "chunks": chunks}), flush=True)
    libraries = (
        "chonkie",
        "semchunk",
        "langchain-text-splitters",
        "llama-index-core",
        "tiktoken",
        "tokenizers",
    )
    print(json.dumps({"versions": {library: version(library) for library in libraries}}))


if __name__ == "__main__":
    main()
