"""Positions that an image takes in a row: arithmetic on its size alone."""

from __future__ import annotations

from ocrdata.errors import UsageError

PATCH = 16  # pixels a side of one SAM patch


SHRINK = 4  # two convolutions of stride 2


def image_slots(size: int) -> int:
    """Positions one square view of `size` px takes in a row: h * (w + 1) + 1.

    One per feature, one newline a row, one separator at the end (DeepSeek-OCR, section 3.2).
    512 px -> 73, 640 -> 111, 1024 -> 273, 1280 -> 421. Raises UsageError where `size` is no
    multiple of 64.
    """
    if size <= 0 or size % (PATCH * SHRINK):
        raise UsageError(f"image size {size} px is no multiple of {PATCH * SHRINK}")
    side = size // (PATCH * SHRINK)
    return side * (side + 1) + 1
