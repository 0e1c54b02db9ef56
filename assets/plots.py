"""Pictures of a dataset as Dagster metadata: PNG within Markdown."""

import base64
import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import dagster as dg

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Inches and dots an inch: 480 × 208 points, some 12 kB.
SIZE = (6.0, 2.6)
DOTS = 80
KEPT, REMOVED = "#2b6cb0", "#dd8452"
# Bars of an age profile; older years are one bar. And labels that find room without being turned.
MOST_YEARS = 20
MOST_LEVEL_LABELS = 9


def profile_metadata(profile: dict[str, Any]) -> dict[str, Any]:
    """Return a profile (see resources/engine/profile.py) as metadata: its numbers, and two pictures."""
    numbers = {
        name: profile[name] for name in ("documents", "kept", "families", "largest_family", "share_repeated")
    }
    removed = {f"removed_{method}": count for method, count in profile["removed"].items()}
    dates = {
        name: str(profile[name])
        for name in ("oldest_date", "median_date", "newest_date")
        if profile[name] is not None
    }
    return {**numbers, **removed, **dates, **_pictures(profile)}


def _pictures(profile: dict[str, Any]) -> dict[str, dg.MarkdownMetadataValue]:
    if not profile["documents"]:
        return {}
    return {
        "repetition_profile": picture(repetition_figure(profile["sizes"]), repetition_text(profile["sizes"])),
        "age_profile": picture(age_figure(profile["years"]), age_text(profile["years"])),
    }


def picture(figure: "Figure", text: str) -> dg.MarkdownMetadataValue:
    """Return a figure as a PNG that stands within Markdown, with `text` for those who don't see it."""
    file = io.BytesIO()
    # The version of matplotlib would stand in it, and make the same picture another one.
    figure.savefig(file, format="png", metadata={"Software": None})
    return dg.MetadataValue.md(
        f"![{text}](data:image/png;base64,{base64.b64encode(file.getvalue()).decode()})"
    )


def repetition_figure(sizes: Sequence[dict[str, Any]]) -> "Figure":
    """Draw the share of characters in families of each size, those that were removed above those kept."""
    total = sum(row["characters"] for row in sizes) or 1
    labels = [size_label(row["up_to"]) for row in sizes]
    kept = [(row["characters"] - row["repeated"]) / total for row in sizes]
    repeated = [row["repeated"] / total for row in sizes]
    figure, axes = _figure(
        "How much text is repeated how often", "documents in the family", "share of characters"
    )
    _stacked(axes, labels, kept, repeated)
    axes.yaxis.set_major_formatter(lambda value, _place: f"{value:.0%}")
    return figure


def repetition_text(sizes: Sequence[dict[str, Any]]) -> str:
    """Return in words what `repetition_figure` shows."""
    total = sum(row["characters"] for row in sizes) or 1
    shares = ", ".join(f"{size_label(row['up_to'])}: {row['characters'] / total:.1%}" for row in sizes)
    return f"Share of characters by the number of documents in the family: {shares}"


def size_label(up_to: int) -> str:
    """Return the sizes of families that a class of up to 1, 2, 4, 8 … documents holds."""
    lowest = up_to // 2 + 1
    return f"{lowest:,}" if lowest == up_to else f"{lowest:,}–{up_to:,}"


def age_figure(years: Sequence[dict[str, Any]]) -> "Figure":
    """Draw the documents of each year, those that were removed above those kept."""
    bars = age_bars(years)
    figure, axes = _figure("How old the documents are", "year", "documents")
    _stacked(
        axes, [label for label, _, _ in bars], [kept for _, kept, _ in bars], [gone for _, _, gone in bars]
    )
    axes.yaxis.set_major_formatter(lambda value, _place: f"{value:,.0f}")
    return figure


def age_bars(years: Sequence[dict[str, Any]]) -> list[tuple[str, int, int]]:
    """Return (label, kept, removed) for each year from the first to the last, and for what has no date.

    Years without documents stand as gaps; of more than MOST_YEARS the older ones are one bar.
    """
    dated = {row["year"]: row for row in years if row["year"] is not None}
    undated = [row for row in years if row["year"] is None]
    last = max(dated, default=0)
    first = max(min(dated, default=1), last - MOST_YEARS + 1)
    older = [row for year, row in dated.items() if year < first]
    groups = [(f"≤ {first - 1}", older)] if older else []
    groups += [(str(year), [dated[year]] if year in dated else []) for year in range(first, last + 1)]
    groups += [("none", undated)] if undated else []
    return [(label, _sum(rows, "kept"), _sum(rows, "removed")) for label, rows in groups]


def _sum(rows: Sequence[dict[str, Any]], name: str) -> int:
    return sum(row[name] for row in rows)


def age_text(years: Sequence[dict[str, Any]]) -> str:
    """Return in words what `age_figure` shows."""
    bars = ", ".join(f"{label}: {kept + gone:,}" for label, kept, gone in age_bars(years) if kept + gone)
    return f"Documents by the year of their date: {bars}"


def _figure(title: str, x: str, y: str) -> "tuple[Figure, Axes]":
    # Without pyplot: nothing global, and no window. Loaded only when there is something to draw.
    from matplotlib.figure import Figure

    figure = Figure(figsize=SIZE, dpi=DOTS, layout="constrained")
    axes = figure.subplots()
    axes.set_title(title, fontsize="medium")
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _stacked(axes: "Axes", labels: Sequence[str], kept: Sequence[float], removed: Sequence[float]) -> None:
    places = range(len(labels))
    axes.bar(places, kept, color=KEPT, label="kept")
    axes.bar(places, removed, bottom=kept, color=REMOVED, label="removed")
    crowded = len(labels) > MOST_LEVEL_LABELS
    axes.set_xticks(places, labels, rotation=30 if crowded else 0, ha="right" if crowded else "center")
    axes.legend(frameon=False, fontsize="small")
