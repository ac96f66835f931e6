"""The event files, read back by TensorBoard."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ocrtrain.run.tensorboard_sink import FOLDER, TensorBoardSink


def curve(run: Path, name: str) -> list[tuple[int, float]]:
    accumulator: Any = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    events = accumulator.EventAccumulator(str(run / FOLDER))
    events.Reload()
    return [(event.step, event.value) for event in events.Scalars(name)]


def test_a_resumed_run_takes_the_place_of_the_steps_it_trains_again(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    first = TensorBoardSink(tmp_path, step=0)
    for step in range(5):
        first.write(step, {"train/loss": 8.0 - step, "train/lr": 0.5})
    first.close(failed=True)
    resumed = TensorBoardSink(tmp_path, step=3)
    for step in range(3, 6):
        resumed.write(step, {"train/loss": 0.25 * step})
    resumed.close(failed=False)
    assert curve(tmp_path, "train/loss") == [
        (0, 8.0), (1, 7.0), (2, 6.0), (3, 0.75), (4, 1.0), (5, 1.25),
    ]  # fmt: skip
