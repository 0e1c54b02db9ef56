"""stemma select: a subset of the corpus, drawn by diversity, coverage or likeness to examples."""

import argparse
import json
import os
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa

from stemma.commands.output import print_json, print_table, say, warn_of_source
from stemma.commands.published import open_published
from stemma.config import Config, load_config
from stemma.errors import StemmaError, UsageError
from stemma.exports import write_rows
from stemma.search.corpus import query_embedder
from stemma.selection import Selection, alike, covering, diverse, document_vectors

# What is printed of a text where no file is written.
SHOWN_CHARACTERS = 80
SUFFIXES = (".parquet", ".jsonl")

# What can be chosen: the query of its ids and vectors, in the order of the ids, and that of what is written of it.
UNITS = {
    "documents": (
        """SELECT document_id AS id, dense_rank() OVER (ORDER BY document_id) - 1 AS number,
            greatest(tokens, 1)::DOUBLE AS weight, embedding
        FROM corpus.embedded JOIN corpus.chunked USING (chunk_id, document_id) JOIN corpus.raw USING (document_id)
        WHERE $source IS NULL OR source = $source ORDER BY document_id, ordinal""",
        """SELECT number, document_id, source, uri, record, d.document_date, d.title, d.language, text, r.content_hash
        FROM chosen JOIN corpus.deduplicated AS d ON d.document_id = chosen.id
        JOIN corpus.raw AS r USING (document_id)""",
    ),
    "chunks": (
        """SELECT chunk_id AS id, row_number() OVER (ORDER BY chunk_id) - 1 AS number, 1::DOUBLE AS weight, embedding
        FROM corpus.embedded JOIN corpus.raw USING (document_id)
        WHERE $source IS NULL OR source = $source ORDER BY chunk_id""",
        """SELECT number, chunk_id, document_id, source, uri, record, section, char_start, char_end, text, content_hash
        FROM chosen JOIN corpus.chunked ON chunk_id = chosen.id JOIN corpus.raw USING (document_id)""",
    ),
}


def select(options: argparse.Namespace) -> int:
    """Choose documents or chunks and write them, or print what was chosen.

    Raises UsageError for options that do not go together or an example that is not in the corpus, StemmaError where
    there are no vectors or the file cannot be written.
    """
    by = options.by or ("likeness" if options.like else "diversity")
    if bool(options.like) != (by == "likeness"):
        raise UsageError("--like names the examples of --by likeness, and of nothing else")
    if options.out is not None and options.out.suffix not in SUFFIXES:
        raise UsageError(f"{options.out}: the name must end in {' or '.join(SUFFIXES)}")
    config = load_config(options.config)
    with open_published(config) as connection:
        vectors_of, rows_of = UNITS[options.unit]
        found = connection.execute(vectors_of, {"source": options.source}).to_arrow_table()
        if not found.num_rows:
            raise StemmaError("there are no vectors to choose by; 'stemma run' makes them")
        ids, vectors = _vectors(found)
        if by == "likeness":
            chosen = alike(vectors, _examples(config, connection, options.like), options.n)
        elif by == "coverage":
            chosen = covering(vectors, options.n)
        else:
            chosen = diverse(vectors, options.n, rounds=options.rounds, seed=options.seed)
        rows = _rows(connection, rows_of, ids, chosen)
        facts = _facts(connection, options, by, len(ids))
    if options.out is not None:
        _write(options.out, rows, facts)
        say(f"{rows.num_rows:,} of {len(ids):,} {options.unit} in {options.out}")
        warn_of_source(config, options.out)
    elif options.json:
        print_json({**facts, "rows": rows.to_pylist()})
    else:
        _print(rows)
    return 0


def _vectors(found: pa.Table) -> tuple[pa.Array, np.ndarray]:
    """Return the ids of what can be chosen, in order, and a unit vector of each."""
    width = found.schema.field("embedding").type.list_size
    values = found["embedding"].combine_chunks().flatten().to_numpy().astype(np.float32).reshape(-1, width)
    number = found["number"].to_numpy()
    firsts = np.flatnonzero(np.diff(number, prepend=-1))
    return (
        found["id"].combine_chunks().take(pa.array(firsts)),
        document_vectors(number, values, found["weight"].to_numpy()),
    )


