"""A source for tests of the conversion: small rows, some of them invalid, and a log of reads."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

from ocrdata.errors import RejectedRow, SourceError
from ocrdata.sample import Sample, from_turns


def square(colour: str, size: tuple[int, int] = (40, 30)) -> bytes:
    """A PNG of one colour, without torch: worker processes import this file."""
    buffer = io.BytesIO()
    Image.new("RGB", size, colour).save(buffer, "PNG")
    return buffer.getvalue()


RED = square("red")


@dataclass
class Numbered:
    """`total` rows; those in `bad` are rejected, in one of four ways; reading row `breaks_at`
    raises SourceError. If `log` is given, the range of every call of `rows` is appended to it."""

    total: int
    bad: frozenset[int] = frozenset()
    breaks_at: int = -1
    log: Path | None = None
    salt: str = ""
    name: str = "numbered"
    bytes_each: int = 0
    extra: Mapping[str, Any] = field(default_factory=dict)

    @property
    def provenance(self) -> dict[str, Any]:
        return {"format": "numbered", "salt": self.salt, "licence": "none", **self.extra}

    def count(self) -> int:
        return self.total

    def size(self, start: int, stop: int) -> int:
        return (stop - start) * self.bytes_each

    def rows(self, start: int, stop: int) -> Iterator[tuple[int, Sample | RejectedRow]]:
        if self.log is not None:
            with self.log.open("a") as file:
                file.write(f"{start} {stop}\n")
        for row in range(start, stop):
            if row == self.breaks_at:
                raise SourceError("the hub does not deliver")
            yield row, self._row(row)

    def _row(self, row: int) -> Sample | RejectedRow:
        if row in self.bad:
            return [
                RejectedRow(f"row {row} is bad"),
                from_turns([("q", "")], [], source="", meta={}),
                from_turns([("q", "a")], [b"no image"], source="", meta={}),
                from_turns([("q", "\ud83d")], [], source="", meta={}),
            ][row % 4]
        images = [RED] * (row % 3)
        turns = [(f"question {row}{self.salt}", f"answer {row}")] * (1 + row % 2)
        return from_turns(turns, images, source="numbered", meta={"row": row})


def reads(log: Path) -> list[tuple[int, int]]:
    """The ranges that were read, sorted."""
    lines = log.read_text().splitlines() if log.exists() else []
    return sorted((int(line.split()[0]), int(line.split()[1])) for line in lines)
