"""The report as one HTML page: no script, nothing from elsewhere, all foreign text escaped."""

import base64
import hashlib
import json
from collections.abc import Iterable, Sequence
from datetime import datetime
from html import escape
from importlib.resources import files
from typing import Any

from stemma.reporting.charts import Picture
from stemma.reporting.numbers import Row
from stemma.reporting.pictures import pictures, vector_map
from stemma.reporting.text import amount, duration, human_bytes, plain

# What a recipe is made of and what nobody reads: the hash of each function that a stage reaches.
UNREAD = ("reached", "recipe")


def page(found: Row, version: str, made_at: datetime) -> str:
    """Return the report as an HTML document.

    Args:
        found: what `stemma.reporting.ledger.collect` returns.
        version: Stemma's.
        made_at: when the report is made, UTC.
    """
    style = files("stemma.reporting").joinpath("report.css").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    drawn = _drawn(found)
    sections = [section for section in _sections(found, drawn) if section[2]]
    contents = "".join(f'<li><a href="#{name}">{name.capitalize()}</a></li>' for name, _, _ in sections)
    body = "".join(
        f'<section id="{name}"><h2>{title}</h2>{content}</section>' for name, title, content in sections
    )
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark"><meta name="referrer" content="no-referrer">'
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\';'
        f" style-src 'sha256-{digest}'; img-src data:; base-uri 'none'; form-action 'none'\">"
        f'<link rel="icon" href="data:,"><title>{plain(_name(found))}: corpus report</title>'
        f"<style>{style}</style></head><body>{_head(found)}<nav><ul>{contents}</ul></nav><main>{body}</main>"
        f"<footer>Made by Stemma {plain(version)} on {_moment(made_at)} UTC from {_code(found['path'])}"
        f" ({human_bytes(found['bytes'])}). Any DuckDB client opens that file read-only, at any time.</footer>"
        "</body></html>\n"
    )


def _drawn(found: Row) -> dict[str, Picture]:
    drawn = {
        name: p for dataset, told in found["numbers"].items() for name, p in pictures(dataset, told).items()
    }
    if found["vectors"] is not None:
        titles = [" › ".join(filter(None, (row["title"], row["section"]))) for row in found["places"]]
        mapped = vector_map(found["vectors"], found["places"], titles)
        drawn |= {"map": mapped} if mapped else {}
    return drawn


def _name(found: Row) -> str:
    return ", ".join(row["source"] for row in found["sources"][:4]) or "empty corpus"


def _head(found: Row) -> str:
    totals, runs = found["totals"], found["runs"]
    when = (
        f"Published {_moment(runs[0]['started_at'])} UTC by run {_code(runs[0]['run_id'][:8])}."
        if runs
        else ""
    )
    tiles = [
        (amount(totals["documents"]), "documents read"),
        (amount(totals["kept"]), "kept"),
        (amount(totals["words"]), "words in them"),
        (amount(totals["families"]), "families of duplicates"),
        (amount(totals["chunks"]), "chunks"),
        (amount(totals["tokens"]), "tokens"),
        (amount(totals["vectors"]), "vectors"),
        (amount(totals["errors"]), "errors"),
    ]
    listed = "".join(f"<div><dt>{label}</dt><dd>{value}</dd></div>" for value, label in tiles)
    model = f" Vectors by {_code(totals['model'])}." if totals["model"] else ""
    return (
        f"<header><p>Corpus report</p><h1>{plain(_name(found))}</h1><p>{_in_words(found)}</p>"
        f"<p>{when}{model}</p><dl>{listed}</dl></header>"
    )


def _in_words(found: Row) -> str:
    """Return the corpus in a sentence."""
    counts, errors = found["numbers"]["embedded"]["funnel"], found["numbers"]["embedded"]["errors"]
    lost = [
        (counts["rejected"], "dropped by rules"),
        (counts["duplicates"], "removed as duplicates"),
        (sum(count for stage, count in errors.items() if stage != "raw"), "lost to errors"),
    ]
    told = ", ".join(
        f"{amount(count)} {'was' if count == 1 else 'were'} {reason}" for count, reason in lost if count
    )
    return (
        f"Of {amount(counts['raw'])} {_documents(counts['raw'])}, {told or 'none was dropped'};"
        f" {amount(counts['embedded_documents'])} became {amount(counts['vectors'])} vectors."
        + (f" Besides, {amount(errors['raw'])} could not be read." if "raw" in errors else "")
    )


