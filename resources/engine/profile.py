"""What deduplication found, in numbers: how much is repeated how often, and how old it is. From the state alone."""

from typing import Any

import duckdb

from stemma.resources.engine.run import Run

# state.deduplicated with what its profile is made of.
MEMBERS = """(SELECT d.cluster_id, d.cluster_size, d.kept, d.method, c.characters, c.document_date
    FROM state.deduplicated AS d JOIN state.cleaned AS c USING (document_id))"""

NUMBERS = f"""SELECT count(*) AS documents, count(*) FILTER (kept) AS kept,
        count(DISTINCT cluster_id) FILTER (cluster_size > 1) AS families,
        coalesce(max(cluster_size), 0) AS largest_family,
        coalesce(sum(characters) FILTER (NOT kept) / nullif(sum(characters), 0), 0)::DOUBLE AS share_repeated,
        min(document_date) AS oldest_date,
        quantile_disc(document_date, 0.5) AS median_date, max(document_date) AS newest_date
    FROM {MEMBERS}"""
METHODS = f"SELECT method, count(*) FROM {MEMBERS} WHERE NOT kept GROUP BY method ORDER BY method"
# By powers of two, as the weights of corpus.weights: 1, 2, 3 to 4, 5 to 8 …
SIZES = f"""SELECT up_to, count(DISTINCT cluster_id) AS families, count(*) AS documents,
        sum(characters)::BIGINT AS characters, coalesce(sum(characters) FILTER (NOT kept), 0)::BIGINT AS repeated
    FROM (SELECT *, pow(2, ceil(log2(cluster_size)))::BIGINT AS up_to FROM {MEMBERS})
    GROUP BY up_to ORDER BY up_to"""
YEARS = f"""SELECT year(document_date)::INTEGER AS year, count(*) FILTER (kept) AS kept,
        count(*) FILTER (NOT kept) AS removed
    FROM {MEMBERS} GROUP BY year ORDER BY year NULLS LAST"""


def profile(run: Run) -> dict[str, Any]:
    """Return the profile of the corpus as deduplicated has it now.

    Its keys are those of NUMBERS, and
    - removed: documents removed by each method, by its name;
    - sizes: for families of up to 1, 2, 4, 8 … documents their number, documents, characters and, of these,
      characters of the documents that were removed (repeated);
    - years: for each year, and None for documents without a date, the documents kept and removed.
    """
    with run.warehouse.session() as connection:
        (numbers,) = _rows(connection, NUMBERS)
        return numbers | {
            "removed": dict(connection.execute(METHODS).fetchall()),
            "sizes": _rows(connection, SIZES),
            "years": _rows(connection, YEARS),
        }


def _rows(connection: duckdb.DuckDBPyConnection, query: str) -> list[dict[str, Any]]:
    cursor = connection.execute(query)
    names = [column[0] for column in cursor.description]
    return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]