def _examples(config: Config, connection: duckdb.DuckDBPyConnection, given: list[str]) -> np.ndarray:
    """Return a vector for each example: that of a document or chunk of the corpus, or of a text or file."""
    vectors = [_known(connection, example) for example in given]
    if any(vector is None for vector in vectors):
        embed = query_embedder(connection, config)
        vectors = [
            embed(_text(example)) if vector is None else vector
            for example, vector in zip(given, vectors, strict=True)
        ]
    return np.array(vectors, np.float32)


def _known(connection: duckdb.DuckDBPyConnection, example: str) -> list[float] | None:
    """Return the vector of a document_id or chunk_id of the corpus."""
    found = connection.execute(
        """SELECT document_id AS id, 0 AS number, greatest(tokens, 1)::DOUBLE AS weight, embedding
        FROM corpus.embedded JOIN corpus.chunked USING (chunk_id, document_id)
        WHERE try_cast($id AS UUID) IN (document_id, chunk_id) ORDER BY ordinal""",
        {"id": example},
    ).to_arrow_table()
    return _vectors(found)[1][0].tolist() if found.num_rows else None


def _text(example: str) -> str:
    if not os.path.isfile(example):
        if not example.strip():
            raise UsageError("an example is empty")
        return example
    try:
        return Path(example).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{example}: not a text file: {error}") from error


def _rows(connection: duckdb.DuckDBPyConnection, query: str, ids: pa.Array, chosen: Selection) -> pa.Table:
    """Return what was chosen, the best first, with its place in the source."""
    order = np.arange(1, len(chosen.rows) + 1)
    table = pa.table({"id": ids.take(pa.array(chosen.rows)), "number": order})
    connection.register("chosen", table)
    rows = connection.execute(f"{query} ORDER BY number").to_arrow_table()
    connection.unregister("chosen")
    rank = rows["number"].combine_chunks()
    kept = rank.to_numpy() - 1
    groups = chosen.groups[kept]
    extra = {"rank": rank, "score": chosen.scores[kept], "group": pa.array(groups, mask=groups < 0)}
    return pa.table(extra | {name: rows[name] for name in rows.column_names if name != "number"})


def _facts(
    connection: duckdb.DuckDBPyConnection, options: argparse.Namespace, by: str, count: int
) -> dict[str, Any]:
    """Return how the choice was made, and of which state of the corpus."""
    latest = connection.execute(
        "SELECT run_id FROM lineage.runs ORDER BY number DESC NULLS LAST, finished_at DESC LIMIT 1"
    ).fetchone()
    asked = {"seed": options.seed, "rounds": options.rounds} if by == "diversity" else {}
    examples = {"like": options.like} if by == "likeness" else {}
    facts = {"by": by, "unit": options.unit, "of": count, "source": options.source, "n": options.n}
    return facts | asked | examples | {"run_id": latest[0] if latest else None}


def _write(path: Path, rows: pa.Table, facts: dict[str, Any]) -> None:
    """Write the file whole or not at all, with how it was drawn: in the metadata, or with each line of JSON."""
    form = path.suffix[1:]
    if form == "jsonl":
        rows = rows.append_column("selection", pa.array([facts] * rows.num_rows))
    try:
        write_rows(path, rows.to_reader(), form, metadata={"stemma.selection": json.dumps(facts)})
    except OSError as error:
        raise StemmaError(f"{path}: cannot be written: {error.strerror or error}") from error


def _print(rows: pa.Table) -> None:
    place = [
        row["uri"] + ("" if row["record"] is None else f" #{row['record']}")
        for row in rows.select(["uri", "record"]).to_pylist()
    ]
    texts = [
        " ".join(text[: 4 * SHOWN_CHARACTERS].split())[:SHOWN_CHARACTERS] for text in rows["text"].to_pylist()
    ]
    columns = [rows["rank"].to_pylist(), rows["score"].to_pylist(), rows["group"].to_pylist(), place, texts]
    print_table("", ["rank", "score", "group", "place", "text"], zip(*columns, strict=True))
