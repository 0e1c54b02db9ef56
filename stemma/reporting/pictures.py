"""From the numbers of a corpus to pictures: which there are, what they are called, what they say."""

import math
from collections import Counter
from collections.abc import Callable, Sequence

from stemma.embedding.arrays import Vectors
from stemma.reporting.charts import (
    GROUPS,
    Bar,
    Level,
    Picture,
    bars,
    funnel,
    histogram,
    scatter,
)
from stemma.reporting.numbers import CLASSES, MOST_ROWS, Row
from stemma.reporting.projection import projected
from stemma.reporting.text import amount, short

# Classes of a histogram of chunks, at most.
MOST_CLASSES = 24
# Classes of an age profile; older years are one.
MOST_YEARS = 12
# Of them so many are named, from the last one on.
NAMED_YEARS = 5
# Documents are told apart on the map by what splits them: not by what nearly all have in common.
MOST_IN_A_GROUP = 0.85
KINDS = ("kept", "removed")


def pictures(dataset: str, found: Row) -> dict[str, Picture]:
    """Return the pictures of a dataset by their names; none where there is nothing to be seen.

    `found` is what `numbers` returns.
    """
    return {name: drawn for name, draw in _PICTURES[dataset].items() if (drawn := draw(found)) is not None}


def formats(found: Row) -> Picture | None:
    """Draw how many documents of each media type there are."""
    return _ranked("What the documents are", found["formats"])


