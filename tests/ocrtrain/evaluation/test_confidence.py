"""Confidence intervals against published numbers, closed forms and properties."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ocrtrain.evaluation.confidence import interval, mean_of_strata, wilson


@pytest.mark.parametrize(
    ("right", "trials", "low", "high"),
    [  # R. G. Newcombe, Statistics in Medicine 17 (1998), table I: method 3, without correction
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0000, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_against_newcombes_table(right: int, trials: int, low: float, high: float) -> None:
    assert wilson(right / trials, trials) == pytest.approx((low, high), abs=5e-5)


def test_right_or_wrong_with_one_question_a_sample_is_wilsons() -> None:
    found = interval({at: [float(at < 81)] for at in range(263)})
    assert found.method == "wilson" and found.number == 263
    assert (found.low, found.high) == pytest.approx((0.2553, 0.3662), abs=5e-5)


def test_the_bootstrap_is_that_of_samples_with_all_their_values() -> None:
    """200 samples of 5 equal values are 200 trials, not 1,000."""
    generator = np.random.RandomState(1)
    means = generator.rand(200)
    alone = interval({at: [float(mean)] for at, mean in enumerate(means)})
    together = interval({at: [float(mean)] * 5 for at, mean in enumerate(means)})
    assert alone.method == together.method == "bootstrap" and together.number == 1_000
    assert (alone.low, alone.high) == pytest.approx((together.low, together.high))
    expected = 1.96 * means.std() / math.sqrt(200)
    assert (alone.high - alone.low) / 2 == pytest.approx(expected, rel=0.1)
    assert alone == interval({at: [float(mean)] for at, mean in enumerate(means)}), "seeded"


def test_samples_that_are_all_alike_have_an_interval_all_the_same() -> None:
    found = interval({at: [1.0, 1.0] for at in range(10)})
    assert (found.mean, found.number, found.method) == (1.0, 20, "wilson")
    assert (found.low, found.high) == pytest.approx((0.7225, 1.0), abs=1e-4)


def test_the_mean_of_strata_weighs_them_equally() -> None:
    large = {at: [float(at % 2)] for at in range(100)}
    small = {at: [1.0] for at in range(4)}
    found = mean_of_strata([large, small])
    assert found.mean == 0.75 and found.number == 104 and found.method == "bootstrap"
    half = interval(large)
    assert (found.high - found.low) == pytest.approx((half.high - half.low) / 2, rel=0.2)


def test_nothing_has_no_mean() -> None:
    for strata in ([], [{}], [{1: []}], [{1: [1.0]}, {}]):
        with pytest.raises(ValueError, match="no values"):
            mean_of_strata(strata)


@settings(max_examples=25, deadline=None)
@given(
    st.dictionaries(
        st.integers(0, 30),
        st.lists(st.floats(0, 1, allow_nan=False), min_size=1, max_size=3),
        min_size=1, max_size=12,
    )
)  # fmt: skip
def test_an_interval_contains_its_mean_and_stays_between_the_values(
    values: dict[int, list[float]],
) -> None:
    found = interval(values)
    every = [value for one in values.values() for value in one]
    assert found.mean == pytest.approx(sum(every) / len(every))
    assert -1e-9 <= found.low <= found.mean + 1e-9 and found.mean - 1e-9 <= found.high <= 1 + 1e-9
    if found.method == "bootstrap":
        assert min(every) - 1e-9 <= found.low and found.high <= max(every) + 1e-9