def _sections(found: Row, drawn: dict[str, Picture]) -> Iterable[tuple[str, str, str]]:
    """Yield (anchor, title, content) of each section; those without content are left out."""
    yield "funnel", "From file to vector", _figures(drawn, "funnel", "formats") + _sources(found)
    yield "dropped", "What was dropped, and why", _dropped(found) + _figures(drawn, "rejected")
    yield "flagged", "What other rules would drop", _flagged(found)
    yield (
        "families",
        "Families of duplicates",
        _figures(drawn, "repetition_profile", "age_profile") + _families(found),
    )
    yield "errors", "What could not be processed", _errors(found)
    yield "texts", "The texts", _figures(drawn, "lengths", "languages")
    yield (
        "chunks",
        "Chunks and vectors",
        _figures(drawn, "chunk_sizes", more=_health(found))
        + _ask("FROM lineage.embedding_health ORDER BY number DESC"),
    )
    yield "map", "Map of the corpus", _map(drawn)
    yield "runs", "The last runs", _runs(found)
    yield "recipes", "What it was made by", _recipes(found)


def _figures(drawn: dict[str, Picture], *names: str, more: str = "") -> str:
    shown = [drawn[name] for name in names if name in drawn]
    figures = "".join(
        f"<figure><figcaption>{plain(picture.title)}</figcaption>{picture.inline}</figure>"
        for picture in shown
    )
    return f'<div class="figures">{figures}{more}</div>' if figures or more else ""


def _sources(found: Row) -> str:
    if not found["sources"]:
        return ""
    return _table(
        ("source", "documents", "kept", "size"),
        [
            (plain(r["source"]), r["documents"], r["kept"], _Number(human_bytes(r["bytes"])))
            for r in found["sources"]
        ],
    )


def _dropped(found: Row) -> str:
    if not found["dropped"]:
        return "<p>Nothing: every document that could be read is kept.</p>"
    listed = []
    for row in found["dropped"]:
        examples = "".join(f"<li>{_example(each)}</li>" for each in row["examples"])
        condition = f" where {_code(row['condition'])}" if row["condition"] else ""
        listed.append(
            f"<article><h3>{plain(row['rule'])} <small>{plain(row['stage'])}</small></h3>"
            f"<p><strong>{amount(row['documents'])}</strong> {_documents(row['documents'])}{condition}:"
            f" {_range(row)}</p><ul>{examples}</ul></article>"
        )
    query = "SELECT uri, rule, score, threshold, kept_document_id FROM lineage.decisions ORDER BY rule, score"
    return f'<div class="cards">{"".join(listed)}</div>' + _ask(query, "stemma why PATH")


def _example(row: Row) -> str:
    kept = f" · kept instead: {_place(row['kept_uri'], row['kept_record'])}" if row["kept_uri"] else ""
    score = f" <b>{amount(row['score'])}</b>" if row["score"] is not None else ""
    return f"{_place(row['uri'], row['record'])}{score}{kept}"


def _range(row: Row) -> str:
    if row["lowest"] is None:
        return "no score"
    low, high = amount(row["lowest"]), amount(row["highest"])
    scores = low if low == high else f"{low} to {high}"
    return f"score {scores}, threshold {_shown(row['threshold'])}"


def _flagged(found: Row) -> str:
    if not found["flagged"]:
        return ""
    return (
        "<p>These rules only flag: their documents stay in the corpus.</p>"
        + _table(
            ("rule", "documents", "lowest score", "highest score", "threshold"),
            [
                (
                    _code(r["rule"]),
                    r["documents"],
                    _shown(r["lowest"]),
                    _shown(r["highest"]),
                    _shown(r["threshold"]),
                )
                for r in found["flagged"]
            ],
        )
        + _ask("SELECT uri, rule, score, threshold FROM lineage.flags ORDER BY rule, score")
    )


def _families(found: Row) -> str:
    if not found["families"]:
        return "<p>No two documents are alike.</p>"
    return _table(
        ("title of a kept one", "members", "kept", "found by", "least similar", "dates"),
        [
            (
                plain(row["title"] or "untitled", 90),
                row["members"],
                row["kept"],
                plain(", ".join(row["methods"] or [])),
                _shown(row["least_similarity"]),
                plain(" – ".join(sorted({str(d) for d in (row["first_date"], row["last_date"]) if d}))),
            )
            for row in found["families"]
        ],
    ) + _ask("FROM corpus.families ORDER BY members DESC", "stemma families")


def _errors(found: Row) -> str:
    if not found["errors"]:
        return "<p>Nothing: there are no errors.</p>"
    return _table(
        ("stage", "error", "documents", "for example", "reason"),
        [
            (
                plain(row["stage"]),
                _code(row["error"]),
                row["documents"],
                _place(row["uri"], None),
                plain(row["detail"], 160),
            )
            for row in found["errors"]
        ],
    ) + _ask("SELECT uri, record, stage, error, detail FROM lineage.errors ORDER BY uri")


HEALTH = (
    ("vectors", "texts looked at"),
    ("unsound", "vectors that are zero or no numbers"),
    ("repeated", "texts that share their vector with another"),
    ("mean_cosine", "mean cosine of two texts; near 1, all point one way"),
    ("effective_rank", "dimensions in use"),
    ("isoscore", "how evenly they are used, 0 to 1"),
    ("drift", "moved since the publication before, 1 − cosine"),
)


