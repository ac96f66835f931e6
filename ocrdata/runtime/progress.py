"""What a conversion or the counting of tokens shows while it runs: a bar on a terminal, lines
elsewhere."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass, field
from typing import TextIO

from tqdm import tqdm

from ocrdata.runtime.units import human_bytes


@dataclass
class Progress:
    """Counts what is made, and shows it on `stream`; None shows nothing.

    `rows` and `bytes` (of images and JSON) are those of this run alone.
    """

    stream: TextIO | None = None
    rows: int = 0
    bytes: int = 0
    shards: int = 0
    began: float = field(default_factory=time.monotonic)
    _bar: tqdm[None] | None = None

    @property
    def seconds(self) -> float:
        """Since the beginning."""
        return time.monotonic() - self.began

    @property
    def rates(self) -> str:
        """'210 rows/s, 12.3 MB/s', of this run."""
        seconds = max(self.seconds, 1e-9)
        return f"{self.rows / seconds:,.0f} rows/s, {human_bytes(self.bytes / seconds)}/s"

    def start(self, name: str, total: int, done: int) -> None:
        """`total` rows are to be there in the end, `done` are there already."""
        self.began = time.monotonic()
        if self.stream is None:
            return
        if done:
            print(f"{name}: {done:,} of {total:,} rows are there, going on", file=self.stream)
        if self.stream.isatty():
            self._bar = tqdm(
                desc=name, total=total, initial=done, unit=" rows", file=self.stream, leave=False
            )

    def advance(self, rows: int, size: int) -> None:
        """So many more rows, of so many bytes."""
        self.rows += rows
        self.bytes += size
        if self._bar is not None:
            self._bar.update(rows)
            self._bar.set_postfix_str(self.rates, refresh=False)

    def shard_done(self, line: str) -> None:
        """One more shard has its final name."""
        self.shards += 1
        if self.stream is not None and self._bar is None:
            print(f"{line} ({self.rates})", file=self.stream, flush=True)

    def say(self, line: str) -> None:
        """One line, where there is no terminal that had a bar."""
        if self.stream is not None and not self.stream.isatty():
            print(line, file=self.stream, flush=True)

    def close(self) -> None:
        """Take the bar away."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None


def to_terminal() -> Progress:
    """Progress on standard error."""
    return Progress(sys.stderr)
