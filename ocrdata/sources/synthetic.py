"""Base of the synthetic sources: any number of rows, each a function of (seed, row)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

from ocrdata.errors import RejectedRow
from ocrdata.sample import Sample


class SyntheticSource(ABC):
    """`rows` samples of a seed. A subclass has a name, a version and `make`."""

    name: str
    version: ClassVar[int]
    """Part of the provenance: increase it with every change of a pixel or a word."""

    def __init__(self, rows: int, *, seed: int = 0) -> None:
        self._rows, self.seed = rows, seed

    @abstractmethod
    def make(self, row: int) -> Sample:
        """The sample of one row, a function of `seed` and `row`."""

    @property
    def provenance(self) -> Mapping[str, Any]:
        """Generator, version, seed, and the number of rows requested."""
        return {
            "generator": self.name,
            "version": self.version,
            "seed": self.seed,
            "rows": self._rows,
            "licence": "CC0-1.0",
        }

    def count(self) -> int:
        """Number of rows requested."""
        return self._rows

    def rows(self, start: int, stop: int) -> Iterator[tuple[int, Sample | RejectedRow]]:
        """The samples of `[start, stop)`; none is rejected."""
        for row in range(start, stop):
            yield row, self.make(row)
