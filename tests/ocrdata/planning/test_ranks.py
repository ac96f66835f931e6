"""The ranks share the rows of a batch evenly, in order, or not at all."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocrdata.errors import UsageError
from ocrdata.planning.ranks import rank_rows


@given(each=st.integers(1, 9), world=st.integers(1, 9))
def test_the_rows_of_all_ranks_are_those_of_the_batch(each: int, world: int) -> None:
    parts = [rank_rows(each * world, rank, world) for rank in range(world)]
    assert [row for part in parts for row in part] == list(range(each * world))
    assert {len(part) for part in parts} == {each}


def test_a_batch_that_does_not_divide_is_refused() -> None:
    with pytest.raises(UsageError, match=r"\b10 rows.*\b4 ranks.*\b8 or 12\b"):
        rank_rows(10, 0, 4)


@pytest.mark.parametrize(("rank", "world"), [(2, 2), (-1, 2), (0, 0)])
def test_a_rank_outside_the_world_is_refused(rank: int, world: int) -> None:
    with pytest.raises(UsageError, match=f"rank {rank} of {world}"):
        rank_rows(4, rank, world)
