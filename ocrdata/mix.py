"""The mix: which source each batch (or each sample) comes from.

Owner of interleaving. Source i's j-th slot has a window, from the moment its share exceeds j - 1
until its share reaches j; slots are given out earliest deadline first. Unit jobs with such windows
can always be scheduled on one machine (Tijdeman 1980, the chairman assignment problem), so after
any number of slots every source is strictly less than one slot away from its exact share. The
greedy rule (largest deficit first) does not have that bound with three sources or more.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from fractions import Fraction

import numpy as np
import numpy.typing as npt

ALGORITHM = "deadline-1"
MAX_SOURCES = 65_535


def schedule(weights: Sequence[Fraction], length: int) -> npt.NDArray[np.uint16]:
    """The source of each of `length` slots. Exact: weights are fractions, normalised here.

    At most two bytes a slot. Raises ValueError for a negative weight, all zero, or no source.
    """
    if not 0 < len(weights) <= MAX_SOURCES:
        raise ValueError(f"a mix needs 1 to {MAX_SOURCES} sources, not {len(weights)}")
    if min(weights) < 0 or sum(weights) == 0:
        raise ValueError(f"weights must not be negative, and not all 0: {list(map(str, weights))}")
    total = sum(weights)
    shares = [weight / total for weight in weights]

    slots = np.empty(length, dtype=np.uint16)
    given = [0] * len(shares)
    waiting = [(0, source) for source, share in enumerate(shares) if share > 0]
    ready: list[tuple[int, int]] = []
    for slot in range(length):
        while waiting and waiting[0][0] <= slot:
            _, source = heapq.heappop(waiting)
            heapq.heappush(ready, (_deadline(shares[source], given[source]), source))
        _, source = heapq.heappop(ready)
        slots[slot] = source
        given[source] += 1
        heapq.heappush(waiting, (_release(shares[source], given[source]), source))
    return slots


def _release(share: Fraction, given: int) -> int:
    """The first slot (from 0) whose end sees a share above `given`: floor(given / share)."""
    return given * share.denominator // share.numerator


def _deadline(share: Fraction, given: int) -> int:
    """The slot by whose end the share has reached `given` + 1: ceil((given + 1) / share) - 1."""
    return -(-(given + 1) * share.denominator // share.numerator) - 1


def ordinals(slots: npt.NDArray[np.uint16], sources: int) -> npt.NDArray[np.int64]:
    """For each slot, how many earlier slots went to the same source. Shapes: [n] -> [n]."""
    result = np.empty(len(slots), dtype=np.int64)
    for source in range(sources):
        chosen = slots == source
        result[chosen] = np.arange(np.count_nonzero(chosen))
    return result
