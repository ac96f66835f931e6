"""Fetches ranges of objects at URLs ahead of their reading, in threads, into bounded memory, and
keeps them in the cache folder if there is one.

Ranges are requested in the order in which they will be read. Those that touch are fetched with one
request, but for the urgent ones. A reader that finds its range on the way waits for it; after the
99th percentile of recent requests a second one is sent, and the first to answer counts. A process
has one `Fetcher` for all its objects, so that its threads, memory and cache are bounded together.
"""

from __future__ import annotations

import bisect
import os
import threading
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from ocrdata.storage.location import Location
from ocrdata.storage.remote import RemoteFile
from ocrdata.storage.sealed import digest_of

FETCH_BYTES = 64 << 20
"""Bytes on the way or waiting to be read, at most."""

THREADS = 32

JOINED_BYTES = 2 << 20
"""Ranges that touch are fetched together up to this size."""

RECENT = 256
"""Requests whose duration is remembered."""

ENOUGH = 20
"""Requests after which the 99th percentile is known."""

FIRST_PATIENCE_S = 1.0
"""How long a reader waits before that."""

LEAST_PATIENCE_S = 0.1
"""On a fast network a second request would cost more than the wait."""


Until = Literal["read", "released", "cached"]
"""Until when a range is held: it was read to its end; it was released; or the cache keeps it, so
that it is read from there."""


class Cache(Protocol):
    """Where ranges are kept between runs (`ocrdata.storage.block_cache`). `key` identifies an
    object and its version."""

    def get(self, key: str, start: int, stop: int) -> bytes | None:
        """The bytes, or None."""

    def put(self, key: str, start: int, data: memoryview, *, needed_in: float) -> bool:
        """Keep bytes, which are needed in so many seconds; False if they are not kept."""

    def needed(self, key: str, start: int, in_seconds: float) -> None:
        """When what begins at `start` is needed next."""

    def discard(self, key: str, start: int, stop: int) -> None:
        """Forget wrong bytes."""

    def get_file(self, name: str) -> bytes | None:
        """A whole small file, or None."""

    def put_file(self, name: str, data: bytes) -> bool:
        """Keep a whole small file; False if it is not kept."""


class FetchedFile(RemoteFile):
    """An object of a shard set at a URL, read through the process's fetcher: a `File`. `digest` is
    that of its content, by which its bytes are found in the cache."""

    def __init__(self, location: Location, size: int, digest: str) -> None:
        super().__init__(location, size)
        self.key = digest_of(f"{location}\0{digest}".encode())

    def view(self, offset: int, size: int) -> memoryview:
        """Like `read`, without a copy."""
        return fetcher().read(self, offset, offset + size) if size else memoryview(b"")

    def fetch(self, start: int, stop: int) -> memoryview:
        """Bytes `[start, stop)` from the server itself."""
        return super().view(start, stop - start)

    def forget(self, offset: int, size: int) -> None:
        """Read these bytes from the server next time, as they turned out to be wrong."""
        fetcher().discard(self, offset, offset + size)

    def hint(self, ranges: Sequence[tuple[int, int]]) -> None:
        """Ask for ranges that will each be read once, soon and in this order."""
        for offset, size in ranges:
            if size:
                fetcher().request(self, offset, offset + size, until="read")

    def unhint(self, ranges: Sequence[tuple[int, int]]) -> None:
        """Forget those of these ranges that were announced and not read."""
        for offset, size in ranges:
            fetcher().release(self, offset, offset + size, until="read")


@dataclass(eq=False)
class _Range:
    """Bytes `[start, stop)` of a file, from the request for them until they are released. `asked`
    counts the requests for it that are on the way; `kept`: the cache has it."""

    file: FetchedFile
    start: int
    stop: int
    until: Until
    urgent: bool
    needed_in: float
    began: float = 0.0
    asked: int = 0
    hedged: bool = False
    data: memoryview | None = None
    kept: bool = False
    failed: BaseException | None = None

    @property
    def size(self) -> int:
        return self.stop - self.start


