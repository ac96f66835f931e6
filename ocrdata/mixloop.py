"""The loop of the mix: earliest deadline first among those whose time has come.

Owner of the arithmetic of `ocrdata.mix`, in a form that runs as it stands and compiled. All numbers
are integers; a level is what a source was given above its share, times the sum of the weights.
"""

from __future__ import annotations

import heapq
from typing import Any

import numpy as np

# Why the loop stopped: its slots are full; it needs the size of a source's next batch; a source was
# given its last batch; the source that is due has none.
DONE, MORE_SIZES, LAST_GIVEN, NONE_LEFT = 0, 1, 2, 3

NEVER = 1 << 60


def serve(  # noqa: PLR0912, PLR0913, PLR0915, PLR0917 - one loop, as it is compiled
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
