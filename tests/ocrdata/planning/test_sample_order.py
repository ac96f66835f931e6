import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocrdata.planning import order as module
from ocrdata.planning.order import EpochPermutation, SampleOrder


@given(size=st.integers(1, 50), seed=st.integers(0, 9), start=st.integers(0, 200),
       count=st.integers(0, 200))  # fmt: skip
def test_draws_follow_the_permutations_of_the_epochs(
    size: int, seed: int, start: int, count: int
) -> None:
    order = SampleOrder("charts", size, seed=seed)
    wanted = [
        EpochPermutation(size, seed=seed, epoch=number // size, source="charts")[number % size]
        for number in range(start, start + count)
    ]
    assert order.many(start, start + count).tolist() == wanted
    one_by_one = [order.many(number, number + 1).tolist() for number in range(start, start + count)]
    assert one_by_one == [[position] for position in wanted]


@given(kept=st.sets(st.integers(0, 99), min_size=1))
def test_an_epoch_draws_each_kept_sample_once(kept: set[int]) -> None:
    order = SampleOrder("charts", 100, seed=3, kept=np.array(sorted(kept), np.int32))
    assert order.size == len(kept)
    for epoch in range(3):
        found = order.many(epoch * len(kept), (epoch + 1) * len(kept))
        assert sorted(found.tolist()) == sorted(kept)


def test_chunks_together_are_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CHUNK", 7)
    order = SampleOrder("charts", 23, seed=1)
    chunks = list(order.chunks(5, 60))
    assert max(map(len, chunks)) == 7
    assert np.concatenate(chunks).tolist() == order.many(5, 60).tolist()
