"""Asks for the bytes of coming steps before they are needed: the plan knows which they are.

The blocks of neighbours of the order (`ocrdata.planning.blocks`) are fetched whole: those of the
earliest step first, as many as there is room for. A block is held until the last step of its order
window that reads it: in memory, or, where windows are too large for that, in the process's cache.
Where they fit neither, single samples are fetched in place of blocks. Local shards need none of
this.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from ocrdata.planning.order import BlockShuffle, SampleOrder
from ocrdata.planning.plan import Plan
from ocrdata.reading.view import Shards
from ocrdata.storage.fetching import FETCH_BYTES, FetchedFile, fetcher

WINDOW_BYTES = 128 << 20
"""Bytes of order windows held in memory, at most, over all sources."""

STEPS_AHEAD = 512
"""Steps looked ahead at most, as long as there is room."""

STEPS_A_CALL = 16
"""Of them, those that are looked at in one call: the first batch does not wait for all."""

CACHE_SHARE = 0.75
"""The part of the cache's limit that may hold what is needed next; the rest is for what other
processes need, and for the next epoch."""

URGENT_STEPS = 2
"""The blocks of the next steps are fetched one by one, so that the first is there soonest."""

NEVER_S = 1e9
"""Seconds until a block is needed that the run will not read again."""


@dataclass(frozen=True)
class FetchCost:
    """How the samples of a source at a URL are fetched: blocks that are `held` in memory or in the
    cache for an order window, or one request a sample. `window` are the bytes of such a window."""

    held: Literal["memory", "cache", ""]
    window: int


def fetch_cost(shards: Shards, order: SampleOrder, *, memory: int, cache: int) -> FetchCost:
    """How a source at a URL is fetched, if so many bytes of order windows can be held."""
    if not isinstance(order, BlockShuffle):
        return FetchCost("", 0)
    used = [shards.shard_set.shards[number] for number in {n for _, n, _ in shards.stretches()}]
    each = sum(one.bytes for one in used) / max(1, sum(one.samples for one in used))
    # Windows differ by less than a block.
    window = round(each * min(order.size, order.size / order.windows + order.recipe.block))
    if window <= memory:
        return FetchCost("memory", window)
    return FetchCost("cache" if window <= cache else "", window)


def fetch_costs(plan: Plan, views: Sequence[Shards], cache_bytes: int) -> dict[int, FetchCost]:
    """How the sources at URLs are fetched, by their numbers. `cache_bytes` is the limit of the
    process's cache folder, 0 without one."""
    room = {"memory": WINDOW_BYTES, "cache": round(CACHE_SHARE * cache_bytes), "": 0}
    found: dict[int, FetchCost] = {}
    for number, shards in enumerate(views):
        if shards.shard_set.is_remote:
            order = plan.row_sequences[number].order
            cost = fetch_cost(shards, order, memory=room["memory"], cache=room["cache"])
            room[cost.held] -= cost.window
            found[number] = cost
    return found


@dataclass
class _Source:
    """A source at a URL. `held` are its blocks (or single samples) that were requested: the file
    and bytes of each, the last step known to read it, and the epoch."""

    number: int
    shards: Shards
    order: SampleOrder
    where: Literal["memory", "cache", ""]
    held: dict[int, _Held] = field(default_factory=dict)

    def units(self, positions: Sequence[int]) -> list[int]:
        """The blocks of these positions; the positions themselves if samples are fetched."""
        if not self.where:
            return list(positions)
        units: list[int] = self.order.block_of(np.asarray(positions, np.int64)).tolist()
        return units

    def stored(self, unit: int) -> tuple[FetchedFile, int, int] | None:
        """Where the bytes of a block or sample are."""
        whole = self.order.block_positions(unit) if self.where else range(unit, unit + 1)
        return self.shards.stored_range(whole)


@dataclass
class _Held:
    file: FetchedFile
    start: int
    stop: int
    step: int
    epoch: int


