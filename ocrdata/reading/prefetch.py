"""The loader: prepares the batches of coming steps in threads and returns them in order.

The samples of a batch are prepared by all threads together, those of the earliest step first, so
that the next batch is ready as soon as it can be. Threads suffice: reading, digests, decompression
and image decoding all release the interpreter lock. Unlike processes, threads need no copies,
start-up time or shared memory, and none survives a killed process (measured against processes in
NOTES.md). The only state of a loader is the next step.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, TypeVar

Item = TypeVar("Item")
Part = TypeVar("Part")


@dataclass(frozen=True, slots=True)
class Assembly(Generic[Part, Item]):
    """How an item is made: `parts` may be called in any order and thread; `join` gets their
    results, in the order of `parts`."""

    parts: Sequence[Callable[[], Part]]
    join: Callable[[list[Part]], Item]

    def make(self) -> Item:
        """Make the item in this thread. Raises what the first part that fails raises."""
        return self.join([part() for part in self.parts])


def whole(make: Callable[[int], Item]) -> Callable[[int], Assembly[Item, Item]]:
    """What a `Prefetcher` takes, for items that are made in one piece."""
    return lambda step: Assembly([partial(make, step)], lambda made: made[0])


class Prefetcher(Generic[Item]):
    """Iterates over the items of the steps from `start` to `stop`, made in advance by `workers`
    threads. `split(step)` says how one is made.

    With 0 workers, the caller makes everything. At most `ahead` items are made in advance (default:
    two per worker). An exception is raised at its own step: that of the first part that fails, as
    if they were made in order. `waited` is how many seconds the last `next()` took to return. Close
    it, or use it as a context manager; `next()` after an early close raises ValueError.
    """

    def __init__(
        self,
        split: Callable[[int], Assembly[Any, Item]],
        start: int,
        *,
        stop: int,
        workers: int = 0,
        ahead: int = 0,
    ) -> None:
        self._split = split
        self._next, self._stop = start, stop
        self._workers, self._ahead = workers, ahead or 2 * workers
        self._pool = ThreadPoolExecutor(workers, "loader") if workers else None
        self._pending: deque[_Making[Item]] = deque()
        self._submitted = start
        self._closed = False
        self.waited = 0.0

    def __iter__(self) -> Iterator[Item]:
        return self

    def __next__(self) -> Item:
        if self._next >= self._stop:
            self.close()
            raise StopIteration
        if self._closed:
            raise ValueError(f"the loader was closed before step {self._next}")
        began = time.perf_counter()
        if self._pool is None:
            result = self._split(self._next).make()
        else:
            self._fill(self._pool)
            result = self._pending[0].result()  # a failed step stays first: next() fails again
            self._pending.popleft()
            self._fill(self._pool)
        self._next += 1
        self.waited = time.perf_counter() - began
        return result

    @property
    def step(self) -> int:
        """The step of the next batch: the only state to save."""
        return self._next

    def _fill(self, pool: ThreadPoolExecutor) -> None:
        while self._submitted < self._stop and len(self._pending) < self._ahead:
            making = _Making(partial(self._split, self._submitted))
            self._pending.append(making)
            self._submitted += 1
            # The pool's queue is first in, first out: nobody begins a step while there is something
            # to take of an earlier one.
            for _ in range(self._workers):
                pool.submit(making.help)

    def close(self, *, wait: bool = True) -> None:
        """Stop the workers. In-flight batches are finished and discarded. Idempotent."""
        self._closed = True
        if self._pool is not None:
            self._pool.shutdown(wait=wait, cancel_futures=True)
            self._pending.clear()

    def __enter__(self) -> Prefetcher[Item]:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        # Ctrl-C must not wait for a batch that is being prepared.
        self.close(wait=kind is None or not issubclass(kind, KeyboardInterrupt))


class _Making(Generic[Item]):
    """An item while threads make it: each that calls `help` works on it while there is work."""

    def __init__(self, split: Callable[[], Assembly[Any, Item]]) -> None:
        self._split = split
        self._assembly: Assembly[Any, Item] | None = None
        self._made: dict[int, Any] = {}
        self._failed: dict[int, BaseException] = {}
        self._taken = self._running = 0
        self._ended = False
        self._lock = threading.Lock()
        self._result: Future[Item] = Future()

    def result(self) -> Item:
        """The item, once it is made. Raises what making it raised."""
        return self._result.result()

    def help(self) -> None:
        """Make parts until all are taken; the thread that completes the last one joins them."""
        try:
            while (work := self._take()) is not None:
                work()
        except BaseException as exc:
            self._result.set_exception(exc)

    def _take(self) -> Callable[[], None] | None:
        """What to do next; None if others do what is left."""
        with self._lock:
            if self._ended:
                return None
            if self._assembly is None:
                self._ended = True  # unless this succeeds
                self._assembly = self._split()
                self._ended = False
            # Parts are taken in order, so the first that fails is found even if a later one fails
            # before it.
            if self._taken < len(self._assembly.parts) and not self._failed:
                number = self._taken
                self._taken, self._running = number + 1, self._running + 1
                return partial(self._make, number, self._assembly.parts[number])
            if self._running:
                return None
            self._ended = True
            return partial(self._finish, self._assembly)

    def _make(self, number: int, part: Callable[[], Any]) -> None:
        try:
            self._made[number] = part()
        except BaseException as exc:
            self._failed[number] = exc
        with self._lock:
            self._running -= 1

    def _finish(self, assembly: Assembly[Any, Item]) -> None:
        if self._failed:
            raise self._failed[min(self._failed)]
        self._result.set_result(assembly.join([self._made[at] for at in range(self._taken)]))
