"""Fetching ahead: what is requested, joined, waited for, kept and released."""

import random
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ocrdata.errors import TransportError
from ocrdata.storage import fetching
from ocrdata.storage.fetching import FetchedFile, Fetcher, Until
from ocrdata.storage.location import Location

DATA = random.Random(2).randbytes(10_000)


class Server(FetchedFile):
    """An object whose requests are answered by the test. `held`: they wait until `release` is set;
    `failing`: the next ones fail."""

    def __init__(self, name: str = "x") -> None:
        super().__init__(Location(f"https://host/{name}"), len(DATA), "digest")
        self.asked: list[tuple[int, int]] = []
        self.began = threading.Semaphore(0)
        self.release = threading.Event()
        self.release.set()
        self.failing = 0

    def fetch(self, start: int, stop: int) -> memoryview:
        self.asked.append((start, stop))
        self.began.release()
        assert self.release.wait(30)
        if self.failing:
            self.failing -= 1
            raise TransportError(self.name, "the connection was cut")
        return memoryview(DATA)[start:stop]


@contextmanager
def one_thread() -> Iterator[None]:
    before, fetching.THREADS = fetching.THREADS, 1
    try:
        yield
    finally:
        fetching.THREADS = before


def test_what_was_requested_is_asked_for_once() -> None:
    fetcher, file = Fetcher(), Server()
    assert fetcher.request(file, 100, 200) and fetcher.request(file, 100, 200)
    for start, stop in ((100, 200), (150, 160), (199, 200)):
        assert fetcher.read(file, start, stop) == DATA[start:stop]
    assert file.asked == [(100, 200)] and fetcher.held == 100
    assert fetcher.read(file, 90, 110) == DATA[90:110]  # partly requested: read by itself
    fetcher.release(file, 100, 200)
    assert fetcher.held == 0 and fetcher.read(file, 100, 110) == DATA[100:110]
    assert file.asked[1:] == [(90, 110), (100, 110)]


def test_a_range_that_is_read_once_is_released() -> None:
    fetcher, file = Fetcher(), Server()
    fetcher.request(file, 0, 100, until="read")
    assert fetcher.read(file, 0, 60) == DATA[:60] and fetcher.held == 100
    assert fetcher.read(file, 60, 100) == DATA[60:100] and fetcher.held == 0


def test_ranges_that_touch_are_joined_but_not_the_urgent_ones() -> None:
    fetcher, file, other = Fetcher(), Server(), Server("y")
    with one_thread():
        file.release.clear()
        fetcher.request(file, 0, 10)
        file.began.acquire()  # the only thread is busy: what follows waits in the queue
        fetcher.request(file, 10, 20, urgent=True)
        for start in (20, 30, 40, 60):
            fetcher.request(file, start, start + 10)
        fetcher.request(other, 70, 80)
        file.release.set()
        for start in (0, 10, 20, 30, 40, 60):
            assert fetcher.read(file, start, start + 10) == DATA[start : start + 10]
        assert fetcher.read(file, 5, 45) == DATA[5:45]  # several ranges hold it together
        assert fetcher.read(other, 70, 80) == DATA[70:80]
    # A reader may have taken the queue's first range itself, before the thread could join it.
    assert file.asked[:2] == [(0, 10), (10, 20)] and sum(b - a for a, b in file.asked) == 60


def test_ranges_that_overlap() -> None:
    fetcher, file = Fetcher(), Server()
    for start, stop in ((0, 60), (30, 100), (40, 50), (100, 130)):
        fetcher.request(file, start, stop)
    for start, stop in ((0, 130), (20, 90), (59, 61), (45, 55)):
        assert fetcher.read(file, start, stop) == DATA[start:stop]
    assert len(fetcher.read(file, 10, 100)) == 90


