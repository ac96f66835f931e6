"""Where the numbers of a run go beside `metrics.jsonl`: --log-to wandb, tensorboard, trackio.

A sink is a library of others, with processes and threads of its own. Whatever happens to it costs a
warning, and never the run: training goes on without it.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Protocol

from ocrdata.errors import Problems, first_line
from ocrtrain.run.tensorboard_sink import TensorBoardSink
from ocrtrain.run.trackio_sink import TrackioSink
from ocrtrain.run.wandb_sink import WandbSink, asked_mode, wandb_mode
from ocrtrain.settings.config import Config

Values = Mapping[str, float]


class Sink(Protocol):
    """Takes the numbers of a run. It may raise anything."""

    def write(self, step: int, values: Values) -> None:
        """Log `values`, which are finite, of `step`."""

    def close(self, *, failed: bool) -> None:
        """End the record; `failed` if the run ended by an error."""


_MODULES = {"wandb": "wandb", "tensorboard": "tensorboard", "trackio": "trackio"}


def chosen_sinks(config: Config) -> list[str]:
    """The names of --log-to, each once; not wandb with --wandb off or WANDB_MODE=disabled, which
    need no such package. Raises UsageError for an unknown WANDB_MODE."""
    names = list(dict.fromkeys(config.log_to))
    if "wandb" in names and asked_mode(config)[0] == "disabled":
        names.remove("wandb")
    return names


def check_sinks(names: Iterable[str]) -> None:
    """Raise UsageError for each sink whose package is not installed, before anything is done."""
    problems = Problems()
    for name in names:
        if importlib.util.find_spec(_MODULES[name]) is None:
            problems.add(
                f"--log-to {name}: the package {_MODULES[name]} is not installed; "
                f"pip install {_MODULES[name]}"
            )
    problems.raise_all()


class Sinks:
    """The sinks of a run. `wandb_id` is the id of its W&B run, "" without one."""

    def __init__(self, run: Path, config: Config, *, step: int, wandb_id: str = "") -> None:
        """Open them to go on at `step`. Raises what keeps one from starting, as OcrError."""
        self.wandb_id = wandb_id
        self._open: dict[str, Sink] = {}
        try:
            for name in chosen_sinks(config):
                self._open[name] = self._start(name, run, config, step)
        except BaseException:
            self.close(failed=True)
            raise

    def _start(self, name: str, run: Path, config: Config, step: int) -> Sink:
        if name == "tensorboard":
            return TensorBoardSink(run, step=step)
        if name == "trackio":
            return TrackioSink(run, config)
        sink = WandbSink(run, config, mode=wandb_mode(config), run_id=self.wandb_id)
        self.wandb_id = sink.id
        return sink

    def write(self, step: int, values: Values) -> None:
        """Log `values`, which are finite, of `step`."""
        for name, sink in list(self._open.items()):
            self._try(name, lambda sink=sink: sink.write(step, values))  # type: ignore[misc]

    def close(self, *, failed: bool) -> None:
        """End the records; `failed` if the run ended by an error."""
        for name, sink in list(self._open.items()):
            self._try(name, lambda sink=sink: sink.close(failed=failed))  # type: ignore[misc]
        self._open = {}

    def _try(self, name: str, work: Callable[[], None]) -> None:
        try:
            work()
        except Exception as exc:
            self._open.pop(name, None)
            print(
                f"WARNING: --log-to {name} gave up: {type(exc).__name__}: {first_line(exc)}; "
                "metrics.jsonl has every number",
                flush=True,
            )
