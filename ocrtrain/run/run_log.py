"""Where the numbers of a run are written: `metrics.jsonl`, and Weights & Biases.

`metrics.jsonl` is authoritative: one JSON object a line, `step` first. Weights & Biases gets the
same values. Values that are not finite are null in the file, since JSON has no NaN.
"""

from __future__ import annotations

import math
import netrc
import os
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ocrdata.errors import TrainError, UsageError, first_line
from ocrtrain.settings.config import Config, to_json
from ocrtrain.state.run_files import Line, LineWriter, cut_lines, read_lines

FILE = "metrics.jsonl"

Values = dict[str, float]


class RunLog:
    """Appends to `metrics.jsonl` of a run folder, and to W&B if it is on.

    `step` is the optimizer step the values belong to, from 0; a validation at step N is of the
    weights before step N.
    """

    def __init__(self, run: Path, config: Config, *, wandb_id: str = "") -> None:
        self._lines = LineWriter(run / FILE)
        try:
            self._wandb = _start_wandb(run, config, wandb_id)
        except BaseException:
            self._lines.close()
            raise
        self.wandb_id: str = self._wandb.id if self._wandb is not None else wandb_id

    def write(self, step: int, values: Values) -> None:
        """Log `values` of `step`. Numbers that are not finite are written as null."""
        self._lines.write({"step": step} | {k: _finite(v) for k, v in values.items()})
        if self._wandb is not None:
            self._wandb.log(values, step=step)

    def sync(self) -> None:
        """Make the lines so far durable: a checkpoint must not be ahead of its log."""
        self._lines.sync()

    def close(self, *, failed: bool = False) -> None:
        """Close the file and end the W&B run."""
        self._lines.close()
        if self._wandb is not None:
            self._wandb.finish(exit_code=int(failed))


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


def _start_wandb(run: Path, config: Config, run_id: str) -> Any:
    """Start a W&B run, or return None if it is off. Without a key, "auto" runs offline; W&B never
    prompts for one."""
    if config.wandb == "off":
        return None
    import wandb

    online = config.wandb == "online" or (config.wandb == "auto" and _has_key())
    if online and not _has_key():
        raise UsageError("--wandb online needs an API key: set WANDB_API_KEY or run `wandb login`")
    try:
        return wandb.init(
            project=config.wandb_project,
            name=config.name,
            id=run_id or None,
            resume="allow" if run_id else None,
            mode="online" if online else "offline",
            dir=str(run),
            config=to_json(config),
            settings=wandb.Settings(silent=True, console="off"),
        )
    except wandb.Error as exc:
        raise TrainError(
            f"Weights & Biases did not start: {first_line(exc)}; try --wandb offline"
        ) from exc


def _has_key() -> bool:
    """Whether W&B has an API key: in the environment, or in the netrc file, where `wandb login`
    stores it."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    host = urlsplit(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")).hostname or ""
    path = Path(os.environ.get("NETRC", "~/.netrc")).expanduser()
    try:
        return netrc.netrc(path).authenticators(host) is not None
    except (OSError, netrc.NetrcParseError):
        return False
