"""Poison among many: documents that make a stage raise, hang or eat memory cost themselves, and nothing else.

The stages' own helpers are made to do so, in this process and in the worker processes that it starts, for texts that
hold a word; what a broken file does to a parser is in test_workers.py and test_hostile.py.
"""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from harness import POISON, Corpus, poison, sentence, slow

from stemma.resources import workers

# What the worker processes load when they start: Python looks for a module of this name.
IN_WORKERS = """
import time
import stemma.reading
from stemma.chunking import chunker
from stemma.cleaning import clean
from stemma.deduplication import signatures

def act(text, stage):
    if "poison" + stage + "raise" in text:
        raise ValueError("poison found")
    if "poison" + stage + "hang" in text:
        time.sleep(3600)
    if "poison" + stage + "memory" in text:
        _ = [bytearray(2**24) for _ in range(2**16)]

def poisoned(function, stage):
    def call(texts, *more):
        for text in texts:
            act(text, stage)
        return function(texts, *more)
    return call

clean.measure = poisoned(clean.measure, "cleaned")
signatures.word_blocks = poisoned(signatures.word_blocks, "deduplicated")
chunker.groups = poisoned(chunker.groups, "chunked")
read = stemma.reading.read

def reading(file, name, options):
    act(name, "raw")
    yield from read(file, name, options)

stemma.reading.read = reading
"""

KINDS = ("raise", "hang", "memory")
ERRORS = {"raise": "ValueError", "hang": "TimeoutError", "memory": "MemoryError"}
# Hanging and eating are told apart from other faults where a worker process computes; signing is spread over these
# only from 4,096 texts on, and embedding never is: its texts are of bounded size, and its code our own.
FEW = [
    ("raw", "raise"),
    ("raw", "memory"),
    ("cleaned", "raise"),
    ("cleaned", "memory"),
    ("chunked", "memory"),
]
FEW += [("deduplicated", "raise"), ("embedded", "raise")]
MANY = [(stage, kind) for stage in ("raw", "cleaned", "deduplicated", "chunked") for kind in KINDS]
MANY += [("embedded", "raise")]


def told(stage: str, kind: str) -> str:
    """Return the error of a poison document."""
    return "too large" if (stage, kind) == ("raw", "memory") else ERRORS[kind]


def write(corpus: Corpus, stage: str, kind: str) -> str:
    """Write a document that is poison to a stage; returns the name of its file."""
    word = f"poison{stage}{kind}"
    if stage == "raw":
        pq.write_table(pa.table({"text": [sentence(word, 20)]}), corpus.docs / f"{word}.parquet")
        return f"{word}.parquet"
    corpus.write(f"{word}.txt", f"{sentence(word, 30)} {word} {sentence(word, 9)}")
    return f"{word}.txt"


def published(corpus: Corpus) -> dict[str, list[tuple[Any, ...]]]:
    """Return what the corpus holds of the other documents."""
    return {
        table: corpus.query(
            f"SELECT t.* FROM {table} AS t JOIN corpus.raw AS r USING (document_id)"
            " WHERE r.uri NOT LIKE '%/poison%' ORDER BY ALL"
        )
        for table in (
            "corpus.raw",
            "corpus.cleaned",
            "corpus.deduplicated",
            "corpus.chunked",
            "corpus.embedded",
        )
    }


@pytest.mark.timeout(3600)
@pytest.mark.parametrize(("documents", "poisons"), [(300, FEW), *slow((10_000, MANY))], ids=["few", "many"])
def test_poison_costs_itself_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, documents: int, poisons: list[tuple[str, str]]
) -> None:
    (tmp_path / "python").mkdir()
    (tmp_path / "python" / "sitecustomize.py").write_text(IN_WORKERS)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "python"))
    # The first request of a process imports the stage's libraries, and every process that dies has a first one again.
    monkeypatch.setattr(workers, "SECONDS", 60.0 if documents < 1000 else 20.0)
    for stage in ("deduplicated", "embedded"):
        # Where the run's own process computes.
        monkeypatch.setitem(POISON, stage, f"poison{stage}raise")
    poison(monkeypatch, "deduplicated", "embedded")
    corpus = Corpus(
        tmp_path,
        engine={"workers": 2, "document_seconds": 20, "document_memory_mib": 512},
        embed={"model": "hash:16"},
    )
    rows = [{"id": str(number), "text": sentence(number, 25)} for number in range(documents)]
    corpus.write("rows.jsonl", "\n".join(map(json.dumps, rows)))
    corpus.write("page.html", f"<html><body><p>{sentence('page', 40)}</p></body></html>")
    names = {write(corpus, stage, kind): (stage, kind) for stage, kind in poisons}
    corpus.run()
    errors = corpus.query("SELECT parse_filename(uri), stage, error FROM lineage.errors ORDER BY ALL")
    assert errors == sorted((name, stage, told(stage, kind)) for name, (stage, kind) in names.items())
    assert corpus.failed_checks() == []
    beside_poison = published(corpus)

    alone = Corpus(tmp_path / "alone", engine={"workers": 2}, embed={"model": "hash:16"})
    alone.docs, alone.sources = corpus.docs, corpus.sources
    for name in names:
        corpus.delete(name)
    alone.run()
    without = published(alone)
    raw, raw_without = (each.pop("corpus.raw") for each in (beside_poison, without))
    assert len(raw) == len(raw_without) == documents + 1
    assert beside_poison == without
