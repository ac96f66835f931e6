"""BMPs that Pillow misreads: black and white palettes of 4 and 8 bits, and 16 bits with alpha."""

from __future__ import annotations

import struct

import numpy as np
from PIL import BmpImagePlugin, Image

from ocrdata.errors import ImageError

_INFO = struct.Struct("<HHI12xI")
"""Planes, bits, compression and colours, from byte 26 on (BITMAPINFOHEADER)."""

_COLOURS = 46
_MASKS = 54
_RAW, _BITFIELDS = 0, 3


def readable(data: bytes) -> bytes:
    """The file as Pillow reads it rightly, most often the same bytes.

    A palette of black and white makes Pillow unpack one bit a pixel, whatever the file has: with a
    third colour, which no pixel has, it takes the palette as one.
    """
    if len(data) < 50:
        return data
    _, bits, compression, colours = _INFO.unpack_from(data, 26)
    if data[14] < 40 or bits not in (4, 8) or compression != _RAW or colours != 2:
        return data
    changed = bytearray(data)
    start, header = (int.from_bytes(data[at : at + 4], "little") for at in (10, 14))
    if start == 14 + header:  # by mistake without the palette, which Pillow adds
        changed[10:14] = (start + 8).to_bytes(4, "little")
    changed[_COLOURS : _COLOURS + 4] = (3).to_bytes(4, "little")
    return bytes(changed)


def prepare(image: BmpImagePlugin.BmpImageFile, data: bytes) -> None:
    """Raises ImageError where Pillow would return other pixels than the file's."""
    if data[14] >= 40 and data[28] == 4 and image.mode == "L" and image.tile[0][0] == "raw":
        raise ImageError("bmp image has 4 bits and a palette of 16 dark greys; save it as PNG")


def add_alpha(image: Image.Image, data: bytes) -> None:
    """Give a loaded image of 16-bit pixels the alpha bit that Pillow ignores."""
    if len(data) < 70 or data[14] < 56:
        return
    _, bits, compression, _ = _INFO.unpack_from(data, 26)
    mask = struct.unpack_from("<4I", data, _MASKS)[3]
    if bits != 16 or compression != _BITFIELDS or not mask:
        return
    width, height = image.size
    stride = -(-width // 2) * 2
    start = int.from_bytes(data[10:14], "little")
    pixels = np.frombuffer(data, "<u2", stride * height, start).reshape(height, stride)
    alpha = np.where(pixels[:, :width] & mask, 255, 0).astype(np.uint8)
    upside_down = struct.unpack_from("<i", data, 22)[0] > 0
    image.putalpha(Image.fromarray(alpha[::-1] if upside_down else alpha))
