"""stemma purge: documents leave the corpus and the disk for good, and stay out."""

import argparse
import os
from datetime import datetime
from typing import Any
from uuid import UUID, uuid4

import duckdb

from stemma.commands.dagster_history import delete_all_runs, has_history
from stemma.commands.output import print_json, print_table, say, say_aside
from stemma.commands.published import open_published, rows
from stemma.config import Config, load_config
from stemma.datasets import DATASETS, RAW
from stemma.errors import UsageError
from stemma.search.filters import checked_condition

DOCUMENTS = """SELECT r.document_id, r.uri, r.record, r.content_hash, r.size_bytes,
        (SELECT count(*) FROM corpus.chunked AS c WHERE c.document_id = r.document_id) AS chunks,
        (SELECT count(*) FROM corpus.raw AS o WHERE o.content_hash = r.content_hash
            AND o.document_id NOT IN (SELECT document_id FROM named)) AS same_content,
        (SELECT count(*) FROM lineage.members AS m JOIN lineage.members AS o USING (cluster_id)
            WHERE m.document_id = r.document_id AND o.document_id <> m.document_id
            AND o.document_id NOT IN (SELECT document_id FROM named)) AS alike
    FROM corpus.raw AS r WHERE r.document_id IN (SELECT document_id FROM named)
    ORDER BY r.uri, r.byte_start, r.record"""
STAYS = """What stays: files of the sources (Stemma never writes to them), what was exported or backed up, and what a
reader holds open. See docs/security.md."""


def purge(options: argparse.Namespace) -> int:
    """List what is named, or with --yes purge it; without a name, list what was purged, or finish with --yes.

    Raises UsageError for a document that is not there, StemmaError where the corpus cannot be made without it.
    """
    config = load_config(options.config)
    is_named = bool(options.ids or options.uri or options.where)
    found = _find(config, options) if is_named else []
    if not options.yes:
        _print_listing(options, config, found, is_named)
        return 0
    if not is_named and not _listed(config):
        raise UsageError("nothing was purged before: name documents by id, --uri or --where")
    done = _purge(config, options, found)
    if options.json:
        print_json(done)
        return 0
    print(f"purged: documents {done['documents']:,}, remembered results {done['results']:,}")
    if "runs_deleted" in done:
        print(f"runs deleted from Dagster's history: {done['runs_deleted']}")
    if done.get("runs_left"):
        print(
            f"{done['runs_left']} runs have not ended: their logs stay until they have, and a purge follows"
        )
    shared = sum(bool(row["same_content"]) for row in found)
    if shared:
        print(f"contents that stay, since other documents have the very same: {shared:,}")
    print(STAYS)
    return 0


