"""An account of the memory that requests take until they are answered, so that it stays bounded
however many arrive. What does not fit is refused, not queued: the sender holds it already.
"""

from __future__ import annotations

import threading

from ocrdata.runtime.units import human_bytes
from ocrtrain.serving.errors import busy


class MemoryBudget:
    """`limit` bytes for all requests together. Threads may share it."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.used = 0
        self._lock = threading.Lock()

    def change(self, by: int) -> None:
        """Take `by` bytes, or give them back. Raises RequestError, a 429, where they are not
        there."""
        with self._lock:
            if by > 0 and self.used + by > self.limit:
                raise busy(f"the requests being answered take {human_bytes(self.used)} of memory")
            self.used += by


class Reservation:
    """What one request takes of a budget; a context manager that gives it back."""

    def __init__(self, budget: MemoryBudget) -> None:
        self._budget = budget
        self._held = 0
        self._closed = False

    def __enter__(self) -> Reservation:
        return self

    def __exit__(self, *_: object) -> None:
        self.resize(0)
        self._closed = True

    def resize(self, count: int) -> None:
        """Hold `count` bytes. Raises RequestError as `MemoryBudget.change` does; what is held is
        then unchanged. Nothing is held afterwards: the thread that decodes for a request which has
        timed out goes on to the end of its image."""
        if not self._closed:
            self._budget.change(count - self._held)
            self._held = count
