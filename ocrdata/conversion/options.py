"""The settings of a conversion, validated on construction."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ocrdata.conversion.layout import Layout
from ocrdata.errors import Problems, UsageError
from ocrdata.shards.names import COMPRESSED, PLAIN
from ocrdata.storage.location import Location

KEEP, REJECT = "keep", "reject"
"""What is done with JPEGs that decode but are damaged."""


@dataclass(frozen=True)
class ConversionOptions:
    """How a source is converted to shards. `start` and `stop` are origin rows, `limit` counts from
    `start`; `compress` is None or "zstd", `damaged_jpegs` KEEP or REJECT; `command` recreates the
    set, for error messages; `far` is the URL where finished shards are sent, `out` then a folder of
    this conversion alone in which they are made; `commit_shards` is the number of shards in a
    commit to the hub; `discard` removes shards of an unfinished
    conversion that do not fit these settings."""

    out: Path
    name: str
    shard_samples: int = 1024
    start: int = 0
    stop: int | None = None
    limit: int | None = None
    workers: int = 1
    max_reject_fraction: float = 0.01
    command: str = ""
    compress: str | None = None
    discard: bool = False
    damaged_jpegs: str = KEEP
    far: Location | None = None
    commit_shards: int = 50

    @property
    def place(self) -> Location:
        """Where the set is when it is complete."""
        return self.far or Location.of(self.out)

    def __post_init__(self) -> None:
        problems = Problems()
        for fault in self._faults():
            problems.add(fault)
        problems.raise_all()

    def _faults(self) -> Iterator[str]:
        """What is wrong, a message each."""
        if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_-]*", self.name):
            yield f"--name {self.name!r}: only letters, digits, _ and - are allowed, and no - first"
        for flag, value, least in (
            ("--shard-samples", self.shard_samples, 1),
            ("--workers", self.workers, 1),
            ("--commit-shards", self.commit_shards, 1),
            ("--start", self.start, 0),
            ("--stop", self.stop, 1),
            ("--limit", self.limit, 1),
        ):
            if value is not None and value < least:
                yield f"{flag} {value}: must be {least} or more"
        if self.stop is not None and self.limit is not None:
            yield "--stop and --limit both set the end; give only one of them"
        if self.compress not in (None, "zstd"):
            yield f"--compress {self.compress}: only zstd is supported"
        if self.damaged_jpegs not in (KEEP, REJECT):
            yield f"--damaged-jpegs {self.damaged_jpegs}: must be {KEEP} or {REJECT}"
        if not 0 <= self.max_reject_fraction <= 1:
            yield f"--max-reject-fraction {self.max_reject_fraction}: must be between 0 and 1"

    def layout(self, rows: int) -> Layout:
        """The shards of a source with `rows` rows. Raises UsageError if the slice is empty."""
        stop = rows if self.stop is None else self.stop
        if self.limit is not None:
            stop = min(rows, self.start + self.limit)
        if not self.start < stop <= rows:
            raise UsageError(
                f"rows [{self.start}:{stop}]: empty or out of range; the data set has {rows:,} rows"
            )
        ending = COMPRESSED if self.compress else PLAIN
        return Layout(self.name, rows, self.start, stop, self.shard_samples, ending)
