"""stemma families: families of duplicates, and what differs between their members."""

import argparse
import os
import re
from typing import Any
from uuid import UUID

import duckdb

from stemma.commands.differences import (
    COMPARED_CHARACTERS,
    Part,
    differences,
    print_differences,
    wants_colour,
)
from stemma.commands.output import print_json, print_table, say, shown
from stemma.commands.published import open_published, rows
from stemma.config import load_config
from stemma.errors import UsageError

# How families are sorted; ties by id.
ORDERS = {
    "members": "members DESC",
    "days": "days DESC NULLS LAST",
    "similarity": "least_similarity NULLS LAST",
    "characters": "characters DESC",
}
FILTER = """($source IS NULL OR list_contains(sources, $source))
    AND ($method IS NULL OR list_contains(methods, $method))"""
# Hexadecimal digits of an id that are enough to look for it.
PREFIX = re.compile(r"[0-9a-f]{8,32}")
SHOWN_NAMES = 3

Row = dict[str, Any]


def families(options: argparse.Namespace) -> int:
    """Print the largest families, or the members of one. Raises UsageError for what is in no family."""
    with open_published(load_config(options.config)) as connection:
        if options.family is None:
            _print_families(_families(connection, options), options, _count(connection, options))
            return 0
        named = _named(connection, options.family)
        if not named:
            raise UsageError(
                f"{options.family}: no other document is a duplicate of it; 'stemma why' tells what became of it"
            )
        if len(named) > 1:
            _print_families(_families(connection, options, named), options, len(named))
            return 0
        _print_family(connection, named[0], options)
    return 0


# -- all families --------------------------------------------------------------------------------------------------


def _families(
    connection: duckdb.DuckDBPyConnection, options: argparse.Namespace, among: list[UUID] | None = None
) -> list[Row]:
    return rows(
        connection,
        f"""SELECT cluster_id, members, kept, sources, first_date, last_date, days, methods, least_similarity,
            characters, superseded, kept_document_ids, title FROM corpus.families
        WHERE {FILTER} AND ($among IS NULL OR cluster_id IN (SELECT unnest($among::UUID[])))
        ORDER BY {ORDERS[options.sort]}, cluster_id LIMIT $limit""",
        _filters(options) | {"among": among, "limit": options.n},
    )


def _count(connection: duckdb.DuckDBPyConnection, options: argparse.Namespace) -> int:
    found = rows(
        connection,
        f"SELECT count(*) AS families FROM corpus.families WHERE {FILTER}",
        _filters(options),
    )
    return int(found[0]["families"])


def _filters(options: argparse.Namespace) -> Row:
    return {"source": options.source, "method": options.method}


def _print_families(found: list[Row], options: argparse.Namespace, count: int) -> None:
    if options.json:
        print_json(found)
        return
    if not found:
        say("no families of duplicates")
        return
    print_table(
        "",
        ["cluster id", "members", "kept", "sources", "dates", "methods", "least similarity", "title"],
        [
            [
                row["cluster_id"],
                row["members"],
                row["kept"],
                _listed(row["sources"]),
                _period(row["first_date"], row["last_date"]),
                _listed(row["methods"] or []),
                _rounded(row["least_similarity"]),
                row["title"],
            ]
            for row in found
        ],
    )
    if count > len(found):
        say(f"{len(found)} of {count:,} families; -n N shows more")


def _listed(names: list[str]) -> str:
    more = f", {len(names) - SHOWN_NAMES} more" if len(names) > SHOWN_NAMES else ""
    return ", ".join(names[:SHOWN_NAMES]) + more


def _period(first: Any, last: Any) -> str:
    if first is None or first == last:
        return shown(first)
    return f"{first} – {last}"


def _rounded(similarity: float | None) -> float | None:
    return None if similarity is None else round(similarity, 3)


# -- one family ----------------------------------------------------------------------------------------------------


def _named(connection: duckdb.DuckDBPyConnection, given: str) -> list[UUID]:
    """Return the families of the documents that an id, the beginning of one, or a path means.

    Raises UsageError where there is no such document, or an id may mean several.
    """
    digits = given.strip().lower().replace("-", "")
    if PREFIX.fullmatch(digits):
        # What begins alike lies between two ids.
        between = [UUID(digits.ljust(32, filler)) for filler in "0f"]
        found = _clusters(connection, "document_id BETWEEN ? AND ?", between)
        if sum(len(row["document_ids"]) for row in found) > 1:
            several = sorted(str(each) for row in found for each in row["document_ids"])
            raise UsageError(f"{given}: several documents begin so: {', '.join(several[:SHOWN_NAMES])} …")
    else:
        found = []
    if not found:
        absolute = os.path.abspath(os.path.expanduser(given))
        places = [given, absolute, "/" + given.removeprefix("./").lstrip("/")]
        found = _clusters(connection, "(uri = ? OR uri = ? OR ends_with(uri, ?))", places)
    if not found:
        raise UsageError(
            f"{given}: no document of the corpus has this path, or an id that begins so (8 digits at least);"
            " 'stemma why' tells what became of a file"
        )
    return [row["cluster_id"] for row in found if row["cluster_size"] > 1]


