"""The engine of one machine: this process, and worker processes beside it."""

from collections.abc import Callable, Iterable, Iterator

import pyarrow as pa
import pyarrow.compute as pc

from stemma.incremental.compute import Computed
from stemma.incremental.stage import Stage
from stemma.resources.executors.partitions import partition_numbers
from stemma.resources.looking import Found, Request, look_at
from stemma.resources.workers import Workers

# Rows of a partition: what the function of an exchange has in memory at a time (its keys willing).
PARTITION_ROWS = 1 << 24

Rows = list[pa.Table]


class LocalExecutor:
    """See `Executor`. Its rows are a list of tables."""

    def __init__(self, workers: Workers) -> None:
        self.workers = workers

    def read(self, requests: Iterable[Request]) -> Iterator[tuple[Request, Found]]:
        for request in requests:
            for found in look_at(request, self.workers):
                yield request, found

    def run(self, stage: Stage, batches: Iterable[pa.Table], count: int) -> Iterator[Computed]:
        return self.workers.run(stage, batches, count)

    def scatter(self, tables: Iterable[pa.Table]) -> Rows:
        return list(tables)

    def map(self, rows: Rows, function: Callable[[pa.Table], pa.Table]) -> Rows:
        return [function(table) for table in rows]

    def exchange(self, rows: Rows, key: str, function: Callable[[pa.Table], pa.Table]) -> Rows:
        if not rows:
            return []
        whole = pa.concat_tables(rows)
        count = 1 + whole.num_rows // PARTITION_ROWS
        if count == 1:
            return [function(whole)] if whole.num_rows else []
        numbers = pa.array(partition_numbers(whole[key], count))
        parts = (whole.filter(pc.equal(numbers, part)) for part in range(count))
        return [function(part) for part in parts if part.num_rows]

    def gather(self, rows: Rows) -> Iterator[pa.Table]:
        return iter(rows)

    def remarks(self) -> list[str]:
        return []

    def take_stats(self) -> str:
        return ""
