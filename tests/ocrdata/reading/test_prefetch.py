"""Prefetching: every result at its own step, whatever the number of workers."""

import threading
from collections.abc import Callable

import pytest

from ocrdata.errors import OcrError
from ocrdata.reading.prefetch import Prefetcher


@pytest.mark.parametrize("workers", [0, 1, 2, 3, 8])
@pytest.mark.parametrize(("start", "stop"), [(0, 20), (7, 20), (19, 20), (20, 20)])
def test_results_come_in_order_for_any_number_of_workers(
    workers: int, start: int, stop: int
) -> None:
    with Prefetcher(lambda step: step * step, start, stop=stop, workers=workers) as loader:
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

    with Prefetcher(make, 0, stop=6, workers=2) as loader:
        assert list(loader) == list(range(6))


def test_at_most_ahead_results_are_computed_in_advance() -> None:
    made: list[int] = []
    lock = threading.Lock()

    def make(step: int) -> int:
        with lock:
            made.append(step)
        return step

    with Prefetcher(make, 0, stop=1000, workers=2, ahead=3) as loader:
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
    with Prefetcher(failing_at(5), 0, stop=9, workers=workers) as loader:
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

    with pytest.raises(KeyboardInterrupt), Prefetcher(make, 0, stop=9, workers=2):
        begun.wait(10)
        raise KeyboardInterrupt
    gate.set()  # only now can the workers end


def test_close_ends_the_threads() -> None:
    before = threading.active_count()
    loader = Prefetcher(failing_at(-1), 0, stop=100, workers=4)
    next(loader)
    assert threading.active_count() > before
    loader.close()
    loader.close()
    assert threading.active_count() == before
