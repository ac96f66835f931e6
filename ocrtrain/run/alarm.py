"""Whether a run has trained long enough to be told that its model does not look at the images.

A model begins by learning which answers are common; until then it ignores the images in every
healthy run. So a warning needs enough answers about images, and a loss that has levelled off. Both
are taken from the lines of the log, so that a resumed run goes on counting.
"""

from __future__ import annotations

import math
import statistics
from collections import deque
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

ENOUGH_ANSWERS = 200
"""Answers about images that a model must have been trained on."""

HALF = 20
"""Steps with images in each of the two halves of the losses that are compared."""

LEAST_FALL = 0.02
"""A loss that falls by less than this fraction from one half to the next has levelled off; so has
one whose fall cannot be told from noise (two standard errors)."""


class Level(NamedTuple):
    """A loss that has levelled off: its means over the first and the second `HALF` of the last
    steps with images, and the answers about images so far, at the least."""

    before: float
    now: float
    answers: int

    def __str__(self) -> str:
        return (
            f"trained on {self.answers} answers about images or more; its loss has levelled off, "
            f"{self.now:.4f} over the last {HALF} steps with images, {self.before:.4f} over the "
            f"{HALF} before"
        )


class LossCurve:
    """Remembers the training losses of steps with images."""

    def __init__(self) -> None:
        self.answers = 0
        self._losses: deque[float] = deque(maxlen=2 * HALF)

    def add(self, line: Mapping[str, Any]) -> None:
        """Remember a line of the log; one without a loss, or of a step without images, is ignored.

        Logs of older versions do not count answers: an image stands for one.
        """
        loss, images = line.get("train/loss"), line.get("train/images")
        if loss is None or not images or not math.isfinite(loss):
            return
        self._losses.append(loss)
        self.answers += int(line.get("train/image_samples", images))

    def remember(self, lines: Iterable[Mapping[str, Any]]) -> None:
        """Remember a log, when a run is resumed."""
        for line in lines:
            self.add(line)

    def level(self) -> Level | None:
        """What a warning says of it; None while it is too early for one."""
        if self.answers < ENOUGH_ANSWERS or len(self._losses) < 2 * HALF:
            return None
        losses = list(self._losses)
        halves = losses[:HALF], losses[HALF:]
        before, now = map(statistics.fmean, halves)
        error = math.sqrt(sum(statistics.variance(half) for half in halves) / HALF)
        if before - now > max(LEAST_FALL * before, 2 * error):
            return None
        return Level(before, now, self.answers)
