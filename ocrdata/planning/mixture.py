"""The mix: which source each batch (or each row) comes from.

Owner of interleaving. Every source has a share of what is given out, counted in batches or in
tokens; shares may change at named slots. A source's next batch may be given out once its share,
this batch included, is above what it was given before; it is due when its share reaches what it
will have been given after. Of those that may, the one due first is taken. For batches of one size
that is the chairman assignment problem, which this rule solves with every source strictly less
than one batch from its exact share after any number of slots, changes of shares included, which it
therefore looks ahead to (Tijdeman 1980); greedy (largest deficit first) has no such bound with
three sources or more. For batches of different sizes it is worst-case fair queueing (Bennett and
Zhang 1996), within one batch of the largest size. There a change cannot be looked ahead to, since
it comes at a step and shares are counted in tokens: two sources keep the bound all the same, of
three or more one was up to 1.13 of the largest batch away after a change (NOTES.md).

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

from ocrdata.errors import UsageError
from ocrdata.planning.jit import jit_if_large
from ocrdata.shards.arrow import Int64

ALGORITHM = "deadline-3"
MAX_SOURCES = 65_535

AT_END = ("repeat", "stop", "move")
"""What happens where a source has no batch left: it begins its next epoch; the run ends; or its
weight goes to the others in proportion to theirs, and the run ends when none is left."""

FINEST = 1 << 26
"""Common denominator that weights are brought to, and the largest they may have by tokens."""

LONGEST_CALL = 1 << 20
"""Slots that the loop fills at most before debts are taken down again."""


Sizes = Callable[[int, int, int], Int64]
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
    or not one a source, UsageError where their common denominator is above 2^26 by tokens, above
    2^61 divided by the slots (2^41 at most) else.
    """
    _check(phases)
    count = len(phases[0].weights)
    limits = [math.inf if n is None else n for n in available] or [math.inf] * count
    scheduler = _Scheduler(length, count, limits, at_end, sizes)
    scheduler.fill([(phase.start, list(phase.weights)) for phase in phases])
    return Schedule(scheduler.slots[: scheduler.slot], scheduler.ended_by)


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


