"""Progress of long work: a bar on a terminal; elsewhere lines, or nothing.

The only place that imports tqdm. `progress_bar` is a bar alone; `Progress` counts the rows and
bytes of a conversion or of the counting of tokens, and prints a line per shard without a terminal.
"""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass, field
from typing import TextIO

from tqdm import tqdm

from ocrdata.runtime.units import human_bytes


def progress_bar(
    total: int,
    unit: str,
    *,
    description: str = "",
    done: int = 0,
    delay: float = 0.0,
    stream: TextIO | None = None,
) -> tqdm[None]:
    """A bar over `total` units, `done` of them already, shown after `delay` seconds.

    A context manager with `update(count)` and `clear()` (hide it to print a line). It writes to
    `stream` (default: standard error), is removed at the end, and is silent where that is not a
    terminal. The unit "B" is scaled: kB, MB.
    """
    return tqdm(
        desc=description,
        total=total,
        initial=done,
        unit=unit,
        unit_scale=unit == "B",
        delay=delay,
        leave=False,
        file=stream or sys.stderr,
        disable=None,
    )


@dataclass
class Progress:
    """Counts what has been done and shows it on `stream`; None shows nothing.

    `rows` and `bytes` (of images and JSON) leave out what an earlier, interrupted call did.
    """

    stream: TextIO | None = None
    rows: int = 0
    bytes: int = 0
    shards: int = 0
    began: float = field(default_factory=time.monotonic)
    _bar: tqdm[None] | None = None

    @property
    def seconds(self) -> float:
        """Since `start`."""
        return time.monotonic() - self.began

    @property
    def rates(self) -> str:
        """'210 rows/s, 12.3 MB/s' since `start`."""
        seconds = max(self.seconds, 1e-9)
        return f"{self.rows / seconds:,.0f} rows/s, {human_bytes(self.bytes / seconds)}/s"

    def start(self, name: str, total: int, done: int) -> None:
        """Start the clock. `done` of `total` rows exist already."""
        self.began = time.monotonic()
        if self.stream is None:
            return
        if done:
            print(f"{name}: continuing; {done:,} of {total:,} rows exist", file=self.stream)
        if self.stream.isatty():
            self._bar = progress_bar(
                total, " rows", description=name, done=done, stream=self.stream
            )

    def advance(self, rows: int, size: int) -> None:
        """Count `rows` more rows of `size` bytes together."""
        self.rows += rows
        self.bytes += size
        if self._bar is not None:
            self._bar.update(rows)
            self._bar.set_postfix_str(self.rates, refresh=False)

    def shard_done(self, line: str) -> None:
        """Count a finished shard; without a terminal, print `line` and the rates."""
        self.shards += 1
        if self.stream is not None and self._bar is None:
            print(f"{line} ({self.rates})", file=self.stream, flush=True)

    def note(self, line: str) -> None:
        """Print a line, before `start`."""
        if self.stream is not None:
            print(line, file=self.stream, flush=True)

    def say(self, line: str) -> None:
        """Print a line, except on a terminal."""
        if self.stream is not None and not self.stream.isatty():
            print(line, file=self.stream, flush=True)

    def close(self) -> None:
        """Remove the bar. May be called twice."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None


def to_terminal() -> Progress:
    """Progress on standard error."""
    return Progress(sys.stderr)
