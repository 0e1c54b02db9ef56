"""Purging: documents leave the corpus for good, and what was known of them leaves the disk.

First they are put on the list of what stays out (`resources/purges.py`): from then on no run takes them in. Then raw is
brought up to date with the list, the datasets below follow as in any run, and the result is published. Last, whatever
the corpus is not made of now is erased: so earlier contents and texts of a document go as well, without anybody having
to know them. Each step can be begun again; a run that dies in between leaves a corpus that can be read.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from stemma.errors import StemmaError
from stemma.resources.engine import DATASETS, publish
from stemma.resources.engine.publication import NOTHING_NEW
from stemma.resources.engine.raw import raw_recipe, update_purged
from stemma.resources.engine.run import Run, state_of
from stemma.resources.engine.upkeep import live_results
from stemma.resources.engine.vector_index import discard_others
from stemma.resources.purges import NO_PURGES, Purge, joined, read_purges, write_purges


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
    if not publication.published and publication.reason != NOTHING_NEW:
        raise StemmaError(f"not published: {publication.reason}")
    results = run.warehouse.erase(lambda connection: live_results(run, connection))
    return Purged(run.counts["raw"].rows_removed, results)
