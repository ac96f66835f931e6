"""Requests to stop a run: Ctrl-C and signals."""

from __future__ import annotations

import signal
from types import FrameType


class Interrupt:
    """Ctrl-C or SIGTERM requests a stop after the current step; a second one stops at once."""

    def __init__(self) -> None:
        self.requested = False

    def __enter__(self) -> Interrupt:
        self._before = {s: signal.signal(s, self._stop) for s in (signal.SIGINT, signal.SIGTERM)}
        return self

    def _stop(self, number: int, frame: FrameType | None) -> None:
        if self.requested:
            raise KeyboardInterrupt
        self.requested = True
        print(
            "\nstopping after this step; press Ctrl-C again to stop at once without saving",
            flush=True,
        )

    def __exit__(self, *_: object) -> None:
        for number, before in self._before.items():
            signal.signal(number, before)