def _find(config: Config, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Return the documents that are named, as rows of DOCUMENTS, and files of which there is none."""
    with open_published(config) as connection:
        named = _named_ids(connection, config, options.ids)
        files = [row for uri in options.uri for row in _files(connection, uri)]
        for row in files:
            named |= row.pop("documents")
        if options.where:
            condition = checked_condition(connection, options.where, RAW)
            query = f"SELECT document_id FROM corpus.raw WHERE {condition}"
            named |= {document for (document,) in connection.execute(query).fetchall()}
        found = rows(
            connection,
            f"WITH named AS (SELECT unnest(?::UUID[]) AS document_id) {DOCUMENTS}",
            [sorted(map(str, named))],
        )
    if options.where and not found:
        raise UsageError(f"no document of the corpus meets {options.where!r}")
    known = {row["document_id"] for row in found}
    nothing = {"record": None, "content_hash": None, "size_bytes": None, "same_content": 0, "alike": 0}
    return found + [row | nothing | {"chunks": 0} for row in files if row["document_id"] not in known]


def _named_ids(connection: duckdb.DuckDBPyConnection, config: Config, ids: list[str]) -> set[UUID]:
    """Return ids of documents. Raises UsageError for one that is none, and was not purged before either."""
    named = set()
    for text in ids:
        try:
            document_id = UUID(text)
        except ValueError:
            raise UsageError(f"'{text}' is no id of a document (a UUID); for a file use --uri") from None
        known = """SELECT count(*) FROM (SELECT document_id FROM corpus.raw UNION ALL
            SELECT document_id FROM lineage.waiting) WHERE document_id = ?"""
        row = connection.execute(known, [document_id]).fetchone()
        if row == (0,) and document_id not in {purge.document_id for purge in _listed(config)}:
            raise UsageError(f"{document_id}: no document of the corpus has this id (see corpus.raw)")
        named.add(document_id)
    return named


def _files(connection: duckdb.DuckDBPyConnection, wanted: str) -> list[dict[str, Any]]:
    """Return the files of a path or URL, each with its own id and those of its documents. Raises UsageError."""
    from stemma.resources.purges import file_id

    absolute = os.path.abspath(os.path.expanduser(wanted))
    files = rows(
        connection, "SELECT source, path, uri FROM lineage.files WHERE uri = ? OR uri = ?", [wanted, absolute]
    )
    if not files:
        raise UsageError(
            f"{wanted}: no file of the corpus: name it by its path from here, or as corpus.raw.uri has it"
        )
    for file in files:
        place = [file["source"], file["uri"]]
        query = """SELECT document_id FROM corpus.raw WHERE source = ? AND uri = ?
            UNION SELECT document_id FROM lineage.waiting WHERE source = ? AND uri = ?"""
        documents = connection.execute(query, place * 2).fetchall()
        file["documents"] = {document for (document,) in documents}
        file["document_id"] = UUID(bytes=file_id(file.pop("source"), file.pop("path")))
    return files


def _listed(config: Config) -> tuple[Any, ...]:
    from stemma.resources.purges import NO_PURGES, read_purges
    from stemma.resources.warehouse import Warehouse

    return (read_purges(Warehouse(config.warehouse.path).purges_path) or NO_PURGES).rows


def _print_listing(
    options: argparse.Namespace, config: Config, found: list[dict[str, Any]], is_named: bool
) -> None:
    if not is_named:
        listed = [vars(row) for row in _listed(config)]
        if options.json:
            print_json({"purged": listed})
        elif listed:
            print_table("Purged", list(listed[0]), [list(row.values()) for row in listed])
        else:
            print("nothing was purged; name documents by id, --uri or --where")
        return
    if options.json:
        print_json({"would_purge": found})
        return
    columns = ("document_id", "uri", "record", "size_bytes", "chunks", "same_content", "alike")
    print_table(
        "", [name.replace("_", " ") for name in columns], [[row[name] for name in columns] for row in found]
    )
    if any(row["same_content"] for row in found):
        say("same content: so many other documents have the very same content; it stays with them.")
    if any(row["alike"] for row in found):
        say("alike: so many near-duplicates of the same family stay; 'stemma families' shows them.")
    named = f"{len(found):,} document{'s' * (len(found) != 1)}"
    say(f"{named} would be purged; nothing was done. --yes does it, and cannot be undone.")


def _purge(config: Config, options: argparse.Namespace, found: list[dict[str, Any]]) -> dict[str, Any]:
    from stemma.resources.engine import Run, Setup
    from stemma.resources.engine.purge import list_purges
    from stemma.resources.engine.purge import purge as purge_listed
    from stemma.resources.purges import Purge
    from stemma.resources.warehouse import Warehouse, utc_now

    now: datetime = utc_now()
    warehouse = Warehouse(config.warehouse.path, waiting=say_aside)
    run = Run(f"purge-{uuid4()}", Setup.of(config), warehouse)
    try:
        list_purges(
            run, [Purge(row["document_id"], _own_content(row), now, options.reason or "") for row in found]
        )
        purged = purge_listed(run)
    finally:
        warehouse.close()
    done: dict[str, Any] = {"run_id": run.run_id, "named": len(found), **vars(purged)}
    if not options.keep_run_history and has_history(config):
        done["runs_deleted"], done["runs_left"] = delete_all_runs(
            config, [dataset.name for dataset in DATASETS]
        )
    return done


def _own_content(row: dict[str, Any]) -> UUID | None:
    """Return the hash of a content that no document has that stays, unless it is empty."""
    return row["content_hash"] if row["size_bytes"] and not row["same_content"] else None