def test_memory_is_bounded() -> None:
    fetcher, file = Fetcher(limit=100), Server()
    assert fetcher.request(file, 0, 60) and fetcher.request(file, 60, 100)
    assert not fetcher.request(file, 100, 101)
    fetcher.release(file, 0, 60)
    assert fetcher.request(file, 100, 160)
    large = Fetcher(limit=100)
    assert large.request(file, 0, 500)  # one that alone is beyond the limit still comes
    assert not large.request(file, 500, 501)


def test_a_second_request_is_sent_for_a_slow_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetching, "FIRST_PATIENCE_S", 0.01)
    fetcher = Fetcher()

    class Slow(Server):
        def fetch(self, start: int, stop: int) -> memoryview:
            if not self.asked:
                self.asked.append((start, stop))
                assert self.release.wait(30)
            return super().fetch(start, stop)

    file = Slow()
    slow = file.release
    slow.clear()
    fetcher.request(file, 0, 10)
    hedged = threading.Event()

    def second() -> None:
        file.began.acquire()  # the second request has begun, the first has not ended
        hedged.set()
        slow.set()

    threading.Thread(target=second).start()
    assert fetcher.read(file, 0, 10) == DATA[:10]
    assert hedged.is_set() and len(file.asked) >= 2


def test_a_large_range_may_take_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetching, "LEAST_PATIENCE_S", 0.0)
    fetcher = Fetcher()
    assert fetcher._patience(1) == fetching.FIRST_PATIENCE_S
    fetcher._recent.extend((seconds / 100, 1000) for seconds in range(1, 102))
    assert fetcher._patience(10) == fetcher._patience(1000) == 1.0  # the 99th percentile
    assert fetcher._patience(4000) == 4.0


def test_a_failure_is_the_readers_and_the_next_one_asks_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(fetching, "THREADS", 0)  # the reader fetches it
    fetcher, file = Fetcher(), Server()
    file.failing = 1
    fetcher.request(file, 0, 10)
    with pytest.raises(TransportError, match="cut"):
        fetcher.read(file, 0, 10)
    assert fetcher.held == 0 and fetcher.read(file, 0, 10) == DATA[:10]


def test_a_failure_before_anybody_waited_is_not_the_readers() -> None:
    fetcher, file = Fetcher(), Server()
    file.failing = 1
    fetcher.request(file, 0, 10)
    (one,) = fetcher._ranges[file.key]
    with fetcher._changed:
        assert fetcher._changed.wait_for(lambda: one.failed is not None, 30)
    assert fetcher.read(file, 0, 10) == DATA[:10]
    assert file.asked == [(0, 10)] * 2


class Panic(BaseException):
    """What a client in another language raises when it is broken."""


@pytest.mark.parametrize("kind", [Panic, KeyboardInterrupt])
def test_nobody_waits_for_a_request_that_broke_off(
    monkeypatch: pytest.MonkeyPatch, kind: type[BaseException]
) -> None:
    monkeypatch.setattr(fetching, "THREADS", 0)  # the reader fetches it

    class Broken(Server):
        def fetch(self, start: int, stop: int) -> memoryview:
            if not self.asked:
                self.asked.append((start, stop))
                raise kind
            return super().fetch(start, stop)

    fetcher, file = Fetcher(), Broken()
    fetcher.request(file, 0, 10)
    with pytest.raises(kind):
        fetcher.read(file, 0, 10)
    assert fetcher.read(file, 0, 10) == DATA[:10] and len(file.asked) == 2


def test_announced_ranges_are_taken_back_unless_others_need_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fetcher, file = Fetcher(), Server()
    monkeypatch.setattr(fetching, "_fetcher", fetcher)
    file.hint([(0, 10), (20, 10), (40, 0)])
    fetcher.request(file, 60, 70)
    assert file.read(20, 10) == DATA[20:30] and fetcher.held == 20
    file.unhint([(0, 10), (20, 10), (40, 0), (60, 10)])
    assert fetcher.held == 10 and list(fetcher._ranges) == [file.key]


