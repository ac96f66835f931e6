"""Small images whose headers claim a larger size.

Each function takes the claimed width and height in pixels; with `SIDE` it gives a valid image. Only
the size in the header differs.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable, Mapping

from PIL import Image

SIDE = 16


def _saved(kind: str, **options: object) -> bytearray:
    buffer = io.BytesIO()
    Image.new("RGB", (SIDE, SIDE), (1, 2, 3)).save(buffer, kind, **options)
    return bytearray(buffer.getvalue())


def png(side: int) -> bytes:
    """The size in IHDR, with the chunk's checksum updated."""
    data = _saved("PNG")
    data[16:24] = struct.pack(">II", side, side)
    data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    return bytes(data)


def _jpeg(side: int, marker: bytes, *, progressive: bool) -> bytes:
    data = _saved("JPEG", progressive=progressive)
    at = data.index(marker) + 5  # length and precision
    data[at : at + 4] = struct.pack(">HH", side, side)
    return bytes(data)


def jpeg(side: int) -> bytes:
    """The size in the frame header (SOF0); libjpeg allows at most 65,500."""
    return _jpeg(side, b"\xff\xc0", progressive=False)


def progressive_jpeg(side: int) -> bytes:
    """The same in SOF2."""
    return _jpeg(side, b"\xff\xc2", progressive=True)


def gif(side: int) -> bytes:
    """The size of the canvas."""
    data = _saved("GIF")
    data[6:10] = struct.pack("<HH", side, side)
    return bytes(data)


def gif_frame(side: int) -> bytes:
    """The size of the first frame; decoders enlarge the canvas to it."""
    data = _saved("GIF")
    at = data.index(b",\0\0\0\0") + 5
    data[at : at + 4] = struct.pack("<HH", side, side)
    return bytes(data)


def bmp(side: int) -> bytes:
    """The size in BITMAPINFOHEADER."""
    data = _saved("BMP")
    data[18:26] = struct.pack("<ii", side, side)
    return bytes(data)


def webp(side: int) -> bytes:
    """The size in the VP8 key frame, of 14 bits each."""
    data = _saved("WEBP")
    at = data.index(b"\x9d\x01\x2a") + 3
    data[at : at + 4] = struct.pack("<HH", side, side)
    return bytes(data)


def lossless_webp(side: int) -> bytes:
    """The size in the VP8L header, of 14 bits each."""
    data = _saved("WEBP", lossless=True)
    at = data.index(b"VP8L") + 9
    bits = int.from_bytes(data[at : at + 4], "little") & ~0xFFFFFFF
    data[at : at + 4] = (bits | side - 1 | side - 1 << 14).to_bytes(4, "little")
    return bytes(data)


def webp_canvas(side: int) -> bytes:
    """The size of an animation's canvas (VP8X), of 24 bits each."""
    others = [Image.new("RGB", (SIDE, SIDE), (200, 2, 3))]
    data = _saved("WEBP", save_all=True, append_images=others)
    at = data.index(b"VP8X") + 12
    data[at : at + 6] = (side - 1).to_bytes(3, "little") * 2
    return bytes(data)


def _tiff(side: int, compression: str) -> bytes:
    data = _saved("TIFF", compression=compression)
    (start,) = struct.unpack_from("<I", data, 4)
    (entries,) = struct.unpack_from("<H", data, start)
    for at in range(start + 2, start + 2 + 12 * entries, 12):
        if struct.unpack_from("<H", data, at)[0] in (256, 257):  # width and height, as LONG
            struct.pack_into("<HII", data, at + 2, 4, 1, side)
    return bytes(data)


def tiff(side: int) -> bytes:
    """The size in the tags, of 32 bits each; uncompressed pixels."""
    return _tiff(side, "raw")


def deflated_tiff(side: int) -> bytes:
    """The same with compressed pixels."""
    return _tiff(side, "tiff_adobe_deflate")


CLAIMS: Mapping[str, tuple[Callable[[int], bytes], str, int]] = {
    "png": (png, "png", 50_000),
    "jpeg": (jpeg, "jpg", 65_500),
    "jpeg, progressive": (progressive_jpeg, "jpg", 65_500),
    "gif": (gif, "gif", 65_535),
    "gif, frame": (gif_frame, "gif", 65_535),
    "bmp": (bmp, "bmp", 50_000),
    "webp": (webp, "webp", 16_383),
    "webp, lossless": (lossless_webp, "webp", 16_383),
    "webp, canvas": (webp_canvas, "webp", 50_000),
    "tiff": (tiff, "tif", 50_000),
    "tiff, deflated": (deflated_tiff, "tif", 50_000),
}
"""Name -> function, file extension, and 50,000 px or the largest size the format can hold."""
