"""Keyed permutations, with no random state: where each place goes is a function of the key.

`EpochPermutation` computes it per place, in constant memory: a Feistel network over the smallest
power of four that holds the epoch (at least 16), with cycle walking, is a bijection of `[0, size)`.
`shuffled` permutes a few thousand places at once, faster.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import xxhash

from ocrdata.planning.jit import jit_if_large
from ocrdata.shards.arrow import Int64

ALGORITHM = "feistel-1"
"""Part of every key: a changed algorithm needs a new name."""

ROUNDS = 6

MANY = 1024
"""Fewest places at once for which a large order uses the compiled loop: numpy's temporary arrays
cost ten times as much."""

_INCREMENT = np.uint64(0x9E3779B97F4A7C15)  # splitmix64 (Steele et al. 2014), and its finaliser
_MULTIPLIER_1 = np.uint64(0xBF58476D1CE4E5B9)
_MULTIPLIER_2 = np.uint64(0x94D049BB133111EB)

Positions = npt.NDArray[np.uint64]


class EpochPermutation:
    """The permutation of one epoch of one source.

    `order[k]` is the sample at place k of the epoch. `algorithm` is the name of the order that uses
    it, a part of the key. Raises ValueError if `size` < 1.
    """

    def __init__(
        self, size: int, *, seed: int, epoch: int, source: str, algorithm: str = ALGORITHM
    ) -> None:
        if size < 1:
            raise ValueError(f"an order needs at least 1 sample, not {size}")
        self.size = size
        # Halves of at least two bits: one-bit halves reach too few permutations.
        half = max(2, ((size - 1).bit_length() + 1) // 2)
        self._half = np.uint64(half)
        self._mask = np.uint64((1 << half) - 1)
        key = f"{algorithm}/{seed}/{epoch}/{source}"
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
        return self._walked(values, self._permute)

    def places(self, samples: npt.ArrayLike) -> Int64:
        """The places of these samples: the inverse of `many`. Shapes: [n] -> [n]."""
        return self._walked(np.asarray(samples, dtype=np.uint64), self._restore)

    def _walked(self, values: Positions, permute: Callable[[Positions], Positions]) -> Int64:
        values = permute(values)
        outside = values >= self.size
        while outside.any():
            # Cycle walking: values outside are permuted again until they are inside. The network
            # is a bijection of the larger set, so this is one of the smaller set.
            values[outside] = permute(values[outside])
            outside = values >= self.size
        return values.astype(np.int64)

    def _permute(self, values: Positions) -> Positions:
        left, right = values >> self._half, values & self._mask
        for key in self._keys:
            left, right = right, left ^ (_scramble(right + key) & self._mask)
        return (left << self._half) | right

    def _restore(self, values: Positions) -> Positions:
        """The inverse of `_permute`: the rounds backwards."""
        left, right = values >> self._half, values & self._mask
        for key in reversed(self._keys):
            left, right = right ^ (_scramble(left + key) & self._mask), left
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


def shuffled(count: int, key: str) -> Int64:
    """A permutation of `count` places, in memory: they are sorted by the values of splitmix64 with
    this key as its seed. These are all different, so any way to sort gives the same result."""
    seed = np.uint64(xxhash.xxh3_64_intdigest(key.encode()))
    return np.argsort(_scramble(seed + np.arange(count, dtype=np.uint64) * _INCREMENT))
