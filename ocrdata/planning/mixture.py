"""The mixture: which source each batch (or each row) comes from.

A schedule is a list of mixture slots, each given to one source (image slots are something else).
The target of a source is its fraction, by weight, of everything given out so far, counted in
batches, samples or tokens; weights may change at fixed mixture slots. Counted in batches, the next
batch of a source is eligible in the slot in which its target rises above what the source was given
before; counted in samples or tokens, as soon as the source is not ahead of its target. A batch is
due when the target reaches what the source will have been given afterwards. Of the eligible
batches, the one due first is taken.

For batches of equal size this solves the chairman assignment problem (Tijdeman 1980): every source
is always strictly less than one batch from its target, even across changes of weights, because the
rule looks ahead to them. Greedy (largest deficit first) has no such bound with three or more
sources. For batches of different sizes the rule is worst-case fair queueing (Bennett and Zhang
1996): no source is further from its target than the largest batch. There the rule cannot look ahead
to a change of weights, since changes are set in steps but targets are counted in tokens: two
sources still keep the bound; of three or more, one was up to 1.13 times the largest batch away
after a change (NOTES.md).

All values are integers and fractions; nothing is random, and no sample is looked at.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ocrdata.errors import UsageError
from ocrdata.planning.jit import jit_if_large
from ocrdata.shards.arrow import Int64

ALGORITHM = "deadline-3"
MAX_SOURCES = 65_535

FINEST = 1 << 26
"""Common denominator that weights are scaled to, and the largest allowed when counting tokens."""

LONGEST_CALL = 1 << 20
"""Most mixture slots filled by one call of the loop: its integers grow with each."""


Sizes = Callable[[int, int, int], Int64]
"""sizes(source, start, stop): the tokens or samples of its batches [start, stop), which all
exist."""


class Phase(NamedTuple):
    """Weights that apply from mixture slot `start` on."""

    start: int
    weights: tuple[Fraction, ...]


@dataclass(frozen=True)
class Schedule:
    """`slots[n]` is the source of mixture slot n, uint16. `ended_by` is the source that ended the
    schedule early, or -1."""

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
    """The source of each of `length` mixture slots; fewer if sources run out.

    Source i has `available[i]` batches (None: unlimited); `at_end` says what happens after them.
    Weights are fractions of what `sizes` counts if it is given, else of batches. Raises ValueError
    for weights that are negative, all 0, or not one per source; UsageError if their common
    denominator exceeds 2^26 (with `sizes`) or 2^61 divided by the mixture slots, at most 2^41
    (batches).
    """
    _check(phases)
    count = len(phases[0].weights)
    limits = [math.inf if n is None else n for n in available] or [math.inf] * count
    scheduler = _Scheduler(length, count, limits, at_end, sizes)
    scheduler.fill([(phase.start, list(phase.weights)) for phase in phases])
    return Schedule(scheduler.slots[: scheduler.slot], scheduler.ended_by)


def _check(phases: Sequence[Phase]) -> None:
    if not phases or phases[0].start != 0:
        raise ValueError("the first weights must start at mixture slot 0")
    count = len(phases[0].weights)
    if not 0 < count <= MAX_SOURCES:
        raise ValueError(f"a mixture needs 1 to {MAX_SOURCES} sources, not {count}")
    for number, phase in enumerate(phases):
        weights = phase.weights
        if len(weights) != count or min(weights) < 0 or sum(weights) == 0:
            shown = list(map(str, weights))
            raise ValueError(f"weights must be one per source, not negative, not all 0: {shown}")
        if number and phase.start <= phases[number - 1].start:
            raise ValueError("the mixture slots at which weights start must increase")


class _Scheduler:
    """The state of one schedule between calls of the compiled loop."""

    def __init__(
        self, length: int, count: int, limits: list[float], at_end: str, sizes: Sizes | None
    ) -> None:
        self.slots = np.zeros(length, np.uint16)
        self.slot, self.ended_by, self._last_retired = 0, -1, -1
        self._given = np.zeros(count, np.int64)
        # How far each source is ahead of its target, in batches or tokens; the sum is 0.
        self._ahead = [Fraction(0)] * count
        self._limits = np.array([min(limit, 1 << 62) for limit in limits], np.int64)
        self._at_end, self._sizes = at_end, sizes
        self._known_sizes = [np.ones(1 if sizes is None else 0, np.int64)] * count
        self._loop = jit_if_large(_fill_slots, work=length)

    def fill(self, phases: list[tuple[int, list[Fraction]]]) -> None:
        """Fill the mixture slots up to the last one, or until a source ends the schedule."""
        if self._at_end == "move":
            for source in np.flatnonzero(self._given >= self._limits).tolist():
                self._retire(phases, source)
        while self.slot < len(self.slots):
            while len(phases) > 1 and phases[1][0] <= self.slot:
                phases.pop(0)
            if sum(phases[0][1]) == 0:
                self.ended_by = self._last_retired
                return
            reason, source = self._run_loop(phases)
            if reason == StopReason.SIZE_UNKNOWN:
                self._ask_for_sizes(source)
            elif reason == StopReason.NO_BATCH_LEFT:
                self.ended_by = source
                return
            elif reason == StopReason.LAST_BATCH_GIVEN and self._at_end == "move":
                self._retire(phases, source)

    def _run_loop(self, phases: list[tuple[int, list[Fraction]]]) -> tuple[StopReason, int]:
        """Scale all values to integers, run the loop, and scale what it changed back. Why the loop
        returned, and the source this concerns."""
        equal = self._sizes is None
        # By tokens the end of a phase cannot be foreseen: only the current one is used.
        foreseen = [phase for phase in phases if sum(phase[1])] if equal else phases[:1]
        # Products of weights and slots, or tokens, must stay below 2^63: the denominator is bounded
        # first, then the number of mixture slots in one call.
        reach = max(len(self.slots), foreseen[-1][0], LONGEST_CALL) if equal else 1
        weights, total = _integers(
            [weights for _, weights in foreseen],
            finest=(1 << 61) // reach if equal else FINEST,
        )
        largest = max(int(known.max(initial=1)) for known in self._known_sizes)
        end = self.slot + max(1, min(LONGEST_CALL, (1 << 61) // (total * largest)))
        end = min(end, len(self.slots))
        if len(phases) > 1 and (not equal or len(foreseen) == 1):
            end = min(end, phases[1][0])
        bounds = [self.slot, *(start for start, _ in foreseen[1:]), 0]
        received = np.array([round(ahead * total) for ahead in self._ahead], np.int64)
        received[int(np.argmax(weights[0]))] -= received.sum()  # rounded, yet their sum stays 0
        counts = [len(known) for known in self._known_sizes]
        in_force = LoopWeights(weights, np.diff(bounds))
        stop: LoopStop = self._loop(
            self.slots,
            self.slot,
            end,
            in_force,
            LoopSources(received, self._given, self._limits),
            LoopSizes(
                np.concatenate(self._known_sizes),
                starts=np.cumsum([0, *counts[:-1]], dtype=np.int64),
                known=np.array([1 << 62] * len(counts) if equal else counts, np.int64),
                equal=equal,
            ),
        )
        self.slot = int(stop.slot)
        ahead = received - _targets(in_force, int(received.sum()) // total)
        self._ahead = [Fraction(value, total) for value in ahead.tolist()]
        return stop.reason, int(stop.source)

    def _ask_for_sizes(self, source: int) -> None:
        """Double the number of a source's known batch sizes."""
        assert self._sizes is not None
        known = self._known_sizes[source]
        stop = min(max(64, 2 * len(known)), int(self._limits[source]))
        # After the last batch, one of size 1 that is never given: it only says when it is due.
        more = self._sizes(source, len(known), stop) if stop > len(known) else np.ones(1, np.int64)
        self._known_sizes[source] = np.concatenate([known, more])

    def _retire(self, phases: list[tuple[int, list[Fraction]]], source: int) -> None:
        """Divide among the others the weight of a source that ran out, and what it was ahead."""
        ahead, self._ahead[source], self._last_retired = self._ahead[source], Fraction(0), source
        for _, weights in phases:
            weights[source] = Fraction(0)
        weights = phases[0][1]
        total = sum(weights)
        if total:
            self._ahead = [
                own + ahead * weight / total
                for own, weight in zip(self._ahead, weights, strict=True)
            ]


