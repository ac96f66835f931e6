"""Prefetching: every result at its own step, whatever the number of workers."""

import threading
from collections.abc import Callable
from functools import partial

import pytest

from ocrdata.errors import OcrError
from ocrdata.reading.prefetch import Assembly, Prefetcher, whole


@pytest.mark.parametrize("workers", [0, 1, 2, 3, 8])
@pytest.mark.parametrize(("start", "stop"), [(0, 20), (7, 20), (19, 20), (20, 20)])
def test_results_come_in_order_for_any_number_of_workers(
    workers: int, start: int, stop: int
) -> None:
    with Prefetcher(whole(lambda step: step * step), start, stop=stop, workers=workers) as loader:
        assert list(loader) == [step * step for step in range(start, stop)]
        assert loader.waited >= 0


def test_later_steps_wait_for_a_slow_step() -> None:
    gate = threading.Event()

    def make(step: int) -> int:
        if step == 0:
            assert gate.wait(10)
        if step == 2:
            gate.set()
        return step

    with Prefetcher(whole(make), 0, stop=6, workers=2) as loader:
        assert list(loader) == list(range(6))


def test_at_most_ahead_results_are_computed_in_advance() -> None:
    made: list[int] = []
    lock = threading.Lock()

    def make(step: int) -> int:
        with lock:
            made.append(step)
        return step

    with Prefetcher(whole(make), 0, stop=1000, workers=2, ahead=3) as loader:
        assert next(loader) == 0
    # One was returned; three more may be in flight.
    assert max(made) <= 3


def failing_at(step: int) -> Callable[[int], int]:
    def make(number: int) -> int:
        if number == step:
            raise OcrError(f"step {number} failed")
        return number

    return make


@pytest.mark.parametrize("workers", [0, 2])
def test_error_is_raised_at_its_own_step(workers: int) -> None:
    with Prefetcher(whole(failing_at(5)), 0, stop=9, workers=workers) as loader:
        assert [next(loader) for _ in range(5)] == list(range(5))
        for _ in range(2):  # a retry fails again: no step is ever skipped
            with pytest.raises(OcrError, match="step 5 failed"):
                next(loader)
            assert loader.step == 5
    with pytest.raises(ValueError, match="step 5"):
        next(loader)


def test_interrupt_does_not_wait_for_a_batch() -> None:
    begun, gate = threading.Event(), threading.Event()

    def make(step: int) -> int:
        begun.set()
        assert gate.wait(60)
        return step

    with pytest.raises(KeyboardInterrupt), Prefetcher(whole(make), 0, stop=9, workers=2):
        begun.wait(10)
        raise KeyboardInterrupt
    gate.set()  # only now can the workers end


def test_close_ends_the_threads() -> None:
    before = threading.active_count()
    loader = Prefetcher(whole(failing_at(-1)), 0, stop=100, workers=4)
    next(loader)
    assert threading.active_count() > before
    loader.close()
    loader.close()
    assert threading.active_count() == before


@pytest.mark.parametrize("workers", [0, 1, 2, 5])
@pytest.mark.parametrize("parts", [0, 1, 2, 7])
def test_parts_are_joined_in_order(workers: int, parts: int) -> None:
    def split(step: int) -> Assembly[str, list[str]]:
        return Assembly([partial(f"{step}.{{}}".format, part) for part in range(parts)], list)

    with Prefetcher(split, 0, stop=9, workers=workers) as loader:
        assert list(loader) == [[f"{step}.{part}" for part in range(parts)] for step in range(9)]


@pytest.mark.parametrize("workers", [2, 4])
def test_workers_make_the_parts_of_one_item_together(workers: int) -> None:
    together = threading.Barrier(workers, timeout=30)  # breaks unless all are in it at once

    def split(step: int) -> Assembly[int, int]:
        return Assembly([together.wait] * workers, lambda turns: step + len(turns))

    with Prefetcher(split, 0, stop=3, workers=workers) as loader:
        assert list(loader) == [workers, workers + 1, workers + 2]


def test_nobody_begins_a_step_before_the_parts_of_earlier_ones_are_taken() -> None:
    begun: list[tuple[int, int]] = []

    def split(step: int) -> Assembly[None, int]:
        return Assembly([partial(begun.append, (step, part)) for part in range(3)], len)

    with Prefetcher(split, 0, stop=20, workers=1, ahead=8) as loader:
        assert list(loader) == [3] * 20
    assert begun == [(step, part) for step in range(20) for part in range(3)]


def test_the_error_is_that_of_the_first_part_that_fails() -> None:
    later_failed, made = threading.Event(), list[int]()

    def part(number: int) -> int:
        made.append(number)
        if number == 0:
            assert later_failed.wait(30)
            raise OcrError("part 0 failed")
        if number == 1:
            later_failed.set()
            raise OcrError("part 1 failed")
        return number

    def split(step: int) -> Assembly[int, int]:
        return Assembly([partial(part, number) for number in range(50)], len)

    with Prefetcher(split, 0, stop=1, workers=2) as loader:
        for _ in range(2):
            with pytest.raises(OcrError, match="part 0 failed"):
                next(loader)
    assert sorted(made) == [0, 1]  # after a failure no other part is begun


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("where", ["split", "join"])
def test_an_error_beside_the_parts_is_raised_at_its_own_step(workers: int, where: str) -> None:
    def fail(*_: object) -> int:
        raise OcrError("step 2 failed")

    def split(step: int) -> Assembly[int, int]:
        if step == 2 and where == "split":
            fail()
        return Assembly([lambda: step] * 3, fail if step == 2 else sum)

    with Prefetcher(split, 0, stop=4, workers=workers) as loader:
        assert [next(loader), next(loader)] == [0, 3]
        for _ in range(2):
            with pytest.raises(OcrError, match="step 2 failed"):
                next(loader)
            assert loader.step == 2
