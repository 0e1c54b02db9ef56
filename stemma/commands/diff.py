"""stemma diff: what changed between two runs, in rows, in decisions, and in a document's text."""

import argparse
from typing import Any

import duckdb

from stemma.commands.differences import differences, print_differences, wants_colour
from stemma.commands.output import print_json, print_table, say
from stemma.commands.published import SETTINGS, published_path, rows
from stemma.commands.trace import condition_of
from stemma.config import load_config
from stemma.errors import UsageError
from stemma.lineage.as_of import FILE, Publication, attached, find_publication, make_database
from stemma.lineage.changes import AFTER, BEFORE, dataset_changes, decision_changes, document_changes

SHOWN_DOCUMENTS = 20


def diff(options: argparse.Namespace) -> int:
    """Print what changed between what two runs published. Raises UsageError for a run that is not remembered."""
    with attached(published_path(load_config(options.config)), SETTINGS) as connection:
        sides = {
            name: find_publication(connection, run, f"{FILE}.")
            for name, run in ((BEFORE, options.run), (AFTER, options.other))
        }
        for name, publication in sides.items():
            make_database(connection, name, publication)
        connection.execute("USE memory")
        document_changes(connection)
        runs = {name: _run(publication) for name, publication in sides.items()}
        if options.document is not None:
            found = _texts(connection, options.document)
            _print_texts(found, options) if not options.json else print_json({**runs, "documents": found})
            return 0
        _print_changes(connection, runs, options)
    return 0


def _run(publication: Publication) -> dict[str, Any]:
    return {"run_id": publication.run_id, "published_at": publication.published_at}


def _print_changes(
    connection: duckdb.DuckDBPyConnection, runs: dict[str, dict[str, Any]], options: argparse.Namespace
) -> None:
    datasets, decisions = dataset_changes(connection), decision_changes(connection)
    limit = options.limit if options.limit is not None or options.json else SHOWN_DOCUMENTS
    ordered = "FROM changed_documents ORDER BY uri, record, document_id"
    documents = rows(connection, ordered + (f" LIMIT {limit}" if limit is not None else ""))
    (count,) = connection.execute("SELECT count(*) FROM changed_documents").fetchone() or (0,)
    if options.json:
        print_json(
            {**runs, "datasets": datasets, "decisions": decisions, "changed": count, "documents": documents}
        )
        return
    for name, run in runs.items():
        at = f", {run['published_at'].isoformat(' ', 'seconds')} UTC" if run["published_at"] else ""
        say(f"{name:<7} run {run['run_id']}{at}")
    say()
    columns = ("before", "after", "added", "changed", "removed")
    print_table(
        "",
        ["dataset", *columns],
        [
            [name, *(each[column] for column in columns)]
            for name, each in datasets.items()
            if isinstance(each, dict)
        ],
    )
    for each in datasets.values():
        if isinstance(each, str):
            say(f"{each}\n")
    if decisions:
        print_table(
            "Dropped or failed now, and back again",
            ["now", "stage", "rule or error", "documents"],
            [list(row.values()) for row in decisions],
        )
    if documents:
        print_table(
            "Documents",
            ["uri", "record", "change", "before", "after"],
            [
                [row["uri"], row["record"], row["change"], _fate(row, "before"), _fate(row, "after")]
                for row in documents
            ],
        )
    if count > len(documents):
        say(f"… and {count - len(documents):,} more documents (--limit N shows more, --json all)")


def _fate(row: dict[str, Any], side: str) -> str | None:
    fate: str | None = row[f"fate_{side}"]
    return f"{fate}: {row[f'reason_{side}']}" if fate in ("dropped", "error") else fate


def _texts(connection: duckdb.DuckDBPyConnection, wanted: str) -> list[dict[str, Any]]:
    """Return the documents of a file, or the one of an id, with their cleaned texts before and after."""
    condition, parameters = condition_of(wanted)
    found = rows(
        connection,
        f"""WITH named AS (SELECT document_id, uri, record FROM {AFTER}.main.raw WHERE {condition}
            UNION SELECT document_id, uri, record FROM {BEFORE}.main.raw WHERE {condition})
        SELECT n.document_id, n.uri, n.record, coalesce(d.change, 'none') AS change, d.fate_before, d.reason_before,
            d.fate_after, d.reason_after, b.text AS before, a.text AS after
        FROM (SELECT document_id, any_value(uri) AS uri, any_value(record) AS record FROM named GROUP BY ALL) AS n
        LEFT JOIN changed_documents AS d USING (document_id)
        LEFT JOIN {BEFORE}.main.cleaned AS b ON b.document_id = n.document_id
        LEFT JOIN {AFTER}.main.cleaned AS a ON a.document_id = n.document_id
        ORDER BY n.uri, n.record, n.document_id""",
        parameters * 2,
    )
    if not found:
        raise UsageError(f"{wanted}: neither run has a document of this path or id")
    for row in found:
        before, after = row.pop("before"), row.pop("after")
        parts = differences(before or "", after or "") if before != after else []
        row["differences"] = [part._asdict() for part in parts]
    return found


def _print_texts(found: list[dict[str, Any]], options: argparse.Namespace) -> None:
    from stemma.commands.differences import Part

    colour = wants_colour(options.color)
    for row in found:
        record = f" #{row['record']}" if row["record"] is not None else ""
        say(f"{row['uri']}{record}: {_said(row)}")
        print_differences([Part(**part) for part in row["differences"]], colour=colour)


def _said(row: dict[str, Any]) -> str:
    if row["change"] == "none":
        return "the same"
    before, after = _fate(row, "before") or "not there", _fate(row, "after") or "not there"
    what = {"content": "another content", "text": "another text of the same content"}.get(row["change"])
    fates = before if before == after else f"{before} → {after}"
    return f"{what}; {fates}" if what else fates
