"""Spikes of the loss: steps whose loss is far above those before, worth a look at their samples.

Owner of the rule. Sources are judged apart: a batch of chats has another loss than one of charts.
"""

from __future__ import annotations

import statistics
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

MEMORY = 64
"""Earlier losses of the same sources that a step is compared with."""
ENOUGH = 16
"""Losses that must be known before anything is called a spike."""
DEVIATIONS = 8.0
"""Robust standard deviations above the median. Losses of small batches are skewed: at 4 to 5 a run
of 1,000 steps warns of what is nothing."""
LEAST = 0.25
"""Nats above the median that a spike has at least, however quiet the losses are."""


class Spikes:
    """Remembers losses by the sources of their batches."""

    def __init__(self) -> None:
        self._losses: dict[tuple[str, ...], deque[float]] = {}

    def height(self, sources: Sequence[str], loss: float) -> float | None:
        """How many robust deviations a loss is above the earlier ones, where that is a spike; else
        None. The loss is remembered."""
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
        """Take in the training lines of a log, as a resumed run does."""
        for line in lines:
            loss = line.get("train/loss")
            if loss is not None:
                self.height(_sources(line), float(loss))


def _sources(line: Mapping[str, Any]) -> list[str]:
    """The sources a training line's batch came from, by its shares."""
    return [
        name.removeprefix("mix/").removesuffix("_share")
        for name, share in line.items()
        if name.startswith("mix/") and share
    ]
