"""All that the report tells of a published file, by SQL."""

import json
from pathlib import Path
from typing import Any

import duckdb

from stemma.embedding.arrays import Vectors, matrix
from stemma.errors import StemmaError
from stemma.reporting.numbers import PUBLISHED, SAMPLE, Row, numbers, rows, saved

DATASETS = ("raw", "cleaned", "deduplicated", "chunked", "embedded")
# How many of each are told.
EXAMPLES = 3
RULES = 12
FAMILIES = 8
ERRORS = 8
RUNS = 10

TOTALS = """SELECT (SELECT count(*) FROM main.raw) AS documents,
        (SELECT coalesce(sum(size_bytes), 0)::BIGINT FROM main.raw) AS bytes,
        (SELECT count(*) FROM lineage.members WHERE kept) AS kept,
        (SELECT coalesce(sum(words), 0)::BIGINT FROM lineage.members JOIN main.cleaned USING (document_id) WHERE kept)
            AS words,
        (SELECT count(*) FROM main.families) AS families,
        (SELECT count(DISTINCT document_id) FROM lineage.decisions) AS dropped,
        (SELECT count(*) FROM lineage.errors) AS errors,
        (SELECT count(*) FROM main.chunked) AS chunks,
        (SELECT coalesce(sum(tokens), 0)::BIGINT FROM main.chunked) AS tokens,
        (SELECT count(*) FROM main.embedded) AS vectors,
        (SELECT count(DISTINCT text_hash) FROM main.embedded) AS distinct_vectors,
        (SELECT any_value(model) FROM main.embedded) AS model"""
SOURCES = """SELECT r.source, count(*) AS documents, count(*) FILTER (m.kept) AS kept,
        sum(r.size_bytes)::BIGINT AS bytes
    FROM main.raw AS r LEFT JOIN lineage.members AS m USING (document_id) GROUP BY r.source ORDER BY r.source"""
DROPPED = f"""SELECT d.stage, d.rule, count(*) AS documents, min(d.score) AS lowest, max(d.score) AS highest,
        min(d.threshold) AS threshold, any_value(r.condition) AS condition
    FROM lineage.decisions AS d LEFT JOIN lineage.rules AS r ON r.rule = d.rule AND d.stage = 'cleaned'
    GROUP BY d.stage, d.rule ORDER BY documents DESC, d.stage, d.rule LIMIT {RULES}"""
EXAMPLES_DROPPED = f"""SELECT d.stage, d.rule, r.uri, r.record, d.score, k.uri AS kept_uri, k.record AS kept_record
    FROM lineage.decisions AS d JOIN main.raw AS r USING (document_id)
    LEFT JOIN main.raw AS k ON k.document_id = d.kept_document_id
    QUALIFY row_number() OVER (PARTITION BY d.stage, d.rule ORDER BY hash(document_id), document_id) <= {EXAMPLES}"""
FLAGGED = f"""SELECT rule, count(*) AS documents, min(score) AS lowest, max(score) AS highest,
        any_value(threshold) AS threshold
    FROM lineage.flags GROUP BY rule ORDER BY documents DESC, rule LIMIT {RULES}"""
LARGEST_FAMILIES = f"""SELECT cluster_id, title, members, kept, sources, methods, least_similarity,
        first_date, last_date
    FROM main.families ORDER BY members DESC, characters DESC, cluster_id LIMIT {FAMILIES}"""
FAILED = f"""SELECT stage, error, count(*) AS documents, min(uri) AS uri, arg_min(detail, uri) AS detail
    FROM lineage.errors GROUP BY stage, error ORDER BY documents DESC, stage, error LIMIT {ERRORS}"""
HEALTH = "FROM lineage.embedding_health ORDER BY number DESC LIMIT 1"
LAST_RUNS = f"""SELECT run_id, min(started_at) AS started_at,
        sum(epoch(finished_at - started_at))::DOUBLE AS seconds,
        sum(rows_computed)::BIGINT AS computed, sum(rows_reused)::BIGINT AS reused,
        sum(rows_added)::BIGINT AS added, sum(rows_changed)::BIGINT AS changed, sum(rows_removed)::BIGINT AS removed
    FROM lineage.runs GROUP BY run_id ORDER BY max(number) DESC NULLS LAST, started_at DESC, run_id LIMIT {RUNS}"""
