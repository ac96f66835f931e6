"""How an image is shown to a model: as one square view, or as tiles and a view of the whole.

A mode belongs to a source of samples, a layout to one image: it follows from the mode and from the
image's width and height, which a plan takes from the index and a batch from the decoded image. How
many positions a layout takes in a row is up to the model (`ocrtrain.settings.image_slots`).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from ocrdata.errors import UsageError

# A command line names modes, and is read without numpy.
if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Int64 = npt.NDArray[np.int64]

FEWEST_TILES = 2
"""An image that is no larger than a tile has none; others have at least so many (DeepSeek-OCR)."""

MOST_TILES = 64
"""Largest number of tiles that a mode may name."""


class ImageLayout(NamedTuple):
    """How one image is shown: letterboxed to a square view of `size` px and, before it, as
    `columns` x `rows` tiles of `tile` px, row by row; all three are 0 without tiles."""

    size: int
    tile: int = 0
    columns: int = 0
    rows: int = 0

    @property
    def tiles(self) -> int:
        """Number of tiles."""
        return self.columns * self.rows


class ImageMode(NamedTuple):
    """How the images of a source are shown: in a square view of `size` px and, if `tile` is not 0
    and an image is larger than a tile, in up to `most` tiles of `tile` px."""

    size: int
    tile: int = 0
    most: int = 0

    def __str__(self) -> str:
        """As `parse_mode` reads it."""
        return f"{self.most}x{self.tile}+{self.size}" if self.tile else str(self.size)

    def layout(self, width: int, height: int) -> ImageLayout:
        """The layout of an image of `width` x `height` px."""
        if not self.tile:
            return ImageLayout(self.size)
        import numpy as np

        columns, rows = self.grids(np.array([width]), np.array([height]))
        if not columns[0]:
            return ImageLayout(self.size)
        return ImageLayout(self.size, self.tile, int(columns[0]), int(rows[0]))

    def grids(self, widths: Int64, heights: Int64) -> tuple[Int64, Int64]:
        """Columns and rows of tiles of N images from their sizes in px; 0 for images without tiles.

        Of all grids of 2 to `most` tiles, that whose aspect ratio is closest to the image's; of two
        that are equally close, the one with more tiles if the image has more than half of its
        pixels. It is the rule of DeepSeek-OCR's processor, in the same floating-point operations.
        """
        import numpy as np

        columns, rows = np.zeros(len(widths), np.int64), np.zeros(len(widths), np.int64)
        if not self.tile:
            return columns, rows
        aspect, area = widths / heights, widths * heights
        closest = np.full(len(widths), np.inf)
        for across, down in _grids(self.most):
            gap = np.abs(aspect - across / down)
            filled = area > 0.5 * self.tile * self.tile * across * down
            better = (gap < closest) | ((gap == closest) & filled)
            closest = np.minimum(closest, gap)
            columns[better], rows[better] = across, down
        small = (widths <= self.tile) & (heights <= self.tile)
        columns[small] = rows[small] = 0
        return columns, rows


def _grids(most: int) -> list[tuple[int, int]]:
    """All (columns, rows) of 2 to `most` tiles, by their number."""
    found = [
        (columns, rows)
        for columns in range(1, most + 1)
        for rows in range(1, most // columns + 1)
        if columns * rows >= FEWEST_TILES
    ]
    return sorted(found, key=lambda grid: (grid[0] * grid[1], grid))


def parse_mode(text: str) -> ImageMode:
    """'256' or '6x640+1024' as a mode: a square view of 256 px; up to 6 tiles of 640 px and a view
    of 1024 px. Raises UsageError that says the rule."""
    found = re.fullmatch(r"(?:([0-9]{1,6})x([0-9]{1,6})\+)?([0-9]{1,6})", text)
    if found is None:
        raise UsageError(
            f"{text!r} is not an image size; write a number of px, such as 256, or tiles and a "
            "view of the whole, such as 6x640+1024"
        )
    most, tile, size = (int(part or 0) for part in found.groups())
    if size == 0 or (found[1] and tile == 0):
        raise UsageError(f"image size {text}: 0 px is out of range")
    if found[1] and not FEWEST_TILES <= most <= MOST_TILES:
        raise UsageError(
            f"image size {text}: {most} tiles; give {FEWEST_TILES} to {MOST_TILES}, or a view alone"
        )
    return ImageMode(size, tile, most)
