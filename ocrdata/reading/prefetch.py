"""The loader: prepares the batches of coming steps in threads and returns them in order.

Threads suffice: reading, digests, decompression and image decoding all release the interpreter
lock. Unlike processes, threads need no copies, start-up time or shared memory, and none survives a
killed process (measured against processes in NOTES.md). The only state of a loader is the next
step.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

Item = TypeVar("Item")


class Prefetcher(Generic[Item]):
    """Iterates over `make(start), ..., make(stop - 1)`, computed in advance by `workers` threads.

    With 0 workers, the caller computes everything. At most `ahead` results are computed in advance
    (default: two per worker). An exception of `make` is raised at its own step. `waited` is how
    many seconds the last `next()` took to return. Close it, or use it as a context manager;
    `next()` after an early close raises ValueError.
    """

    def __init__(
        self,
        make: Callable[[int], Item],
        start: int,
        *,
        stop: int,
        workers: int = 0,
        ahead: int = 0,
    ) -> None:
        self._make = make
        self._next, self._stop = start, stop
        self._ahead = ahead or 2 * workers
        self._pool = ThreadPoolExecutor(workers, "loader") if workers else None
        self._pending: deque[Future[Item]] = deque()
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
            result = self._make(self._next)
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
            self._pending.append(pool.submit(self._make, self._submitted))
            self._submitted += 1

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
