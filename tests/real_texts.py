"""Texts of the shared corpora, as tests and benchmarks of the filters read them."""

import gzip
import json
import lzma
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def real_texts(shared: Path) -> dict[str, list[str]]:
    """Return texts by corpus: licences, PEPs, web pages, articles, documentation, and two of many languages."""
    data = shared / "data"
    truth = json.loads((data / "c1_article_extraction" / "ground-truth.json").read_text(encoding="utf-8"))
    files = sorted((data / "a1_sample_registry").rglob("*"))
    return {
        "licences": [row["text"] for row in _rows(data / "b4_licence_clusters" / "docs.jsonl.gz")],
        "peps": [row["text"] for row in _rows(data / "a4_pep_events" / "base.jsonl.xz")],
        "pages": [row["main_content"] for row in _rows(data / "c4_wcxb" / "pages.jsonl.xz")],
        "articles": [truth[name]["articleBody"] for name in sorted(truth)],
        "files": [
            path.read_text(encoding="utf-8", errors="replace")
            for path in files
            if path.suffix in (".txt", ".html", ".md")
        ],
        "paragraphs": [
            text
            for path in sorted((data / "d2_xquad").glob("*.gz"))
            for text in xquad(shared, path.name[6:8])
        ],
        "declarations": [row["text"] for row in _rows(data / "e1_udhr" / "udhr.jsonl.gz")],
    }


def xquad(shared: Path, language: str) -> list[str]:
    """Return the paragraphs of one language."""
    return [row["context"] for row in _rows(shared / "data" / "d2_xquad" / f"xquad.{language}.jsonl.gz")]


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    opened = gzip.open if path.suffix == ".gz" else lzma.open
    with opened(path, "rt", encoding="utf-8") as lines:
        yield from map(json.loads, lines)
