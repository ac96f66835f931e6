"""The orders of a source: every epoch draws each sample once; what they read at a time."""

from __future__ import annotations

import itertools
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocrdata.planning import order as module
from ocrdata.planning.blocks import Blocks, BlockSize
from ocrdata.planning.choices import SHUFFLES
from ocrdata.planning.order import BlockShuffle, FullShuffle, SampleOrder, make_order
from ocrdata.planning.permutation import EpochPermutation
from tests.support.plans import even_blocks

shuffles = st.sampled_from(SHUFFLES)


def blocks_of_sizes(sizes: list[int], window: int) -> Blocks:
    starts = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int32)
    return Blocks(BlockSize(max(sizes), window), starts)


uneven = st.builds(
    blocks_of_sizes, st.lists(st.integers(1, 5), min_size=1, max_size=40), st.integers(1, 20)
)
"""Blocks as slices with steps and ends of shards make them."""


@st.composite
def orders(draw: st.DrawFn) -> tuple[SampleOrder, list[int]]:
    """An order, and the positions that it draws from."""
    blocks, shuffle = draw(uneven), draw(shuffles)
    size, kept = int(blocks.starts[-1]), None
    wanted = list(range(size))
    if draw(st.booleans()):
        wanted = sorted(draw(st.sets(st.sampled_from(wanted), min_size=1)))
        kept = np.array(wanted, np.int32)
    order = make_order(shuffle, "charts", size, seed=draw(st.integers(0, 9)), blocks=blocks,
                       kept=kept)  # fmt: skip
    return order, wanted


@given(drawn_from=orders(), chunk=st.sampled_from([1, 3, 1 << 16]))
def test_every_epoch_draws_each_sample_once(
    drawn_from: tuple[SampleOrder, list[int]], chunk: int
) -> None:
    order, wanted = drawn_from
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "CHUNK", chunk)
        for epoch in range(3):
            found = order.many(epoch * order.size, (epoch + 1) * order.size)
            assert found.dtype == np.int64 and sorted(found.tolist()) == wanted


@given(drawn_from=orders(), start=st.integers(0, 200), count=st.integers(0, 60))
def test_a_draw_does_not_depend_on_what_else_is_asked(
    drawn_from: tuple[SampleOrder, list[int]], start: int, count: int
) -> None:
    order, _ = drawn_from
    found = order.many(start, start + count).tolist()
    singles = [order.many(draw, draw + 1).tolist() for draw in range(start, start + count)]
    assert singles == [[position] for position in found]


def test_chunks_together_are_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CHUNK", 7)
    for shuffle in SHUFFLES:
        order = make_order(shuffle, "charts", 23, seed=1, blocks=even_blocks(23))
        chunks = list(order.chunks(5, 60))
        assert max(map(len, chunks)) == 7
        assert np.concatenate(chunks).tolist() == order.many(5, 60).tolist()


@given(size=st.integers(1, 50), seed=st.integers(0, 9), start=st.integers(0, 200),
       count=st.integers(0, 200))  # fmt: skip
