"""Characters rendered once and stamped on an image, in a grid's cells or as far apart as the font
has them.

The grid is that of the encoder's patches, 16 px. A cell is the smallest multiple of it, in width
and height, that the ink of every character of the alphabet fits when all stand on one baseline.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from ocrdata.sources.fonts import Font, FontFile

PATCH = 16  # px, side of the encoder's patches
INK, PAPER = 30, 255

GRID, NATURAL = "grid", "natural"
SPACINGS = (GRID, NATURAL)
"""How characters follow each other: one in the middle of each cell, or by the font's own widths
(in whole pixels, without kerning)."""

Grey = npt.NDArray[np.uint8]
"""[H, W], 0 for black to 255 for white."""


class Glyph(NamedTuple):
    """One character: its ink, where the ink's left and top are from the pen on the baseline, and
    how far the pen moves on, px."""

    ink: Grey
    left: int
    top: int
    advance: int


class Face:
    """An alphabet in one font and size (em, px), its characters one spacing apart.

    A line may have ink `before` px left of its start, and `after` px right of its last character's
    end; both may be negative. `shift` is that of the grid, and `image` a side of the image, in px.

    In a grid a place may be 1 px too near to an edge of the image for the widest character, so that
    a grid whose cells they fill can be shifted at all; `inside` moves such a line by that 1 px.
    """

    def __init__(self, font: FontFile, size: int, alphabet: str, spacing: str) -> None:
        drawn = font.at(size)
        self._glyphs = {one: _render(drawn, one) for one in alphabet}
        glyphs = self._glyphs.values()
        self._grid = spacing == GRID
        self._top = min(glyph.top for glyph in glyphs)
        self.ink_height = max(glyph.top + glyph.ink.shape[0] for glyph in glyphs) - self._top
        self._width = max(glyph.ink.shape[1] for glyph in glyphs)
        self.before = max(-glyph.left for glyph in glyphs)
        self.after = max(glyph.left + glyph.ink.shape[1] - glyph.advance for glyph in glyphs)
        self._cell = -(-self._width // PATCH) * PATCH
        self._inset = 0
        self.line_height = max(sum(drawn.getmetrics()), self.ink_height)
        """Px from the top of a line to that of the next one."""
        if self._grid:
            self.line_height = -(-self.ink_height // PATCH) * PATCH
            self._inset = (self.line_height - self.ink_height) // 2
            self.before = -((self._cell - self._width) // 2)
            self.after = -(self._cell - self._width + self.before)
        self._near = 1 if self._grid else 0
        self.widest = max(self.advance(character) for character in alphabet)
        """The largest `advance`."""

    def advance(self, character: str) -> int:
        """Px from the start of a character to that of the next one."""
        return self._cell if self._grid else self._glyphs[character].advance

    def width(self, text: str) -> int:
        """Px from the start of a line to that of a character after it."""
        return sum(map(self.advance, text))

    def tops(self, image: int, shift: int, lines: int) -> range:
        """Where the first of so many lines may have its top, px; none if there is no room."""
        height = self.ink_height + (lines - 1) * self.line_height
        step = self.line_height if self._grid else PATCH
        return self._places((shift, step), -self._inset, height, image)

    def starts(self, image: int, shift: int, width: int) -> range:
        """Where a line of this `width` may start, px from the left; none if there is no room."""
        step = self._cell if self._grid else PATCH
        return self._places((shift, step), self.before, self.before + width + self.after, image)

    def _places(self, grid: tuple[int, int], first: int, extent: int, image: int) -> range:
        """The places from `first` on, px, of a grid (its shift and step), at which something
        `extent` px large ends within the image."""
        if extent > image:
            return range(0)
        near = self._near
        start, last = first - near, first + image - extent + near
        return range(start + (grid[0] - start) % grid[1], last + 1, grid[1])

    def inside(self, lines: Sequence[tuple[str, int, int]], size: int) -> tuple[int, int]:
        """How far lines, each with its start and top, are to be moved for all ink to be inside a
        square of `size` px: (x, y) px, 0 or 1 in size."""
        boxes = np.array(
            [
                (left, top, left + glyph.ink.shape[1], top + glyph.ink.shape[0])
                for line in lines
                for glyph, left, top in self._placed(*line)
            ]
        )
        low, high = boxes[:, :2].min(axis=0), boxes[:, 2:].max(axis=0)
        x, y = np.maximum(-low, 0) - np.maximum(high - size, 0)
        return int(x), int(y)

    def stamp(self, canvas: Grey, text: str, x: int, y: int) -> None:
        """Draw one line with its start and top at (x, y), px; ink outside is cut off."""
        for glyph, left, top in self._placed(text, x, y):
            _darken(canvas, glyph.ink, left, top)

    def _placed(self, text: str, x: int, y: int) -> Iterator[tuple[Glyph, int, int]]:
        """Each character of a line with left and top of its ink, px."""
        baseline = y + self._inset - self._top
        for character in text:
            glyph = self._glyphs[character]
            left = (self._cell - glyph.ink.shape[1]) // 2 if self._grid else glyph.left
            yield glyph, x + left, baseline + glyph.top
            x += self.advance(character)


@lru_cache(maxsize=512)
def face_of(font: FontFile, size: int, alphabet: str, spacing: str) -> Face:
    """The face for these; its characters are rendered once per process."""
    return Face(font, size, alphabet, spacing)


def _render(font: Font, character: str) -> Glyph:
    left, top, right, bottom = map(int, font.getbbox(character, anchor="ls"))  # with bearings
    image = Image.new("L", (right - left, bottom - top), PAPER)
    ImageDraw.Draw(image).text((-left, -top), character, INK, font, anchor="ls")
    drawn = np.asarray(image)
    columns, rows = (np.flatnonzero((drawn < PAPER).any(axis=axis)) for axis in (0, 1))
    advance = round(font.getlength(character))
    if not len(rows):
        return Glyph(drawn[:0, :0], 0, 0, advance)
    ink = drawn[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    return Glyph(ink, left + int(columns[0]), top + int(rows[0]), advance)


def _darken(canvas: Grey, ink: Grey, left: int, top: int) -> None:
    height, width = ink.shape
    x, y = max(left, 0), max(top, 0)
    under = canvas[y : max(top + height, 0), x : max(left + width, 0)]
    over = ink[y - top : y - top + under.shape[0], x - left : x - left + under.shape[1]]
    np.minimum(under, over, out=under)
