"""Blocks: the neighbours in a shard that an order keeps together, so that one request reads many.

A shard is divided into blocks of `size` samples, counted from its own first sample, whatever the
view: other slices of the same set have the same blocks. A block of a view is what the view has of
one of these, a range of its positions; none crosses the end of a shard. Loads no index.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ocrdata.reading.view import Shards
from ocrdata.shards.arrow import Int64

TARGET_BYTES = 512 << 10
"""Stored bytes of a block: larger requests are no faster, and put more neighbours in a batch."""

LEAST_SAMPLES, LEAST_BYTES = 16, 8 << 20
"""A block of large samples has at least the first, or the second, whichever is less."""

WINDOW_SAMPLES, WINDOW_BLOCKS = 2048, 16
"""An order window has at least as many samples, and blocks: of the pairs of a batch, at most about
one in 16 is from one block."""


Integers = npt.NDArray[np.signedinteger[Any]]
"""Int64, or the half of it where that is enough."""


class BlockSize(NamedTuple):
    """The recipe of an order by blocks: a block has at most `block` samples, a power of two, and an
    order window at least `window`, if the source has as many."""

    block: int
    window: int


class StoredSize(NamedTuple):
    """The shards of a view on the disk, or wherever they are: their samples, their bytes, and the
    most samples in one of them."""

    samples: int
    bytes: int
    largest: int

    @property
    def bytes_per_sample(self) -> Fraction:
        """The mean."""
        return Fraction(self.bytes, self.samples)


@dataclass(frozen=True, eq=False)
class Blocks:
    """The blocks of a view, in its order: block b is the positions `[starts[b], starts[b + 1])`.
    They take 4 bytes a block in memory."""

    recipe: BlockSize
    starts: Integers

    def __len__(self) -> int:
        return len(self.starts) - 1

    def of(self, positions: Int64) -> Int64:
        """The blocks that hold these positions of the view. Shapes: [n] -> [n]."""
        return np.searchsorted(self.starts, positions, side="right") - 1

    def positions(self, number: int) -> range:
        """The positions in the view of a block."""
        return range(int(self.starts[number]), int(self.starts[number + 1]))


def blocks_of(shards: Shards, recipe: BlockSize | None = None) -> Blocks:
    """The blocks of a view that is not empty. Their size is that of `recipe`, as a plan recorded
    it, or else depends on the shards (`choose_size`)."""
    recipe = recipe or choose_size(stored_size(shards))
    kind = np.int32 if len(shards) < 1 << 31 else np.int64
    parts = list(_starts(shards.stretches(), recipe.block, kind))
    return Blocks(recipe, np.concatenate([*parts, np.array([len(shards)], kind)]))


def _starts(
    stretches: Iterable[tuple[int, int, range | Int64]], size: int, kind: type[np.int32 | np.int64]
) -> Iterator[Integers]:
    """The first position in the view of every block, shard by shard."""
    for first, _, locals_ in stretches:
        if isinstance(locals_, range) and abs(locals_.step) == 1:
            # Nearly every view, in a microsecond a shard: from where the first block would begin.
            at = locals_[0] % size
            left_out = at if locals_.step == 1 else size - 1 - at
            starts = np.arange(first - left_out, first + len(locals_), size)
            starts[0] = first
            yield starts.astype(kind)
            continue
        numbers = np.asarray(locals_) // size
        yield (first + np.flatnonzero(np.diff(numbers, prepend=-1))).astype(kind)


def stored_size(shards: Shards) -> StoredSize:
    """What the shards that a view has samples of take, all their samples included: from the
    manifest or the footers of the indexes."""
    used = {number for _, number, _ in shards.stretches()}
    entries = [shards.shard_set.shards[number] for number in used]
    return StoredSize(
        samples=sum(entry.samples for entry in entries),
        bytes=sum(entry.bytes for entry in entries),
        largest=max(entry.samples for entry in entries),
    )


def choose_size(stored: StoredSize) -> BlockSize:
    """Blocks of about TARGET_BYTES, at least LEAST_SAMPLES or LEAST_BYTES, at most a shard; and
    windows of at least WINDOW_SAMPLES and WINDOW_BLOCKS."""
    each = stored.bytes_per_sample
    wanted = max(TARGET_BYTES / each, min(Fraction(LEAST_SAMPLES), LEAST_BYTES / each))
    most = 1 << (stored.largest.bit_length() - 1)
    block = min(_nearest_power_of_two(wanted), most)
    return BlockSize(block, max(WINDOW_SAMPLES, WINDOW_BLOCKS * block))


def _nearest_power_of_two(value: Fraction) -> int:
    """The power of two, at least 1, with the smallest ratio to `value`."""
    power = 1
    while value * value >= 2 * power * power:  # it is nearer to the next one
        power *= 2
    return power
