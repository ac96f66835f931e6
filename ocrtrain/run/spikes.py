"""Spikes of the loss: steps whose loss is far above earlier ones, so that their samples are worth a
look. A step is compared only with steps of the same sources: losses of chats and of charts differ.
"""

from __future__ import annotations

import statistics
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

MEMORY = 64
"""Earlier losses of the same sources that a step is compared with."""
ENOUGH = 16
"""Earlier losses needed before a step can count as a spike."""
DEVIATIONS = 8.0
"""Robust standard deviations above the median. Losses of small batches are skewed: with 4 to 5, a
run of 1,000 steps gives false warnings."""
LEAST = 0.25
"""Least height of a spike, in nats above the median, however steady the losses are."""


class Spikes:
    """Remembers losses by the sources of their batches."""

    def __init__(self) -> None:
        self._losses: dict[tuple[str, ...], deque[float]] = {}

    def height(self, sources: Sequence[str], loss: float) -> float | None:
        """Remember a loss. If it is a spike, return its height above the median of earlier ones in
        robust standard deviations, else None."""
        key = tuple(sorted(set(sources)))
        known = self._losses.setdefault(key, deque(maxlen=MEMORY))
        found = None
        if len(known) >= ENOUGH:
            middle = statistics.median(known)
            spread = 1.4826 * statistics.median(abs(value - middle) for value in known)
            above = loss - middle
            if above > max(LEAST, DEVIATIONS * spread):
                found = above / max(spread, LEAST / DEVIATIONS)
        known.append(loss)
        return found

    def remember(self, lines: Sequence[Mapping[str, Any]]) -> None:
        """Remember the training lines of a log, when a run is resumed."""
        for line in lines:
            loss = line.get("train/loss")
            if loss is not None:
                self.height(_sources(line), float(loss))


def _sources(line: Mapping[str, Any]) -> list[str]:
    """The sources of a training line's batch: those with a positive `mix/NAME_share`."""
    return [
        name.removeprefix("mix/").removesuffix("_share")
        for name, share in line.items()
        if name.startswith("mix/") and share
    ]