def _health(found: Row) -> str:
    health = found["health"]
    if not health:
        return ""
    listed = "".join(
        f'<tr><td>{meaning}</td><td class="n">{_shown(health[name])}</td></tr>'
        for name, meaning in HEALTH
        if health[name] is not None
    )
    return f"<figure><figcaption>Health of the vectors</figcaption><table><tbody>{listed}</tbody></table></figure>"


def _map(drawn: dict[str, Picture]) -> str:
    if "map" not in drawn:
        return ""
    return (
        '<div class="map">'
        + _figures(drawn, "map")
        + "<p>Each point is a chunk of a fixed sample, placed by the two directions in which the vectors differ most"
        " (principal components). Chunks that lie together speak of like things; two dimensions of hundreds hide much."
        " Rest the pointer on a point to see its document.</p></div>"
    )


def _runs(found: Row) -> str:
    if not found["runs"]:
        return ""
    runs = _table(
        (
            "run",
            "started (UTC)",
            "took",
            "computed",
            "reused",
            "added",
            "changed",
            "removed",
            "saved by reuse",
        ),
        [
            (
                _code(row["run_id"][:8]),
                _moment(row["started_at"]),
                _took(row["seconds"]),
                *(row[name] for name in ("computed", "reused", "added", "changed", "removed")),
                _saved(row["seconds_saved"]),
            )
            for row in found["runs"]
        ],
    )
    last = _table(
        (
            "dataset",
            "in",
            "computed",
            "reused",
            "added",
            "changed",
            "removed",
            "rows",
            "errors",
            "took",
            "saved",
        ),
        [
            (
                plain(row["dataset"]),
                *(row[name] for name in ("rows_in", "rows_computed", "rows_reused")),
                *(row[f"rows_{name}"] for name in ("added", "changed", "removed")),
                row["rows"],
                row["errors"],
                _took(row["seconds"]),
                _saved(row["saved"]["seconds_saved"]),
            )
            for row in found["last_run"]
        ],
    )
    note = (
        "<p>Time saved is an estimate: rows reused × the seconds that a row took in the run that computed most of"
        " them, by the same recipe where there is one.</p>"
    )
    return (
        runs
        + f"<h3>The last one, by dataset</h3>{last}{note}"
        + _ask("FROM lineage.runs ORDER BY number DESC, started_at DESC")
    )


def _recipes(found: Row) -> str:
    listed = "".join(
        f"<details><summary>{plain(row['name'])} {_code(row['recipe'])}</summary>"
        f"<pre>{escape(_explained(row['explained']))}</pre></details>"
        for row in found["recipes"]
    )
    note = (
        "<p>A recipe is a hash of the code that computes, its parameters, library versions and weights."
        " The same recipe and the same input give the same rows.</p>"
    )
    return note + listed if listed else ""


def _explained(facts: dict[str, Any]) -> str:
    told = json.dumps(
        {name: value for name, value in facts.items() if name not in UNREAD}, indent=2, ensure_ascii=True
    )
    return told if told != "{}" else "nothing but its code"


class _Number(str):
    """HTML that stands to the right of its column, as numbers do."""


def _table(heads: Sequence[str], listed: Iterable[Sequence[str | int]]) -> str:
    """Return a table; its cells are HTML or whole numbers."""
    rows = [[_Number(amount(cell)) if isinstance(cell, int) else cell for cell in row] for row in listed]
    right = [any(isinstance(row[place], _Number) for row in rows) for place in range(len(heads))]
    kinds = [' class="n"' if each else "" for each in right]
    head = "".join(f'<th scope="col"{kind}>{name}</th>' for name, kind in zip(heads, kinds, strict=True))
    body = "".join(
        f"<tr>{''.join(f'<td{kind}>{cell}</td>' for cell, kind in zip(row, kinds, strict=True))}</tr>"
        for row in rows
    )
    return f'<div class="scroll" tabindex="0"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _ask(query: str, *commands: str) -> str:
    """Return how to ask further: a query of the ledger, and commands."""
    lines = [f'stemma sql "{query}"', *commands]
    return f"<details><summary>Ask the ledger</summary><pre>{escape(chr(10).join(lines))}</pre></details>"


def _place(uri: str, record: str | None) -> str:
    """Return a document's place: the end of its path, and all of it where the pointer rests on it."""
    parts = uri.split("/")
    short = uri if len(parts) <= 4 else "…/" + "/".join(parts[-3:])
    return f'<span class="place" title="{plain(uri, 1000)}">{plain(short + (f" #{record}" if record else ""))}</span>'


def _code(text: Any) -> str:
    return f"<code>{plain(text)}</code>"


def _shown(value: float | None) -> _Number:
    return _Number("" if value is None else amount(value))


def _took(seconds: float) -> _Number:
    return _Number(duration(seconds))


def _saved(seconds: float) -> _Number:
    return _Number(f"≈ {duration(seconds)}" if seconds else "")


def _documents(count: int) -> str:
    return "document" if count == 1 else "documents"


def _moment(when: datetime) -> str:
    return when.strftime("%Y-%m-%d %H:%M")
