"""stemma trace and stemma why: from an id or a path to where it came from and what became of it."""

import argparse
import os
from typing import Any
from uuid import UUID

import duckdb

from stemma.commands.output import print_facts, print_json, print_table, say, shown
from stemma.commands.published import open_published, rows
from stemma.config import load_config
from stemma.errors import UsageError

SHOWN_CHUNKS = 20
SHOWN_RULES = 3


def trace(options: argparse.Namespace) -> int:
    """Print the way back to the source and forward to what came of an id. Raises UsageError for an unknown id."""
    with open_published(load_config(options.config)) as connection:
        wanted = _uuid(options.id)
        if wanted is None:
            raise UsageError(
                f"'{options.id}' is no id (a UUID of 32 hex digits); for a path use 'stemma why'"
            )
        found = _trace(connection, wanted)
    if options.json:
        print_json(found)
        return 0
    if "chunk" in found:
        say("chunk")
        print_facts({name: value for name, value in found["chunk"].items() if value is not None})
    for document in found["documents"]:
        _print_document(document)
    return 0


def _trace(connection: duckdb.DuckDBPyConnection, wanted: UUID) -> dict[str, Any]:
    chunk = rows(
        connection,
        """SELECT chunk_id, c.document_id, c.ordinal, c.char_start, c.char_end, t.place, t.source_char_start,
            t.source_char_end, t.source_byte_start, t.source_byte_end, c.tokens, c.section, e.model, c.text
        FROM corpus.chunked AS c LEFT JOIN lineage.trace AS t USING (chunk_id)
        LEFT JOIN (SELECT chunk_id, model FROM corpus.embedded) AS e USING (chunk_id)
        WHERE chunk_id = ?""",
        [wanted],
    )
    if chunk:
        return {"chunk": chunk[0], "documents": [_document(connection, chunk[0]["document_id"])]}
    # A family's id is that of one of its members, whose trace lists the others.
    if not rows(connection, "SELECT document_id FROM corpus.raw WHERE document_id = ?", [wanted]):
        raise UsageError(f"{wanted}: no document, chunk or family of the corpus has this id")
    return {"documents": [_document(connection, wanted)]}


def _document(connection: duckdb.DuckDBPyConnection, document_id: UUID) -> dict[str, Any]:
    """Return all that the corpus knows of a document: source, stages with their recipes, fate, what came of it."""
    source = rows(
        connection,
        """SELECT document_id, source, uri, record, byte_start, byte_end, media_type, encoding, document_date,
            content_hash, size_bytes, ingested_at FROM corpus.raw WHERE document_id = ?""",
        [document_id],
    )[0]
    cleaned = rows(
        connection,
        """SELECT title, author, language, language_score, words, document_date, date_from, text_hash
        FROM corpus.cleaned WHERE document_id = ?""",
        [document_id],
    )
    family = rows(
        connection,
        """SELECT cluster_id, cluster_size, kept_document_id, similarity, method FROM lineage.members
        WHERE document_id = ?""",
        [document_id],
    )
    chunks = rows(
        connection,
        """SELECT chunk_id, ordinal, char_start, char_end, tokens, section FROM corpus.chunked
        WHERE document_id = ? ORDER BY ordinal""",
        [document_id],
    )
    relatives = rows(
        connection,
        """SELECT document_id, uri, kept_document_id, similarity, method
        FROM lineage.members JOIN corpus.raw USING (document_id)
        WHERE cluster_id = (SELECT cluster_id FROM lineage.members WHERE document_id = $id) AND document_id <> $id
        ORDER BY uri, document_id""",
        {"id": document_id},
    )
    return {
        "fate": fate(connection, document_id),
        "source": source,
        "cleaned": cleaned[0] if cleaned else None,
        "family": family[0] if family else None,
        "relatives": relatives,
        "chunks": chunks,
        "recipes": {
            r["name"]: r["recipe"] for r in rows(connection, "SELECT name, recipe FROM lineage.datasets")
        },
    }


def fate(connection: duckdb.DuckDBPyConnection, document_id: UUID) -> dict[str, Any]:
    """Return what became of a document: kept, dropped (rule, score, threshold) or error (stage, reason)."""
    errors = rows(
        connection,
        "SELECT stage, error, detail, run_id FROM lineage.errors WHERE document_id = ?",
        [document_id],
    )
    if errors:
        return {"fate": "error", **errors[0]}
    decisions = rows(
        connection,
        """SELECT d.stage, d.rule, d.score, d.threshold, d.kept_document_id, k.uri AS kept_uri, d.run_id
        FROM lineage.decisions AS d LEFT JOIN corpus.raw AS k ON k.document_id = d.kept_document_id
        LEFT JOIN lineage.rules USING (rule)
        WHERE d.document_id = ? ORDER BY position""",
        [document_id],
    )
    if decisions:
        rules = [{name: row[name] for name in ("rule", "score", "threshold")} for row in decisions]
        return {"fate": "dropped", **decisions[0], "rules": rules}
    count = rows(
        connection, "SELECT count(*) AS chunks FROM corpus.embedded WHERE document_id = ?", [document_id]
    )
    flags = rows(
        connection,
        "SELECT rule, score, threshold FROM lineage.flags WHERE document_id = ? ORDER BY rule",
        [document_id],
    )
    return {"fate": "kept", "chunks": count[0]["chunks"], "flags": flags}


