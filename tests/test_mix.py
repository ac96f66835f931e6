from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocrdata.mix import ordinals, schedule

weights_lists = st.lists(
    st.fractions(min_value=0, max_value=1000, max_denominator=1000), min_size=1, max_size=12
).filter(lambda weights: sum(weights) > 0)


@given(weights=weights_lists, length=st.integers(1, 400))
def test_every_prefix_is_within_one_slot_of_the_exact_share(
    weights: list[Fraction], length: int
) -> None:
    slots = schedule(weights, length)
    total = sum(weights)
    for source, weight in enumerate(weights):
        got = np.cumsum(slots == source)
        for count in range(1, length + 1):
            assert abs(int(got[count - 1]) - weight / total * count) < 1


@given(weights=weights_lists, length=st.integers(1, 200))
def test_a_longer_schedule_begins_with_the_shorter_one(
    weights: list[Fraction], length: int
) -> None:
    assert schedule(weights, length + 50)[:length].tolist() == schedule(weights, length).tolist()


def test_the_originals_share() -> None:
    # 10,000 of 28,000 samples were text: of 1,400 steps exactly 500 are.
    slots = schedule([Fraction(18, 28), Fraction(10, 28)], 1400)
    assert np.bincount(slots).tolist() == [900, 500]
    # A plan's mix never changes under the same ALGORITHM.
    assert slots[:14].tolist() == [0, 1, 0, 0, 1, 0, 0, 1, 0, 0, 1, 0, 0, 1]


def test_the_case_greedy_gets_wrong() -> None:
    # Many small sources beside a large one: largest deficit first lets the small ones queue up.
    weights = [Fraction(1, 2)] + [Fraction(1, 200)] * 100
    slots = schedule(weights, 400)
    got = np.cumsum(slots == 0)
    assert all(abs(got[k] - (k + 1) / 2) < 1 for k in range(400))


def test_a_source_of_weight_0_is_never_drawn() -> None:
    assert set(schedule([Fraction(0), Fraction(3), Fraction(0)], 50).tolist()) == {1}


@pytest.mark.parametrize(
    ("weights", "message"),
    [([], "1 to"), ([Fraction(0)], "all 0"), ([Fraction(-1), Fraction(2)], "negative")],
)
def test_impossible_weights(weights: list[Fraction], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        schedule(weights, 10)


@given(st.lists(st.integers(0, 4), max_size=60))
def test_ordinals_count_what_came_before(sources: list[int]) -> None:
    slots = np.array(sources, dtype=np.uint16)
    expected = [sources[:k].count(source) for k, source in enumerate(sources)]
    assert ordinals(slots, 5).tolist() == expected
