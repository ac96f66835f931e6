"""An image as a PIL image, and as a small picture inside a page of a notebook."""

from __future__ import annotations

import base64
import io
from typing import TYPE_CHECKING

from ocrdata.images.decode import decode_rgb

if TYPE_CHECKING:
    from PIL.Image import Image

SIDE = 256
"""Longest side of a thumbnail in pixels."""

_QUALITY = 85
"""Of a thumbnail's JPEG: about 15 KB at `SIDE`."""


def to_pil(data: bytes) -> Image:
    """The pixels of `decode_rgb` as an RGB image: upright, on white. Raises ImageError."""
    from PIL import Image

    return Image.fromarray(decode_rgb(data))


def data_url(data: bytes, side: int = SIDE) -> str:
    """A thumbnail of an image as a data URL, its longest side `side` px or less. Raises
    ImageError."""
    image = to_pil(data)
    image.thumbnail((side, side))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=_QUALITY)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
