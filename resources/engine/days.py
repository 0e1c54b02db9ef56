"""Days: a run confined to some days applies what the sources hold of these; the rest waits in state.waiting.

The sources are always read whole, since a file's days are known only once it has been read. What came, changed or
vanished on other days is kept as it was found, so that no file is read twice for it, and applied by the run that
takes in its day. A document belongs to one day, that of raw.partition_date.
"""

from datetime import date

import duckdb

from stemma.incremental.counts import Counts
from stemma.incremental.days import ALL_DAYS, Days
from stemma.resources.engine.run import Run, fetch_value


def hold_back(connection: duckdb.DuckDBPyConnection, days: Days) -> None:
    """Exchange what the sources have for what of it is due: what lies outside of `days` waits.

    Before and after, the temporary tables `fresh` (rows of state.raw) and `vanished` (document_id, source,
    input_hash) say which documents came or changed, and which went; gone_files and was_read name files.
    """
    if days == ALL_DAYS and not fetch_value(connection, "SELECT count(*) FROM state.waiting"):
        return
    _keep_what_came(connection)
    _take_what_is_due(connection, days)


def _keep_what_came(connection: duckdb.DuckDBPyConnection) -> None:
    connection.execute(
        """DELETE FROM state.waiting WHERE document_id IN
            (SELECT document_id FROM vanished UNION ALL SELECT document_id FROM fresh)
        OR NOT gone AND (source, path) IN
            (SELECT (source, path) FROM gone_files UNION ALL SELECT (source, path) FROM was_read)"""
    )
    connection.execute("INSERT INTO state.waiting SELECT *, false FROM fresh")
    connection.execute(
        "INSERT INTO state.waiting SELECT raw.*, true FROM state.raw AS raw SEMI JOIN vanished USING (document_id)"
    )
    connection.execute(
        """DELETE FROM state.waiting USING state.raw AS r WHERE NOT gone
        AND r.document_id = waiting.document_id AND r.row_hash = waiting.row_hash"""
    )


def _take_what_is_due(connection: duckdb.DuckDBPyConnection, days: Days) -> None:
    connection.execute(
        f"""CREATE OR REPLACE TEMP TABLE fresh AS SELECT * EXCLUDE (gone) FROM state.waiting
        WHERE NOT gone AND {days.condition("partition_date")}"""
    )
    # A document that changed its day leaves the old one with that one's run, and comes with the new one's.
    connection.execute(
        f"""CREATE OR REPLACE TEMP TABLE vanished AS SELECT r.document_id, r.source, r.input_hash
        FROM state.raw AS r JOIN state.waiting AS w USING (document_id)
        WHERE {days.condition("r.partition_date")} AND (w.gone OR NOT ({days.condition("w.partition_date")}))"""
    )
    connection.execute(
        """DELETE FROM state.waiting WHERE document_id IN (SELECT document_id FROM fresh)
        OR gone AND document_id IN (SELECT document_id FROM vanished)"""
    )


def note_days(connection: duckdb.DuckDBPyConnection, counts: Counts, touched: str) -> None:
    """Add the days of the relation `touched` (partition_date) to the counts."""
    rows = connection.execute(f"SELECT DISTINCT partition_date FROM {touched}").fetchall()
    counts.days.update(day for (day,) in rows)


CLEANED_DAYS = """SELECT DISTINCT r.partition_date FROM state.raw AS r JOIN state.cleaned AS c USING (document_id)
    WHERE c.run_id = ?"""


def changed_days(run: Run, dataset: str) -> dict[date, int]:
    """Return how many rows of `raw` or `cleaned` each day has that the run changed there; else nothing."""
    counts = run.counts[dataset]
    if dataset not in ("raw", "cleaned") or not counts.touched:
        return {}
    kept = "JOIN state.cleaned AS c ON c.document_id = r.document_id AND c.verdicts IS NULL"
    with run.warehouse.session() as connection:
        if dataset == "cleaned":
            counts.days.update(day for (day,) in connection.execute(CLEANED_DAYS, [run.run_id]).fetchall())
        rows = connection.execute(
            f"""SELECT r.partition_date, count(*) FROM state.raw AS r {kept if dataset == "cleaned" else ""}
            WHERE list_contains(?::DATE[], r.partition_date) GROUP BY 1""",
            [sorted(counts.days)],
        ).fetchall()
    return dict.fromkeys(counts.days, 0) | dict(rows)
