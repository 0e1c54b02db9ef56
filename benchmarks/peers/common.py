"""What the peers' flows have in common: the same cleaning, splitting and embedding for all of them, so that
what differs is the engine. Python's standard library and numpy only: each peer lives in an environment of its
own, without Stemma.

Each flow is a script that does one of three things and prints one JSON line (`run_flow`):

    --task update     bring its state up to date with the folder, once
    --task rows       write the rows that its store holds to --out, without changing anything
    --task expected   write the rows that there should be to --out, from nothing, with the functions alone

What an owner of the pipeline edits is in files of their own (cleaning.py, polishing.py, embedding_function.py),
which `benchmarks/peers.py` edits in a copy. `--redo` is what the owner tells the system by hand after an edit;
without it the flow is run as it always was.
"""

import argparse
import hashlib
import json
import os
import re
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from cleaning import clean
from embedding_function import vectors_of

SENTENCE_END = re.compile(r"(?<=[.!?]) ")
EDITS = ("cleaner", "helper", "embedder", "chunk-size")


class Row(NamedTuple):
    """A row of a store: the document's path in the folder, the chunk's text, and its vector."""

    path: str
    text: str
    vector: Any


def split(text: str, size: int) -> list[str]:
    """Pieces of at most `size` characters, cut between sentences; a longer sentence is cut hard."""
    pieces: list[str] = []
    piece = ""
    for sentence in SENTENCE_END.split(text):
        if piece and len(piece) + 1 + len(sentence) > size:
            pieces.append(piece)
            piece = ""
        piece = f"{piece} {sentence}" if piece else sentence
        while len(piece) > size:
            pieces.append(piece[:size])
            piece = piece[size:]
    return [*pieces, piece] if piece else pieces


class Embedder:
    """`vectors_of`, and a count of the texts that it was given, which is what a real model would be paid for.

    With a log, each call appends a line with its number of texts: a count that survives a kill.
    """

    def __init__(self, log: Path | None, function: Callable[[list[str]], np.ndarray] = vectors_of) -> None:
        self.calls = 0
        self.log = log
        self.function = function

    def __call__(self, texts: list[str]) -> np.ndarray:
        self.calls += len(texts)
        if self.log:
            with self.log.open("a") as file:
                file.write(f"{len(texts)}\n")
        return self.function(texts)


def calls_in(log: Path) -> int:
    """The texts embedded according to a log."""
    return sum(map(int, log.read_text().split())) if log.exists() else 0


def list_files(folder: Path) -> dict[str, Path]:
    """All files below the folder by their relative path."""
    return {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}


def expected_rows(folder: Path, chunk_size: int, kept: set[str] | None = None) -> Iterator[Row]:
    """The rows that there should be; of the documents `kept`, where a system takes duplicates out."""
    for path, file in list_files(folder).items():
        if kept is not None and path not in kept:
            continue
        pieces = split(clean(file.read_bytes().decode(errors="replace")), chunk_size)
        for piece, vector in zip(pieces, vectors_of(pieces) if pieces else [], strict=True):
            yield Row(path, piece, vector)


def expected_of_kept(
    arguments: argparse.Namespace, update: Callable[[], Any], rows: Callable[[], Iterable[Row]]
) -> Iterator[Row]:
    """The same for a batch system; which documents are kept is taken from a run in `--state`, whole as each."""
    update()
    kept = {row.path for row in rows()}
    return expected_rows(arguments.folder, arguments.chunk_size, kept)


def write_rows(rows: Iterable[Row], out: Path) -> None:
    """One JSON line a row: path, hash of the text, hash of the vector as float32."""
    with out.open("w") as file:
        for path, text, vector in rows:
            text_hash = hashlib.sha256(text.encode()).hexdigest()[:24]
            vector_hash = hashlib.sha256(np.asarray(vector, np.float32).tobytes()).hexdigest()[:24]
            file.write(json.dumps([path, text_hash, vector_hash]) + "\n")


def parse_arguments(description: str | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--task", choices=("update", "rows", "expected"), default="update")
    parser.add_argument("--folder", type=Path, required=True, help="the documents: every file below it")
    parser.add_argument("--state", type=Path, required=True, help="folder that the peer keeps everything in")
    parser.add_argument("--out", type=Path, help="file that rows are written to")
    parser.add_argument(
        "--chunk-size", type=int, default=800, help="characters; another one is an edited setting"
    )
    parser.add_argument("--redo", choices=EDITS, help="what the owner says was edited")
    parser.add_argument("--log", type=Path, help="file that calls of the embedder are counted in")
    parser.add_argument("--variant", default="", help="another way to set the peer up, see the script")
    arguments = parser.parse_args()
    arguments.folder = arguments.folder.resolve(strict=True)
    arguments.state = arguments.state.resolve()
    arguments.state.mkdir(parents=True, exist_ok=True)
    return arguments


class Stopwatch:
    """Wall time from its making on."""

    def __init__(self) -> None:
        self.start = time.perf_counter()

    def seconds(self) -> float:
        return time.perf_counter() - self.start


def run_flow(
    arguments: argparse.Namespace,
    update: Callable[[], dict[str, Any]],
    rows: Callable[[], Iterable[Row]],
    expected: Callable[[], Iterable[Row]] | None = None,
    prepare: Callable[[], None] = lambda: None,
) -> None:
    """Do the task that the arguments name; `update` returns its figures, among them `embed_calls`.

    `prepare` comes before it and is no part of its seconds: the start or installation of a server. The seconds are
    those of `update`, unless it reports its own.
    """
    if arguments.task == "rows":
        write_rows(rows(), arguments.out)
    elif arguments.task == "expected":
        chosen = expected() if expected else expected_rows(arguments.folder, arguments.chunk_size)
        write_rows(chosen, arguments.out)
    else:
        prepare()
        if arguments.log:
            # Whoever watches the log sees that imports and preparations are done.
            with arguments.log.open("a") as file:
                file.write("0\n")
        watch = Stopwatch()
        figures = update()
        figures = {"seconds": watch.seconds(), **figures, "disk_mb": disk_megabytes(arguments.state)}
        print(json.dumps(figures), flush=True)


def disk_megabytes(folder: Path) -> int:
    """What the files below the folder take on disk."""
    sizes = (
        os.lstat(Path(root, name)).st_blocks * 512 for root, _, names in os.walk(folder) for name in names
    )
    return round(sum(sizes) / 1e6)


if __name__ == "__main__":
    # What should be in a store, without a peer: `--task expected`.
    run_flow(parse_arguments(__doc__), dict, lambda: ())
