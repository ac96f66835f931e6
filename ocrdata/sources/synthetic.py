"""Base of the synthetic sources: any number of rows, each a function of (seed, row)."""

from __future__ import annotations

import io
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, Generic, Protocol, TypeVar

from PIL import Image

from ocrdata.errors import RejectedRow
from ocrdata.sample import Sample
from ocrdata.sources.fonts import versions


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


class DrawingOptions(Protocol):
    """How the samples of a source are drawn."""

    @property
    def provenance(self) -> Mapping[str, Any]:
        """The options as JSON values."""


OptionsT = TypeVar("OptionsT", bound=DrawingOptions)


class DrawnSource(SyntheticSource, Generic[OptionsT]):
    """Samples that are drawn with fonts, as `options` say."""

    def __init__(self, rows: int, options: OptionsT, *, seed: int = 0) -> None:
        super().__init__(rows, seed=seed)
        self.options = options

    @property
    def provenance(self) -> Mapping[str, Any]:
        """Also the options, and the versions that the pixels depend on."""
        return {**super().provenance, **self.options.provenance, **versions()}


def to_png(image: Image.Image) -> bytes:
    """An image as PNG bytes, quickly; they depend on the versions of Pillow and its zlib."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()
