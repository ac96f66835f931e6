"""The orders: the endless sequence of samples drawn from a source, epoch after epoch.

Draw d is a function of d, the seed and the source's name; there is no shuffle buffer. `full` is one
permutation of all samples, computed per draw. `blocks` permutes blocks of neighbours
(`ocrdata.planning.blocks`); blocks that follow each other are an order window, and within each all
samples are permuted: a few blocks are read at a time, each of them once in an epoch, and nearly all
pairs of samples in a batch are from different blocks. `none` is the order of the view.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ocrdata.planning import permutation
from ocrdata.planning.blocks import Blocks, Integers
from ocrdata.planning.permutation import EpochPermutation, shuffled
from ocrdata.shards.arrow import Int64
from ocrdata.storage.recently_used import RecentlyUsed

ALGORITHMS = {
    "full": permutation.ALGORITHM,
    "blocks": "feistel-blocks-1",
    "none": "sequential-1",
}
"""By --shuffle, what every plan records: a changed order needs a new name."""

CHUNK = 1 << 16
"""Draws processed at a time: numpy's temporary arrays then stay in a core's cache."""

EPOCHS_KEPT = 3
"""Epochs whose permuted blocks are kept: at its end, those of the next two are looked at."""

WINDOWS_KEPT = 4
"""Order windows kept: those that consecutive steps, and the threads that make them, draw from."""


class SampleOrder(ABC):
    """The draws from a source, as positions in its view. Thread-safe.

    An epoch is `size` draws. `kept` are the positions drawn from, ascending; None for all of the
    view. Without `blocks` each sample is a block of its own.
    """

    def __init__(
        self, name: str, size: int, *, kept: npt.NDArray[np.int32] | None, blocks: Blocks | None
    ) -> None:
        self.name = name
        self.size = size if kept is None else len(kept)
        self._kept, self._blocks = kept, blocks

    def many(self, start: int, stop: int) -> Int64:
        """The positions of draws [start, stop). Shape: [stop - start]."""
        parts = []
        while start < stop:
            epoch, within = divmod(start, self.size)
            count = min(stop - start, self.size - within)
            parts.append(self._drawn(epoch, within, within + count))
            start += count
        if not parts:
            return np.empty(0, np.int64)
        drawn = parts[0] if len(parts) == 1 else np.concatenate(parts)
        return drawn if self._kept is None else self._kept[drawn].astype(np.int64)

    def chunks(self, start: int, stop: int) -> Iterator[Int64]:
        """The same as `many`, in arrays of at most `CHUNK`."""
        for at in range(start, stop, CHUNK):
            yield self.many(at, min(stop, at + CHUNK))

    @abstractmethod
    def _drawn(self, epoch: int, start: int, stop: int) -> Int64:
        """Draws [start, stop) of an epoch, not empty, as numbers among the samples drawn from, in
        the order of the view."""

    def blocks(self, start: int, stop: int) -> Int64:
        """The blocks of draws [start, stop), numbered in the order of the view; positions that are
        not drawn from count as well. Shape: [stop - start]."""
        return self.block_of(self.many(start, stop))

    def block_of(self, positions: Int64) -> Int64:
        """The blocks that hold these positions of the view. Shapes: [n] -> [n]."""
        return positions if self._blocks is None else self._blocks.of(positions)

    def block_positions(self, number: int) -> range:
        """The positions in the view of a block, adjacent in one shard but for a slice's step."""
        if self._blocks is None:
            return range(number, number + 1)
        return self._blocks.positions(number)

    @abstractmethod
    def needed_again(self, blocks: Int64, epoch: int) -> Int64:
        """The first draws after `epoch` that may be of these blocks, for a cache that evicts what
        is needed last. Shapes: [n] -> [n]."""

    def _numbers(self, positions: Integers) -> Integers:
        """How many of the samples drawn from are before these positions. Shapes: [n] -> [n]."""
        return positions if self._kept is None else np.searchsorted(self._kept, positions)


class FullShuffle(SampleOrder):
    """A permutation of all samples, another one in each epoch."""

    def __init__(
        self, name: str, size: int, *, seed: int, kept: npt.NDArray[np.int32] | None = None
    ) -> None:
        super().__init__(name, size, kept=kept, blocks=None)
        self.seed = seed
        self._epochs = RecentlyUsed[int, EpochPermutation](EPOCHS_KEPT)

    def _drawn(self, epoch: int, start: int, stop: int) -> Int64:
        return self._permutation(epoch).many(np.arange(start, stop, dtype=np.uint64))

    def needed_again(self, blocks: Int64, epoch: int) -> Int64:
        """See `SampleOrder`: exact."""
        places = self._permutation(epoch + 1).places(self._numbers(blocks))
        return (epoch + 1) * self.size + places

    def _permutation(self, epoch: int) -> EpochPermutation:
        return self._epochs.get(
            epoch,
            lambda: EpochPermutation(self.size, seed=self.seed, epoch=epoch, source=self.name),
        )


class _Epoch(NamedTuple):
    """The permuted blocks of an epoch: their numbers, in the order drawn. Window w begins with
    block `first_blocks[w]` of these, and with draw `first_draws[w]` of the epoch; both have a last
    entry for the end."""

    permutation: EpochPermutation
    blocks: Integers
    first_blocks: Int64
    first_draws: Int64


