import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocrdata.planning.permutation import EpochPermutation, shuffled


@given(size=st.integers(1, 3000), seed=st.integers(0, 2**31), epoch=st.integers(0, 50))
def test_an_order_is_a_permutation(size: int, seed: int, epoch: int) -> None:
    order = EpochPermutation(size, seed=seed, epoch=epoch, source="charts")
    assert sorted(order.many(np.arange(size)).tolist()) == list(range(size))


@given(size=st.integers(1, 10**12), data=st.data())
def test_one_place_equals_many_places(size: int, data: st.DataObject) -> None:
    places = data.draw(st.lists(st.integers(0, size - 1), min_size=1, max_size=20))
    order = EpochPermutation(size, seed=1, epoch=0, source="charts")
    assert order.many(places).tolist() == [order[place] for place in places]


@given(size=st.integers(1, 10**12), data=st.data())
def test_places_are_the_inverse(size: int, data: st.DataObject) -> None:
    samples = data.draw(st.lists(st.integers(0, size - 1), min_size=1, max_size=20))
    order = EpochPermutation(size, seed=1, epoch=2, source="charts")
    assert order.many(order.places(samples)).tolist() == samples
    assert order.places(order.many(samples)).tolist() == samples


@pytest.mark.parametrize("size", [100_000, 262_144, 262_145, 10**9])
def test_the_compiled_loop_gives_the_same_order(size: int) -> None:
    order = EpochPermutation(size, seed=7, epoch=2, source="charts")
    places = np.linspace(0, size - 1, 3_000).astype(np.int64)
    compiled = order.many(places).tolist()
    assert compiled == [found for place in places for found in order.many([place]).tolist()]


def test_every_part_of_the_key_changes_the_order() -> None:
    places = np.arange(1000)
    keys = [(1, 0, "a", "x"), (2, 0, "a", "x"), (1, 1, "a", "x"), (1, 0, "b", "x"),
            (1, 0, "a", "y")]  # fmt: skip
    orders = [
        EpochPermutation(1000, seed=seed, epoch=epoch, source=source, algorithm=algorithm)
        for seed, epoch, source, algorithm in keys
    ]
    assert len({tuple(order.many(places).tolist()) for order in orders}) == len(keys)


def test_the_order_of_this_algorithm_never_changes() -> None:
    # Plans of existing runs depend on these numbers: a change needs a new ALGORITHM name.
    order = EpochPermutation(20, seed=7, epoch=3, source="chartqa")
    assert order.many(np.arange(20)).tolist() == FROZEN


def test_every_sample_is_equally_likely_to_come_first() -> None:
    # Counted over many seeds (chi-square test, 0.1 % level).
    size, seeds = 10, 5000
    firsts = [EpochPermutation(size, seed=seed, epoch=0, source="x")[0] for seed in range(seeds)]
    counts = np.bincount(firsts, minlength=size)
    expected = seeds / size
    assert ((counts - expected) ** 2 / expected).sum() < 27.9


def test_neighbours_are_spread_apart() -> None:
    size = 10_000
    order = EpochPermutation(size, seed=0, epoch=0, source="x").many(np.arange(size))
    steps = np.abs(np.diff(order))
    # Two random places are size / 3 apart on average.
    assert 0.9 * size / 3 < steps.mean() < 1.1 * size / 3


def test_places_outside_the_order_and_empty_orders_are_errors() -> None:
    order = EpochPermutation(5, seed=0, epoch=0, source="x")
    for place in (-1, 5):
        with pytest.raises(IndexError, match=rf"place {place} .* 5 samples"):
            order[place]
    with pytest.raises(ValueError, match="at least 1 sample, not 0"):
        EpochPermutation(0, seed=0, epoch=0, source="x")


@given(count=st.integers(1, 3000), key=st.text(max_size=9))
def test_shuffled_places_are_a_permutation(count: int, key: str) -> None:
    assert sorted(shuffled(count, key).tolist()) == list(range(count))


def test_shuffled_places_never_change() -> None:
    assert shuffled(20, "key").tolist() == SHUFFLED
    assert shuffled(20, "other").tolist() != SHUFFLED


def test_every_place_is_equally_likely_to_come_first() -> None:
    # Counted over many keys (chi-square test, 0.1 % level).
    size, keys = 10, 5000
    counts = np.bincount([shuffled(size, str(key))[0] for key in range(keys)], minlength=size)
    expected = keys / size
    assert ((counts - expected) ** 2 / expected).sum() < 27.9


SHUFFLED = [19, 17, 16, 11, 10, 0, 7, 8, 14, 18, 2, 13, 9, 5, 6, 3, 15, 4, 1, 12]
FROZEN = [19, 4, 11, 2, 16, 13, 17, 14, 12, 6, 9, 7, 10, 1, 8, 15, 0, 5, 3, 18]
