"""What a run prints while it trains: a line every --log-every steps, and a bar in between.

In: the batch and the metrics of each step. Out: lines on standard output and, where standard error
is a terminal, a bar on it. Every step is in `metrics.jsonl`; a line covers the steps since the last
one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from ocrdata.runtime.progress import progress_bar
from ocrdata.runtime.units import human_time
from ocrtrain.settings.config import Config

Values = dict[str, float]


@dataclass
class _Sums:
    """Sums over the steps of a line. `losses` has, by source, the loss summed over supervised
    tokens, and their number."""

    steps: int = 0
    seconds: float = 0.0
    wait: float = 0.0
    tokens: float = 0.0
    mfu_seconds: float | None = None
    losses: dict[str, tuple[float, float]] = field(default_factory=dict)

    def add(self, sources: Sequence[str], values: Values) -> None:
        """Add a step whose batch has rows of `sources`."""
        seconds = values["train/dt"]
        self.steps += 1
        self.seconds += seconds
        self.wait += values["train/wait"]
        self.tokens += values["train/tokens"]
        if "train/mfu" in values:
            self.mfu_seconds = (self.mfu_seconds or 0.0) + values["train/mfu"] * seconds
        for source in sources:
            total, count = self.losses.get(source, (0.0, 0.0))
            more = values[f"train/{source}_supervised"]
            if more:
                total += values[f"train/{source}_loss"] * more
            self.losses[source] = (total, count + more)

    def losses_text(self) -> str:
        """'charts 1.9321, sums 0.8000': nats per supervised token, by source."""
        return ", ".join(
            f"{source} {total / count:.4f}" if count else f"{source} -"
            for source, (total, count) in self.losses.items()
        )


class Console:
    """Prints the progress of a run from step `done` on. A context manager, which owns the bar."""

    def __init__(self, config: Config, *, done: int) -> None:
        self._steps, self._every = config.steps, config.log_every
        self._sums = _Sums()
        self._last = (done, math.nan, 0.0)
        self._bar = progress_bar(config.steps, " steps", done=done)

    def __enter__(self) -> Console:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def say(self, text: str) -> None:
        """Print a text; the bar makes room for it."""
        self._bar.clear()
        print(text, flush=True)

    def step(self, number: int, sources: Sequence[str], values: Values, *, eta: float) -> None:
        """Count a step, whose batch has rows of `sources`: print a line if one is due (step 0,
        every --log-every steps, the last)."""
        self._sums.add(sources, values)
        self._last = (number, values["train/lr"], eta)
        self._bar.set_postfix_str(_one("+".join(sources), values), refresh=False)
        self._bar.update(1)
        if number % self._every == 0 or number == self._steps - 1:
            self.flush()

    def flush(self) -> None:
        """Print a line for the steps that have none yet."""
        if self._sums.steps:
            self.say(line(*self._last, sums=self._sums, steps=self._steps))
            self._sums = _Sums()

    def close(self) -> None:
        """Print what is left, and remove the bar. May be called twice."""
        self.flush()
        self._bar.close()


def _one(source: str, values: Values) -> str:
    loss = values["train/loss"]
    return source if math.isnan(loss) else f"{source} {loss:.4f}"


def line(step: int, rate: float, eta: float, *, sums: _Sums, steps: int) -> str:
    """The line of the steps up to `step`: losses by source, rate, seconds a step, tokens a second,
    MFU where it is known, and the time left."""
    parts = [
        f"step {step:>{len(str(steps))}}/{steps}",
        f"loss {sums.losses_text()}",
        f"lr {rate:.1e}",
        f"{sums.seconds / sums.steps:.3f} s/step",
        f"wait {sums.wait / sums.steps:.3f} s",
        f"{sums.tokens / sums.seconds:,.0f} tok/s",
        *(() if sums.mfu_seconds is None else (f"mfu {sums.mfu_seconds / sums.seconds:.1%}",)),
        f"eta {human_time(eta)}",
    ]
    return " | ".join(parts)
