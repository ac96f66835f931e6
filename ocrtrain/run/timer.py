"""Where the time of a step goes, part by part, without making the program wait for the device.

On the CPU a mark is a reading of the clock. On CUDA it is an event that the GPU passes in the order
of its work, so that the times are those of the GPU; what it has not finished when a line is written
(usually the update) is counted in the next line.
"""

from __future__ import annotations

import time
from itertools import pairwise
from typing import Any

import torch

PARTS = ("data", "copy", "forward", "backward", "optimizer")
"""Waiting for the batch; waiting for its copy to the device; the loss; its gradients; clipping and
the update."""


class StepTimer:
    """Times the parts of steps."""

    def __init__(self, device: torch.device) -> None:
        self._is_cuda = device.type == "cuda"
        self._marks: list[tuple[str, Any]] = []

    def begin(self) -> None:
        """A step begins: what came since the last part belongs to none."""
        self.end("")

    def end(self, part: str) -> None:
        """A part ends, which began at the last mark."""
        if self._is_cuda:
            event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
            event.record()
            self._marks.append((part, event))
        else:
            self._marks.append((part, time.perf_counter()))

    def seconds(self) -> dict[str, float]:
        """Seconds by part, over all marks that the device has passed since the last call."""
        passed = len(self._marks)
        if self._is_cuda:
            passed = sum(event.query() for _, event in self._marks)
        found = dict.fromkeys(PARTS, 0.0)
        for (_, before), (part, now) in pairwise(self._marks[:passed]):
            if part:
                took = before.elapsed_time(now) / 1e3 if self._is_cuda else now - before
                found[part] += took
        del self._marks[: max(0, passed - 1)]  # the last one is where the next part begins
        return found
