from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocrdata.planning.lengths import SampleLengths
from ocrdata.planning.order import FullShuffle
from ocrdata.planning.packing import pack
from ocrdata.planning.rows import PackedRows, PlainRows, Rows
from tests.support.measured import made_up

CAPACITY = 60


def packed(size: int, window: int, *, finite: bool = False, seed: int = 0) -> PackedRows:
    return PackedRows(
        FullShuffle("charts", size, seed=seed), made_up(size, longest=CAPACITY), capacity=CAPACITY,
        window=window, max_images=5, finite=finite,
    )  # fmt: skip


def position(rows: Rows, draw: int) -> int:
    (found,) = rows.order.many(draw, draw + 1).tolist()
    return int(found)


def draws_of(rows: Rows, row: int) -> list[int]:
    ((draws, positions),) = rows.members(row, row + 1)
    assert positions.tolist() == [position(rows, draw) for draw in draws.tolist()]
    return draws.tolist()


sizes = st.integers(1, 40)
windows = st.integers(1, 30)


@given(size=sizes, window=windows, rows=st.integers(0, 30))
def test_packed_rows_follow_window_after_window(size: int, window: int, rows: int) -> None:
    found, samples = packed(size, window), made_up(size, longest=CAPACITY)
    wanted: list[list[int]] = []
    parts = -(-size // window)
    for number in range(rows + 1):
        epoch, part = divmod(number, parts)
        start, stop = (epoch * size + size * at // parts for at in (part, part + 1))
        assert stop - start <= window
        positions = FullShuffle("charts", size, seed=0).many(start, stop)
        packing = pack(
            samples.lengths[positions], samples.images[positions].astype(np.int64),
            capacity=CAPACITY, max_images=5,
        )  # fmt: skip
        wanted += [
            [start + at for at in np.flatnonzero(packing.row_of == row).tolist()]
            for row in range(packing.rows)
        ]
    assert [draws_of(found, row) for row in range(rows)] == wanted[:rows]


@given(size=sizes, window=windows, start=st.integers(0, 30), count=st.integers(0, 30),
       kind=st.sampled_from(["plain", "packed"]))  # fmt: skip
def test_sizes_of_rows_are_the_sums_of_their_draws(
    size: int, window: int, start: int, count: int, kind: str
) -> None:
    samples = made_up(size, longest=CAPACITY)
    found: Rows = packed(size, window)
    if kind == "plain":
        found = PlainRows(FullShuffle("charts", size, seed=0), samples)
    rows = range(start, start + count)

    def of(column: np.ndarray[tuple[int], np.dtype[np.int32]]) -> list[int]:
        return [
            sum(int(column[position(found, draw)]) for draw in draws_of(found, row)) for row in rows
        ]

    lengths, images = found.sizes(start, start + count)
    assert lengths.tolist() == found.lengths(start, start + count).tolist() == of(samples.lengths)
    assert images.tolist() == of(samples.images.astype(np.int32))
    assert found.samples(start, start + count).tolist() == [len(draws_of(found, r)) for r in rows]


@given(size=sizes, window=windows, rows=st.integers(0, 60))
def test_rows_consume_exactly_their_draws(size: int, window: int, rows: int) -> None:
    found = packed(size, window)
    whole, extra = found.consumed(rows)
    drawn = [draw for row in range(rows) for draw in draws_of(found, row)]
    wanted = [*found.order.many(0, whole).tolist(), *extra.tolist()]
    assert sorted(wanted) == sorted(position(found, draw) for draw in drawn)
    assert whole + len(extra) == len(drawn) and set(range(whole)) <= set(drawn)


@given(size=sizes, window=windows, rows=st.integers(0, 60))
def test_no_row_holds_a_sample_twice(size: int, window: int, rows: int) -> None:
    for _, positions in packed(size, window).members(0, rows):
        assert len(set(positions.tolist())) == len(positions)


@given(size=sizes, window=windows)
def test_a_finite_source_has_each_sample_once(size: int, window: int) -> None:
    found = packed(size, window, finite=True)
    rows = found.available()
    drawn = Counter(position(found, draw) for row in range(rows) for draw in draws_of(found, row))
    assert drawn == Counter(range(size))
    with pytest.raises(IndexError, match=rf"charts .* {rows} rows"):
        draws_of(found, rows)


@given(size=sizes, window=windows, start=st.integers(0, 20), count=st.integers(0, 20))
def test_several_rows_at_once_equal_single_rows(
    size: int, window: int, start: int, count: int
) -> None:
    for found in (packed(size, window), PlainRows(FullShuffle("charts", size, seed=0))):
        rows = [draws.tolist() for draws, _ in found.members(start, start + count)]
        assert rows == [draws_of(found, row) for row in range(start, start + count)]


def test_a_row_does_not_depend_on_the_order_of_requests() -> None:
    forwards, backwards = packed(200, 25), packed(200, 25)
    wanted = [draws_of(forwards, row) for row in range(60)]
    assert [draws_of(backwards, row) for row in reversed(range(60))] == wanted[::-1]


def test_plain_rows_are_draws() -> None:
    rows = PlainRows(FullShuffle("charts", 7, seed=0))
    assert rows.available() == 7
    assert draws_of(rows, 12) == [12]
    assert rows.consumed(9)[0] == 9 and not len(rows.consumed(9)[1])


def test_the_lengths_of_no_rows_are_empty() -> None:
    rows = PlainRows(FullShuffle("charts", 3, seed=0), made_up(3, longest=5))
    assert rows.lengths(4, 4).tolist() == []


def test_the_made_up_lengths_are_within_their_bounds() -> None:
    found: SampleLengths = made_up(500, longest=CAPACITY)
    assert int(found.lengths.max()) <= CAPACITY and int(found.lengths.min()) >= 1
