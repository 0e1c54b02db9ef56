"""stemma run --dry-run: how many rows each stage would compute, and how long that may take."""

import uuid
from typing import Any

from stemma.commands.output import print_json, print_table
from stemma.config import Config

NAMES = ("raw", "cleaned", "deduplicated", "chunked", "embedded")


def print_plan(config: Config, selected: list[str], *, as_json: bool) -> int:
    """Print the plan of the selected datasets; nothing is computed and nothing is written."""
    from stemma.commands.run import print_remarks

    plan = [row for row in make_plan(config) if row["dataset"] in selected]
    if as_json:
        print_json(plan)
        return 0
    print_table(
        "Would compute (nothing was done)",
        ["dataset", "inputs", "would compute", "", "about seconds"],
        [
            [
                row["dataset"],
                row["rows_in"],
                row["rows_computed"],
                "" if row["exact"] else "at most",
                row["seconds"],
            ]
            for row in plan
        ],
    )
    print_remarks(config)
    return 0


def make_plan(config: Config) -> list[dict[str, Any]]:
    """Return, for each dataset, its inputs, how many would be computed, whether that is exact, and a time estimate.

    The plan is the run's own: the same anti-joins against the memo. Where a stage above would compute something,
    what comes out of it is not known yet: then the number is an upper bound, by the present ratio of chunks to
    documents.
    """
    from stemma.resources.engine import DATASETS, Run, Setup
    from stemma.resources.warehouse import Warehouse

    warehouse = Warehouse(config.warehouse.path)
    run = Run(f"dry-{uuid.uuid4()}", Setup.of(config), warehouse, dry=True)
    plan: list[dict[str, Any]] = []
    try:
        pace, chunks_each = _experience(warehouse)
        is_new = _is_new(warehouse)
        unknown = 0
        for name in NAMES:
            counts = DATASETS[name](run)
            # What the stages above would make anew comes on top of what this stage sees now.
            extra = unknown * (chunks_each if name == "embedded" else 1.0)
            rows = counts.rows_computed + round(extra)
            plan.append(
                {
                    "dataset": name,
                    "rows_in": counts.rows_in,
                    "rows_computed": rows,
                    "exact": not extra,
                    "seconds": round(rows * pace[name], 1) if name in pace else None,
                }
            )
            unknown = max(unknown, counts.rows_computed) if name != "deduplicated" else unknown
            if name == "raw" and is_new:
                # Contents that the memo has already may still be cleaned by another recipe.
                unknown = counts.rows_in
    finally:
        warehouse.close()
    return plan


def _is_new(warehouse: Any) -> bool:
    """Is there no state yet, or none that this version made?"""
    with warehouse.session() as connection:
        row = connection.execute("SELECT count(*) FROM state.datasets").fetchone()
    return row[0] == 0


def _experience(warehouse: Any) -> tuple[dict[str, float], float]:
    """Return seconds a computed row for each dataset, and chunks a document, from the runs so far."""
    with warehouse.session() as connection:
        pace = dict(
            connection.execute(
                """SELECT dataset, sum(epoch(finished_at - started_at)) / sum(rows_computed) FROM state.runs
                WHERE rows_computed > 0 GROUP BY dataset"""
            ).fetchall()
        )
        row = connection.execute(
            "SELECT count(*) / greatest(count(DISTINCT document_id), 1) FROM state.chunked"
        ).fetchone()
    return pace, float(row[0]) or 10.0
