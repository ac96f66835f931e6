"""A whole number or a span of them as a flag's value: `16`, `12..24`."""

from __future__ import annotations

import re
from dataclasses import dataclass

from ocrdata.errors import UsageError


@dataclass(frozen=True)
class Span:
    """The whole numbers from `low` to `high`, both included."""

    low: int
    high: int

    @classmethod
    def of(cls, flag: str, text: str, least: int, most: int) -> Span:
        """The span that a flag's value stands for. Raises UsageError, naming the flag: not a
        number or LOW..HIGH, upside down, or not within `least` to `most`."""
        found = re.fullmatch(r"(\d{1,9})(?:\.\.(\d{1,9}))?", text.strip(), re.ASCII)
        low, high = (int(part) for part in (found[1], found[2] or found[1])) if found else (0, -1)
        if not least <= low <= high <= most:
            raise UsageError(
                f"{flag} {text}: expected a whole number or LOW..HIGH, such as 12..24, from "
                f"{least} to {most}"
            )
        return cls(low, high)

    def __str__(self) -> str:
        return str(self.low) if self.low == self.high else f"{self.low}..{self.high}"

    @property
    def values(self) -> range:
        """Every number of it."""
        return range(self.low, self.high + 1)
