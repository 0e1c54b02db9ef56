"""Processes that use a corpus at the same time, each until its input is closed: `python clients.py ROLE PATH [NUMBER]`.

Every document begins with its name and a number that grows with each change of any of them, so that what belongs
together can be told by whoever reads it.
"""

import json
import os
import random
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb

from stemma.lineage.checks import BLOCKING, run_check

# So few documents are away at a time that the delete guard lets every run pass.
AWAY = 4
FOLDERS = ("a", "b", "c")
PAUSE = 0.1

# A file is empty for the moment between its opening and the first write, and may be read so.
BELONGING = {
    "a document is of its file": """SELECT uri FROM corpus.raw
        WHERE content <> '' AND split_part(content, ' ', 1) <> parse_filename(uri, true)""",
    "a text is of its content": """SELECT uri FROM corpus.raw JOIN corpus.cleaned USING (document_id)
        WHERE NOT starts_with(content, text) OR content_hash <> sha256(content)[:32]::UUID
            OR cleaned.text_hash <> sha256(text)[:32]::UUID""",
    "a chunk is of its text": """SELECT c.document_id
        FROM corpus.chunked AS c JOIN corpus.cleaned AS d USING (document_id)
        WHERE c.text <> substring(d.text, c.char_start + 1, c.char_end - c.char_start)
            OR c.text_hash <> sha256(c.text)[:32]::UUID""",
    "a vector is of its chunk": """SELECT chunk_id FROM corpus.chunked AS c JOIN corpus.embedded AS e USING (chunk_id)
        WHERE c.text_hash <> e.text_hash OR c.document_id <> e.document_id""",
}
EVERYTHING = "SELECT " + ", ".join(
    f"(SELECT sum(hash(r)::HUGEINT) FROM {table} AS r)"
    for table in ("corpus.raw", "corpus.cleaned", "corpus.chunked", "corpus.embedded", "lineage.runs")
)
VERSIONS = """SELECT split_part(content, ' ', 1), split_part(content, ' ', 2)::BIGINT FROM corpus.raw
    WHERE content <> ''"""
VECTORS = """SELECT text, embedding FROM corpus.chunked JOIN corpus.embedded USING (chunk_id)
    USING SAMPLE 20 ROWS"""


def document(name: str, number: int, chooser: random.Random) -> str:
    """Return a document's text; every fifth says nearly what another one says."""
    seed = chooser.randrange(10) if chooser.random() < 0.2 else chooser.random()
    words = random.Random(seed)
    text = " ".join(f"w{words.randrange(3000)}" for _ in range(words.randrange(20, 200)))
    return f"{name} {number} {text}"


def versions(folder: Path) -> dict[str, int]:
    """Return the number of each document in a folder, by name."""
    heads = (path.read_text().split(" ", 2)[:2] for path in folder.rglob("*.txt"))
    return {name: int(number) for name, number in heads}


def fill(folder: Path, count: int) -> None:
    """Write `count` documents; they end in the moment before now, as files do that are whole."""
    chooser = random.Random(count)
    for number in range(count):
        place = folder / chooser.choice(FOLDERS) / f"doc{number:04}.txt"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(document(place.stem, number, chooser))


