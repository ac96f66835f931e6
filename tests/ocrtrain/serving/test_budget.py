"""The account of what requests take."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocrtrain.serving.budget import MemoryBudget, Reservation
from ocrtrain.serving.errors import RequestError


@given(st.lists(st.lists(st.integers(0, 60), max_size=4), max_size=6))
def test_no_more_is_held_than_there_is_and_all_is_given_back(requests: list[list[int]]) -> None:
    budget = MemoryBudget(100)
    open_ones: list[Reservation] = []
    held: list[int] = []
    for sizes in requests:
        one = Reservation(budget).__enter__()
        open_ones.append(one)
        held.append(0)
        for size in sizes:
            fits = sum(held) - held[-1] + size <= 100
            if fits or size < held[-1]:
                one.resize(size)
                held[-1] = size
            else:
                with pytest.raises(RequestError) as caught:
                    one.resize(size)
                assert caught.value.status == 429
            assert budget.used == sum(held) <= 100
    for one in open_ones:
        one.__exit__()
    assert budget.used == 0


def test_a_thread_that_comes_late_holds_nothing() -> None:
    budget = MemoryBudget(100)
    with Reservation(budget) as held:
        held.resize(70)
    held.resize(50)
    assert budget.used == 0
