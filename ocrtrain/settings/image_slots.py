"""The number of positions an image takes in a row, from its size."""

from __future__ import annotations

from ocrdata.errors import UsageError

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