def test_a_full_shuffle_follows_the_permutations_of_the_epochs(
    size: int, seed: int, start: int, count: int
) -> None:
    order = FullShuffle("charts", size, seed=seed)
    wanted = [
        EpochPermutation(size, seed=seed, epoch=number // size, source="charts")[number % size]
        for number in range(start, start + count)
    ]
    assert order.many(start, start + count).tolist() == wanted


def test_no_shuffle_is_the_order_of_the_view() -> None:
    order = make_order("none", "charts", 5, seed=1, blocks=even_blocks(5))
    assert order.many(3, 12).tolist() == [3, 4, 0, 1, 2, 3, 4, 0, 1]


def windows_of(order: BlockShuffle, epoch: int) -> list[list[int]]:
    """The positions of each order window, as drawn."""
    drawn = order.many(epoch * order.size, (epoch + 1) * order.size).tolist()
    return [drawn[start:stop] for start, stop in itertools.pairwise(order.window_starts(epoch))]


@given(blocks=uneven, seed=st.integers(0, 9))
def test_windows_hold_whole_blocks_and_are_nearly_equal(blocks: Blocks, seed: int) -> None:
    order = BlockShuffle("charts", blocks, seed=seed)
    for epoch in range(2):
        windows = windows_of(order, epoch)
        assert len(windows) == order.windows
        for window in windows:
            whole = set(blocks.of(np.array(window)).tolist())
            assert sorted(window) == sorted(p for block in whole for p in blocks.positions(block))
        lengths = list(map(len, windows))
        assert max(lengths) - min(lengths) < 2 * blocks.recipe.block
        assert min(lengths) >= min(blocks.recipe.window, order.size)
        # With more windows, one of them might hold too few.
        room = blocks.recipe.window + blocks.recipe.block - 1
        assert order.size < (order.windows + 1) * room


@pytest.mark.parametrize("block", [1, 16, 256, 1024])
def test_a_window_of_the_default_size_holds_2048_samples_and_16_blocks(block: int) -> None:
    window = max(2048, 16 * block)
    order = BlockShuffle("charts", even_blocks(70_000, block, window), seed=3)
    for found in windows_of(order, 0):
        assert 2048 <= len(found) <= 1.2 * window
        assert len(set(order.block_of(np.array(found)).tolist())) >= 16


def test_what_a_step_touches_and_how_often_two_of_a_batch_are_neighbours() -> None:
    """The share of pairs of a batch that are of one block is what it is in a window that is
    permuted by chance: (block - 1) of its other samples."""
    batch, size = 32, 262_144
    for block, window in ((16, 2048), (256, 4096)):
        order = BlockShuffle("charts", even_blocks(size, block, window), seed=5)
        blocks = order.blocks(0, size).reshape(-1, batch)
        pairs = sum((row[:, None] == row[None]).sum() - batch for row in blocks)
        found = pairs / (len(blocks) * batch * (batch - 1))
        assert found == pytest.approx((block - 1) / (size / order.windows - 1), rel=0.03)
        touched = sum(len(np.unique(row)) for row in blocks) / len(blocks)
        each = size / block / order.windows  # blocks of a window
        assert touched == pytest.approx(each * (1 - (1 - 1 / each) ** batch), rel=0.03)


def test_blocks_and_samples_are_in_every_place_equally_often() -> None:
    # Chi-square tests at the 0.1 % level, over 1,000 epochs of 4 windows of 4 blocks.
    order = BlockShuffle("charts", even_blocks(64, 4, 13), seed=0)
    assert order.windows == 4
    epochs = np.stack([order.many(64 * epoch, 64 * epoch + 64) for epoch in range(1000)])
    for place in (0, 17, 63):
        counts = np.bincount(epochs[:, place], minlength=64)
        expected = 1000 / 64
        assert ((counts - expected) ** 2 / expected).sum() < 103.4  # 63 degrees of freedom


def test_seed_epoch_and_source_each_change_the_order() -> None:
    def found(seed: int, epoch: int, source: str) -> tuple[int, ...]:
        order = BlockShuffle(source, even_blocks(100, 4, 20), seed=seed)
        return tuple(order.many(100 * epoch, 100 * epoch + 100).tolist())

    assert len({found(1, 0, "a"), found(2, 0, "a"), found(1, 1, "a"), found(1, 0, "b")}) == 4


def test_the_order_by_blocks_never_changes() -> None:
    # Plans of existing runs depend on these numbers: a change needs a new name in ALGORITHMS.
    order = BlockShuffle("chartqa", even_blocks(24, 2, 6), seed=7)
    assert order.many(72, 96).tolist() == FROZEN


@given(drawn_from=orders(), epoch=st.integers(0, 2))
def test_a_block_is_needed_again_when_the_order_says(
    drawn_from: tuple[SampleOrder, list[int]], epoch: int
) -> None:
    order, _ = drawn_from
    first = (epoch + 1) * order.size
    blocks = order.blocks(first, first + order.size)
    wanted: dict[int, int] = {}
    for draw, block in enumerate(blocks.tolist(), first):
        wanted.setdefault(block, draw)
    numbers = np.array(sorted(wanted))
    found = dict(zip(numbers.tolist(), order.needed_again(numbers, epoch).tolist(), strict=True))
    if not isinstance(order, BlockShuffle):
        assert found == wanted
        return
    # By blocks it is the first draw of the window.
    begins = first + order.window_starts(epoch + 1)
    within = np.searchsorted(begins, [wanted[number] for number in numbers], side="right") - 1
    assert list(found.values()) == begins[within].tolist()


@given(drawn_from=orders())
def test_the_positions_of_blocks_hold_what_is_drawn(
    drawn_from: tuple[SampleOrder, list[int]],
) -> None:
    order, _ = drawn_from
    drawn, blocks = order.many(0, order.size), order.blocks(0, order.size)
    for position, block in zip(drawn.tolist(), blocks.tolist(), strict=True):
        assert position in order.block_positions(block)
        if isinstance(order, FullShuffle):
            assert order.block_positions(block) == range(position, position + 1)


def test_threads_may_draw_at_once() -> None:
    size = 60_000
    wanted = BlockShuffle("charts", even_blocks(size, 16, 2048), seed=1).many(0, 3 * size)
    shared = BlockShuffle("charts", even_blocks(size, 16, 2048), seed=1)
    starts = range(0, 3 * size, 500)
    with ThreadPoolExecutor(8) as pool:
        parts = list(pool.map(lambda start: shared.many(start, start + 500), starts))
    assert np.array_equal(np.concatenate(parts), wanted)


def test_draws_cannot_be_overwritten() -> None:
    """They are kept for the next step."""
    found = BlockShuffle("charts", even_blocks(50), seed=1).many(3, 5)
    with pytest.raises(ValueError, match="read-only"):
        found[0] = 9


FROZEN = [8, 19, 21, 20, 9, 22, 23, 18, 4, 11, 13, 10, 5, 12, 6, 7, 16, 3, 0, 14, 2, 17, 15, 1]
