"""TensorBoard: event files in `tensorboard/` of the run folder (`tensorboard --logdir RUN`).

A resumed run writes a new event file; TensorBoard drops what older ones have from its first step
on. No process and no network.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

FOLDER = "tensorboard"


class TensorBoardSink:
    """Writes scalars to event files."""

    def __init__(self, run: Path, *, step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        # purge_step: what a resumed run writes again takes the place of what it wrote before.
        self._writer: Any = SummaryWriter(str(run / FOLDER), purge_step=step or None)

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Add a point to the curve of each number."""
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def close(self, *, failed: bool) -> None:
        """Write what is left. Event files do not say how a run ended."""
        self._writer.close()
