"""Rules that a user writes as SQL expressions in stemma.toml, checked before anything runs.

[[clean.rules]]
name = "tiny"
drop_if = "scores.words < 20 AND language = 'en'"   # or flag_if
score = "scores.words"                              # optional: what to record, and what it was compared with
threshold = 20
"""

import json
import re
from collections.abc import Iterator
from difflib import get_close_matches
from typing import Any

import pyarrow as pa

from stemma.cleaning.filters.metrics import METRICS
from stemma.cleaning.filters.verdict import Rule

_NAME = re.compile(r"[a-z][a-z0-9_]{0,62}")
# What an expression may consist of; anything else (a subquery, a window, a star, a parameter) sees other rows.
_ALLOWED = {
    "CASE",
    "CAST",
    "COLUMN_REF",
    "COMPARISON",
    "CONJUNCTION",
    "CONSTANT",
    "FUNCTION",
    "LAMBDA",
    "OPERATOR",
}
_ALLOWED |= {"BETWEEN", "COLLATE"}
# Scalar functions that DuckDB calls consistent although they tell of the session.
# Words that stand like columns and tell of clock or session, and texts that a cast makes a time of now.
_PSEUDO_COLUMNS = {"current_date", "current_time", "current_timestamp", "localtime", "localtimestamp", "user"}
_PSEUDO_COLUMNS |= {"current_user", "session_user", "current_schema", "current_catalog", "current_role"}
_TIMES = {"now", "today", "yesterday", "tomorrow"}
_SESSION = {"age", "current_setting", "getvariable", "version"}


def user_rule(
    name: str,
    condition: str,
    *,
    score: str | None = None,
    threshold: float = 1.0,
    scores: pa.DataType = METRICS,
) -> Rule:
    """Return a user's rule, its expressions written as DuckDB reads them.

    Args:
        name: lower-case letters, digits and underscores.
        condition: SQL boolean over the columns `scores` (a STRUCT), `language`, `language_score`, `words`,
            `text_length`, `contamination` and `model_scores` (a MAP): true when the document fails the rule.
        score: SQL number over the same; by default 1.
        threshold: what the score was compared with.
        scores: the type of the column `scores`.

    Raises:
        ValueError: a bad name, an expression that cannot be read or that depends on more than the one document
            (other rows, files, the clock, chance, the session), or one of another type.
    """
    if not _NAME.fullmatch(name):
        raise ValueError(f"no name of a rule: {name!r} (lower-case letters, digits and underscores)")
    kinds = {"BOOLEAN": condition, "DOUBLE": score or "1.0"}
    written = [_checked(name, expression, kind, scores) for kind, expression in kinds.items()]
    # What fails for a document (a cast, a division) is null there, and null does not fail the rule.
    return Rule(name, f"TRY({written[0]})", f"TRY(({written[1]})::DOUBLE)", float(threshold))


def _checked(name: str, expression: str, kind: str, scores: pa.DataType) -> str:
    import duckdb

    with duckdb.connect(config={"enable_external_access": False}) as connection:
        connection.register("documents", _documents(scores))
        try:
            written = str(duckdb.SQLExpression(expression))
            _check_parts(connection, written)
            # Conditions take neither aggregates nor windows.
            connection.execute(f"SELECT 1 FROM documents WHERE ({written}) IS NULL")
            found = connection.sql(f"SELECT {written} AS value FROM documents").types[0]
            if kind == "BOOLEAN" and str(found) != kind:
                raise ValueError(f"not true or false but {found}: {expression!r}")
            if kind == "DOUBLE":
                connection.execute(f"SELECT abs({written})::DOUBLE FROM documents")
        except duckdb.Error as error:
            raise ValueError(f"rule {name!r}: {_explained(str(error), scores)}") from None
        except ValueError as error:
            raise ValueError(f"rule {name!r}: {error}") from None
    return written


def _documents(scores: pa.DataType) -> pa.Table:
    columns = {"scores": scores, "language": pa.string(), "language_score": pa.float64()}
    columns |= {"words": pa.int32(), "text_length": pa.int64(), "contamination": pa.float64()}
    columns |= {"model_scores": pa.map_(pa.string(), pa.float64())}
    return pa.schema(list(columns.items())).empty_table()


def _check_parts(connection: Any, written: str) -> None:
    """Raise ValueError for a part that would make the rule depend on more than the row."""
    answer = connection.execute("SELECT json_serialize_sql(?)", [f"SELECT {written}"]).fetchone()
    parts = list(_parts(json.loads(answer[0])["statements"][0]["node"]["select_list"]))
    for part in parts:
        if part["class"] not in _ALLOWED:
            raise ValueError(f"{part['class'].lower()} is not allowed: a rule sees one document")
        if part["class"] == "COLUMN_REF" and part["column_names"][0].lower() in _PSEUDO_COLUMNS:
            raise ValueError(
                f"{part['column_names'][0]} is not allowed: a rule depends on the document alone"
            )
        if part["class"] == "CONSTANT" and str(part["value"].get("value")).strip().lower() in _TIMES:
            raise ValueError(
                f"{part['value']['value']!r} is not allowed: as a time it would be that of the clock"
            )
    names = sorted({part["function_name"] for part in parts if part["class"] == "FUNCTION"})
    query = "SELECT function_name FROM duckdb_functions() WHERE stability <> 'CONSISTENT'"
    unstable = _SESSION | {row[0] for row in connection.execute(query).fetchall()}
    for function in names:
        if function in unstable:
            raise ValueError(f"{function}() is not allowed: a rule depends on the document alone")


def _parts(node: Any) -> Iterator[dict[str, Any]]:
    """Yield the expressions within a serialized statement."""
    if isinstance(node, dict):
        if "class" in node:
            yield node
        node = list(node.values())
    if isinstance(node, list):
        for child in node:
            yield from _parts(child)


def _explained(message: str, scores: pa.DataType) -> str:
    """Return the first line of DuckDB's message, with the nearest metric where it names one that is not there."""
    line = message.strip().split("\n")[0]
    unknown = re.search(r'key "(\w+)"', line)
    nearest = get_close_matches(unknown[1], [field.name for field in scores], 1) if unknown else []
    return f"unknown metric {unknown[1]!r} (did you mean {nearest[0]!r}?)" if unknown and nearest else line
