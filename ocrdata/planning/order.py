"""The order of one epoch: a keyed permutation, computed per position in constant memory.

A Feistel network over the smallest power of four that holds the epoch (at least 16), with cycle
walking, is a bijection of `[0, size)`; seed, epoch and source form its key. There is no shuffle
buffer and no random state: the sample at place k is a function of k.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import xxhash

from ocrdata.planning.jit import jit_if_large
from ocrdata.shards.arrow import Int64

ALGORITHM = "feistel-1"
"""Recorded in every plan: a changed algorithm needs a new name."""

ROUNDS = 6

CHUNK = 1 << 16
"""Draws processed at a time: numpy's temporary arrays then stay in a core's cache."""

MANY = 1024
"""Fewest places at once for which a large order uses the compiled loop: numpy's temporary arrays
cost ten times as much."""

_MULTIPLIER_1 = np.uint64(0xBF58476D1CE4E5B9)  # the finaliser of splitmix64 (Steele et al. 2014)
_MULTIPLIER_2 = np.uint64(0x94D049BB133111EB)

Positions = npt.NDArray[np.uint64]


class EpochPermutation:
    """The permutation of one epoch of one source.

    `order[k]` is the sample at place k of the epoch. Raises ValueError if `size` < 1.
    """

    def __init__(self, size: int, *, seed: int, epoch: int, source: str) -> None:
        if size < 1:
            raise ValueError(f"an order needs at least 1 sample, not {size}")
        self.size = size
        # Halves of at least two bits: one-bit halves reach too few permutations.
        half = max(2, ((size - 1).bit_length() + 1) // 2)
        self._half = np.uint64(half)
        self._mask = np.uint64((1 << half) - 1)
        key = f"{ALGORITHM}/{seed}/{epoch}/{source}"
        self._keys = [
            np.uint64(xxhash.xxh3_64_intdigest(f"{key}/{number}".encode()))
            for number in range(ROUNDS)
        ]

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, place: int) -> int:
        if not 0 <= place < self.size:
            raise IndexError(f"place {place} is outside an order of {self.size} samples")
        return int(self.many([place])[0])

    def many(self, places: npt.ArrayLike) -> Int64:
        """The samples at these places, each in `[0, size)`. Shapes: [n] -> [n]."""
        values = np.asarray(places, dtype=np.uint64)
        # Without a compiled loop, the arrays below are faster.
        if len(values) >= MANY and (walk := jit_if_large(_walk, work=self.size)) is not _walk:
            found = np.empty(len(values), np.int64)
            keys = np.array(self._keys, np.uint64)
            walk(values, found, keys, self._half, self._mask, np.uint64(self.size))
            return found
        values = self._permute(values)
        outside = values >= self.size
        while outside.any():
            # Cycle walking: values outside are permuted again until they are inside. The network
            # is a bijection of the larger set, so this is one of the smaller set.
            values[outside] = self._permute(values[outside])
            outside = values >= self.size
        return values.astype(np.int64)

    def _permute(self, values: Positions) -> Positions:
        left, right = values >> self._half, values & self._mask
        for key in self._keys:
            left, right = right, left ^ (_scramble(right + key) & self._mask)
        return (left << self._half) | right


def _walk(places: Any, found: Any, keys: Any, half: Any, mask: Any, size: Any) -> None:
    """`EpochPermutation.many` as a loop that numba can compile: same network, same results."""
    for at in range(len(places)):
        value = places[at]
        while True:
            left, right = value >> half, value & mask
            for key in keys:
                mixed = right + key
                mixed = (mixed ^ (mixed >> np.uint64(30))) * _MULTIPLIER_1
                mixed = (mixed ^ (mixed >> np.uint64(27))) * _MULTIPLIER_2
                mixed = mixed ^ (mixed >> np.uint64(31))
                left, right = right, left ^ (mixed & mask)
            value = (left << half) | right
            if value < size:
                break
        found[at] = value


def _scramble(values: Positions) -> Positions:
    """splitmix64's finaliser; it relies on uint64 overflow wrapping."""
    values = (values ^ (values >> np.uint64(30))) * _MULTIPLIER_1
    values = (values ^ (values >> np.uint64(27))) * _MULTIPLIER_2
    return values ^ (values >> np.uint64(31))


class SampleOrder:
    """The endless sequence of samples drawn from a source, epoch after epoch.

    Draw d is the sample at place `d % size` of the permutation of epoch `d // size`, as a position
    in the source's view. `kept` are the positions drawn from, ascending; None for all `size` of the
    view. Thread-safe.
    """

    def __init__(
        self, name: str, size: int, *, seed: int, kept: npt.NDArray[np.int32] | None = None
    ) -> None:
        self.name, self.seed = name, seed
        self.size = size if kept is None else len(kept)
        self._kept = kept
        self._epochs: dict[int, EpochPermutation] = {}

    def many(self, start: int, stop: int) -> Int64:
        """The positions of draws [start, stop). Shape: [stop - start]."""
        parts = []
        while start < stop:
            epoch, within = divmod(start, self.size)
            count = min(stop - start, self.size - within)
            places = np.arange(within, within + count, dtype=np.uint64)
            parts.append(self._permutation(epoch).many(places))
            start += count
        if not parts:
            return np.empty(0, np.int64)
        drawn = parts[0] if len(parts) == 1 else np.concatenate(parts)
        return drawn if self._kept is None else self._kept[drawn].astype(np.int64)

    def chunks(self, start: int, stop: int) -> Iterator[Int64]:
        """The same as `many`, in arrays of at most `CHUNK`."""
        for at in range(start, stop, CHUNK):
            yield self.many(at, min(stop, at + CHUNK))

    def _permutation(self, epoch: int) -> EpochPermutation:
        found = self._epochs.get(epoch)
        if found is None:
            found = EpochPermutation(self.size, seed=self.seed, epoch=epoch, source=self.name)
            # Cheap to recreate. The dict is replaced, never changed: other threads may read it.
            others = self._epochs if len(self._epochs) < 4 else {}
            self._epochs = others | {epoch: found}
        return found
