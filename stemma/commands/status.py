"""stemma status: what the corpus holds, its last run, its size on disk."""

import argparse

from stemma.commands.output import print_facts, print_json, print_table
from stemma.commands.published import open_published, rows
from stemma.commands.run import corpus_facts, print_corpus
from stemma.config import load_config
from stemma.reporting.text import human_bytes


def status(options: argparse.Namespace) -> int:
    """Print the state of the published corpus. Raises StemmaError when nothing has been published."""
    from stemma.resources.warehouse import Warehouse

    config = load_config(options.config)
    with open_published(config) as connection:
        runs = rows(
            connection,
            """SELECT run_id, min(started_at) AS started_at, max(finished_at) AS finished_at,
                round(epoch(max(finished_at) - min(started_at)), 1) AS seconds,
                sum(rows_computed)::BIGINT AS computed, sum(rows_added)::BIGINT AS added,
                sum(rows_changed)::BIGINT AS changed, sum(rows_removed)::BIGINT AS removed
            FROM lineage.runs GROUP BY run_id ORDER BY max(number) DESC NULLS LAST, started_at DESC LIMIT 5""",
        )
        waiting = rows(
            connection,
            """SELECT change, count(*) AS documents, min(partition_date) AS first_day, max(partition_date) AS last_day
            FROM lineage.waiting GROUP BY change ORDER BY change""",
        )
        sources = rows(
            connection, "SELECT source, count(*) AS documents FROM corpus.raw GROUP BY source ORDER BY source"
        )
    corpus = corpus_facts(config)
    size = Warehouse(config.warehouse.path).size()
    if options.json:
        print_json(
            {
                "warehouse": str(config.warehouse.path),
                "bytes": {"published": size.published, "state": size.state, "memo": size.memo},
                "sources": sources,
                "corpus": corpus,
                "waiting": waiting,
                "runs": runs,
            }
        )
        return 0
    print_facts(
        {
            "warehouse": config.warehouse.path,
            "on disk": f"published {human_bytes(size.published)}, state {human_bytes(size.state)},"
            f" memo {human_bytes(size.memo)}",
        }
    )
    print()
    print_table("Sources", ["source", "documents"], [[row["source"], row["documents"]] for row in sources])
    print_corpus(corpus)
    if waiting:
        names = ("change", "documents", "first_day", "last_day")
        heads = ["change", "documents", "first day", "last day"]
        print_table(
            "Waiting for a run of their days", heads, [[row[name] for name in names] for row in waiting]
        )
    columns = ("run_id", "started_at", "seconds", "computed", "added", "changed", "removed")
    heads = ["run", "started (UTC)", *columns[2:]]
    print_table("Last runs", heads, [[row[name] for name in columns] for row in runs])
    return 0
