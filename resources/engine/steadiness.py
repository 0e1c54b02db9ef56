"""Steadiness: whether a corpus looks as it did in the runs before: what is dropped, how long texts are, languages."""

from collections.abc import Mapping
from statistics import median

import duckdb

from stemma.config import ChecksConfig
from stemma.lineage.checks import Check
from stemma.resources.engine.run import Run, fetch_value, state_of
from stemma.resources.warehouse import utc_now

# A run is compared with the medians of so many before it that changed the dataset.
RUNS_BEFORE = 5
# From how many documents on shares say something.
ENOUGH_DOCUMENTS = 50
LANGUAGE = "language "

NAMES = {
    "cleaned": ("drop_ratio_steady", "lengths_steady", "languages_steady"),
    "deduplicated": ("duplicate_ratio_steady",),
}

MEASURES = {
    "cleaned": f"""
        SELECT 'documents' AS measure, count(*)::DOUBLE AS value FROM state.cleaned
        UNION ALL SELECT 'dropped', coalesce(avg((verdicts IS NOT NULL)::INT), 0) FROM state.cleaned
        UNION ALL SELECT 'characters', coalesce(median(characters), 0) FROM state.cleaned WHERE verdicts IS NULL
        UNION ALL SELECT '{LANGUAGE}' || coalesce(language, 'unknown'), count(*) / sum(count(*)) OVER ()
            FROM state.cleaned WHERE verdicts IS NULL GROUP BY language""",
    "deduplicated": """
        SELECT 'documents' AS measure, count(*)::DOUBLE AS value FROM state.deduplicated
        UNION ALL SELECT 'duplicates', coalesce(avg((NOT kept)::INT), 0) FROM state.deduplicated""",
}


def check_steadiness(run: Run, connection: duckdb.DuckDBPyConnection, dataset: str) -> list[Check]:
    """Measure a dataset that has just been updated, and compare it with the runs before; checks that warn.

    The measures are kept in state.measures, a row each, for the state that they were taken of.
    """
    if dataset not in NAMES:
        return []
    before = _medians(connection, dataset, state_of(connection, dataset).state_hash)
    now = _measure(run, connection, dataset)
    limits = run.config.checks
    judged = {
        "drop_ratio_steady": lambda: _share("dropped", now, before, limits),
        "duplicate_ratio_steady": lambda: _share("duplicates", now, before, limits),
        "lengths_steady": lambda: _lengths(now, before, limits),
        "languages_steady": lambda: _languages(now, before, limits),
    }
    if now["documents"] < ENOUGH_DOCUMENTS or before.get("documents", 0) < ENOUGH_DOCUMENTS:
        return [Check(name, True, "too few documents, or runs, to compare with") for name in NAMES[dataset]]
    return [Check(name, *judged[name]()) for name in NAMES[dataset]]


def _measure(run: Run, connection: duckdb.DuckDBPyConnection, dataset: str) -> dict[str, float]:
    """Return the measures of the dataset as it is, and keep them unless it is as it was."""
    state = state_of(connection, dataset)
    known = connection.execute(
        "SELECT measure, value FROM state.measures WHERE dataset = ? AND state_hash = ?",
        [dataset, state.state_hash],
    ).fetchall()
    if known:
        return dict(known)
    number = fetch_value(connection, "SELECT coalesce(max(number), 0) + 1 FROM state.measures")
    connection.execute(
        f"""INSERT INTO state.measures SELECT ?, ?, ?, ?, ?, measure, value FROM ({MEASURES[dataset]})""",
        [run.run_id, number, utc_now(), dataset, state.state_hash],
    )
    return _measure(run, connection, dataset)


def _medians(connection: duckdb.DuckDBPyConnection, dataset: str, but: str) -> dict[str, float]:
    """Return the median of each measure over the last runs that left the dataset in another state than `but`.

    A measure that a run does not have (a language that was not there) counts as 0.
    """
    rows = connection.execute(
        """SELECT number, measure, value FROM state.measures WHERE number IN (
            SELECT DISTINCT number FROM state.measures WHERE dataset = ? AND state_hash <> ?
            ORDER BY number DESC LIMIT ?)""",
        [dataset, but, RUNS_BEFORE],
    ).fetchall()
    runs: dict[int, dict[str, float]] = {}
    for number, measure, value in rows:
        runs.setdefault(number, {})[measure] = value
    measures = {measure for run in runs.values() for measure in run}
    return {measure: median(run.get(measure, 0.0) for run in runs.values()) for measure in measures}


def _share(
    measure: str, now: Mapping[str, float], before: Mapping[str, float], limits: ChecksConfig
) -> tuple[bool, str]:
    moved = abs(now[measure] - before[measure])
    return moved <= limits.shares, f"{now[measure]:.1%} {measure}, {before[measure]:.1%} in the runs before"


def _lengths(now: Mapping[str, float], before: Mapping[str, float], limits: ChecksConfig) -> tuple[bool, str]:
    ratio = (now["characters"] + 1) / (before["characters"] + 1)
    told = f"median {now['characters']:.0f} characters, {before['characters']:.0f} in the runs before"
    return 1 / limits.lengths <= ratio <= limits.lengths, told


def _languages(
    now: Mapping[str, float], before: Mapping[str, float], limits: ChecksConfig
) -> tuple[bool, str]:
    names = {name for name in (*now, *before) if name.startswith(LANGUAGE)}
    moves = {name.removeprefix(LANGUAGE): now.get(name, 0) - before.get(name, 0) for name in names}
    # The total variation distance: the share of documents that would have to change their language.
    moved = sum(map(abs, moves.values())) / 2
    largest = sorted(moves.items(), key=lambda item: (-abs(item[1]), item[0]))[:3]
    told = ", ".join(f"{name} {move:+.1%}" for name, move in largest if move)
    return moved <= limits.shares, f"{moved:.1%} of the documents moved ({told or 'none'})"
