from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocrdata.planning.packing import Packing, pack

CAPACITY = 100
samples = st.lists(st.tuples(st.integers(1, CAPACITY), st.integers(0, 4)), max_size=80)
Samples = list[tuple[int, int]]


def packed(found: Samples, *, max_images: int = 6, compiled: bool = False) -> Packing:
    lengths = np.array([length for length, _ in found], np.int32)
    images = np.array([count for _, count in found], np.int64)
    return pack(lengths, images, capacity=CAPACITY, max_images=max_images, compiled=compiled)


@given(samples)
def test_no_row_exceeds_its_limits_and_every_sample_has_one_row(found: Samples) -> None:
    result = packed(found)
    assert len(result.row_of) == len(found)
    ids, images = Counter[int](), Counter[int]()
    for row, (length, count) in zip(result.row_of.tolist(), found, strict=True):
        ids[row] += length
        images[row] += count
    assert set(ids) == set(range(result.rows))
    assert all(total <= CAPACITY for total in ids.values())
    assert all(total <= 6 for total in images.values())


@given(samples)
def test_rows_are_numbered_by_their_first_draws(found: Samples) -> None:
    seen: list[int] = []
    for row in packed(found).row_of.tolist():
        if row not in seen:
            seen.append(row)
    assert seen == sorted(seen)


@given(samples)
def test_each_sample_goes_into_the_fullest_row_with_room(found: Samples) -> None:
    """A plain implementation of the rule: samples in order; of equally full rows, the first."""
    rows: list[list[int]] = []
    wanted = []
    for at, (length, images) in enumerate(found):
        fill = [sum(found[k][0] for k in row) for row in rows]
        fitting = [
            number for number, row in enumerate(rows)
            if fill[number] + length <= CAPACITY
            and sum(found[k][1] for k in row) + images <= 6
        ]  # fmt: skip
        if not fitting:
            rows.append([])
            fill.append(0)
            fitting = [len(rows) - 1]
        best = max(fitting, key=lambda number: (fill[number], -number))
        rows[best].append(at)
        wanted.append(best)
    assert packed(found).row_of.tolist() == wanted


@given(samples)
def test_at_most_one_row_is_at_most_half_full(found: Samples) -> None:
    """Otherwise the samples of the later one would have fitted into the earlier one."""
    result = packed(found, max_images=10_000)
    fill = np.bincount(result.row_of, weights=[length for length, _ in found] or None)
    assert np.count_nonzero(fill <= CAPACITY / 2) <= 1


@given(samples)
def test_compiled_and_plain_agree(found: Samples) -> None:
    plain, compiled = packed(found), packed(found, compiled=True)
    assert (plain.rows, plain.row_of.tolist()) == (compiled.rows, compiled.row_of.tolist())


def test_a_sample_with_too_many_images_shares_its_row_with_no_other_image() -> None:
    result = packed([(10, 4), (10, 1), (10, 1), (10, 4)], max_images=2)
    assert result.rows == 3
    assert result.row_of.tolist() == [0, 1, 1, 2]


def test_a_sample_longer_than_a_row_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"101 .* row of 100"):
        packed([(101, 0)])
