"""Which rows are in which shard."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocrdata.conversion.layout import Layout


@given(rows=st.integers(1, 5_000), size=st.integers(1, 300), data=st.data())
def test_shards_cover_the_slice_once(rows: int, size: int, data: st.DataObject) -> None:
    start = data.draw(st.integers(0, rows - 1))
    stop = data.draw(st.integers(start + 1, rows))
    layout = Layout("set", rows, start, stop, size)
    covered = [row for shard in layout.shards for row in layout.span(shard)]
    assert covered == list(range(start, stop))
    assert all(layout.span(shard) for shard in layout.shards)
    assert all(row // size == shard for shard in layout.shards for row in layout.span(shard))


@pytest.mark.parametrize(
    ("rows", "file"),
    [(18_265, "a-007.tar"), (1_024_000, "a-007.tar"), (1_024_001, "a-0007.tar")],
)
def test_the_number_of_digits_depends_on_all_rows(rows: int, file: str) -> None:
    assert Layout("a", rows, 0, 10, 1024).file(7) == file
    assert len(Layout("chartqa", 18_265, 0, 18_265, 1024).shards) == 18