class BlockShuffle(SampleOrder):
    """Permuted blocks in order windows, and in each window permuted samples.

    Windows are as equal as whole blocks allow: each has at least `blocks.recipe.window` samples if
    there are as many, and therefore as many blocks as that takes. Beyond the blocks themselves, it
    keeps 4 bytes a block for each of EPOCHS_KEPT epochs, and 4 if some samples are left out.
    """

    def __init__(
        self, name: str, blocks: Blocks, *, seed: int, kept: npt.NDArray[np.int32] | None = None
    ) -> None:
        super().__init__(name, int(blocks.starts[-1]), kept=kept, blocks=blocks)
        self.seed, self.recipe = seed, blocks.recipe
        # Where blocks start among the samples drawn from; one with none of them is empty.
        self._starts = self._numbers(blocks.starts).astype(blocks.starts.dtype, copy=False)
        # A window begins with the first block that begins at its equal share or later, at most
        # block - 1 samples later: so each keeps `window` samples.
        self.windows = max(1, self.size // (blocks.recipe.window + blocks.recipe.block - 1))
        self._epochs = RecentlyUsed[int, _Epoch](EPOCHS_KEPT)
        self._windows = RecentlyUsed[tuple[int, int], Int64](WINDOWS_KEPT)

    def window_starts(self, epoch: int) -> Int64:
        """The first draws of the order windows of an epoch, counted from its own first draw, and
        its end. Shape: [windows + 1]."""
        return self._epoch(epoch).first_draws

    def _drawn(self, epoch: int, start: int, stop: int) -> Int64:
        begins = self.window_starts(epoch)
        first, last = np.searchsorted(begins, (start, stop - 1), side="right") - 1
        parts = [self._window(epoch, number) for number in range(first, last + 1)]
        drawn: Int64 = parts[0] if len(parts) == 1 else np.concatenate(parts)
        before = int(begins[first])
        return drawn[start - before : stop - before]

    def needed_again(self, blocks: Int64, epoch: int) -> Int64:
        """See `SampleOrder`: the first draws of their order windows in the next epoch."""
        found = self._epoch(epoch + 1)
        places = found.permutation.places(blocks)
        windows = np.searchsorted(found.first_blocks, places, side="right") - 1
        return (epoch + 1) * self.size + found.first_draws[windows]

    def _window(self, epoch: int, number: int) -> Int64:
        return self._windows.get((epoch, number), lambda: self._draw_window(epoch, number))

    def _draw_window(self, epoch: int, number: int) -> Int64:
        """The samples of an order window as drawn, as numbers among those drawn from."""
        found = self._epoch(epoch)
        blocks = found.blocks[found.first_blocks[number] : found.first_blocks[number + 1]]
        starts = self._starts[blocks].astype(np.int64)
        sizes = self._starts[blocks + 1] - starts
        ends = np.cumsum(sizes)
        samples = np.arange(ends[-1]) + np.repeat(starts - (ends - sizes), sizes)
        key = f"{ALGORITHMS['blocks']}/window/{self.seed}/{epoch}/{self.name}/{number}"
        drawn: Int64 = samples[shuffled(len(samples), key)]
        drawn.flags.writeable = False  # `many` returns parts of it
        return drawn

    def _epoch(self, epoch: int) -> _Epoch:
        return self._epochs.get(epoch, lambda: self._permute_blocks(epoch))

    def _permute_blocks(self, epoch: int) -> _Epoch:
        """The blocks of an epoch, a chunk of them at a time."""
        count = len(self._starts) - 1
        permuted = EpochPermutation(
            count, seed=self.seed, epoch=epoch, source=self.name, algorithm=ALGORITHMS["blocks"]
        )
        blocks: Integers = np.empty(count, np.int32 if count < 1 << 31 else np.int64)
        shares = self.size * np.arange(self.windows + 1) // self.windows
        first_blocks, first_draws = np.empty_like(shares), np.empty_like(shares)
        drawn = found = 0  # draws before this chunk, windows whose begin is known
        for at in range(0, count, CHUNK):
            part = permuted.many(np.arange(at, min(count, at + CHUNK)))
            blocks[at : at + len(part)] = part
            sizes = (self._starts[part + 1] - self._starts[part]).astype(np.int64)
            begins = drawn + np.concatenate([np.zeros(1, np.int64), np.cumsum(sizes)])
            within = shares[found : np.searchsorted(shares, begins[-1], side="right")]
            chosen = np.searchsorted(begins, within)
            first_blocks[found : found + len(within)] = at + chosen
            first_draws[found : found + len(within)] = begins[chosen]
            drawn, found = int(begins[-1]), found + len(within)
        return _Epoch(permuted, blocks, first_blocks, first_draws)


class Sequential(SampleOrder):
    """The order of the view, the same in each epoch."""

    def __init__(
        self, name: str, blocks: Blocks, *, kept: npt.NDArray[np.int32] | None = None
    ) -> None:
        super().__init__(name, int(blocks.starts[-1]), kept=kept, blocks=blocks)
        self._starts = blocks.starts

    def _drawn(self, epoch: int, start: int, stop: int) -> Int64:
        return np.arange(start, stop)

    def needed_again(self, blocks: Int64, epoch: int) -> Int64:
        """See `SampleOrder`: exact."""
        return (epoch + 1) * self.size + self._numbers(self._starts[blocks].astype(np.int64))


def make_order(
    shuffle: str,
    name: str,
    size: int,
    *,
    seed: int,
    blocks: Blocks | None = None,
    kept: npt.NDArray[np.int32] | None = None,
) -> SampleOrder:
    """The order that --shuffle names, of a source of `size` samples. Raises ValueError if it needs
    blocks and has none."""
    if shuffle == "full":
        return FullShuffle(name, size, seed=seed, kept=kept)
    if blocks is None or blocks.starts[-1] != size:
        raise ValueError(f"the order {shuffle!r} of {name} needs the blocks of its {size} samples")
    if shuffle == "blocks":
        return BlockShuffle(name, blocks, seed=seed, kept=kept)
    return Sequential(name, blocks, kept=kept)
