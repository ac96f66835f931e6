"""`batches.jsonl`: one line a step with the identity of the batch that was trained on.

With it any batch can be rebuilt and checked later (`tools/show_batch.py`). A line holds the step,
the identity and, on request, every sample by row. It holds no times, so that a run that was stopped
and resumed has the same file as one that was not.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ocrdata.errors import TrainError
from ocrtrain.data.batch_rows import BatchSummary
from ocrtrain.state.run_files import LineWriter, cut_lines, read_lines

FILE = "batches.jsonl"


class BatchLog:
    """Appends to `batches.jsonl`. With `samples`, a line lists every sample, row by row."""

    def __init__(self, run: Path, *, samples: bool) -> None:
        self._lines, self._samples = LineWriter(run / FILE), samples

    def write(self, batch: BatchSummary) -> str:
        """Write the line of a step; returns the batch's identity."""
        identity = batch.identity
        line: dict[str, Any] = {"step": batch.step, "identity": identity}
        if self._samples:
            line["rows"] = [
                [[segment.source, segment.ref.shard, segment.ref.key] for segment in row.segments]
                for row in batch.rows
            ]
        self._lines.write(line)
        return identity

    def sync(self) -> None:
        """Make the lines so far durable."""
        self._lines.sync()

    def close(self) -> None:
        """Close the file."""
        self._lines.close()


def cut_back(run: Path, step: int) -> None:
    """Drop the lines from `step` on, which a resumed run will write again."""
    cut_lines(run / FILE, lambda line: bool(line["step"] < step))


def identity_at(run: Path, step: int) -> str:
    """The identity a run recorded for a step, "" if it did not get there. Raises TrainError for a
    damaged file."""
    for number, value in _lines(run / FILE):
        if value["step"] == step:
            return str(value["identity"])
        if value["step"] > step:
            raise TrainError(
                f"{run / FILE}: line {number} is of step {value['step']}, but step {step} is "
                "missing; lines were removed after they were written"
            )
    return ""


def newest(run: Path) -> tuple[int, str] | None:
    """The last recorded step and its identity; None before the first. Raises like `identity_at`."""
    last = None
    for _, value in _lines(run / FILE):
        last = value["step"], str(value["identity"])
    return last


def _lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """The numbers and values of the complete lines."""
    if not path.exists():
        return
    for number, line in enumerate(read_lines(path), start=1):
        if not isinstance(line.get("identity"), str):
            raise TrainError(
                f"{path}: line {number} has no valid identity; the file was modified or corrupted "
                "after it was written"
            )
        yield number, line
