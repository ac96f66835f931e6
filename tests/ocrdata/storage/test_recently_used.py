"""A bounded cache in memory: what is kept, and what threads wait for."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocrdata.storage.recently_used import RecentlyUsed

WAIT = 30
"""Seconds after which a thread that should have gone on is taken for blocked."""


@given(
    keys=st.lists(st.integers(1, 6), max_size=40),
    limit=st.integers(1, 12),
    weighted=st.booleans(),
)
def test_keeps_what_was_used_last(keys: list[int], limit: int, weighted: bool) -> None:
    cache: RecentlyUsed[int, list[int]] = (
        RecentlyUsed(limit, lambda value: value[0]) if weighted else RecentlyUsed(limit)
    )
    model: list[int] = []  # the key used last at the end
    for key in keys:
        made: list[int] = []

        def make(key: int = key, made: list[int] = made) -> list[int]:
            made.append(key)
            return [key]

        assert cache.get(key, make) == [key]
        assert made == ([] if key in model else [key])
        model = [*(other for other in model if other != key), key]
        while len(model) > 1 and sum(k if weighted else 1 for k in model) > limit:
            model.pop(0)
        assert [value[0] for value in cache.values()] == model


def test_a_slow_value_delays_only_those_who_want_it() -> None:
    cache: RecentlyUsed[str, str] = RecentlyUsed(8)
    started, released, made = threading.Event(), threading.Event(), list[str]()

    def slow() -> str:
        made.append("slow")
        started.set()
        assert released.wait(WAIT)
        return "slow"

    with ThreadPoolExecutor(3) as threads:
        first = threads.submit(cache.get, "slow", slow)
        assert started.wait(WAIT)
        second = threads.submit(cache.get, "slow", slow)
        try:
            assert threads.submit(cache.get, "fast", lambda: "fast").result(WAIT) == "fast"
            assert not first.done() and not second.done()
        finally:
            released.set()
        assert (first.result(WAIT), second.result(WAIT)) == ("slow", "slow")
    assert made == ["slow"]


def test_a_failure_is_not_kept() -> None:
    cache: RecentlyUsed[str, str] = RecentlyUsed(8)

    def fail() -> str:
        raise OSError("no such value")

    for _ in range(2):
        with pytest.raises(OSError, match="no such value"):
            cache.get("a", fail)
    assert cache.get("a", lambda: "made") == "made"
    assert cache.get("a", fail) == "made"
    assert not cache._making