def _integers(rows: Sequence[Sequence[Fraction]], *, finest: int) -> tuple[Int64, int]:
    """Weights [phases][sources] as integers with one sum, and that sum: large enough that what
    sources are ahead keeps its value when weights change. Raises UsageError if it would exceed
    `finest`."""
    plain = []
    for weights in rows:
        scale = math.lcm(*(weight.denominator for weight in weights))
        whole = [int(weight * scale) for weight in weights]
        divisor = math.gcd(*whole)
        plain.append([weight // divisor for weight in whole])
    total = math.lcm(*(sum(whole) for whole in plain))
    if total > finest:
        raise UsageError(
            f"the weights have no common denominator up to {finest:,}; use simpler fractions, such "
            "as 3/10"
        )
    total *= max(1, min(FINEST, finest) // total)
    scaled = [[weight * (total // sum(whole)) for weight in whole] for whole in plain]
    return np.array(scaled, np.int64), total


class LoopWeights(NamedTuple):
    """The phases from the first mixture slot of a call on. `weights` [phases, sources] are integers
    with the same sum in every phase; a phase lasts `spans` [phases] mixture slots, the last one
    forever."""

    weights: Int64
    spans: Int64


class LoopSources(NamedTuple):
    """State of the sources, each [sources]; the loop updates the first two.

    `received` is what a source was ahead of its target when the loop began plus what it was given
    since, times the sum of the weights. `given` and `limits` are its batches given and available.
    """

    received: Int64
    given: Int64
    limits: Int64


class LoopSizes(NamedTuple):
    """Batch sizes in tokens or samples: the first `known[source]` of a source begin at
    `starts[source]` in `sizes`. If `equal`, batches are counted instead, each of size 1."""

    sizes: Int64
    starts: Int64
    known: Int64
    equal: bool


class StopReason(IntEnum):
    """Why the loop returned."""

    DONE = 0
    SIZE_UNKNOWN = 1
    """The size of a source's next batch is needed."""
    LAST_BATCH_GIVEN = 2
    """A source was given its last batch."""
    NO_BATCH_LEFT = 3
    """The source that is due has no batch left."""


class LoopStop(NamedTuple):
    """The first mixture slot not filled, the reason, and the source it concerns (DONE: -1)."""

    slot: int
    reason: StopReason
    source: int | np.int64


NEVER = 1 << 60


def _fill_slots(
    slots: Any, begin: Any, end: Any, phases: LoopWeights, sources: LoopSources, batches: LoopSizes
) -> LoopStop:
    """Fill slots[begin:end], updating `sources`. Unless sizes are equal, there is one phase.

    With equal sizes a batch is eligible in the mixture slot in which its source's target rises
    above what the source received; else as soon as its source is not ahead of its target.
    """
    weights, spans = phases
    received, given, limits = sources
    sizes, starts, known, equal = batches
    total = weights[0].sum()
    # Heaps of (eligible from, due, source) and (due, source), in what was given out since `begin`.
    # An empty list gets its compiled type from the comprehension.
    waiting: Any = [(np.int64(0), np.int64(0), np.int64(0)) for _ in range(0)]
    eligible: Any = [(np.int64(0), np.int64(0)) for _ in range(0)]
    unqueued: Any = [np.int64(source) for source in range(len(given))]  # next batch in neither heap
    given_out = np.int64(0)
    for slot in range(begin, end):
        for source in unqueued:
            size_known = given[source] < known[source]
            if not size_known and weights[0, source] > 0:
                return LoopStop(slot, StopReason.SIZE_UNKNOWN, source)
            size = np.int64(1)
            if size_known and not equal:
                size = sizes[starts[source] + given[source]]
            eligible_from, due = np.int64(NEVER), np.int64(NEVER)
            before, after = received[source], received[source] + total * size
            phase_start = np.int64(0)
            for phase in range(len(spans)):
                weight, last = weights[phase, source], phase == len(spans) - 1
                rise = weight * spans[phase]  # of the target, during this phase
                if weight > 0:
                    if eligible_from == NEVER and (last or rise > before):
                        wait = before // weight if equal else -(-before // weight)
                        eligible_from = phase_start + wait
                    if last or rise >= after:
                        due = phase_start - (-after // weight)
                        break
                    before -= rise
                    after -= rise
                phase_start += spans[phase]
            if eligible_from < NEVER:
                heapq.heappush(waiting, (eligible_from, due, source))
        unqueued.clear()
        # Just after a change of weights no batch may be eligible: the next to be is taken early.
        while len(waiting) > 0 and (waiting[0][0] <= given_out or len(eligible) == 0):
            _, due, source = heapq.heappop(waiting)
            heapq.heappush(eligible, (due, source))
        _, source = heapq.heappop(eligible)
        if given[source] >= limits[source]:
            return LoopStop(slot, StopReason.NO_BATCH_LEFT, source)
        at = starts[source] + given[source]
        size = np.int64(1) if equal else sizes[at]
        slots[slot] = source
        given[source] += 1
        received[source] += total * size
        given_out += size
        if given[source] == limits[source]:
            return LoopStop(slot + 1, StopReason.LAST_BATCH_GIVEN, source)
        unqueued.append(source)
    return LoopStop(end, StopReason.DONE, np.int64(-1))


def _targets(phases: LoopWeights, given_out: int) -> Int64:
    """What sources should receive of `given_out`, times the sum of the weights. Shape: [sources]"""
    starts = np.cumsum([0, *phases.spans[:-1]])
    lengths = np.clip(given_out - starts, 0, [*phases.spans[:-1], 1 << 62])
    targets: Int64 = lengths @ phases.weights
    return targets