def sentence(what: dict[str, Any]) -> str:
    """Return a fate as a sentence."""
    if what["fate"] == "kept":
        flags = f"; rules that only flag would drop it: {_measured(what['flags'])}" if what["flags"] else ""
        return f"kept, in {what['chunks']} chunk{'s' if what['chunks'] != 1 else ''}{flags}"
    if what["fate"] == "error":
        return f"could not be processed ({what['stage']}): {what['error']}: {what['detail']}"
    if what["fate"] == "waiting":
        return f"{what['change']} in its source; a run that takes in {what['partition_date']} will take it in"
    if what["kept_document_id"]:
        return (
            f"dropped ({what['stage']}): {what['rule']} duplicate of {what['kept_uri']},"
            f" similarity {shown(what['score'])} ≥ {shown(what['threshold'])}"
        )
    return f"dropped ({what['stage']}) by the rule{'s' * (len(what['rules']) > 1)} {_measured(what['rules'])}"


def _measured(rules: list[dict[str, Any]]) -> str:
    listed = [
        f"'{rule['rule']}' (score {shown(rule['score'])}, threshold {shown(rule['threshold'])})"
        for rule in rules[:SHOWN_RULES]
    ]
    more = [f"{len(rules) - SHOWN_RULES} more (--json shows all)"] if len(rules) > SHOWN_RULES else []
    return ", ".join([*listed, *more])


def _print_document(document: dict[str, Any]) -> None:
    say(f"\ndocument: {sentence(document['fate'])}")
    print_facts({name: value for name, value in document["source"].items() if value is not None})
    for name in ("cleaned", "family"):
        if document[name]:
            say(name)
            print_facts({key: value for key, value in document[name].items() if value is not None})
    if document["relatives"]:
        columns = ["document_id", "uri", "kept_document_id", "similarity", "method"]
        print_table(
            "others of its family",
            columns,
            [[row[name] for name in columns] for row in document["relatives"]],
        )
    if document["chunks"]:
        columns = ["chunk_id", "ordinal", "char_start", "char_end", "tokens", "section"]
        print_table(
            "chunks", columns, [[row[name] for name in columns] for row in document["chunks"][:SHOWN_CHUNKS]]
        )
        if len(document["chunks"]) > SHOWN_CHUNKS:
            say(f"… and {len(document['chunks']) - SHOWN_CHUNKS} more (--json shows all)")
    say("recipes")
    print_facts(document["recipes"])


def why(options: argparse.Namespace) -> int:
    """Print what became of each document of a file, or of one document. Raises UsageError when it is unknown."""
    with open_published(load_config(options.config)) as connection:
        found = _why(connection, options.document)
    if options.json:
        print_json(found)
        return 0
    for entry in found:
        record = f" #{entry['record']}" if entry.get("record") is not None else ""
        say(f"{entry['uri']}{record}: {sentence(entry)}")
        if entry.get("document_id"):
            say(f"   document {entry['document_id']}")
    return 0


def _why(connection: duckdb.DuckDBPyConnection, wanted: str) -> list[dict[str, Any]]:
    document_id = _uuid(wanted)
    condition, parameters = condition_of(wanted)
    documents = rows(
        connection,
        f"SELECT document_id, uri, record FROM corpus.raw WHERE {condition} ORDER BY uri, byte_start, record",
        parameters,
    )
    found = [row | fate(connection, row["document_id"]) for row in documents]
    found += [
        row | {"fate": "waiting"}
        for row in rows(
            connection,
            f"""SELECT document_id, uri, record, partition_date, change FROM lineage.waiting
            WHERE {condition} ORDER BY uri, record""",
            parameters,
        )
    ]
    if document_id is None:
        found += [
            row | {"document_id": None, "fate": "error"}
            for row in rows(
                connection,
                f"""SELECT uri, record, stage, error, detail, run_id FROM lineage.errors
                WHERE document_id IS NULL AND {condition} ORDER BY uri, record""",
                parameters,
            )
        ]
        if not found and rows(
            connection, f"SELECT uri FROM lineage.files WHERE {condition} LIMIT 1", parameters
        ):
            raise UsageError(f"{wanted}: was read and holds no documents")
    if not found:
        raise UsageError(
            f"{wanted}: not in the corpus: no source lists it (see 'stemma status'), or the last run was before it"
        )
    return found


def condition_of(wanted: str) -> tuple[str, list[Any]]:
    """Return the condition on rows of raw, with parameters, for a path, the end of one, or a document_id."""
    document_id = _uuid(wanted)
    return _place(wanted) if document_id is None else ("document_id = ?", [document_id])


def _place(wanted: str) -> tuple[str, list[Any]]:
    """Return the condition for a path as given, or for the end of one."""
    absolute = os.path.abspath(os.path.expanduser(wanted))
    return "(uri = ? OR uri = ? OR ends_with(uri, ?))", [wanted, absolute, "/" + wanted.lstrip("./")]


def _uuid(text: str) -> UUID | None:
    try:
        return UUID(text)
    except ValueError:
        return None