LAST_RUN = """SELECT dataset, rows_in, rows_computed, rows_reused, rows_added, rows_changed, rows_removed, rows, errors,
        epoch(finished_at - started_at)::DOUBLE AS seconds
    FROM lineage.runs WHERE run_id = $run"""
RECIPES = """SELECT d.name, d.recipe, d.version, r.explained
    FROM lineage.datasets AS d LEFT JOIN lineage.recipes AS r ON r.recipe = d.recipe AND r.dataset = d.name"""
VECTORS = f"""SELECT e.embedding FROM main.embedded AS e SEMI JOIN ({SAMPLE}) USING (chunk_id) ORDER BY e.chunk_id"""
PLACES = f"""SELECT r.source, r.uri, c.language, coalesce(c.title, parse_filename(r.uri)) AS title, t.section
    FROM ({SAMPLE}) AS s JOIN main.chunked AS t USING (chunk_id)
    JOIN main.raw AS r USING (document_id) JOIN main.cleaned AS c USING (document_id) ORDER BY chunk_id"""


def collect(connection: duckdb.DuckDBPyConnection, path: Path) -> Row:
    """Return all that the report tells of the published file at `path`, which the connection has open.

    Raises StemmaError for a file that another version of Stemma published.
    """
    try:
        return {"path": str(path), "bytes": path.stat().st_size} | _collected(connection)
    except duckdb.Error as error:
        raise StemmaError(
            f"{path}: the report cannot be made of it ({str(error).splitlines()[0]});"
            " was it published by another version? 'stemma run' brings it up to date"
        ) from error


def _collected(connection: duckdb.DuckDBPyConnection) -> Row:
    runs = rows(connection, LAST_RUNS, PUBLISHED)
    savings = saved(connection, PUBLISHED, [run["run_id"] for run in runs])
    for run in runs:
        run["seconds_saved"] = sum(
            row["seconds_saved"] for (run_id, _), row in savings.items() if run_id == run["run_id"]
        )
    last = rows(connection, LAST_RUN, PUBLISHED, {"run": runs[0]["run_id"]}) if runs else []
    for row in last:
        row["saved"] = savings[runs[0]["run_id"], row["dataset"]]
    vectors, places = _map(connection)
    return {
        "totals": _first(rows(connection, TOTALS, PUBLISHED)),
        "sources": rows(connection, SOURCES, PUBLISHED),
        "numbers": {name: numbers(connection, PUBLISHED, name) for name in DATASETS},
        "dropped": _with_examples(connection),
        "flagged": rows(connection, FLAGGED, PUBLISHED),
        "families": rows(connection, LARGEST_FAMILIES, PUBLISHED),
        "errors": rows(connection, FAILED, PUBLISHED),
        "health": _first(rows(connection, HEALTH, PUBLISHED)),
        "runs": runs,
        "last_run": sorted(last, key=lambda row: DATASETS.index(row["dataset"])),
        "recipes": _recipes(connection),
        "vectors": vectors,
        "places": places,
    }


def _first(found: list[Row]) -> Row:
    return found[0] if found else {}


def _with_examples(connection: duckdb.DuckDBPyConnection) -> list[Row]:
    examples = rows(connection, EXAMPLES_DROPPED, PUBLISHED)
    return [
        row | {"examples": [e for e in examples if (e["stage"], e["rule"]) == (row["stage"], row["rule"])]}
        for row in rows(connection, DROPPED, PUBLISHED)
    ]


def _recipes(connection: duckdb.DuckDBPyConnection) -> list[Row]:
    found = {row["name"]: row for row in rows(connection, RECIPES, PUBLISHED)}
    return [
        found[name] | {"explained": json.loads(found[name]["explained"] or "{}")}
        for name in DATASETS
        if name in found
    ]


def _map(connection: duckdb.DuckDBPyConnection) -> tuple[Vectors | None, list[dict[str, Any]]]:
    found = connection.execute(VECTORS.format(**PUBLISHED)).to_arrow_table()
    return (matrix(found) if found.num_rows else None), rows(connection, PLACES, PUBLISHED)
