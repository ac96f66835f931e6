"""The number of positions an image takes in a row, from its layout.

It imports `images` of `ocrdata` for what a layout is.
"""

from __future__ import annotations

from ocrdata.errors import UsageError
from ocrdata.images.modes import ImageLayout

PATCH = 16  # side of a SAM patch, in px
SHRINK = 4  # reduction per side by the two stride-2 convolutions after SAM


def image_slots(size: int) -> int:
    """Positions that a square image of `size` px takes in a row: side * (side + 1) + 1.

    One per feature, one newline per line of features, one separator at the end (DeepSeek-OCR,
    section 3.2). 512 px -> 73, 640 -> 111, 1024 -> 273, 1280 -> 421. Raises UsageError unless
    `size` is a positive multiple of 64.
    """
    if size <= 0 or size % (PATCH * SHRINK):
        raise UsageError(f"image size {size} px must be a positive multiple of {PATCH * SHRINK}")
    side = size // (PATCH * SHRINK)
    return side * (side + 1) + 1


def layout_slots(layout: ImageLayout) -> int:
    """Positions that an image of this layout takes in a row: those of its square view, and before
    them, for the lines of its tiles side by side, side * rows * (side * columns + 1).

    One per feature, one newline per line of features over all columns of tiles, one separator at
    the end (DeepSeek-OCR). 6x640+1024 with 3 x 2 tiles -> 20 * 31 + 273 = 893. Raises UsageError
    like `image_slots`.
    """
    slots = image_slots(layout.size)
    if layout.tiles:
        image_slots(layout.tile)  # raises for a wrong size
        side = layout.tile // (PATCH * SHRINK)
        slots += side * layout.rows * (side * layout.columns + 1)
    return slots