def _clusters(connection: duckdb.DuckDBPyConnection, condition: str, parameters: list[Any]) -> list[Row]:
    """Return the families of the documents for which a condition holds, with a few of these documents."""
    return rows(
        connection,
        f"""SELECT cluster_id, cluster_size, min(document_id, {SHOWN_NAMES + 1}) AS document_ids
        FROM lineage.members JOIN corpus.raw USING (document_id)
        WHERE {condition} GROUP BY cluster_id, cluster_size ORDER BY cluster_id""",
        parameters,
    )


def _print_family(connection: duckdb.DuckDBPyConnection, cluster: UUID, options: argparse.Namespace) -> None:
    members = _members(connection, cluster, options)
    for member in members:
        if member["kept_document_id"]:
            member["difference"] = _difference(connection, member)
    (family,) = rows(
        connection,
        """SELECT cluster_id, members, kept, sources, first_date, last_date, days, methods, least_similarity,
            characters, superseded, title FROM corpus.families WHERE cluster_id = ?""",
        [cluster],
    )
    if options.json:
        print_json(family | {"documents": [_plain(member) for member in members]})
        return
    say(
        f"Family {cluster}: {family['members']:,} documents, {family['kept']:,} kept. {shown(family['title'])}\n"
    )
    _print_members(members)
    if len(members) < family["members"]:
        say(f"{len(members)} of {family['members']:,} documents; -n N shows more\n")
    _print_removed(members, colour=wants_colour(options.color))


def _members(connection: duckdb.DuckDBPyConnection, cluster: UUID, options: argparse.Namespace) -> list[Row]:
    """Return members of a family: N of those kept, and N of the others that were asked for."""
    return rows(
        connection,
        """SELECT m.document_id, r.uri, r.record, r.source, c.document_date, c.scores.characters AS characters,
            m.kept, m.method, m.similarity, m.threshold, m.kept_document_id, k.uri AS kept_uri,
            k.record AS kept_record, 1 + coalesce(v.ended, 0) AS versions, v.changed_at
        FROM lineage.members AS m JOIN corpus.raw AS r USING (document_id) JOIN corpus.cleaned AS c USING (document_id)
        LEFT JOIN corpus.raw AS k ON k.document_id = m.kept_document_id
        LEFT JOIN (SELECT document_id, count(*) AS ended, max(until) AS changed_at FROM lineage.superseded
            GROUP BY document_id) AS v ON v.document_id = m.document_id
        WHERE m.cluster_id = $cluster AND (m.kept
            OR ($source IS NULL OR r.source = $source) AND ($method IS NULL OR m.method = $method))
        QUALIFY row_number() OVER (PARTITION BY m.kept ORDER BY r.uri, r.byte_start, r.record, m.document_id) <= $limit
        ORDER BY m.kept DESC, r.uri, r.byte_start, r.record, m.document_id""",
        _filters(options) | {"cluster": cluster, "limit": options.n},
    )


def _difference(connection: duckdb.DuckDBPyConnection, member: Row) -> list[Part]:
    """Return what makes a document's text of that of the kept one. Two texts are in memory at a time, cut."""
    texts = dict(
        connection.execute(
            f"""SELECT document_id, text[:{COMPARED_CHARACTERS + 1}] FROM corpus.cleaned
            WHERE document_id IN (?, ?)""",
            [member["document_id"], member["kept_document_id"]],
        ).fetchall()
    )
    return differences(texts[member["kept_document_id"]], texts[member["document_id"]])


def _plain(member: Row) -> Row:
    parts = member.get("difference")
    return member | {"difference": None if parts is None else [part._asdict() for part in parts]}


def _print_members(members: list[Row]) -> None:
    names = ("uri", "record", "document_date", "characters", "method", "similarity", "witness", "versions")
    numbers = {row["document_id"]: number for number, row in enumerate(members, 1)}
    print_table(
        "",
        ["", "document_id", *(name.replace("document_", "") for name in names)],
        [
            [number, row["document_id"], *(_shown_of(row, numbers)[name] for name in names)]
            for number, row in enumerate(members, 1)
        ],
    )


def _shown_of(row: Row, numbers: dict[UUID, int]) -> Row:
    witness = numbers.get(row["kept_document_id"], row["kept_document_id"])
    return row | {
        "method": "kept" if row["kept"] else row["method"],
        "similarity": _rounded(row["similarity"]),
        "witness": None if witness is None else str(witness),
    }


def _print_removed(members: list[Row], *, colour: bool) -> None:
    numbers = {row["document_id"]: number for number, row in enumerate(members, 1)}
    for row in members:
        if row.get("difference") is None:
            continue
        kept = numbers.get(row["kept_document_id"])
        against = f"{kept}. " if kept else ""
        say(f"{numbers[row['document_id']]}. {_place(row['uri'], row['record'])}")
        say(f"    against {against}{_place(row['kept_uri'], row['kept_record'])}")
        if all(part.kind == "same" for part in row["difference"]):
            say("    the same words")
        print_differences(row["difference"], colour=colour)
        say()


def _place(uri: str, record: str | None) -> str:
    return shown(uri if record is None else f"{uri} #{record}")
