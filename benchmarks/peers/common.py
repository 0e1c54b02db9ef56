"""What the peers' flows have in common: the same cleaning, splitting and embedding for all of them, so that
what differs is the engine. Python's standard library and numpy only: each peer lives in an environment of its
own, without Stemma.

Each flow is a script that brings its state up to date with a folder, once, and prints one JSON line
(`report`). Near-duplicates are not removed: no peer has a part for it.
"""

import argparse
import hashlib
import json
import os
import re
import resource
import time
import unicodedata
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

DIMENSIONS = 384
SENTENCE_END = re.compile(r"(?<=[.!?]) ")


def clean_1(text: str) -> str:
    """NFC, and every run of white space one space."""
    return " ".join(unicodedata.normalize("NFC", text).split())


def clean_2(text: str) -> str:
    """The cleaner after an edit of its code: about 1 % of corpus.py's texts come out different."""
    return " ".join(unicodedata.normalize("NFC", text).split()).replace("especially", "particularly")


CLEANERS = {1: clean_1, 2: clean_2}


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
    """A text's vector is made of its SHAKE-256 bytes: deterministic, and next to free, so that the engine's
    own cost shows. Counts the texts it was given, which is what a real model would be paid for."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, texts: list[str]) -> np.ndarray:
        """One float32 row of `DIMENSIONS` numbers and length 1 for each text."""
        self.calls += len(texts)
        digests = b"".join(hashlib.shake_256(text.encode()).digest(DIMENSIONS) for text in texts)
        vectors = np.frombuffer(digests, np.uint8).reshape(len(texts), DIMENSIONS).astype(np.float32) - 127.5
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def list_files(folder: Path) -> dict[str, Path]:
    """All files below the folder by their relative path."""
    return {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}


def parse_arguments(description: str | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--folder", type=Path, required=True, help="the documents: every file below it")
    parser.add_argument("--state", type=Path, required=True, help="folder that the peer keeps everything in")
    parser.add_argument(
        "--chunk-size", type=int, default=800, help="characters; another one is an edited setting"
    )
    parser.add_argument(
        "--cleaner", type=int, choices=CLEANERS, default=1, help="2: the cleaner's code was edited"
    )
    parser.add_argument(
        "--undeclared", action="store_true", help="don't tell the peer that the cleaner is part of the flow"
    )
    arguments = parser.parse_args()
    arguments.folder = arguments.folder.resolve(strict=True)
    arguments.state = arguments.state.resolve()
    arguments.state.mkdir(parents=True, exist_ok=True)
    return arguments


@dataclass
class Stopwatch:
    """Wall and processor time of this process from its making on."""

    wall: float = field(default_factory=time.perf_counter)
    cpu: float = field(default_factory=time.process_time)

    def elapsed(self) -> tuple[float, float]:
        return time.perf_counter() - self.wall, time.process_time() - self.cpu


def report(**figures: object) -> None:
    """Print the figures, and this process's peak of resident memory, as one JSON line."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    rounded = {key: round(value, 3) if isinstance(value, float) else value for key, value in figures.items()}
    print(json.dumps({**rounded, "peak_rss_mb": round(peak)}), flush=True)


def disk_megabytes(folder: Path) -> int:
    """What the files below the folder take on disk."""
    sizes = (
        os.lstat(Path(root, name)).st_blocks * 512 for root, _, names in os.walk(folder) for name in names
    )
    return round(sum(sizes) / 1e6)