def lengths(found: Row) -> Picture | None:
    """Draw how long the cleaned texts are, in classes of equal ratio."""
    counts = {row["class"]: row["documents"] for row in found["lengths"]}
    if not counts:
        return None
    first, last = min(counts), max(counts) + 1
    every = range(math.ceil(first / CLASSES), last // CLASSES + 1)
    ticks = [(decade * CLASSES - first, short(10.0**decade)) for decade in every]
    median = found["median_length"]
    return histogram(
        "How long the texts are",
        [counts.get(number, 0) for number in range(first, last)],
        ticks or [(0, short(10 ** (first / CLASSES)))],
        x="characters",
        y="documents",
        marker=(math.log10(median) * CLASSES - first, f"median {amount(median)}"),
    )


def languages(found: Row) -> Picture | None:
    """Draw how many documents of each language there are."""
    return _ranked("Languages", found["languages"])


def rejected(found: Row) -> Picture | None:
    """Draw which rules dropped most documents."""
    return _ranked("Rules that dropped documents", found["rejected"])


def _ranked(title: str, listed: Sequence[Row]) -> Picture | None:
    if not listed:
        return None
    total = sum(row["documents"] for row in listed)
    shown = [(str(row["name"]), row["documents"]) for row in listed[:MOST_ROWS]]
    if len(listed) > MOST_ROWS:
        rest = listed[MOST_ROWS:]
        shown.append((f"{len(rest)} others", sum(row["documents"] for row in rest)))
    return bars(title, [Bar(name, n, _percent(n / total)) for name, n in shown], unit="documents")


def _percent(share: float) -> str:
    return f"({share:.0%})" if share >= 0.005 else ""


def repetition(found: Row) -> Picture | None:
    """Draw the share of characters in families of each size, those that were removed above those kept."""
    total = sum(row["characters"] for row in found["sizes"])
    if not total:
        return None
    sizes = found["sizes"]
    return histogram(
        "How often text is repeated",
        [row["characters"] / total for row in sizes],
        [(place + 0.5, size_label(row["up_to"])) for place, row in enumerate(sizes)],
        x="family size",
        y="of all characters",
        lower=[(row["characters"] - row["repeated"]) / total for row in sizes],
        names=KINDS,
        share=True,
    )


def size_label(up_to: int) -> str:
    """Return the sizes of families that a class of up to 1, 2, 4, 8 … documents holds."""
    lowest = up_to // 2 + 1
    return f"{lowest:,}" if lowest == up_to else f"{lowest:,}–{up_to:,}"


def ages(found: Row) -> Picture | None:
    """Draw the documents of each year, those that were removed above those kept."""
    listed = age_classes(found["years"])
    if not listed:
        return None
    every = math.ceil(len(listed) / NAMED_YEARS)
    return histogram(
        "Age of the documents",
        [kept + removed for _, kept, removed in listed],
        [(n + 0.5, label) for n, (label, _, _) in enumerate(listed) if (len(listed) - 1 - n) % every == 0],
        x="year",
        y="documents",
        lower=[kept for _, kept, _ in listed],
        names=KINDS,
    )


def age_classes(years: Sequence[Row]) -> list[tuple[str, int, int]]:
    """Return (label, kept, removed) for each year from the first to the last that a document is of.

    Years without documents stand as gaps; of more than MOST_YEARS the older ones are one class.
    """
    dated = {row["year"]: row for row in years if row["year"] is not None}
    last = max(dated, default=0)
    first = max(min(dated, default=1), last - MOST_YEARS + 1)
    older = [row for year, row in dated.items() if year < first]
    groups = [(f"≤ {first - 1}", older)] if older else []
    groups += [(str(year), [dated[year]] if year in dated else []) for year in range(first, last + 1)]
    return [
        (label, sum(row["kept"] for row in listed), sum(row["removed"] for row in listed))
        for label, listed in groups
    ]


def chunk_sizes(found: Row) -> Picture | None:
    """Draw how many tokens the chunks have."""
    sizes = {row["tokens"]: row["chunks"] for row in found["tokens"]}
    if not sizes:
        return None
    width = _class_width(max(sizes))
    counts: Counter[int] = Counter()
    for tokens, chunks in sizes.items():
        counts[tokens // width] += chunks
    classes = max(counts) + 1
    every = max(1, math.ceil(classes / 6))
    return histogram(
        "How large the chunks are",
        [counts[number] for number in range(classes)],
        [(edge, amount(edge * width)) for edge in range(0, classes + 1, every)],
        x="tokens",
        y="chunks",
        marker=(_median(sizes) / width, f"median {amount(_median(sizes))}"),
    )


def _class_width(largest: int) -> int:
    return next(
        size
        for power in range(12)
        for size in (10**power, 2 * 10**power, 5 * 10**power)
        if largest < size * MOST_CLASSES
    )


def _median(sizes: dict[int, int]) -> int:
    left = (sum(sizes.values()) + 1) // 2
    for size in sorted(sizes):
        left -= sizes[size]
        if left <= 0:
            return size
    return 0


def path_of_documents(found: Row) -> Picture | None:
    """Draw how many documents come through each dataset, and what the others were lost to."""
    counts, errors = found["funnel"], found["errors"]
    if not counts["raw"]:
        return None
    return funnel(
        "From raw to embedded",
        [
            Level("raw", counts["raw"], "documents", [("could not be read", errors.get("raw", 0))]),
            Level(
                "cleaned",
                counts["cleaned"],
                "",
                [("dropped by rules", counts["rejected"]), ("failed", errors.get("cleaned", 0))],
            ),
            Level(
                "deduplicated",
                counts["deduplicated"],
                "",
                [
                    ("removed as duplicates", counts["duplicates"]),
                    ("failed", errors.get("deduplicated", 0)),
                ],
            ),
            Level(
                "chunked",
                counts["chunked_documents"],
                f"in {amount(counts['chunks'])} chunks",
                [("failed", errors.get("chunked", 0))],
            ),
            Level(
                "embedded",
                counts["embedded_documents"],
                f"with {amount(counts['vectors'])} vectors",
                [("failed", errors.get("embedded", 0))],
            ),
        ],
    )


def vector_map(
    vectors: Vectors, places: Sequence[Row], titles: Sequence[str] | None = None
) -> Picture | None:
    """Draw vectors by their two principal components, coloured by what splits the documents.

    Args:
        vectors: one a row.
        places: for each the `source`, `uri` and `language` of its document.
        titles: see `scatter`.
    """
    if len(vectors) < 3:
        return None
    kind, names, groups = grouped(places)
    title = f"A map of {amount(len(vectors))} chunks, coloured by {kind}"
    return scatter(title, [(x, y) for x, y in projected(vectors).tolist()], groups, names, titles)


def grouped(places: Sequence[Row]) -> tuple[str, list[str], list[int]]:
    """Return by what documents are told apart (source, folder or language), the groups' names, and whose is which.

    The first of these that splits them is taken; smaller groups than the first few are one.
    """
    kinds = {
        "source": [row["source"] for row in places],
        "folder": _folders([row["uri"] for row in places]),
        "language": [row["language"] or "unknown" for row in places],
    }

    def largest(values: list[str]) -> float:
        return max(Counter(values).values()) / len(values)

    kind = next((kind for kind, values in kinds.items() if largest(values) <= MOST_IN_A_GROUP), "language")
    values = kinds[kind]
    ranked = sorted(Counter(values).items(), key=lambda item: (-item[1], item[0]))
    names = [name for name, _ in ranked]
    if len(names) > GROUPS:
        names = [*names[: GROUPS - 1], "others"]
    places_of = {name: place for place, name in enumerate(names)}
    return kind, names, [places_of.get(value, GROUPS - 1) for value in values]


def _folders(uris: Sequence[str]) -> list[str]:
    """Return of each path the first folder below what all have in common."""
    parts = [uri.replace("://", ":/").split("/")[:-1] for uri in uris]
    shared = len(_shared(parts))
    return [part[shared] if len(part) > shared else "no folder" for part in parts]


def _shared(parts: Sequence[list[str]]) -> list[str]:
    """Return the folders that all paths begin with: those that the first and the last of them, sorted, share."""
    first, last = min(parts), max(parts)
    differs = (place for place, (a, b) in enumerate(zip(first, last, strict=False)) if a != b)
    return first[: next(differs, min(len(first), len(last)))]


Drawing = Callable[[Row], Picture | None]
_PICTURES: dict[str, dict[str, Drawing]] = {
    "raw": {"formats": formats},
    "cleaned": {"lengths": lengths, "languages": languages, "rejected": rejected},
    "deduplicated": {"repetition_profile": repetition, "age_profile": ages},
    "chunked": {"chunk_sizes": chunk_sizes},
    "embedded": {"funnel": path_of_documents},
}
