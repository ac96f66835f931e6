"""Parts of small images: EXIF and PNG chunks."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

from PIL import Image

DATA = Path(__file__).parents[3] / "shared" / "data"


def rotated(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


def png_chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def damaged_jpeg(whole: bytes) -> bytes:
    """A JPEG whose pixels end in the middle although the file has its end: the rest is grey."""
    start = whole.index(b"\xff\xda")
    return whole[: start + (len(whole) - start) // 2] + b"\xff\xd9"
