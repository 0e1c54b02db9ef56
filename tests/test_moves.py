"""What a change does to candidate pairs: the difference between what all buckets propose before it and after."""

from collections import Counter

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stemma.deduplication import bucket_pairs, candidates, moves
from stemma.deduplication.moves import moved_pairs, shared_members

COLUMNS = {
    "bucket": pa.uint64(),
    "member": pa.int64(),
    "rank": pa.int64(),
    "asks": pa.bool_(),
    "was": pa.bool_(),
    "stays": pa.bool_(),
    "changes": pa.bool_(),
    "before": pa.int64(),
    "after": pa.int64(),
}


@st.composite
def memberships(draw: st.DrawFn) -> tuple[list[dict], bool]:
    """Members of a few buckets before and after a change, as the engine knows them."""
    directed = draw(st.booleans())
    nodes = draw(st.integers(1, 9))
    order = {when: draw(st.permutations(range(nodes))) for when in ("before", "after")}
    # A node that is left alone keeps its place among those that are, or it counts as one that changes.
    changes = [draw(st.booleans()) for _ in range(nodes)]
    kept = [node for node in order["before"] if not changes[node]]
    places = iter(kept)
    order["after"] = [node if changes[node] else next(places) for node in order["after"]]
    rows = []
    for bucket in range(draw(st.integers(1, 4))):
        for node in range(nodes):
            was, stays = draw(st.sampled_from([(True, True), (False, True), (True, False)]))
            if not changes[node]:
                was = stays = True
            if draw(st.booleans()):
                rank = draw(st.integers(0, 2))
                asks = draw(st.booleans()) or not directed
                before, after = (order[when].index(node) for when in ("before", "after"))
                values = [bucket << 40, node, rank, asks, was, stays, changes[node], before, after]
                rows.append(dict(zip(COLUMNS, values, strict=True)))
                if draw(st.integers(0, 9)) == 0:
                    rows.append(rows[-1] | {"asks": draw(st.booleans()) or not directed})
    return rows, directed


def proposed(rows: list[dict], present: str, order: str, directed: bool) -> Counter:
    """What the function of the rebuild says, of members numbered bucket by bucket in their order."""
    pairs: Counter = Counter()
    for bucket in {row["bucket"] for row in rows}:
        members = [row for row in rows if row["bucket"] == bucket and row[present]]
        members.sort(key=lambda row: (row["rank"], row[order]))
        names = list(dict.fromkeys(row["member"] for row in members))
        table = pa.table(
            {
                "bucket": pa.array([bucket] * len(members), pa.uint64()),
                "member": pa.array([names.index(row["member"]) for row in members], pa.int64()),
                "asks": pa.array([row["asks"] for row in members], pa.bool_()),
            }
        )
        for found in bucket_pairs(table).to_pylist():
            first, second = (names[found[side]] for side in ("first", "second"))
            pair = (first, second) if directed else (min(first, second), max(first, second))
            pairs[pair] += found["buckets"]
    return pairs


@pytest.mark.parametrize("block", [1, 7, moves.PAIRS])
@pytest.mark.parametrize(("pairs", "witnesses"), [(candidates.PAIRS_IN_BUCKET, 64), (4, 1), (9, 2)])
def test_moved_pairs_are_the_difference_of_all_pairs(
    monkeypatch: pytest.MonkeyPatch, block: int, pairs: int, witnesses: int
) -> None:
    monkeypatch.setattr(moves, "PAIRS", block)
    monkeypatch.setattr(candidates, "PAIRS_IN_BUCKET", pairs)
    monkeypatch.setattr(candidates, "WITNESSES", witnesses)

    @settings(max_examples=150)
    @given(memberships())
    def check(drawn: tuple[list[dict], bool]) -> None:
        rows, directed = drawn
        table = pa.Table.from_pylist(rows, pa.schema(list(COLUMNS.items())))
        found = moved_pairs(shared_members(table, directed=directed), directed=directed).to_pylist()
        expected = proposed(rows, "stays", "after", directed)
        expected.subtract(proposed(rows, "was", "before", directed))
        assert {(row["first"], row["second"]): row["buckets"] for row in found} == {
            pair: count for pair, count in expected.items() if count
        }
        assert len({(row["first"], row["second"]) for row in found}) == len(found)

    check()


def test_what_nothing_changes_in_proposes_nothing() -> None:
    rows = pa.table({name: pa.array([], kind) for name, kind in COLUMNS.items()})
    for directed in (False, True):
        found = moved_pairs(shared_members(rows, directed=directed), directed=directed)
        assert found.schema.names == ["first", "second", "buckets"]
        assert not found.num_rows


def test_a_bucket_of_thousands_costs_as_much_as_what_changes_in_it(monkeypatch: pytest.MonkeyPatch) -> None:
    count = 20_000
    seen: list[int] = []
    counted = moves._counted
    monkeypatch.setattr(
        moves, "_counted", lambda codes, buckets: seen.append(len(codes)) or counted(codes, buckets)
    )
    came = np.arange(count) == count - 1
    rows = pa.table(
        {
            "bucket": np.zeros(count, np.uint64),
            "member": np.arange(count),
            "rank": np.zeros(count, np.int64),
            "asks": np.ones(count, bool),
            "was": ~came,
            "stays": np.ones(count, bool),
            "changes": came,
            "before": np.arange(count),
            "after": np.arange(count),
        }
    )
    found = moved_pairs(shared_members(rows, directed=False), directed=False)
    assert found.num_rows == candidates.WITNESSES
    assert seen == [candidates.WITNESSES]
