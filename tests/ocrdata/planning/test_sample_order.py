import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocrdata.planning import order as module
from ocrdata.planning.order import EpochPermutation, SampleOrder


@given(size=st.integers(1, 50), seed=st.integers(0, 9), start=st.integers(0, 200),
       count=st.integers(0, 200))  # fmt: skip
def test_draws_are_the_orders_of_the_epochs_one_after_the_other(
    size: int, seed: int, start: int, count: int
) -> None:
    draws = SampleOrder("charts", size, seed=seed)
    wanted = [
        EpochPermutation(size, seed=seed, epoch=number // size, source="charts")[number % size]
        for number in range(start, start + count)
    ]
    assert draws.many(start, start + count).tolist() == wanted
    one_by_one = [draws.many(number, number + 1).tolist() for number in range(start, start + count)]
    assert one_by_one == [[position] for position in wanted]


@given(kept=st.sets(st.integers(0, 99), min_size=1))
def test_an_epoch_of_what_is_kept(kept: set[int]) -> None:
    draws = SampleOrder("charts", 100, seed=3, kept=np.array(sorted(kept), np.int32))
    assert draws.size == len(kept)
    for epoch in range(3):
        found = draws.many(epoch * len(kept), (epoch + 1) * len(kept))
        assert sorted(found.tolist()) == sorted(kept)


def test_pieces_are_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CHUNK", 7)
    draws = SampleOrder("charts", 23, seed=1)
    pieces = list(draws.chunks(5, 60))
    assert max(map(len, pieces)) == 7
    assert np.concatenate(pieces).tolist() == draws.many(5, 60).tolist()