def test_wrong_bytes_are_forgotten() -> None:
    fetcher, file = Fetcher(), Server()
    fetcher.request(file, 0, 10)
    fetcher.request(file, 20, 30)
    fetcher.read(file, 0, 10)
    fetcher.discard(file, 5, 6)
    assert fetcher.held == 10
    fetcher.read(file, 0, 10)
    assert file.asked.count((0, 10)) == 2


class Kept:
    """A cache in memory."""

    def __init__(self, room: bool = True) -> None:
        self.room = room
        self.ranges: dict[tuple[str, int, int], bytes] = {}

    def get(self, key: str, start: int, stop: int) -> bytes | None:
        for (owner, first, last), data in self.ranges.items():
            if owner == key and first <= start and stop <= last:
                return data[start - first : stop - first]
        return None

    def put(self, key: str, start: int, data: memoryview, *, needed_in: float) -> bool:
        if self.room:
            self.ranges[key, start, start + len(data)] = bytes(data)
        return self.room

    def needed(self, key: str, start: int, in_seconds: float) -> None:
        pass

    def discard(self, key: str, start: int, stop: int) -> None:
        for one in [one for one in self.ranges if one[1] < stop and start < one[2]]:
            del self.ranges[one]


def test_what_the_cache_keeps_is_not_held_in_memory() -> None:
    fetcher, file = Fetcher(cache=Kept()), Server()
    fetcher.request(file, 0, 100, until="cached")
    assert fetcher.read(file, 10, 20) == DATA[10:20]
    assert fetcher.read(file, 50, 60) == DATA[50:60]
    assert fetcher.held == 0 and file.asked == [(0, 100)]
    again = Fetcher(cache=fetcher.cache)
    again.request(file, 0, 100, until="cached")
    assert again.read(file, 0, 100) == DATA[:100]
    assert (again.requests, again.fetched, again.cached >= 100) == (0, 0, True)
    full = Fetcher(cache=Kept(room=False))
    full.request(file, 0, 100, until="cached")
    assert full.read(file, 10, 20) == DATA[10:20] and full.held == 100
    held = Fetcher(cache=fetcher.cache)
    held.request(file, 0, 100)
    assert held.read(file, 10, 20) == DATA[10:20] and (held.held, held.requests) == (100, 0)


def test_ranges_are_fetched_together_if_the_cache_lacks_one_in_the_middle() -> None:
    cache, file = Kept(), Server()
    for start in (0, 20):
        cache.put(file.key, start, memoryview(DATA)[start : start + 10], needed_in=0)
    with one_thread():
        fetcher, blocked = Fetcher(cache=cache), Server("y")
        blocked.release.clear()
        fetcher.request(blocked, 0, 1)
        blocked.began.acquire()  # what follows is joined
        for start in (0, 10, 20):
            fetcher.request(file, start, start + 10)
        blocked.release.set()
        assert file.began.acquire(timeout=30)
    assert file.asked == [(0, 30)]


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.integers(0, 9_000),
            st.integers(1, 900),
            st.sampled_from(["read", "released", "cached"]),
        ),
        max_size=30,
    ),
    st.integers(100, 20_000),
    st.booleans(),
)
def test_any_reads_are_exact(
    ranges: list[tuple[int, int, Until]], limit: int, cached: bool
) -> None:
    fetcher, file = Fetcher(limit, Kept() if cached else None), Server()
    for start, size, until in ranges:
        fetcher.request(file, start, start + size, until=until)

    def read(one: tuple[int, int, Until]) -> bool:
        start, size, _ = one
        exact = fetcher.read(file, start, start + size) == DATA[start : start + size]
        fetcher.release(file, start, start + size)
        return exact

    with ThreadPoolExecutor(4) as threads:
        assert all(threads.map(read, ranges))
    assert fetcher.fetched == sum(stop - start for start, stop in file.asked)
