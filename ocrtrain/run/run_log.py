"""Where the numbers of a run are written: `metrics.jsonl`, and the sinks of --log-to.

`metrics.jsonl` is authoritative: one JSON object a line, `step` first. Values that are not finite
are null in it, since JSON has no NaN, and left out elsewhere.
"""

from __future__ import annotations

import math
from pathlib import Path

from ocrdata.errors import TrainError
from ocrtrain.run.sinks import Sinks
from ocrtrain.settings.config import Config
from ocrtrain.state.run_files import Line, LineWriter, cut_lines, read_lines

FILE = "metrics.jsonl"

Values = dict[str, float]


class RunLog:
    """Appends to `metrics.jsonl` of a run folder, and to the sinks of --log-to.

    `step` is the optimizer step the values belong to, from 0; a validation at step N is of the
    weights before step N.
    """

    def __init__(self, run: Path, config: Config, *, step: int = 0, wandb_id: str = "") -> None:
        """Open them, to go on at `step`."""
        self._lines = LineWriter(run / FILE)
        try:
            self._sinks = Sinks(run, config, step=step, wandb_id=wandb_id)
        except BaseException:
            self._lines.close()
            raise
        self.wandb_id = self._sinks.wandb_id

    def write(self, step: int, values: Values) -> None:
        """Log `values` of `step`. Numbers that are not finite are written as null."""
        self._lines.write({"step": step} | {k: _finite(v) for k, v in values.items()})
        self._sinks.write(step, {k: v for k, v in values.items() if math.isfinite(v)})

    def sync(self) -> None:
        """Make the lines so far durable: a checkpoint must not be ahead of its log."""
        self._lines.sync()

    def close(self, *, failed: bool = False) -> None:
        """Close the file and the sinks, which are told whether the run failed."""
        self._lines.close()
        self._sinks.close(failed=failed)


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def cut_back(run: Path, step: int) -> None:
    """Drop the lines that a run resumed at `step` will write again.

    These are training lines from `step` on, lines about states (validated, saved) after it, and an
    incomplete last line. At step 0 there is no checkpoint, so everything is dropped.
    """

    def keep(line: Line) -> bool:
        is_of_step = any(name.startswith("train/") for name in line)
        return bool(line["step"] < step or (not is_of_step and line["step"] == step > 0))

    cut_lines(run / FILE, keep)


def read(run: Path) -> list[Line]:
    """All lines of a run's `metrics.jsonl`. Raises TrainError for a damaged one."""
    path = run / FILE
    try:
        return list(read_lines(path))
    except OSError as exc:
        raise TrainError(f"{path}: cannot be read: {exc.strerror}") from exc
