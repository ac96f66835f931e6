"""The times of a step's parts."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch

from ocrtrain.run import timer as module
from ocrtrain.run.timer import PARTS, StepTimer


def test_parts_of_several_stretches_add_up(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = itertools.accumulate([10.0, 1, 2, 3, 4, 5, 100, 7])
    monkeypatch.setattr(module.time, "perf_counter", lambda: next(clock))
    timer = StepTimer(torch.device("cpu"))
    timer.begin()
    for part in ("data", "forward", "backward", "forward", "optimizer"):
        timer.end(part)
    found = timer.seconds()
    assert found == {"data": 1, "copy": 0, "forward": 2 + 4, "backward": 3, "optimizer": 5}
    assert tuple(found) == PARTS
    timer.begin()  # the 100 s since the last part belong to none
    timer.end("data")
    assert timer.seconds() == dict.fromkeys(PARTS, 0) | {"data": 7}


class Gpu:
    """Events that a GPU passes when told to, one a second of its time."""

    def __init__(self) -> None:
        self.recorded, self.passed = 0, 0

    def event(self, *, enable_timing: bool) -> Any:
        gpu = self
        assert enable_timing

        class Event:
            def record(self) -> None:
                self.number = gpu.recorded
                gpu.recorded += 1

            def query(self) -> bool:
                return self.number < gpu.passed

            def elapsed_time(self, end: Any) -> float:
                assert self.query() and end.query(), "it would wait for the device"
                return 1000.0 * (end.number - self.number)

        return Event()


def test_what_the_gpu_has_not_finished_is_counted_later(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = Gpu()
    monkeypatch.setattr(torch.cuda, "Event", gpu.event)
    timer = StepTimer(torch.device("cuda"))
    timer.begin()
    for part in ("data", "forward", "backward", "optimizer"):
        timer.end(part)
    gpu.passed = 4
    first = timer.seconds()
    assert first == dict.fromkeys(PARTS, 0) | {"data": 1, "forward": 1, "backward": 1}
    timer.begin()
    timer.end("data")
    gpu.passed = 7
    assert timer.seconds() == dict.fromkeys(PARTS, 0) | {"optimizer": 1, "data": 1}
    assert timer.seconds() == dict.fromkeys(PARTS, 0)
