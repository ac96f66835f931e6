"""The blocks of views of real shards, against grouping their samples one by one."""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ocrdata.planning.blocks import BlockSize, StoredSize, blocks_of, choose_size, stored_size
from ocrdata.reading.selection import SelectedShards
from ocrdata.reading.view import Shards, open_shards
from ocrdata.sample import from_turns
from ocrdata.shards.writer import ShardWriter

SIZES = (1, 40, 16, 1, 33, 5, 64)
COUNT = sum(SIZES)
PLACES = [(shard, local) for shard, size in enumerate(SIZES) for local in range(size)]
"""The shard of each sample of the set, and its position there."""


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Shards:
    folder: Path = tmp_path_factory.mktemp("set")
    for number, size in enumerate(SIZES):
        with ShardWriter(folder / f"x-{number:03d}.tar") as writer:
            for at in range(size):
                writer.write(f"{at:09d}", from_turns([("q", "a")], [], source="", meta={}))
    return open_shards(str(folder / "x-*.tar"))


bounds = st.one_of(st.none(), st.integers(-COUNT, COUNT))
slices = st.builds(slice, bounds, bounds, st.sampled_from([None, 2, 3, 17, 50, -1, -3, -40]))


def by_hand(positions: list[int], size: int) -> list[range]:
    """Groups of neighbours with the same shard and the same multiple of `size` there."""
    found, at = [], 0
    for _, group in itertools.groupby(
        positions, lambda position: (PLACES[position][0], PLACES[position][1] // size)
    ):
        count = len(list(group))
        found.append(range(at, at + count))
        at += count
    return found


@given(part=slices, size=st.sampled_from([1, 2, 8, 16, 64]))
@settings(deadline=None)
def test_blocks_are_aligned_in_their_shards(shards: Shards, part: slice, size: int) -> None:
    view, positions = shards[part], list(range(COUNT))[part]
    if not positions:
        return
    blocks = blocks_of(view, BlockSize(size, 99))
    wanted = by_hand(positions, size)
    assert [blocks.positions(number) for number in range(len(blocks))] == wanted
    assert blocks.recipe == (size, 99) and blocks.starts.dtype == np.int32
    numbers = blocks.of(np.arange(len(positions))).tolist()
    assert numbers == [number for number, block in enumerate(wanted) for _ in block]


@given(part=slices, picks=st.sets(st.integers(0, COUNT - 1), min_size=1))
@settings(deadline=None)
def test_blocks_of_chosen_samples(shards: Shards, part: slice, picks: set[int]) -> None:
    view = shards[part]
    chosen = [at for at in range(len(view)) if at in picks]
    if not chosen:
        return
    blocks = blocks_of(SelectedShards(view, chosen, "chosen"), BlockSize(8, 99))
    positions = [list(range(COUNT))[part][at] for at in chosen]
    assert [blocks.positions(number) for number in range(len(blocks))] == by_hand(positions, 8)


def test_the_size_depends_on_the_shards_of_the_view_alone(shards: Shards) -> None:
    entries = shards.shard_set.shards
    assert stored_size(shards) == (COUNT, sum(entry.bytes for entry in entries), 64)
    assert stored_size(shards[1:41:7]) == (40, entries[1].bytes, 40)
    assert stored_size(shards[:2]) == (41, entries[0].bytes + entries[1].bytes, 40)
    assert blocks_of(shards[:41]).recipe == choose_size(stored_size(shards[:41])) == (32, 2048)
    assert blocks_of(shards).recipe == (64, 2048)


@pytest.mark.parametrize(
    ("each", "most", "block", "window"),
    [
        (38_000, 1024, 16, 2048),  # charts
        (2_000, 1024, 256, 4096),  # chats
        (1 << 10, 1024, 512, 8192),  # text
        (100, 1024, 1024, 16_384),  # as large as a shard
        (100, 1000, 512, 8192),  # a power of two not above it
        (200_000, 1024, 16, 2048),  # documents: 16 samples, 3.2 MB
        (2_000_000, 1024, 4, 2048),  # pages: 8 MB
        (3_000_000, 1024, 2, 2048),
        (20_000_000, 1024, 1, 2048),
        (38_000, 10, 8, 2048),
        (2_000, 1, 1, 2048),  # shards of one sample
    ],
)
def test_sizes_of_blocks(each: int, most: int, block: int, window: int) -> None:
    assert choose_size(StoredSize(1000, 1000 * each, most)) == (block, window)


@given(each=st.integers(1, 1 << 32), most=st.integers(1, 5000))
def test_a_block_is_the_nearest_power_of_two(each: int, most: int) -> None:
    wanted = max(2**19 / each, min(16, 2**23 / each))
    nearest = min((2**power for power in range(21)), key=lambda one: abs(math.log(one / wanted)))
    largest = max(2**power for power in range(13) if 2**power <= most)
    size = choose_size(StoredSize(1, each, most))
    assert size.block == min(nearest, largest)
    assert size.window == max(2048, 16 * size.block)