class Fetcher:
    """The ranges that were requested, `limit` bytes at most. Safe to share between threads."""

    def __init__(self, limit: int = FETCH_BYTES, cache: Cache | None = None) -> None:
        self.limit, self.cache = limit, cache
        self._ranges: dict[str, list[_Range]] = {}  # of each file, by start
        self._queue: deque[_Range] = deque()
        self._threads = self._held = 0
        self._recent: deque[tuple[float, int]] = deque(maxlen=RECENT)  # seconds, bytes
        self._changed = threading.Condition()
        self.requests = self.fetched = self.cached = 0
        """Requests sent so far, bytes that came, and bytes from the cache."""

    def figures(self) -> dict[str, int]:
        """What was fetched so far: requests and bytes, and bytes that came from the cache."""
        return {
            "requests": self.requests,
            "bytes": self.fetched,
            "cached_bytes": self.cached,
        }

    @property
    def held(self) -> int:
        """Bytes of all ranges that were requested and not released."""
        return self._held

    def request(
        self,
        file: FetchedFile,
        start: int,
        stop: int,
        *,
        until: Until = "released",
        urgent: bool = False,
        needed_in: float = 0.0,
    ) -> bool:
        """Ask for a range, to be held in memory `until` then. `urgent`: it is not joined with
        others. False if there is no room for it now."""
        with self._changed:
            known = self._ranges.setdefault(file.key, [])
            at = bisect.bisect_left(known, start, key=lambda one: one.start)
            if at < len(known) and known[at].start == start and known[at].stop >= stop:
                return True
            if self._held and self._held + stop - start > self.limit:
                return False
            wanted = _Range(file, start, stop, until, urgent, needed_in)
            known.insert(at, wanted)
            self._held += wanted.size
            self._queue.append(wanted)
            if self._threads < min(THREADS, len(self._queue)):
                self._threads += 1
                threading.Thread(target=self._work, name="fetcher", daemon=True).start()
            return True

    def release(
        self, file: FetchedFile, start: int, stop: int, *, until: Until | None = None
    ) -> None:
        """Forget a range that will not be read again; with `until`, only one requested so."""
        with self._changed:
            for one in self._ranges.get(file.key, ()):
                if (one.start, one.stop) == (start, stop) and until in (None, one.until):
                    self._forget(one)
                    return

    def needed(self, file: FetchedFile, start: int, in_seconds: float) -> None:
        """Tell the cache when the range that begins at `start` is needed next."""
        if self.cache is not None:
            self.cache.needed(file.key, start, in_seconds)

    def discard(self, file: FetchedFile, start: int, stop: int) -> None:
        """Forget wrong bytes, here and in the cache."""
        with self._changed:
            for one in list(self._ranges.get(file.key, ())):
                if one.start < stop and start < one.stop:
                    self._forget(one)
        if self.cache is not None:
            self.cache.discard(file.key, start, stop)

    def read(self, file: FetchedFile, start: int, stop: int) -> memoryview:
        """Bytes of a file: from the ranges that were requested, waiting for those on the way, else
        from the cache or the server. Raises TransportError."""
        with self._changed:
            found = self._covering(file.key, start, stop)
            for one in found:
                if not one.asked:  # it failed before anybody waited: things may be better now
                    one.failed = None
            for one in found:
                self._wait(one)
        if not found or any(one.data is None for one in found):
            return self._load(file, start, stop, 0.0)[0]
        parts = []
        for one in found:  # they may overlap
            assert one.data is not None
            parts.append(one.data[start - one.start : stop - one.start])
            start = one.stop
        return parts[0] if len(parts) == 1 else memoryview(b"".join(parts))

    def _covering(self, key: str, start: int, stop: int) -> list[_Range]:
        """The ranges that together hold `[start, stop)`; [] if there are none."""
        known = self._ranges.get(key, [])
        at = bisect.bisect_right(known, start, key=lambda one: one.start) - 1
        found: list[_Range] = []
        while 0 <= at < len(known) and known[at].start <= start < known[at].stop:
            found.append(known[at])
            start = known[at].stop
            if start >= stop:
                for one in found:
                    if one.until == "read" and stop >= one.stop:
                        self._forget(one, queued=False)
                return found
            at += 1
        return []

    def _wait(self, one: _Range) -> None:
        """Wait, with the lock, until a range is there. A second request is sent when it takes too
        long. Raises what the last request raised."""
        while one.data is None and not one.kept:
            if one.failed is not None:
                self._forget(one)  # whoever reads it next asks again
                raise one.failed
            if not one.asked:  # nobody has begun: it goes before all others, in a thread of its own
                if one in self._queue:  # not if another thread released it meanwhile
                    self._queue.remove(one)
                self._send(one)
            patience = (
                None if one.hedged else one.began + self._patience(one.size) - time.monotonic()
            )
            if patience is None or patience > 0:
                self._changed.wait(patience)
            else:
                one.hedged = True
                self._send(one)

    def _send(self, one: _Range) -> None:
        """Fetch a range that is waited for, in another thread."""
        self._start([one])
        threading.Thread(target=self._fetch, args=([one],), name="fetcher", daemon=True).start()

    def _patience(self, size: int) -> float:
        """How long a range of so many bytes may take, in seconds: the 99th percentile of recent
        requests, and in proportion more if it is larger than these."""
        if len(self._recent) < ENOUGH:
            return FIRST_PATIENCE_S
        seconds = sorted(one for one, _ in self._recent)
        percentile = seconds[int(0.99 * (len(seconds) - 1))]
        usual = sum(size for _, size in self._recent) / len(seconds)
        return max(LEAST_PATIENCE_S, percentile * max(1.0, size / usual))

    def _work(self) -> None:
        """The life of a thread: it fetches while there is something to fetch."""
        while True:
            with self._changed:
                if not self._queue:
                    self._threads -= 1
                    return
                together = self._join(self._queue.popleft())
                self._start(together)
            self._fetch(together)

    def _join(self, first: _Range) -> list[_Range]:
        """A range and those behind it in the queue that go on where it ends."""
        together = [first]
        while self._queue and not first.urgent:
            after = self._queue[0]
            touches = after.file is first.file and after.start == together[-1].stop
            if not touches or after.stop - first.start > JOINED_BYTES:
                break
            together.append(self._queue.popleft())
        return together

    def _start(self, together: Sequence[_Range]) -> None:
        for one in together:
            one.asked += 1
            one.began = time.monotonic()

    def _fetch(self, together: Sequence[_Range]) -> None:
        """Fetch ranges that follow each other, with one request."""
        first, last = together[0], together[-1]
        data, kept = None, False
        failed: BaseException | None = None
        try:
            if first.until == "cached" and self._are_cached(together):
                kept = True
            else:
                data, kept = self._load(first.file, first.start, last.stop, first.needed_in)
        except BaseException as exc:  # also a panic of the client: others wait for these ranges
            failed = exc
        with self._changed:
            for one in together:
                one.asked -= 1
                if one.data is None and data is not None:
                    one.data = data[one.start - first.start : one.stop - first.start]
                elif one.data is None and not one.asked:
                    one.failed = failed
                if kept and one.until == "cached":
                    one.kept, one.failed = True, None
                    self._forget(one)  # from now on it is read from the disk
            self._changed.notify_all()

    def _are_cached(self, together: Sequence[_Range]) -> bool:
        """Whether the cache has each of these ranges whole. This verifies them, before somebody
        waits."""
        if self.cache is None:
            return False
        for one in together:
            for at in (one.start, one.stop - 1):
                if self.cache.get(one.file.key, at, at + 1) is None:
                    return False
            self.cache.needed(one.file.key, one.start, one.needed_in)
        return True

    def _load(
        self, file: FetchedFile, start: int, stop: int, needed_in: float
    ) -> tuple[memoryview, bool]:
        """Bytes from the cache, or else from the server; and whether the cache holds them now."""
        if self.cache is not None:
            found = self.cache.get(file.key, start, stop)
            if found is not None:
                with self._changed:
                    self.cached += stop - start
                return memoryview(found), True
        began = time.monotonic()
        data = file.fetch(start, stop)
        with self._changed:
            self.requests += 1
            self.fetched += len(data)
            self._recent.append((time.monotonic() - began, len(data)))
        kept = self.cache is not None and self.cache.put(file.key, start, data, needed_in=needed_in)
        return data, kept

    def _forget(self, one: _Range, *, queued: bool = True) -> None:
        known = self._ranges.get(one.file.key, [])
        if one not in known:
            return
        known.remove(one)
        if not known:
            del self._ranges[one.file.key]
        self._held -= one.size
        if queued and one in self._queue:
            self._queue.remove(one)


_fetcher = Fetcher()


def fetcher() -> Fetcher:
    """The fetcher of this process."""
    return _fetcher


def _renew() -> None:
    """A forked process has none of the threads, and the lock may be held for ever."""
    global _fetcher  # noqa: PLW0603 (its lock cannot be renewed in place)
    _fetcher = Fetcher(cache=_fetcher.cache)


os.register_at_fork(after_in_child=_renew)


def cache_in_use() -> Cache | None:
    """The cache of this process, or None."""
    return _fetcher.cache


def use_cache(cache: Cache | None) -> None:
    """Keep what this process fetches from now on in a cache, or no longer."""
    _fetcher.cache = cache
