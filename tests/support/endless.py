"""A task that never ends."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

from ocrdata.runtime.processes import Report


@dataclass(frozen=True)
class Endless:
    """Holds a pipe open and reports forever."""

    pipe: str

    def begin(self) -> None:
        os.open(self.pipe, os.O_WRONLY)

    def make(self, shards: Sequence[int], report: Report) -> None:
        while True:
            report(shards)
