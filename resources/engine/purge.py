"""Purging: documents leave the corpus for good, and what was known of them leaves the disk.

First they are put on the list of what stays out (`resources/purges.py`): from then on no run takes them in. Then raw is
brought up to date with the list, the datasets below follow as in any run, and the result is published. Last, whatever
the corpus is not made of now is erased: so earlier contents and texts of a document go as well, without anybody having
to know them. Each step can be begun again; a run that dies in between leaves a corpus that can be read.
"""

import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import duckdb
import pyarrow as pa

from stemma.errors import StemmaError
from stemma.resources.engine import DATASETS, publish
from stemma.resources.engine.chunked import chunked
from stemma.resources.engine.deduplicated import signing_stages
from stemma.resources.engine.duplicates.bloom import METHOD
from stemma.resources.engine.embedded import embedded
from stemma.resources.engine.raw import BODIES, BODIES_RECIPE, raw_recipe, update_purged
from stemma.resources.engine.run import Run, state_of
from stemma.resources.engine.vector_index import discard_others
from stemma.resources.purges import NO_PURGES, Purge, joined, read_purges, write_purges
from stemma.resources.warehouse import Live

# What the state needs of the memo: contents and texts of documents, and what hangs on a text.
CONTENTS = """SELECT input_hash FROM state.raw UNION SELECT input_hash FROM state.waiting
    UNION SELECT input_hash FROM state.cleaned UNION SELECT input_hash FROM state.deduplicated"""
TEXTS = """SELECT text_hash FROM state.cleaned UNION SELECT text_hash FROM state.deduplicated
    UNION SELECT text_hash FROM state.dedup_documents UNION SELECT text_hash FROM state.passage_texts"""


@dataclass(frozen=True)
class Purged:
    """What a purge did: documents that left raw, and results that the memo lost."""

    documents: int
    results: int


def list_purges(run: Run, purges: Iterable[Purge]) -> None:
    """Put documents on the list of what stays out; durable when this returns.

    A content stays out with them, unless it is empty or another document that stays has it.
    """
    with run.warehouse.session() as connection:
        before = read_purges(run.warehouse.purges_path) or NO_PURGES
        rows = joined(before.rows, list(purges))
        waiting = connection.execute(
            "SELECT document_id, content_hash FROM state.waiting WHERE NOT gone"
        ).fetchall()
        out = {row.document_id for row in rows}
        needed = {content for document, content in waiting if document not in out}
        write_purges(
            run.warehouse.purges_path,
            [
                Purge(row.document_id, None, row.purged_at, row.reason)
                if row.content_hash in needed and row not in before.rows
                else row
                for row in rows
            ],
        )


def purge(run: Run) -> Purged:
    """Make the corpus one without what is on the list, publish it, and erase what it is not made of.

    Sources are looked at only where raw has to be made anew for another reason, such as other settings.

    Raises StemmaError where the corpus cannot be published, or not be brought up to date; then nothing is erased, and
    the list stands.
    """
    counts = run.begin("raw", raw_recipe(run.setup))
    with run.warehouse.session() as connection:
        is_current = state_of(connection, "raw").recipe == counts.recipe
    if is_current:
        update_purged(run, counts)
    for name, update in DATASETS.items():
        if name != "raw" or not is_current:
            update(run)
    # A vector that is taken out of an approximate index stays in its file: it is made anew.
    discard_others(run.warehouse.path, None)
    publication = publish(run)
    if not publication.published and publication.reason != "nothing has changed":
        raise StemmaError(f"not published: {publication.reason}")
    results = run.warehouse.erase(lambda connection: live_results(run, connection))
    return Purged(run.counts["raw"].rows_removed, results)


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
