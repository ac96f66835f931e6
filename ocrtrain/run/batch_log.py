"""The record of batches: `batches.jsonl`, a line a step with the identity of what was trained on.

Owner of what a run writes so that any batch can be checked later (`tools/show_batch.py` rebuilds
it): the step, the identity, and, where asked for, every sample by row. It holds no times, so that
a run that was stopped and resumed has the same file as one that was not.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ocrdata.errors import TrainError
from ocrtrain.data.batch import Batch
from ocrtrain.state.run_files import LineWriter, cut_lines, read_lines

FILE = "batches.jsonl"


class BatchLog:
    """Appends to `batches.jsonl`. With `samples` a line names every sample, row by row."""

    def __init__(self, run: Path, *, samples: bool) -> None:
        self._lines, self._samples = LineWriter(run / FILE), samples

    def write(self, batch: Batch) -> str:
        """Write the line of a step; the batch's identity."""
        identity = batch.identity
        line: dict[str, Any] = {"step": batch.step, "identity": identity}
        if self._samples:
            line["rows"] = [
                [[part.source, part.ref.shard, part.ref.key] for part in row.segments]
                for row in batch.rows
            ]
        self._lines.write(line)
        return identity

    def sync(self) -> None:
        """Make the lines so far durable."""
        self._lines.sync()

    def close(self) -> None:
        """End the file."""
        self._lines.close()


def cut_back(run: Path, step: int) -> None:
    """Drop the lines of steps from `step` on, which a resumed run will write again."""
    cut_lines(run / FILE, lambda line: bool(line["step"] < step))


def identity_at(run: Path, step: int) -> str:
    """The identity a run recorded for a step; "" where it never came to it. Raises TrainError for
    a file that is not ours."""
    for number, value in _lines(run / FILE):
        if value["step"] == step:
            return str(value["identity"])
        if value["step"] > step:
            raise TrainError(
                f"{run / FILE}: line {number} is of step {value['step']} and none before it of "
                f"step {step}: lines were taken out after they were written"
            )
    return ""


def newest(run: Path) -> tuple[int, str] | None:
    """The last step a run recorded, and its identity; None before the first. Raises as above."""
    last = None
    for _, value in _lines(run / FILE):
        last = value["step"], str(value["identity"])
    return last


def _lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """The numbers and values of the lines that are whole."""
    if not path.exists():
        return
    for number, line in enumerate(read_lines(path), start=1):
        if not isinstance(line.get("identity"), str):
            raise TrainError(f"{path}: line {number} was damaged after it was written")
        yield number, line
