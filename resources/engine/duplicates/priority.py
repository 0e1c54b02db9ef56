"""The order of priority among documents, in SQL: the same that the families go by."""

import duckdb
import pyarrow as pa

from stemma.resources.engine.duplicates.layers import asked_layers
from stemma.resources.engine.run import Run, load_rows


def source_rank(run: Run, source: str) -> int:
    """Return the place of a source among the precious ones; all others share the last."""
    priority = run.config.deduplicate.priority
    return priority.index(source) if source in priority else len(priority)


def by_priority(run: Run) -> str:
    """Return the order of priority in SQL, over the columns of dedup_documents and ranks."""
    keep = run.config.deduplicate.keep
    best = {"longest": "length DESC,", "best": "quality DESC NULLS LAST,"}.get(keep, "")
    return f"rank, {best} document_date {'DESC' if keep == 'newest' else 'ASC'} NULLS LAST, document_id"


def load_ranks(run: Run, connection: duckdb.DuckDBPyConnection) -> None:
    """Make the table ranks (source, rank, passages: whether it asks for them) of the sources that there are or were."""
    found = connection.execute(
        "SELECT DISTINCT source FROM state.dedup_documents UNION SELECT DISTINCT source FROM came"
    ).fetchall()
    sources = [source for (source,) in found]
    asks = ["passage" in asked_layers(run.setup, source) for source in sources]
    columns = [
        pa.array(sources, pa.string()),
        pa.array([source_rank(run, source) for source in sources], pa.int64()),
    ]
    load_rows(
        connection, "ranks", pa.table([*columns, pa.array(asks, pa.bool_())], ["source", "rank", "passages"])
    )
