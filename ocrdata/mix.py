"""The mix: which source each batch (or each row) comes from.

Owner of interleaving. Every source has a share of what is given out, counted in batches or in
tokens; shares may change at named slots. A source's next batch may be given out once its share,
this batch included, is above what it was given before; it is due when its share reaches what it
will have been given after. Of those that may, the one due first is taken. For batches of one size
that is the chairman assignment problem, which this rule solves with every source strictly less
than one batch from its exact share after any number of slots (Tijdeman 1980); greedy (largest
deficit first) has no such bound with three sources or more. For batches of different sizes it is
worst-case fair queueing (Bennett and Zhang 1996), within one batch of the largest size.

It holds integers only, draws no random numbers, and knows nothing of samples.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ocrdata.compiled import fast
from ocrdata.errors import UsageError

ALGORITHM = "deadline-2"
MAX_SOURCES = 65_535

AT_END = ("repeat", "stop", "move")
"""What happens where a source has no batch left: it begins its next epoch; the run ends; or its
weight goes to the others in proportion to theirs, and the run ends when none is left."""

FINEST = 1 << 26
"""Largest common denominator of the weights of a phase: products with it stay below 2^63."""

# Why the loop stopped: its slots are full; it needs the size of a source's next batch; a source was
# given its last batch; the source that is due has none.
_DONE, _MORE_SIZES, _LAST_GIVEN, _NONE_LEFT = 0, 1, 2, 3

Sizes = Callable[[int, int, int], npt.NDArray[np.int64]]
"""sizes(source, start, stop): tokens of its batches [start, stop), all of which there are."""


class Phase(NamedTuple):
    """Weights in force from slot `start` on."""

    start: int
    weights: tuple[Fraction, ...]


@dataclass(frozen=True)
class Schedule:
    """`slots[n]` is the source of slot n, uint16. `ended_by` is the source that ended it before
    its time, -1 where none did."""

    slots: npt.NDArray[np.uint16]
    ended_by: int = -1


def schedule(
    phases: Sequence[Phase],
    length: int,
    *,
    available: Sequence[int | None] = (),
    at_end: str = "repeat",
    sizes: Sizes | None = None,
) -> Schedule:
    """The source of each of `length` slots, fewer where sources end.

    `available[i]` batches are in source i (None: no end); `at_end` says what follows. With `sizes`
    shares are of tokens, else of batches. Raises ValueError for weights that are negative, all 0,
    or not one a source, UsageError where their common denominator is above 2^26.
    """
    _check(phases)
    count = len(phases[0].weights)
    limits = [math.inf if n is None else n for n in available] or [math.inf] * count
    run = _Run(length, count, limits, at_end, sizes)
    for number, phase in enumerate(phases):
        stop = phases[number + 1].start if number + 1 < len(phases) else length
        if not run.serve(list(phase.weights), min(stop, length)):
            break
    return Schedule(run.slots[: run.slot], run.ended_by)


def _check(phases: Sequence[Phase]) -> None:
    if not phases or phases[0].start != 0:
        raise ValueError("the first weights hold from slot 0 on")
    count = len(phases[0].weights)
    if not 0 < count <= MAX_SOURCES:
        raise ValueError(f"a mix needs 1 to {MAX_SOURCES} sources, not {count}")
    for number, phase in enumerate(phases):
        weights = phase.weights
        if len(weights) != count or min(weights) < 0 or sum(weights) == 0:
            shown = list(map(str, weights))
            raise ValueError(f"weights must not be negative, nor all 0, one a source: {shown}")
        if number and phase.start <= phases[number - 1].start:
            raise ValueError("the starts of weights must rise")


class _Run:
    """The state of one schedule between calls of the compiled loop."""

    def __init__(
        self, length: int, count: int, limits: list[float], at_end: str, sizes: Sizes | None
    ) -> None:
        self.slots = np.zeros(length, np.uint16)
        self.slot, self.ended_by = 0, -1
        self._given = np.zeros(count, np.int64)
        # What each source was given above its share, in batches or tokens; the sum is 0.
        self._ahead = [Fraction(0)] * count
        self._limits = np.array([min(limit, 1 << 62) for limit in limits], np.int64)
        self._at_end, self._sizes = at_end, sizes
        self._known = [np.ones(1 if sizes is None else 0, np.int64)] * count
        self._serve = fast(_serve, work=length)

    def serve(self, weights: list[Fraction], stop: int) -> bool:
        """Fill the slots up to `stop`; False where the schedule ends before."""
        for source in range(len(weights)):
            if self._at_end == "move" and self._given[source] >= self._limits[source]:
                self._bury(weights, source)
        while self.slot < stop:
            if sum(weights) == 0:
                return False
            why, source = self._call(weights, min(stop, self.slot + self._stride()))
            if why == _MORE_SIZES:
                self._learn(source)
            elif why == _NONE_LEFT:
                self.ended_by = source
                return False
            elif why == _LAST_GIVEN and self._at_end == "move":
                self._bury(weights, source)
                self.ended_by = source if sum(weights) == 0 else -1
        return True

    def _stride(self) -> int:
        """Slots of one call: few enough that products stay below 2^63."""
        largest = max(int(known.max(initial=1)) for known in self._known)
        return max(1, min(1 << 20, (1 << 61) // (FINEST * largest)))

    def _call(self, weights: list[Fraction], stop: int) -> tuple[int, int]:
        whole, total = _integers(weights)
        ahead = np.array([round(a * total) for a in self._ahead], np.int64)
        ahead[int(np.argmax(whole))] -= ahead.sum()
        flat = np.concatenate(self._known)
        lengths = [len(known) for known in self._known]
        starts = np.cumsum([0, *lengths[:-1]], dtype=np.int64)
        known = np.array(lengths if self._sizes else [1 << 62] * len(lengths), np.int64)
        reached, why, source = self._serve(
            self.slots, self.slot, stop, whole, ahead, self._given, flat, starts, known,
            self._limits, self._sizes is None,
        )  # fmt: skip
        self.slot = int(reached)
        self._ahead = [Fraction(int(a), total) for a in ahead]
        return int(why), int(source)

    def _learn(self, source: int) -> None:
        """Ask for more sizes of a source: twice as many as were known."""
        assert self._sizes is not None
        known = self._known[source]
        stop = min(max(64, 2 * len(known)), int(self._limits[source]))
        # What comes after the last one is never given; its size only says when it would be due.
        more = self._sizes(source, len(known), stop) if stop > len(known) else np.ones(1, np.int64)
        self._known[source] = np.concatenate([known, more])

    def _bury(self, weights: list[Fraction], source: int) -> None:
        """Move the weight of a source that has ended, and what it was ahead, to the others."""
        weights[source], debt = Fraction(0), self._ahead[source]
        alive, self._ahead[source] = sum(weights), Fraction(0)
        if alive:
            self._ahead = [
                ahead + debt * weight / alive
                for ahead, weight in zip(self._ahead, weights, strict=True)
            ]


def _integers(weights: Sequence[Fraction]) -> tuple[npt.NDArray[np.int64], int]:
    """Weights as integers, and their sum: as fine as 2^26 allows, so that debts keep their value
    when weights change."""
    scale = math.lcm(*(weight.denominator for weight in weights))
    whole = [int(weight * scale) for weight in weights]
    divisor = math.gcd(*whole)
    whole = [weight // divisor for weight in whole]
    if sum(whole) > FINEST:
        raise UsageError(
            f"the weights have no common denominator up to {FINEST:,}; give rounder ones"
        )
    factor = FINEST // sum(whole)
    return np.array([weight * factor for weight in whole], np.int64), sum(whole) * factor


def _serve(  # noqa: PLR0913, PLR0917 - the argument list of a compiled loop
    slots: Any, begin: Any, end: Any, weights: Any, ahead: Any, given: Any, sizes: Any,
    starts: Any, known: Any, limits: Any, unit: Any,
) -> tuple[Any, Any, Any]:  # fmt: skip
    """Fill slots[begin:end]; (slot reached, why, source). Units: 1/sum(weights) of a batch or a
    token. `ahead` and `given` are moved on. Runs as it stands here, or compiled."""
    total = weights.sum()
    now = np.int64(0)  # given out since `begin`, in batches or tokens
    waiting = [(np.int64(0), np.int64(0), np.int64(0))]  # (from when on, due, source)
    ready = [(np.int64(0), np.int64(0))]  # (due, source)
    waiting.pop()
    ready.pop()
    levels = ahead.copy()  # given since `begin`, times total, plus what it was ahead
    slot, why, source = begin, _DONE, np.int64(-1)
    for one in range(len(weights)):
        if weights[one] > 0:
            if given[one] >= known[one]:
                return begin, _MORE_SIZES, one
            size = np.int64(1) if unit else sizes[starts[one] + given[one]]
            due = -((-levels[one] - total * size) // weights[one])
            when = levels[one] // weights[one] if unit else -(-levels[one] // weights[one])
            heapq.heappush(waiting, (when, due, np.int64(one)))
    while slot < end:
        while len(waiting) > 0 and waiting[0][0] <= now:
            _, due, one_source = heapq.heappop(waiting)
            heapq.heappush(ready, (due, one_source))
        _, source = heapq.heappop(ready)
        if given[source] >= limits[source]:
            why = _NONE_LEFT
            break
        size = np.int64(1) if unit else sizes[starts[source] + given[source]]
        slots[slot] = source
        slot += 1
        given[source] += 1
        now += size
        levels[source] += total * size
        if given[source] == limits[source]:
            why = _LAST_GIVEN
            break
        if given[source] >= known[source]:
            why = _MORE_SIZES
            break
        size = np.int64(1) if unit else sizes[starts[source] + given[source]]
        due = -((-levels[source] - total * size) // weights[source])
        when = levels[source] // weights[source]
        if not unit:
            when = -(-levels[source] // weights[source])
        heapq.heappush(waiting, (when, due, source))
    for one in range(len(weights)):
        ahead[one] = levels[one] - weights[one] * now
    return slot, why, source
