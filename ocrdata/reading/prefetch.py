"""The loader: batches of the plan's steps, made ahead of time, handed over in order.

Owner of the workers. They are threads: reading, digests, decompression and the decoding of images
all release the interpreter's lock, and threads need no copies, no start-up and no shared memory;
nobody is left behind when a process is killed. (Measured against processes in NOTES.md.) A loader
holds no state but the next step.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

Item_ = TypeVar("Item_")


class Prefetcher(Generic[Item_]):
    """Iterates `make(start), ..., make(stop - 1)`, each made ahead by one of `workers` threads.

    With 0 workers everything happens in the caller. `ahead` results at most wait at any time
    (default: two a worker). An exception of `make` is raised at its own step. `waited` is the
    time in seconds that the last step spent without its batch. Close it, or use it as a context.
    Raises ValueError once it is closed before its end.
    """

    def __init__(
        self,
        make: Callable[[int], Item_],
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
        self._pending: deque[Future[Item_]] = deque()
        self._submitted = start
        self._closed = False
        self.waited = 0.0

    def __iter__(self) -> Iterator[Item_]:
        return self

    def __next__(self) -> Item_:
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
            result = self._pending[0].result()  # a step that fails is asked for again, and fails
            self._pending.popleft()
            self._fill(self._pool)
        self._next += 1
        self.waited = time.perf_counter() - began
        return result

    @property
    def step(self) -> int:
        """The step whose batch comes next: all the state there is to save."""
        return self._next

    def _fill(self, pool: ThreadPoolExecutor) -> None:
        while self._submitted < self._stop and len(self._pending) < self._ahead:
            self._pending.append(pool.submit(self._make, self._submitted))
            self._submitted += 1

    def close(self, *, wait: bool = True) -> None:
        """End the workers; what they have begun is finished and dropped. Twice is no harm."""
        self._closed = True
        if self._pool is not None:
            self._pool.shutdown(wait=wait, cancel_futures=True)
            self._pending.clear()

    def __enter__(self) -> Prefetcher[Item_]:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        # Who wants to stop at once does not wait for a batch that is being made.
        self.close(wait=kind is None or not issubclass(kind, KeyboardInterrupt))
