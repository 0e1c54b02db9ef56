"""Upkeep: what of the memo the corpus is made of. The rest is for going back, and is forgotten in time."""

import functools
import shutil
from pathlib import Path

import duckdb
import pyarrow as pa

from stemma.resources.engine.chunked import chunked
from stemma.resources.engine.deduplicated import signing_stages
from stemma.resources.engine.duplicates.bloom import METHOD
from stemma.resources.engine.embedded import embedded
from stemma.resources.engine.raw import BODIES, BODIES_RECIPE
from stemma.resources.engine.run import Run
from stemma.resources.memo import Live
from stemma.resources.warehouse import Size

# What the state needs: contents and texts of documents, and what hangs on a text.
CONTENTS = """SELECT input_hash FROM state.raw UNION SELECT input_hash FROM state.waiting
    UNION SELECT input_hash FROM state.cleaned UNION SELECT input_hash FROM state.deduplicated
    UNION SELECT body_hash FROM state.dedup_documents"""
TEXTS = """SELECT text_hash FROM state.cleaned UNION SELECT text_hash FROM state.deduplicated
    UNION SELECT text_hash FROM state.dedup_documents UNION SELECT text_hash FROM state.passage_texts"""


def compact(run: Run, *, keep_days: int = 30, forget_history: bool = False) -> tuple[Size, Size]:
    """Rewrite state and published file without dead space, and drop old results that the corpus is not made of.

    See `Warehouse.compact`. Returns the sizes before and after.
    """
    live = functools.partial(live_results, run)
    return run.warehouse.compact(live, keep_days=keep_days, forget_history=forget_history)


def live_results(run: Run, connection: duckdb.DuckDBPyConnection) -> Live:
    """Return what of the memo the corpus is made of, with the settings of now; `state` is attached."""
    setup = run.setup
    _discard_filters(run.warehouse.folder / METHOD, connection)
    contents, texts = _keys(connection, CONTENTS), _keys(connection, TEXTS)
    live = {("read", BODIES_RECIPE): (BODIES, contents)}
    chunks = f"SELECT input_hash FROM {chunked(setup).desired} UNION SELECT input_hash FROM state.chunked"
    vectors = f"SELECT input_hash FROM {embedded(setup).desired} UNION SELECT input_hash FROM state.embedded"
    for stages, keys in (
        ((setup.clean,), contents),
        ((*setup.annotations, *signing_stages(setup)), texts),
        ((setup.chunk,), _keys(connection, chunks)),
        ((setup.embed,), _keys(connection, vectors)),
    ):
        live |= {(stage.name, setup.recipe(stage)): (stage.outputs, keys) for stage in stages}
    return live


def _keys(connection: duckdb.DuckDBPyConnection, query: str) -> pa.Array:
    """Return the single column of a query, of UUIDs, as binary(16)."""
    found = connection.execute(query).to_arrow_table().column(0).combine_chunks()
    return found.storage if isinstance(found, pa.ExtensionArray) else pa.array([], pa.binary(16))


def _discard_filters(home: Path, connection: duckdb.DuckDBPyConnection) -> None:
    """Delete the Bloom filters that the state does not name."""
    named = {folder for (folder,) in connection.execute("SELECT folder FROM state.bloom_filters").fetchall()}
    for folder in home.iterdir() if home.is_dir() else ():
        if folder.name not in named:
            shutil.rmtree(folder)
