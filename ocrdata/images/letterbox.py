"""The letterbox: an image's size and position in the square the model sees.

The worker that shrinks large images and the device that letterboxes them (`ocrtrain.model.pixels`)
both use this geometry, so that they agree on the position of every pixel.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from PIL import Image

from ocrdata.images.decode import RGB

WHOLE_SIDE = 1024
"""px; the recipe's image size. A run with smaller images shrinks no more images than this one."""

LARGEST_FACTOR = 16
"""Largest factor by which the device may shrink: torch's antialiased CUDA kernel keeps its weights
in 48 KB of shared memory, which is enough for it (computed, not measured)."""


class Letterbox(NamedTuple):
    """An image's place in its square, in px: resized to `width` x `height`, at (`left`, `top`)."""

    width: int
    height: int
    left: int
    top: int


def letterbox_geometry(width: int, height: int, size: int) -> Letterbox:
    """The place of a `width` x `height` image in a square of `size` px: aspect ratio kept, centred.

    Uses the expressions of `PIL.ImageOps.pad`, as the original recipe did, so the rounding is the
    same (half to even); but a side is at least one pixel, where Pillow would give an empty image.
    Raises ValueError for sizes below 1.
    """
    if min(width, height, size) < 1:
        raise ValueError(f"cannot letterbox {width} x {height} px into {size} px: out of range")
    new_width = new_height = size
    if width > height:
        new_height = max(1, round(height / width * size))
    elif width < height:
        new_width = max(1, round(width / height * size))
    return Letterbox(
        new_width, new_height, round((size - new_width) * 0.5), round((size - new_height) * 0.5)
    )


def shrink_to_fit(rgb: RGB, size: int) -> RGB:
    """Shrinks a large image in the worker, to bound the memory it takes on its way to the device.

    An image [H, W, 3] of more than 4 * max(size, 1024)^2 pixels (12.6 MB), or with a side of more
    than 16 * size px, is shrunk to twice its letterboxed size. All others are returned unchanged,
    which is faster and closer to Pillow's letterbox: receipts of 1.8 megapixels to 512 px took 2.2
    ms with the CPU as device, 16.5 ms if shrunk first. A factor of exactly two keeps
    `letterbox_geometry` the same, and leaves enough of the antialiased resize to the device to stay
    close to Pillow's (`benchmarks/pixels.py`).
    """
    height, width = rgb.shape[:2]
    within = width * height <= 4 * max(size, WHOLE_SIDE) ** 2
    if within and max(width, height) <= LARGEST_FACTOR * size:
        return rgb
    box = letterbox_geometry(width, height, size)
    target = (min(2 * box.width, width), min(2 * box.height, height))
    image = Image.fromarray(rgb).resize(target, Image.Resampling.BICUBIC, reducing_gap=2.0)
    return np.array(image)
