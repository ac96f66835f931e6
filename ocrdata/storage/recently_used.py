"""A bounded cache in memory, shared by threads: open files, blocks of indexes, frames.

What is missing is made outside the lock, so that a slow disk delays only those who want the same
thing; several threads that want it at once make it once.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")


class RecentlyUsed(Generic[Key, Value]):
    """Keeps the values used last, up to `limit` in total `weight` (default: 1 each). The value used
    last is always kept. Safe to share between threads."""

    def __init__(self, limit: int, weight: Callable[[Value], int] = lambda _: 1) -> None:
        self.limit, self._weight = limit, weight
        self._values: OrderedDict[Key, Value] = OrderedDict()
        self._total = 0
        self._lock = threading.Lock()
        self._making: dict[Key, threading.Lock] = {}

    def get(self, key: Key, make: Callable[[], Value]) -> Value:
        """The value of `key`, made now if it is not kept. Raises what `make` raises; it is called
        again by the next to ask, also by those who waited for it."""
        with self._lock:
            value = self._values.get(key)
            if value is not None:
                self._values.move_to_end(key)
                return value
            gate = self._making.setdefault(key, threading.Lock())
        with gate:
            with self._lock:
                value = self._values.get(key)
            if value is None:
                try:
                    value = make()
                finally:
                    with self._lock:
                        self._making.pop(key, None)
                        if value is not None:
                            self._put(key, value)
        return value

    def __contains__(self, key: Key) -> bool:
        """Whether a value is kept for `key`. It does not count as used."""
        with self._lock:
            return key in self._values

    def put(self, key: Key, value: Value) -> None:
        """Keep a value, unless there is one for this key, and evict those used least recently."""
        with self._lock:
            self._put(key, value)

    def drop(self, key: Key, value: Value | None = None) -> None:
        """Forget the value of `key`; if `value` is given, only if it is this very one."""
        with self._lock:
            known = self._values.get(key)
            if known is not None and value in (None, known):
                del self._values[key]
                self._total -= self._weight(known)

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            self._values.clear()
            self._total = 0

    def _put(self, key: Key, value: Value) -> None:
        values, weight = self._values, self._weight
        if key not in values:
            values[key] = value
            self._total += weight(value)
        while self._total > self.limit and len(values) > 1:
            self._total -= weight(values.popitem(last=False)[1])

    def values(self) -> list[Value]:
        """The values kept now, the one used last at the end."""
        with self._lock:
            return list(self._values.values())