class _Scheduler:
    """The state of one schedule between calls of the compiled loop."""

    def __init__(
        self, length: int, count: int, limits: list[float], at_end: str, sizes: Sizes | None
    ) -> None:
        self.slots = np.zeros(length, np.uint16)
        self.slot, self.ended_by, self._buried = 0, -1, -1
        self._given = np.zeros(count, np.int64)
        # What each source was given above its share, in batches or tokens; the sum is 0.
        self._ahead = [Fraction(0)] * count
        self._limits = np.array([min(limit, 1 << 62) for limit in limits], np.int64)
        self._at_end, self._sizes = at_end, sizes
        self._known = [np.ones(1 if sizes is None else 0, np.int64)] * count
        self._loop = jit_if_large(_fill_slots, work=length)

    def fill(self, phases: list[tuple[int, list[Fraction]]]) -> None:
        """Fill the slots, to the last one or to where a source ends the schedule."""
        if self._at_end == "move":
            for source in np.flatnonzero(self._given >= self._limits).tolist():
                self._bury(phases, source)
        while self.slot < len(self.slots):
            # By tokens nobody knows when a phase will end: only the one in force is looked at.
            while len(phases) > 1 and phases[1][0] <= self.slot:
                phases.pop(0)
            if sum(phases[0][1]) == 0:
                self.ended_by = self._buried
                return
            why, source = self._call(phases)
            if why == MORE_SIZES:
                self._learn(source)
            elif why == NONE_LEFT:
                self.ended_by = source
                return
            elif why == LAST_GIVEN and self._at_end == "move":
                self._bury(phases, source)

    def _call(self, phases: list[tuple[int, list[Fraction]]]) -> tuple[int, int]:
        unit = self._sizes is None
        ahead_of = [phase for phase in phases if sum(phase[1])] if unit else phases[:1]
        # Products of weights and slots, or tokens, stay below 2^63: first by how fine weights may
        # be, then by how many slots there are in one call.
        reach = max(len(self.slots), ahead_of[-1][0], LONGEST_CALL) if unit else 1
        whole, total = _integers(
            [weights for _, weights in ahead_of],
            finest=(1 << 61) // reach if unit else FINEST,
        )
        largest = max(int(known.max(initial=1)) for known in self._known)
        stop = self.slot + max(1, min(LONGEST_CALL, (1 << 61) // (total * largest)))
        stop = min(stop, len(self.slots))
        if len(phases) > 1 and (not unit or len(ahead_of) == 1):
            stop = min(stop, phases[1][0])
        bounds = [self.slot, *(start for start, _ in ahead_of[1:]), 0]
        ahead = np.array([round(a * total) for a in self._ahead], np.int64)
        ahead[int(np.argmax(whole[0]))] -= ahead.sum()
        lengths = [len(known) for known in self._known]
        reached, why, source = self._loop(
            self.slots, self.slot, stop, whole, np.diff(bounds), ahead, self._given,
            np.concatenate(self._known), np.cumsum([0, *lengths[:-1]], dtype=np.int64),
            np.array([1 << 62] * len(lengths) if unit else lengths, np.int64),
            self._limits, unit,
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

    def _bury(self, phases: list[tuple[int, list[Fraction]]], source: int) -> None:
        """Move the weight of a source that has ended, and what it was ahead, to the others."""
        debt, self._ahead[source], self._buried = self._ahead[source], Fraction(0), source
        for _, weights in phases:
            weights[source] = Fraction(0)
        weights = phases[0][1]
        alive = sum(weights)
        if alive:
            self._ahead = [
                ahead + debt * weight / alive
                for ahead, weight in zip(self._ahead, weights, strict=True)
            ]


def _integers(rows: Sequence[Sequence[Fraction]], *, finest: int) -> tuple[Int64, int]:
    """Rows of weights as integers of one sum, and that sum: large enough that debts keep their
    value when weights change. Raises UsageError where it would be above `finest`."""
    plain = []
    for weights in rows:
        scale = math.lcm(*(weight.denominator for weight in weights))
        whole = [int(weight * scale) for weight in weights]
        divisor = math.gcd(*whole)
        plain.append([weight // divisor for weight in whole])
    total = math.lcm(*(sum(whole) for whole in plain))
    if total > finest:
        raise UsageError(
            f"the weights have no common denominator up to {finest:,}; give rounder ones"
        )
    total *= max(1, min(FINEST, finest) // total)
    scaled = [[weight * (total // sum(whole)) for weight in whole] for whole in plain]
    return np.array(scaled, np.int64), total


# Why the loop stopped: its slots are full; it needs the size of a source's next batch; a source was
# given its last batch; the source that is due has none.
DONE, MORE_SIZES, LAST_GIVEN, NONE_LEFT = 0, 1, 2, 3


NEVER = 1 << 60


def _fill_slots(  # noqa: PLR0912, PLR0913, PLR0915, PLR0917 - one loop, as it is compiled
    slots: Any, begin: Any, end: Any, weights: Any, spans: Any, ahead: Any, given: Any,
    sizes: Any, starts: Any, known: Any, limits: Any, unit: Any,
) -> tuple[Any, Any, Any]:  # fmt: skip
    """Fill slots[begin:end]; (slot reached, why, source). `ahead` and `given` are moved on.

    `weights` [phases, sources] hold one after the other, from `begin` on, for `spans` [phases]
    slots; all rows have one sum, and the last holds for ever. With `unit` a batch counts as 1, and
    a source's next batch may be given in the slot in which its share rises above what it has; else
    it counts as `sizes` say, there is one phase, and the source must not be ahead of its share.
    """
    phases, count = weights.shape
    total = weights[0].sum()
    now = np.int64(0)  # given out since `begin`, in batches or tokens
    # Heaps of (from when on, due, source), and of (due, source). A list that is compiled has its
    # type from what is in it, so each begins with an entry that goes again.
    waiting: list[tuple[Any, Any, Any]] = [(np.int64(0), np.int64(0), np.int64(0))]
    ready: list[tuple[Any, Any]] = [(np.int64(0), np.int64(0))]
    changed: list[Any] = [np.int64(0)]  # sources whose next batch is in neither
    waiting.pop()
    ready.pop()
    for one in range(1, count):
        changed.append(np.int64(one))
    levels = ahead.copy()  # given since `begin`, times total, plus what it was ahead then
    slot = begin
    why: Any = DONE
    source: Any = np.int64(0)
    while slot < end:
        for one in changed:
            if given[one] >= known[one] and weights[0, one] > 0:
                why, source = MORE_SIZES, one
                break
            size = (
                np.int64(1) if unit or given[one] >= known[one] else sizes[starts[one] + given[one]]
            )
            when, due = np.int64(NEVER), np.int64(NEVER)
            share, goal, at = levels[one], levels[one] + total * size, np.int64(0)
            for phase in range(phases):
                weight, last = weights[phase, one], phase == phases - 1
                if weight > 0:
                    if when == NEVER and (last or weight * spans[phase] > share):
                        when = at + (share // weight if unit else -(-share // weight))
                    if last or weight * spans[phase] >= goal:
                        due = at - (-goal // weight)
                        break
                    share -= weight * spans[phase]
                    goal -= weight * spans[phase]
                at += spans[phase]
            if when < NEVER:
                heapq.heappush(waiting, (when, due, one))
        if why != DONE:
            break
        changed.clear()
        # Where shares have just changed, all that still have one may be ahead: the first to be due
        # again is taken before its time.
        while len(waiting) > 0 and (waiting[0][0] <= now or len(ready) == 0):
            _, due, source = heapq.heappop(waiting)
            heapq.heappush(ready, (due, source))
        _, source = heapq.heappop(ready)
        if given[source] >= limits[source]:
            why = NONE_LEFT
            break
        size = np.int64(1) if unit else sizes[starts[source] + given[source]]
        slots[slot] = source
        slot += 1
        given[source] += 1
        now += size
        levels[source] += total * size
        if given[source] == limits[source]:
            why = LAST_GIVEN
            break
        changed.append(source)
    for one in range(count):
        ahead[one], left = levels[one], now
        for phase in range(phases):
            span = left if phase == phases - 1 else min(left, spans[phase])
            ahead[one] -= weights[phase, one] * span
            left -= span
    return slot, why, source
