"""Reading ahead, against taking the same items without it."""

from __future__ import annotations

import gc
import subprocess
import sys
import threading
from collections.abc import Generator, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocrdata.ahead import THREAD, ahead

PATIENCE = 60.0


class Broken(Exception):
    """An item that cannot be made."""


def makers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == THREAD]


def all_end() -> bool:
    """Whether each thread ends, without being asked to again."""
    for thread in makers():
        thread.join(PATIENCE)
    return not makers()


class Items:
    """Numbers from 0 on, and what became of them."""

    def __init__(self, count: int, breaks_at: int | None = None) -> None:
        self.count, self.breaks_at = count, breaks_at
        self.made = 0
        self.closed = False
        self.full = threading.Event()

    def make(self, full_at: int = 0) -> Generator[int]:
        try:
            for number in range(self.count):
                if number == self.breaks_at:
                    raise Broken(number)
                self.made += 1
                if self.made == full_at:
                    self.full.set()
                yield number
        finally:
            self.closed = True


def taken(numbers: Iterator[int]) -> tuple[list[int], str]:
    found: list[int] = []
    try:
        for number in numbers:
            found.append(number)
    except Broken as exc:
        return found, str(exc)
    return found, ""


@given(st.integers(0, 9), st.none() | st.integers(0, 9), st.integers(1, 4))
def test_same_items_and_same_error(count: int, breaks_at: int | None, depth: int) -> None:
    items = Items(count, breaks_at)
    assert taken(ahead(items.make(), depth)) == taken(Items(count, breaks_at).make())
    assert all_end()
    assert items.closed


@given(st.integers(1, 5), st.integers(1, 12))
def test_as_far_ahead_as_asked_and_no_farther(depth: int, count: int) -> None:
    items = Items(count)
    numbers = ahead(items.make(full_at=min(depth, count)), depth)
    assert items.made == 0  # until the first is asked for
    for at, number in enumerate(numbers):
        assert number == at
        assert items.full.wait(PATIENCE)
        assert items.made <= at + depth


@given(st.integers(1, 8), st.integers(1, 3), st.sampled_from(["close", "drop", "raise", "cycle"]))
def test_the_thread_ends_with_who_takes(taken_first: int, depth: int, way: str) -> None:
    items = Items(100)
    numbers: Iterator[int] | None = ahead(items.make(), depth)
    assert isinstance(numbers, Generator)
    for _ in range(taken_first):
        next(numbers)
    assert len(makers()) == 1
    if way == "close":
        numbers.close()
    elif way == "raise":
        with pytest.raises(Broken):
            numbers.throw(Broken())
    elif way == "cycle":
        knot: list[object] = [numbers]
        knot.append(knot)
        del knot
    numbers = None
    gc.collect()
    assert all_end()
    assert items.closed
    assert items.made <= taken_first - 1 + depth


def test_without_a_thread_to_be_had() -> None:
    before = threading.stack_size(1 << 46)  # more than there is room for
    try:
        assert taken(ahead(Items(5, 3).make(), 2)) == ([0, 1, 2], "3")
    finally:
        threading.stack_size(before)


ENDING = """
import atexit, threading

def left():
    print([thread.name for thread in threading.enumerate()])

atexit.register(left)  # runs after what is registered later
from ocrdata.ahead import ahead
from ocrdata.reader import open_shards
print(threading.active_count())
numbers = ahead((number for number in range(9)), 2)
print(next(numbers), threading.active_count())
"""


def test_the_interpreter_ends_while_items_are_wanted() -> None:
    done = subprocess.run(
        [sys.executable, "-c", ENDING],
        check=False,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == ["1", "0 2", "['MainThread']"]


def test_who_outlives_the_interpreter_is_not_told_that_all_is_read() -> None:
    code = """
import atexit, threading
ended, waiting = threading.Event(), threading.Event()
atexit.register(lambda: print(ended.wait(30)))
from ocrdata.ahead import ahead

def endless():
    while True:
        yield 0
        waiting.set()

def take():
    try:
        for number in ahead(endless(), 1):
            pass
        print("all is read")
    except RuntimeError as exc:
        print(exc)
    ended.set()

threading.Thread(target=take, daemon=True).start()
waiting.wait()
"""
    done = subprocess.run(
        [sys.executable, "-c", code], check=False, capture_output=True, text=True, timeout=PATIENCE
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == ["the interpreter is ending", "True"]
