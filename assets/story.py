"""What a step tells, as Dagster metadata: the time that reuse saved, numbers, pictures and a few rows."""

from datetime import date
from typing import Any

import dagster as dg

from stemma.reporting.pictures import pictures, vector_map
from stemma.reporting.text import amount, duration
from stemma.resources.engine.story import Story

# Numbers of deduplicated that stand beside its counts.
FACTS = ("documents", "kept", "families", "largest_family", "share_repeated")
DATES = ("oldest_date", "median_date", "newest_date")

# In this order: what an escape consists of comes first.
ESCAPES = {"&": "&amp;", "\\": "&#92;", "<": "&lt;", ">": "&gt;", "|": "\\|", "`": "&#96;"}
ESCAPES |= {"[": "&#91;", "]": "&#93;"}


def story_metadata(dataset: str, story: Story) -> dict[str, Any]:
    """Return what there is to see of a dataset after a step; pictures only where the step changed something."""
    drawn = pictures(dataset, story.numbers) if story.numbers else {}
    if story.vectors is not None:
        mapped = vector_map(story.vectors, story.places)
        drawn |= {"map": mapped} if mapped else {}
    return {
        **saved_metadata(story.saved),
        **(deduplication_metadata(story.numbers) if dataset == "deduplicated" and story.numbers else {}),
        **{name: dg.MetadataValue.md(picture.markdown) for name, picture in drawn.items()},
        "preview": table(story.preview),
    }


def saved_metadata(saved: dict[str, Any]) -> dict[str, Any]:
    """Return the time that reuse saved, and how it is estimated."""
    if not saved:
        return {}
    return {"seconds_saved": round(saved["seconds_saved"], 3), "seconds_saved_explained": explained(saved)}


def explained(saved: dict[str, Any]) -> str:
    """Say how the time saved by reuse is estimated."""
    if not saved["rows_reused"]:
        return "nothing was reused"
    if saved["measured_in"] is None:
        return "no run has computed a row yet, so nobody knows what one costs"
    return (
        f"estimate: {amount(saved['rows_reused'])} rows reused × {duration(saved['seconds_a_row'])} each,"
        f" as in run {saved['measured_in'][:8]}"
    )


def deduplication_metadata(numbers: dict[str, Any]) -> dict[str, Any]:
    """Return the numbers of what deduplication found (see stemma/reporting/numbers.py)."""
    dates: dict[str, date] = {name: numbers[name] for name in DATES if numbers[name] is not None}
    return (
        {name: numbers[name] for name in FACTS}
        | {f"removed_{method}": count for method, count in numbers["removed"].items()}
        | {name: str(value) for name, value in dates.items()}
    )


def table(rows: list[dict[str, Any]]) -> dg.MarkdownMetadataValue:
    """Return rows as a Markdown table; cell text is escaped, so a title of `<script>` or `![](…)` stays text."""
    if not rows:
        return dg.MetadataValue.md("_no rows_")
    head = list(rows[0])
    lines = ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
    lines += ["| " + " | ".join(_cell(row[name]) for name in head) + " |" for row in rows]
    return dg.MetadataValue.md("\n".join(lines))


def _cell(value: Any) -> str:
    text = "" if value is None else " ".join(str(value).split())
    text = text if len(text) <= 80 else text[:79] + "…"
    return as_text(text)


def as_text(text: str) -> str:
    """Return what Markdown shows as this text: no tags, links, pictures (which a page would fetch), code or cells."""
    for character, escape in ESCAPES.items():
        text = text.replace(character, escape)
    return text
