"""A second decoder for plain PNGs (the charts and screenshots of real data, quickly), and the
transparent colour that Pillow compares with the wrong depth.

A PNG has one right decoding, so the second decoder (kornia-rs, optional) never decides what a pixel
is: it returns the pixels Pillow would, or None, and then Pillow decodes, or reports what is wrong.
It accepts one thing that Pillow refuses: a wrong checksum inside the compressed pixels, where that
of the chunk around them is right. So converted images are checked by Pillow alone
(`ocrdata.images.decode.check_image`). Without it an RGB chart takes 1.5 ms instead of 0.3, an RGBA
one 6 instead of 1.7 (`benchmarks/decoders.py`).

The second decoder holds the interpreter's lock while it works, so it gets only images that take
less than about 5 ms, the interval in which Python's threads take turns anyway.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Callable, Iterator
from importlib import metadata

import numpy as np
import numpy.typing as npt
from PIL import Image, PngImagePlugin

Pixels = npt.NDArray[np.uint8]
Decoder = Callable[[bytes, tuple[int, int], str], Pixels]

PLAIN_PIXELS = 2_000_000
"""Largest image that is decoded here, in pixels."""

PLAIN_BYTES = 1 << 19
"""Largest file that is decoded here: noise takes 5 ms a megabyte, charts of 2 megapixels 4 ms."""

_HEADER = struct.Struct(">8sI4sIIBBBBB")
_CHUNK = struct.Struct(">I4s")
_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_MODES = {2: "rgb", 6: "rgba"}
"""Colour type in the header (PNG, section 11.2.2) to the decoder's name for it."""

_BEFORE = frozenset(
    b"bKGD cHRM cICP eXIf gAMA hIST iCCP iDOT iTXt pHYs PLTE sBIT sRGB tEXt tIME zTXt".split()
)
"""Chunks that may come before the pixels, because they change no pixel that Pillow returns (iDOT is
in Apple's screenshots). Not tRNS, which makes a colour transparent, nor those of animations."""


def _load_decoder() -> Decoder | None:
    """`decode_image_png_u8(data, (height, width), mode)` of kornia-rs, None where it is absent."""
    try:
        from kornia_rs import io
    except ImportError:
        return None
    found: Decoder | None = getattr(io, "decode_image_png_u8", None)
    return found


_decode = _load_decoder()


def decoder_version() -> str | None:
    """Version of the second decoder for a run's record; None if it is not installed."""
    return None if _decode is None else metadata.version("kornia-rs")


def decode_plain(data: bytes) -> Pixels | None:
    """The pixels of a plain PNG, uint8 [H, W, 3] or [H, W, 4], writable; None for any other.

    No rotation is applied: the caller reads the orientation with Pillow. Never raises: damaged
    files are left to Pillow.
    """
    if _decode is None or len(data) > PLAIN_BYTES or not _is_plain(data):
        return None
    width, height = struct.unpack_from(">II", data, 16)
    try:
        pixels: Pixels = _decode(data, (height, width), _MODES[data[25]])
    except Exception:  # the decoder raises nothing more specific
        return None
    return pixels if pixels.shape[:2] == (height, width) else None


def has_late_metadata(data: bytes) -> bool:
    """Whether a PNG has chunks that may hold an orientation after its first pixels."""
    pixels = False
    for _, _, kind in _chunks(data, 8):
        if pixels and kind in (b"eXIf", b"tEXt", b"zTXt", b"iTXt"):
            return True
        pixels = pixels or kind == b"IDAT"
    return False


def _chunks(data: bytes, at: int) -> Iterator[tuple[int, int, bytes]]:
    """(position, content length, kind) of each chunk from position `at` on, in bytes, up to the
    last complete chunk header."""
    while at + 8 <= len(data):
        length, kind = _CHUNK.unpack_from(data, at)
        yield at, length, kind
        at += 12 + length


def _is_plain(data: bytes) -> bool:
    """Whether a PNG has 8 bits, RGB or RGBA, is not interlaced, not truncated, and of an allowed
    size and chunk order."""
    if len(data) < 57:
        return False
    signature, length, kind, width, height, *rest = _HEADER.unpack_from(data)
    depth, colour, *methods = rest
    return (
        (signature, length, kind) == (_SIGNATURE, 13, b"IHDR")
        and depth == 8
        and colour in _MODES
        and methods == [0, 0, 0]
        and 0 < width * height <= PLAIN_PIXELS
        and _has_plain_chunks(data)
    )


def _has_plain_chunks(data: bytes) -> bool:
    """Whether only chunks that change no pixel, the pixels and the end follow the header."""
    pixels = False
    for at, length, kind in _chunks(data, 33):
        if kind == b"IEND":
            return pixels and length == 0 and at + 12 <= len(data)
        if kind != b"IDAT" and (pixels or kind not in _BEFORE):
            return False
        pixels = pixels or kind == b"IDAT"
    return False


def without_alpha(pixels: Pixels) -> Pixels | None:
    """[H, W, 4] -> [H, W, 3] if every pixel is opaque, else None."""
    if pixels[..., 3].min() != 255:
        return None
    height, width = pixels.shape[:2]
    # Pillow packs four bytes to three five times as fast as numpy copies a strided array.
    packed = from_array(pixels).tobytes("raw", "RGB")
    # Copied once more, into writable memory of its own.
    return np.array(np.frombuffer(packed, np.uint8).reshape(height, width, 3))


def from_array(pixels: Pixels) -> Image.Image:
    """A Pillow image that shares an RGBA array's memory."""
    height, width = pixels.shape[:2]
    return Image.frombuffer("RGBA", (width, height), pixels, "raw", "RGBA", 0, 1)


def apply_key(image: Image.Image, data: bytes) -> None:
    """Correct the transparent colour (tRNS) of a PNG that Pillow has loaded.

    The colour has the file's depth. Pillow compares it with grey pixels that it has stretched from
    2 or 4 bits to 8, and with the upper halves of 16-bit RGB: here the first is stretched too, and
    the second compared with all bits and made an alpha channel.
    """
    key, depth = image.info.get("transparency"), data[24]
    if isinstance(key, int) and image.mode == "L" and depth < 8:
        white = (1 << depth) - 1
        image.info["transparency"] = (key & white) * 255 // white
    elif isinstance(key, tuple) and depth == 16:
        pixels = np.asarray(image).astype(np.uint16) << 8 | _lower_bytes(data)
        seen = (pixels != np.array(key, np.uint16)).any(axis=2)
        del image.info["transparency"]
        image.putalpha(Image.fromarray(np.where(seen, 255, 0).astype(np.uint8)))


def _lower_bytes(data: bytes) -> Pixels:
    """The lower halves of the 16-bit samples of an RGB PNG, [H, W, 3].

    The samples are big-endian; unpacked as little-endian ones, Pillow keeps the other half.
    """
    image = PngImagePlugin.PngImageFile(io.BytesIO(data))
    image.tile = [tile._replace(args="RGB;16L") for tile in image.tile]
    image.load()
    return np.asarray(image)
