"""The letterbox: where an image lies in the square the model sees, and what is shrunk before.

Owner of the geometry, so that the worker (which may shrink) and the device (which letterboxes,
`ocrtrain.model.pixels`) agree on every pixel's place. It decodes nothing (`ocrdata.images.decode`
does).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from PIL import Image

from ocrdata.images.decode import RGB

WHOLE_SIDE = 1024
"""px; whatever the image size of a run, images travel whole as they do for this one, the recipe's.
"""

LARGEST_FACTOR = 16
"""By how much the device may shrink: torch's antialiased CUDA kernel keeps its weights in 48 KB of
shared memory, enough for this factor (arithmetic, not run)."""


class Letterbox(NamedTuple):
    """Where an image lies in its square: resized to `width` x `height`, at (`left`, `top`)."""

    width: int
    height: int
    left: int
    top: int


def letterbox_geometry(width: int, height: int, size: int) -> Letterbox:
    """The place of a `width` x `height` image in a square of `size` px: aspect kept, centred.

    All rounding is `PIL.ImageOps.pad`'s (Python's round, half to even), by the same expressions,
    which is how the original letterboxed; but a side is never less than one pixel, where Pillow
    gives an empty image. Raises ValueError for sizes below 1.
    """
    if min(width, height, size) < 1:
        raise ValueError(f"no letterbox of {width} x {height} px in {size} px")
    new_width = new_height = size
    if width > height:
        new_height = max(1, round(height / width * size))
    elif width < height:
        new_width = max(1, round(width / height * size))
    return Letterbox(
        new_width, new_height, round((size - new_width) * 0.5), round((size - new_height) * 0.5)
    )


def shrink_to_fit(rgb: RGB, size: int) -> RGB:
    """The worker's part of letterboxing: bound the memory of an image on its way to the device.

    An image [H, W, 3] of more than 4 * max(size, 1024)^2 pixels (12.6 MB), or with a side of more
    than 16 * size px, is shrunk to twice its letterboxed size; all others are returned as they
    are, which is faster and nearer to Pillow's letterbox: receipts of 1.8 megapixels to 512 px took
    2.2 ms whole, on a CPU as the device, and 16.5 ms shrunk first. The factor of exactly two keeps
    `letterbox_geometry`, and leaves the device enough of the antialiased resize to be near Pillow's
    all the same (`benchmarks/pixels.py`).
    """
    height, width = rgb.shape[:2]
    within = width * height <= 4 * max(size, WHOLE_SIDE) ** 2
    if within and max(width, height) <= LARGEST_FACTOR * size:
        return rgb
    box = letterbox_geometry(width, height, size)
    target = (min(2 * box.width, width), min(2 * box.height, height))
    image = Image.fromarray(rgb).resize(target, Image.Resampling.BICUBIC, reducing_gap=2.0)
    return np.array(image)
