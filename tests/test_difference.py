"""Which rows of two lists differ: against sets, whatever came, went or moved."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from stemma.deduplication.difference import unpaired

# Few, so that most stand in both lists.
HASHES = st.lists(st.integers(0, 12), unique=True).map(
    lambda values: np.array(values, np.uint64) << np.uint64(60)
)


@given(HASHES, HASHES)
def test_what_the_other_list_has_not(left: np.ndarray, right: np.ndarray) -> None:
    places = unpaired(left, right)
    for found, part, other in zip(places, (left, right), (right, left), strict=True):
        expected = [place for place, value in enumerate(part.tolist()) if value not in other.tolist()]
        assert found.tolist() == expected


@given(st.lists(st.integers(0, 2**64 - 1), unique=True, max_size=40), st.data())
def test_rows_that_came_and_went(values: list[int], data: st.DataObject) -> None:
    gone = data.draw(st.sets(st.sampled_from(values)) if values else st.just(set()))
    new = data.draw(
        st.lists(st.integers(0, 2**64 - 1).filter(lambda value: value not in values), unique=True, max_size=9)
    )
    before = np.array(values, np.uint64)
    after = np.array([value for value in values if value not in gone] + new, np.uint64)
    left, right = unpaired(before, after)
    assert set(before[left].tolist()) == gone
    assert after[right].tolist() == new