class FetchAhead:
    """Requests what the coming steps of a plan read, of each batch the rows `part`. Thread-safe.

    Call `begin` when a step's batch is being made, `end` when it is made, and `close` in the end.
    Without sources at
    URLs both do nothing. `cache_bytes` is the limit of the process's cache folder, 0 without one.
    """

    def __init__(
        self,
        plan: Plan,
        views: Sequence[Shards],
        *,
        part: range | None = None,
        start: int = 0,
        cache_bytes: int = 0,
    ) -> None:
        self._plan, self._part = plan, part
        self._rows = plan.rows_per_source()
        self._room, self._cached = round(CACHE_SHARE * cache_bytes), 0
        costs = fetch_costs(plan, views, cache_bytes)
        self._sources = {
            number: _Source(number, views[number], plan.row_sequences[number].order, cost.held)
            for number, cost in costs.items()
        }
        if self._sources:
            windows = sum(cost.window for cost in costs.values() if cost.held == "memory")
            fetcher().limit = FETCH_BYTES + windows
        self._cursor, self._wanted = start, list[tuple[int, int, int]]()
        self._making: set[int] = set()
        self._start = self._floor = self._begun = start
        self._lock = threading.Lock()
        self._last_begin, self._step_seconds = time.monotonic(), 1.0

    def begin(self, step: int) -> None:
        """The batch of a step is about to be made."""
        if not self._sources:
            return
        with self._lock:
            now = time.monotonic()
            self._step_seconds += 0.1 * (now - self._last_begin - self._step_seconds)
            self._last_begin = now
            self._making.add(step)
            self._begun = max(self._begun, step + 1)
            self._look_ahead(step)

    def end(self, step: int) -> None:
        """The batch of a step is made: what no later one reads is released."""
        if not self._sources:
            return
        with self._lock:
            self._making.discard(step)
            # Steps end in any order: the last to end need not be the last one.
            self._floor = min(self._making, default=self._begun)
            for source in self._sources.values():
                self._release(source)
            self._look_ahead(self._floor)

    def close(self) -> None:
        """No further batch is made: release all that was requested for later ones. Idempotent."""
        with self._lock:
            for source in self._sources.values():
                for held in source.held.values():
                    fetcher().release(held.file, held.start, held.stop)
                source.held.clear()

    def _look_ahead(self, step: int) -> None:
        """Request what the steps from the first not looked at on read, while there is room."""
        stop = min(self._plan.steps, step + STEPS_AHEAD, self._cursor + STEPS_A_CALL)
        while self._cursor < stop:
            if not self._wanted:
                self._wanted = list(self._reads(self._cursor))
            while self._wanted:
                if not self._request(*self._wanted[-1], now=step):
                    return
                self._wanted.pop()
            self._cursor += 1

    def _reads(self, step: int) -> Iterator[tuple[int, int, int]]:
        """(source, block, epoch) of everything a step reads at URLs, the first at the end. The
        samples of the first step are requested here one by one: its blocks are many times as large,
        and it is waited for."""
        samples = [sample for row in self._plan.rows(step, self._part) for sample in row]
        for number in {sample.source for sample in samples} & self._sources.keys():
            source = self._sources[number]
            own = [sample for sample in reversed(samples) if sample.source == number]
            if step == self._start and source.where:
                source.shards.announce(sample.position for sample in reversed(own))
                continue
            units = source.units([sample.position for sample in own])
            for unit, sample in zip(units, own, strict=True):
                yield number, unit, sample.epoch

    def _request(self, number: int, unit: int, epoch: int, *, now: int) -> bool:
        source = self._sources[number]
        held = source.held.get(unit)
        if held is not None:
            held.step, held.epoch = self._cursor, epoch
            return True
        stored = source.stored(unit)
        if stored is None:
            return True
        file, start, stop = stored
        in_cache = source.where == "cache"
        if in_cache and self._cached and self._cached + stop - start > self._room:
            return False
        steps = self._cursor - now
        if not fetcher().request(
            file,
            start,
            stop,
            urgent=steps < URGENT_STEPS,
            until="cached" if in_cache else "released",
            needed_in=steps * self._step_seconds,
        ):
            return False
        source.held[unit] = _Held(file, start, stop, self._cursor, epoch)
        self._cached += stop - start if in_cache else 0
        return True

    def _release(self, source: _Source) -> None:
        """Forget the blocks whose last known step is over."""
        done = [unit for unit, held in source.held.items() if held.step < self._floor]
        if not done:
            return
        for unit in done:
            held = source.held[unit]
            fetcher().release(held.file, held.start, held.stop)
        if self._room and source.where:
            self._schedule(source, done)
        for unit in done:
            held = source.held.pop(unit)
            self._cached -= held.stop - held.start if source.where == "cache" else 0

    def _schedule(self, source: _Source, done: Sequence[int]) -> None:
        """Tell the cache when these blocks are needed next: in their next epoch, if the run has
        one."""
        epoch = max(source.held[unit].epoch for unit in done)
        size, rows = source.order.size, self._rows[source.number]
        last = self._plan.sources[source.number].first_row + rows
        draws_per_step = rows / self._plan.steps
        again = source.order.needed_again(np.asarray(done, np.int64), epoch)
        for unit, draw in zip(done, again.tolist(), strict=True):
            held = source.held[unit]
            in_draws = draw - epoch * size if draw < last else np.inf
            seconds = min(NEVER_S, in_draws / draws_per_step * self._step_seconds)
            fetcher().needed(held.file, held.start, seconds)