class Writer:
    """Changes, deletes and adds the documents of a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.chooser = folder, random.Random(7)
        self.places = {path.stem: path for path in folder.rglob("*.txt")}
        self.home = dict(self.places)
        self.away: list[str] = []
        self.number = len(self.places)

    def step(self) -> None:
        """Make one change."""
        self.number += 1
        drawn = self.chooser.random()
        if drawn < 0.15 and len(self.away) < AWAY:
            name = self.chooser.choice(sorted(self.places))
            self.places.pop(name).unlink()
            self.away.append(name)
        elif drawn < 0.3 and self.away:
            name = self.away.pop(0)
            self._write(self.home[name])
        else:
            self._write(self.places[self.chooser.choice(sorted(self.places))])

    def _write(self, place: Path) -> None:
        text = document(place.stem, self.number, self.chooser)
        if self.chooser.random() < 0.5:
            # Not in one piece, as most programs write.
            with place.open("w") as file:
                file.write(text[: len(text) // 2])
                file.flush()
                file.write(text[len(text) // 2 :])
        else:
            beside = place.with_suffix(".part")
            beside.write_text(text)
            os.replace(beside, place)
        self.places[place.stem] = place


def look(connection: duckdb.DuckDBPyConnection) -> None:
    """Assert that what a reader sees is one whole state."""
    for name, query in BLOCKING.items():
        check = run_check(connection, name, query)
        assert check.passed, (name, check.detail)
    for name, query in BELONGING.items():
        offending = connection.execute(query).fetchmany(3)
        assert not offending, (name, offending)


def look_at_vectors(connection: duckdb.DuckDBPyConnection) -> None:
    """Assert that vectors are those of their chunks' texts; the others need no such heavy packages."""
    import numpy as np
    import pyarrow as pa

    from stemma.embedding.arrays import matrix
    from stemma.embedding.feature_hashing import hash_embed

    sample = connection.execute(VECTORS).to_arrow_table()
    told = matrix(sample.select(["embedding"]))
    made = matrix(hash_embed(pa.table({"text": sample["text"]}), dimensions=told.shape[1]))
    assert np.array_equal(told, made), "a vector is that of its chunk's text"


def opened(path: Path) -> duckdb.DuckDBPyConnection:
    """Open the published file as anybody would, once there is one."""
    while not path.exists():
        time.sleep(0.05)
    return duckdb.connect(str(path), read_only=True)


def stay(path: Path, number: int, on: Callable[[], bool]) -> int:
    """Never close: what was seen first is seen for ever. Each client opens at another time."""
    time.sleep(0.5 * number)
    looks = 1
    with opened(path) as connection:
        connection.execute("SET threads = 1")
        first = connection.execute(EVERYTHING).fetchone()
        look(connection)
        while on():
            assert connection.execute(EVERYTHING).fetchone() == first
            looks += 1
            time.sleep(1.0)
        look(connection)
    return looks


def watch(path: Path, _number: int, on: Callable[[], bool]) -> int:
    """Open anew each time: every state is whole, and none is older than the one before."""
    looks, newest = 0, dict[str, int]()
    while on():
        with opened(path) as connection:
            look(connection)
            look_at_vectors(connection)
            seen = dict(connection.execute(VERSIONS).fetchall())
        older = {
            name: (newest[name], number) for name, number in seen.items() if number < newest.get(name, 0)
        }
        assert not older, older
        newest |= seen
        looks += 1
        time.sleep(5 * PAUSE)
    return looks


def chart(path: Path, _number: int, on: Callable[[], bool]) -> int:
    """Keep the file open with plain DuckDB, and ask prepared queries, as a dashboard does."""
    looks = 0
    with opened(path) as connection:
        connection.execute("SET threads = 1")
        connection.execute(
            "PREPARE chunks AS SELECT count(*), sum(tokens) FROM corpus.chunked WHERE document_id = $1"
        )
        connection.execute(
            "PREPARE days AS SELECT partition_date, count(*) FROM corpus.raw WHERE size_bytes > $1 GROUP BY ALL"
        )
        ids = [key for (key,) in connection.execute("SELECT document_id FROM corpus.raw").fetchall()]
        answers = dict[str, Any]()
        while on():
            for query in (f"EXECUTE chunks('{ids[looks % len(ids)]}')", f"EXECUTE days({looks % 7 * 100})"):
                answer = connection.execute(query).fetchall()
                assert answers.setdefault(query, answer) == answer
            looks += 1
            time.sleep(PAUSE / 2)
    return looks


def write(path: Path, _number: int, on: Callable[[], bool]) -> int:
    """Change the folder all the time."""
    writer, steps = Writer(path), 0
    while on():
        writer.step()
        steps += 1
        time.sleep(PAUSE)
    return steps


ROLES: dict[str, Callable[[Path, int, Callable[[], bool]], int]] = {
    "stay": stay,
    "watch": watch,
    "chart": chart,
    "write": write,
}


def main(role: str, path: str, number: str = "0") -> None:
    """Play a role until the input is closed; print how often it looked, or wrote."""
    over = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), over.set()), daemon=True).start()
    print(json.dumps(ROLES[role](Path(path), int(number), lambda: not over.is_set())))


if __name__ == "__main__":
    main(*sys.argv[1:])
