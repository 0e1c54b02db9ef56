"""The stability benchmark: how many chunks of a document are embedded anew after a real edit.

    python benchmarks/stability.py [--every 4] [--sizes 96/160]

Replays the history of Python's enhancement proposals (shared folder, a4_pep_events): of every so many edits of a
document, both versions are chunked, and the chunks of the new one are counted whose text the old one does not have:
what is embedded, as vectors are remembered by text. `edited` are the chunks that hold a line that the edit changed, or
the place where it deleted one: these any splitter with such chunks has to embed, the others move for nothing. Peers as
in retrieval.py, at the same most tokens. Means over the edits.
"""

import argparse
import difflib
import json
import lzma
import subprocess
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from retrieval import PEERS, SHARED, STATE

from stemma.chunking import chunk, load_tokenizer
from stemma.resources.embedder import resolve_embedder

HERE = Path(__file__).resolve().parent
OURS = ("structure", "semantic", "recursive", "fixed")
THEIRS = (
    "chonkie-recursive",
    "chonkie-sentence",
    "chonkie-token",
    "semchunk",
    "langchain",
    "llama-index",
    "chroma-recursive",
    "chroma-tokens",
)


class Edit(NamedTuple):
    """Two versions of one document, as numbers of texts."""

    before: int
    after: int


def read_edits(every: int) -> tuple[list[str], list[Edit]]:
    """Return the texts, each once, and every so many of the edits between them."""
    texts: dict[str, int] = {}
    current = {row["path"]: row["text"] for row in read("base")}
    edits: list[Edit] = []
    count = 0
    for event in read("events"):
        old = current.pop(event["path"], None)
        if event["op"] != "put":
            continue
        current[event["path"]] = event["text"]
        if old is None or old == event["text"]:
            continue
        if count % every == 0:
            pair = (texts.setdefault(text, len(texts)) for text in (old, event["text"]))
            edits.append(Edit(*pair))
        count += 1
    return list(texts), edits


def read(name: str) -> Iterator[dict[str, Any]]:
    file = SHARED / f"data/a4_pep_events/{name}.jsonl.xz"
    with lzma.open(file, "rt", encoding="utf-8") as lines:
        yield from map(json.loads, lines)


def our_chunks(texts: list[str], strategy: str, size: str, tokenizer: Path) -> list[list[str]]:
    target, most = map(int, size.split("/"))
    found = chunk(
        pa.table({"text": texts}),
        strategy=strategy,
        max_tokens=most,
        target_tokens=target,
        overlap=0,
        tokenizer="",
        model=load_tokenizer(tokenizer),
    )
    return [[each["text"] for each in row] for row in found["chunks"].to_pylist()]


def their_chunks(texts: list[str], splitter: str, most: int, tokenizer: Path) -> list[list[str]]:
    file = STATE / "stability.json"
    file.write_text(json.dumps(texts), encoding="utf-8")
    command = [PEERS, HERE / "peers/chunk_splitters.py", "--texts", file, "--tokenizer", tokenizer]
    done = subprocess.run([*command, f"{splitter}/{most}/0"], capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[0])["chunks"]


def changed(before: str, after: str) -> list[tuple[int, int]]:
    """Return the spans of the new version that an edit put there; empty ones where it only deleted."""
    old, new = before.splitlines(keepends=True), after.splitlines(keepends=True)
    starts = np.cumsum([0, *map(len, new)]).tolist()
    matcher = difflib.SequenceMatcher(None, old, new, autojunk=False)
    return [(starts[low], starts[high]) for kind, _, _, low, high in matcher.get_opcodes() if kind != "equal"]


def edited(text: str, chunks: Sequence[str], spans: list[tuple[int, int]]) -> int | None:
    """Count the chunks that hold some of the spans; None if a chunk is not in the text."""
    count, last = 0, -1
    for chunk_text in chunks:
        last = text.find(chunk_text.strip(), last + 1)
        if last < 0:
            return None
        end = last + len(chunk_text.strip())
        count += any((last < high and low < end) or last < low == high < end for low, high in spans)
    return count


def line(name: str, size: str, parts: Sequence[Sequence[str]], texts: list[str], edits: list[Edit]) -> str:
    rows = []
    for edit in edits:
        known, new = set(parts[edit.before]), [part for part in parts[edit.after] if part.strip()]
        spans = changed(texts[edit.before], texts[edit.after])
        rows.append((len(new), sum(part not in known for part in new), edited(texts[edit.after], new, spans)))
    counts, anew = (np.array(column, dtype=float) for column in list(zip(*rows, strict=True))[:2])
    shares = anew / counts
    figures = [shares.mean(), np.median(shares), anew.sum() / counts.sum()]
    if all(row[2] is not None for row in rows):
        held = np.array([row[2] for row in rows], dtype=float)
        figures += [(held / counts).mean(), ((anew - held) / counts).mean()]
    cells = [f"{100 * value:.1f} %" for value in figures] + ["–"] * (5 - len(figures))
    return "| " + " | ".join([name, size, f"{counts.mean():.0f}", *cells]) + " |"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names: Callable[[str], list[str]] = lambda text: text.split(",") if text else []  # noqa: E731
    parser.add_argument("--every", type=int, default=4, help="take every so many of the edits")
    parser.add_argument("--sizes", type=names, default=["96/160"], help="target/most tokens, …")
    parser.add_argument("--ours", type=names, default=list(OURS))
    parser.add_argument("--theirs", type=names, default=list(THEIRS) if PEERS.exists() else [])
    options = parser.parse_args()
    STATE.mkdir(parents=True, exist_ok=True)
    tokenizer = resolve_embedder().tokenizer_file
    texts, edits = read_edits(options.every)
    megabytes = sum(len(text.encode()) for text in texts) / 1e6
    print(f"{len(edits)} edits, {len(texts)} versions, {megabytes:.1f} MB\n")
    header = ["chunks by", "size", "chunks", "embedded anew", "median", "of all", "edited", "beyond"]
    print("| " + " | ".join(header) + " |\n" + "| --- " * len(header) + "|", flush=True)
    for size in options.sizes:
        for name in options.ours:
            parts = our_chunks(texts, name, size, tokenizer)
            print(line(f"Stemma, {name}", size, parts, texts, edits), flush=True)
        most = int(size.split("/")[1])
        for name in options.theirs:
            parts = their_chunks(texts, name, most, tokenizer)
            print(line(name, str(most), parts, texts, edits), flush=True)


if __name__ == "__main__":
    main()
