"""The verbs of an engine: an exchange delivers whole partitions, and components come out the same by any engine."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stemma.config import EngineConfig
from stemma.deduplication.components import components
from stemma.deduplication.stars import connected
from stemma.resources.executors import LocalExecutor, executor_of, local
from stemma.resources.workers import Workers


def calls(table: pa.Table) -> pa.Table:
    """Return each key of a call, with how many rows of it that has."""
    keys, counts = np.unique(table["key"].to_numpy(), return_counts=True)
    return pa.table({"key": keys, "rows": counts})


def assert_whole_partitions(executor: Any) -> None:
    """An exchange calls its function once for each key, with all rows of it, however skewed the keys are."""
    skewed = np.concatenate([np.full(30_000, 7), np.full(5_000, 2**63 + 5), np.arange(20_000) % 4_000])
    keys = np.random.default_rng(1).permutation(skewed.astype(np.uint64))
    tables = [pa.table({"key": keys[start : start + 1_000]}) for start in range(0, len(keys), 1_000)]
    rows = executor.exchange(executor.scatter(tables), "key", calls)
    found = pa.concat_tables(list(executor.gather(rows))).sort_by("key")
    expected, counts = np.unique(keys, return_counts=True)
    assert found["key"].to_pylist() == expected.tolist()
    assert found["rows"].to_pylist() == counts.tolist()


@pytest.fixture
def many_partitions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "PARTITION_ROWS", 4_000)


@pytest.mark.usefixtures("many_partitions")
def test_an_exchange_delivers_whole_partitions() -> None:
    assert_whole_partitions(executor_of(EngineConfig()))


class Careless(LocalExecutor):
    """An engine whose exchange moves nothing, as Daft's repartition does on one machine."""

    def exchange(self, rows: Any, key: str, function: Callable[[pa.Table], pa.Table]) -> Any:
        return self.map(rows, function)


def test_an_engine_that_moves_nothing_is_found_out() -> None:
    with pytest.raises(AssertionError):
        assert_whole_partitions(Careless(Workers(0)))


@given(st.integers(1, 60), st.data())
def test_components_by_stars_are_those_of_one_process(nodes: int, data: st.DataObject) -> None:
    ends = st.integers(0, nodes - 1)
    edges = np.array(data.draw(st.lists(st.tuples(ends, ends), max_size=120)), np.int64).reshape(-1, 2)
    source, target = edges[:, 0], edges[:, 1]
    found = connected(nodes, source, target, LocalExecutor(Workers(0)))
    assert found.tolist() == components(nodes, source, target).tolist()


def path(nodes: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the edges of a path through the nodes, in an order of no meaning: the longest way to a smallest node."""
    order = np.random.default_rng(2).permutation(nodes)
    return order[:-1], order[1:]


class Counting(LocalExecutor):
    """An engine that counts its exchanges."""

    exchanges = 0

    def exchange(self, rows: Any, key: str, function: Callable[[pa.Table], pa.Table]) -> Any:
        self.exchanges += 1
        return super().exchange(rows, key, function)


@pytest.mark.usefixtures("many_partitions")
def test_stars_need_few_rounds_for_a_long_path() -> None:
    executor = Counting(Workers(0))
    assert set(connected(20_000, *path(20_000), executor).tolist()) == {0}
    assert executor.exchanges <= 2 * 20
