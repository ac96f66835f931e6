"""Requests to stop a run: Ctrl-C, SIGTERM, and SIGUSR1, with which Slurm warns of the end of a job
(`--signal=USR1@60`).
"""

from __future__ import annotations

import os
import signal
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)


class StopRequested(Exception):
    """Breaks off what a stopping run does not wait for."""


class Interrupt:
    """The first signal requests a stop: the step that is trained is finished, a validation is
    broken off, and the run saves. A Ctrl-C after it stops at once; any other signal is only the
    same request again, as torchrun and schedulers send several."""

    def __init__(self) -> None:
        self.requested = False

    def __enter__(self) -> Interrupt:
        self._before = {number: signal.signal(number, self._stop) for number in SIGNALS}
        return self

    def _stop(self, number: int, frame: FrameType | None) -> None:
        if not self.requested:
            self.requested = True
            # Not `print`: the signal may have come while a line was being printed.
            os.write(2, b"\nsaving and stopping; press Ctrl-C to stop at once without saving\n")
        elif number == signal.SIGINT:
            raise KeyboardInterrupt

    def __exit__(self, *_: object) -> None:
        for number, before in self._before.items():
            signal.signal(number, before)
