"""The floor: only what no incremental pipeline can leave out, on plain dictionaries.

Read and hash every file, clean and chunk what changed, embed texts never seen, append the results to Parquet. With
Stemma's own functions, or with those of the peers' flows (--variant plain). What is kept from run to run is a JSON
file, read before the clock starts and written after it stops.
"""

import hashlib
import json
import uuid
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
from common import Stopwatch, list_files, parse_arguments, run_flow, split

BATCH = 512


class Functions(NamedTuple):
    """What the floor calls: for a batch of texts the cleaned ones, each one's chunks, and the vectors."""

    clean: Callable[[list[str]], list[str]]
    chunk: Callable[[list[str]], list[list[str]]]
    embed: Callable[[list[str]], Any]


def plain_functions(chunk_size: int) -> Functions:
    from cleaning import clean
    from embedding_function import DIMENSIONS, vectors_of

    return Functions(
        lambda texts: [clean(text) for text in texts],
        lambda texts: [split(text, chunk_size) for text in texts],
        lambda texts: pa.FixedSizeListArray.from_arrays(pa.array(vectors_of(texts).ravel()), DIMENSIONS),
    )


def stemma_functions(arguments: Namespace) -> Functions:
    from stemma_flow import MODEL, configured, import_lazily_loaded

    from stemma.resources.engine import Setup

    import_lazily_loaded(MODEL)
    setup = Setup.of(configured(arguments.folder, arguments.state, arguments.chunk_size, MODEL))
    counter = setup.chunk.load(**setup.chunk.parameters)

    def clean(texts: list[str]) -> list[str]:
        table = {
            "content": texts,
            "content_bytes": pa.nulls(len(texts), pa.binary()),
            "media_type": ["text/plain"] * len(texts),
        }
        return setup.clean.function(pa.table(table), **setup.clean.parameters)["text"].to_pylist()

    def chunk(texts: list[str]) -> list[list[str]]:
        table = pa.table({"text": pa.array(texts, pa.string())})
        lists = setup.chunk.function(table, **setup.chunk.parameters, model=counter)["chunks"].to_pylist()
        return [[part["text"] for part in parts] for parts in lists]

    def embed(texts: list[str]) -> Any:
        return setup.embed.function(pa.table({"text": texts}), **setup.embed.parameters)["embedding"]

    return Functions(clean, chunk, embed)


def digest(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=16).hexdigest()


def batches(items: list[Any]) -> list[list[Any]]:
    return [items[start : start + BATCH] for start in range(0, len(items), BATCH)]


def bring_up_to_date(folder: Path, state: Path, known: dict[str, Any], functions: Functions) -> int:
    """One update of `known` (file hash → text, hashes of texts chunked, hashes of chunks); the texts embedded."""
    bodies: dict[str, bytes] = {}
    for file in list_files(folder).values():
        data = file.read_bytes()
        name = digest(data)
        if name not in known["files"]:
            bodies[name] = data
    for names in batches(list(bodies)):
        texts = functions.clean([bodies[name].decode("utf-8", "replace") for name in names])
        known["files"].update(zip(names, texts, strict=True))
    hashes = {digest(text.encode()): text for text in known["files"].values()}
    unseen: dict[str, str] = {}
    for part in batches([(name, text) for name, text in hashes.items() if name not in known["chunked"]]):
        for (name, _), pieces in zip(part, functions.chunk([text for _, text in part]), strict=True):
            known["chunked"][name] = 1
            unseen |= {
                key: piece for piece in pieces if (key := digest(piece.encode())) not in known["chunks"]
            }
    known["chunks"].update(dict.fromkeys(unseen, 1))
    for texts in batches(list(unseen.values())):
        table = pa.table({"text": texts}).append_column("embedding", functions.embed(texts))
        pq.write_table(table, state / f"{uuid.uuid4().hex}.parquet", compression="lz4")
    return len(unseen)


def main() -> None:
    arguments = parse_arguments(__doc__)
    store = arguments.state / "known.json"

    def update() -> dict[str, Any]:
        known = (
            json.loads(store.read_text()) if store.exists() else {"files": {}, "chunked": {}, "chunks": {}}
        )
        if arguments.redo == "cleaner":
            known["files"] = {}
        elif arguments.redo == "chunk-size":
            known["chunked"] = {}
        plain = arguments.variant == "plain"
        functions = plain_functions(arguments.chunk_size) if plain else stemma_functions(arguments)
        # Where pandas is installed, pyarrow imports it with the first list that it is given.
        pa.array([""])
        watch = Stopwatch()
        embed_calls = bring_up_to_date(arguments.folder, arguments.state, known, functions)
        seconds = watch.seconds()
        store.write_text(json.dumps(known))
        return {"seconds": seconds, "embed_calls": embed_calls}

    run_flow(arguments, update, lambda: ())


if __name__ == "__main__":
    main()
