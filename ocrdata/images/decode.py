"""Decodes images: original bytes to format and size, and to pixels as uint8 [H, W, 3].

EXIF rotation is applied, the first frame of an animation taken, palettes expanded, alpha composited
on white, 16 bits reduced to their upper 8, CMYK and grey converted to RGB. A truncated image is an
error; damage inside a JPEG is not, because libjpeg fills it with grey and Pillow does not say so:
`ocrdata.images.jpeg` does, at conversion.

Pillow decodes; plain PNGs have a faster decoder with the same pixels (`ocrdata.images.png`). JPEGs
have not, because they have more than one correct decoding, so that the decoder's version is part of
a batch's identity, and the others measured (OpenCV, simplejpeg, kornia-rs) only save a copy: all
use libjpeg-turbo. OpenCV also accepts truncated JPEGs. Pillow releases the GIL while it decodes and
resizes, so threads run in parallel.
"""

from __future__ import annotations

import io
import re
import struct
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import (
    BmpImagePlugin,
    ExifTags,
    GifImagePlugin,
    Image,
    ImageFile,
    JpegImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

from ocrdata.errors import ImageError
from ocrdata.images import bmp, png, tiff

RGB = npt.NDArray[np.uint8]

MAX_PIXELS = 89_478_485
"""Largest image that is decoded, in pixels: Pillow's limit for decompression bombs, a quarter of a
gigabyte in RGB (`PIL.Image.MAX_IMAGE_PIXELS`). Above it Pillow only warns."""

MAX_SCANS = 100
"""Most scans of a JPEG: each is a pass over all pixels, but can be ten bytes in a file. Encoders
write about ten; libjpeg-turbo advises readers to accept 500 at most."""

_WORTH_COUNTING = 10**10
"""Scans are counted only where bytes times pixels of a JPEG exceed this: below, even a file of
nothing but scans decodes in a second (ten bytes a scan, 1 ns a pixel and scan)."""

WHITE = (255, 255, 255)

# Plugins are called directly, not through Image.open, which would try the parsers of other formats
# (EPS runs Ghostscript) and warn about large images.
_OPENERS: dict[str, Callable[[io.BytesIO], ImageFile.ImageFile]] = {
    "png": PngImagePlugin.PngImageFile,
    "jpg": JpegImagePlugin.JpegImageFile,
    "gif": GifImagePlugin.GifImageFile,
    "webp": WebPImagePlugin.WebPImageFile,
    "bmp": BmpImagePlugin.BmpImageFile,
    "tif": TiffImagePlugin.TiffImageFile,
}

_MAGIC: tuple[tuple[bytes, str], ...] = (
    (b"\x89PNG\r\n\x1a\n", "png"),
    (b"\xff\xd8\xff", "jpg"),
    (b"GIF87a", "gif"),
    (b"GIF89a", "gif"),
    (b"BM", "bmp"),
    (b"II*\0", "tif"),
    (b"MM\0*", "tif"),
    (b"II+\0", "tif"),
    (b"MM\0+", "tif"),
)

_TRANSPOSE = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""EXIF orientation to the operation that undoes it (EXIF 2.3, tag 0x0112; the same as
`PIL.ImageOps.exif_transpose`)."""


class ImageInfo(NamedTuple):
    """`format` is also the file extension in a shard; width and height are after EXIF rotation."""

    format: str
    width: int
    height: int


def sniff(data: bytes) -> str:
    """The format of an image by its first bytes: png, jpg, gif, webp, bmp or tif.

    Raises ImageError for anything else.
    """
    for magic, name in _MAGIC:
        if data.startswith(magic):
            return name
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "webp"
    raise ImageError(
        f"not an image in a known format: {len(data)} bytes that begin with {bytes(data[:12])!r}; "
        "known are PNG, JPEG, GIF, WebP, BMP and TIFF"
    )


def read_header(data: bytes) -> ImageInfo:
    """Format and size from the header, without decoding pixels.

    The size is that of `decode_rgb`'s result. Raises ImageError if the header is not readable.
    """
    name, image = _open(data, MAX_PIXELS)
    if name == "png" and png.has_late_metadata(data):
        # Pillow reads metadata after the pixels only when it has read the pixels.
        _load(name, image, data)
    width, height = image.size
    if name != "tif" and _orientation(image) in (5, 6, 7, 8):
        width, height = height, width
    return ImageInfo(name, width, height)


def decode_rgb(data: bytes, *, max_pixels: int = MAX_PIXELS) -> RGB:
    """The pixels of an image: uint8 [H, W, 3], writable, owning its memory.

    Raises ImageError for bytes that are not an image in a known format, are truncated or corrupted,
    for more than `max_pixels` pixels (checked before decoding), and for samples of unknown meaning
    or that Pillow misreads (`ocrdata.images.tiff`). Raises ValueError if `max_pixels` is out of
    range.
    """
    if not 0 < max_pixels <= MAX_PIXELS:
        raise ValueError(f"max_pixels is {max_pixels}, it must be from 1 to {MAX_PIXELS:,}")
    name, image = _open(data, max_pixels)
    if name == "png" and (rgb := _decode_fast(data, image)) is not None:
        return rgb
    return _decode_pillow(data, name, image)


def pillow_to_rgb(image: Image.Image) -> RGB:
    """The pixels of an image that Pillow has opened: those that `decode_rgb` gives for its file.

    But for files that Pillow misreads, which are read rightly from their bytes alone: transparent
    colours, alpha channels and TIFFs that `ocrdata.images.png`, `bmp` and `tiff` correct.

    Raises ImageError for an image that is too large or cannot be decoded, and for samples of
    unknown meaning (modes I and F).
    """
    _refuse_large("Pillow", image.size, MAX_PIXELS)
    if image.mode in ("I", "F"):
        raise ImageError(
            f"Pillow image of mode {image.mode}: which value is white is unknown; give the bytes "
            "of its file, or convert it"
        )
    try:
        image.load()
    except Exception as exc:  # as in `_load`
        raise ImageError(f"Pillow image cannot be decoded: {_reason(exc)}") from exc
    return _grey16_to_rgb(image) if image.mode.startswith("I;16") else _composited(image)


def check_image(data: bytes) -> None:
    """Raises ImageError if an image cannot be decoded.

    Pillow alone decides: which rows become samples must not depend on whether the fast decoder is
    installed, which ignores a checksum that Pillow verifies.
    """
    _decode_pillow(data, *_open(data, MAX_PIXELS))


def _decode_pillow(data: bytes, name: str, image: ImageFile.ImageFile) -> RGB:
    _load(name, image, data)
    try:
        return _to_rgb(image, data)
    except ImageError:
        raise
    except Exception as exc:  # Pillow's conversions raise many types on damaged palettes
        raise ImageError(f"{name} image cannot be converted to RGB: {_reason(exc)}") from exc


def _decode_fast(data: bytes, image: ImageFile.ImageFile) -> RGB | None:
    """The pixels of an opened PNG by the fast decoder; None if Pillow has to decode it."""
    pixels = png.decode_plain(data)
    # Last, because Pillow caches the orientation, and has not read metadata after the pixels yet.
    if pixels is None or _orientation(image) != 1:
        return None
    if pixels.shape[2] == 3:
        return pixels
    opaque = png.without_alpha(pixels)
    return np.array(_on_white(png.from_array(pixels))) if opaque is None else opaque


def _open(data: bytes, max_pixels: int) -> tuple[str, ImageFile.ImageFile]:
    """Format and lazily opened image, after the checks of its size. No pixels are decoded."""
    name = sniff(data)
    if name == "gif":
        # Pillow enlarges the canvas to the first frame, and would warn about its size there.
        _refuse_large(name, _gif_canvas(data), max_pixels)
    try:
        image = _OPENERS[name](io.BytesIO(bmp.readable(data) if name == "bmp" else data))
    except Exception as exc:  # SyntaxError, OSError, struct.error, ...: any, on corrupted bytes
        if name == "tif" and (unread := tiff.unread_layout(data)) is not None:
            raise ImageError(f"tif image has {unread}: not read; save it as PNG") from exc
        raise ImageError(f"{name} image has no readable header: {_reason(exc)}") from exc
    _refuse_large(name, image.size, max_pixels)
    if name == "jpg":
        _refuse_scans(data, image.size)
    return name, image


def _load(name: str, image: ImageFile.ImageFile, data: bytes) -> None:
    try:
        if isinstance(image, TiffImagePlugin.TiffImageFile):
            tiff.prepare(image)
        elif isinstance(image, BmpImagePlugin.BmpImageFile):
            bmp.prepare(image, data)
        image.load()
    except ImageError:
        raise
    except Exception as exc:  # as above; "image file is truncated" is an OSError
        raise ImageError(f"{name} image cannot be decoded: {_reason(exc)}") from exc


def _reason(exc: Exception) -> str:
    return str(exc) or type(exc).__name__


def _refuse_large(name: str, size: tuple[int, int], max_pixels: int) -> None:
    width, height = size
    if width < 1 or height < 1:
        raise ImageError(f"{name} image of {width} x {height} pixels is empty")
    if width * height > max_pixels:
        raise ImageError(
            f"{name} image of {width} x {height} pixels is larger than the {max_pixels:,} pixels "
            "allowed (max_pixels)"
        )


def _gif_canvas(data: bytes) -> tuple[int, int]:
    """Width and height of a GIF's canvas, enlarged to its first frame (GIF89a, sections 18-24)."""
    try:
        width, height, flags = struct.unpack_from("<HHB", data, 6)
        at = 13 + (3 << (flags & 7) + 1 if flags & 128 else 0)
        while data[at] == 0x21:  # extensions: a label, then sub-blocks up to an empty one
            at += 2
            while data[at]:
                at += 1 + data[at]
            at += 1
        if data[at] != 0x2C:
            return width, height
        left, top, frame_width, frame_height = struct.unpack_from("<HHHH", data, at + 1)
    except (IndexError, struct.error) as exc:
        raise ImageError("gif image cannot be decoded: it ends before its first frame") from exc
    return max(width, left + frame_width), max(height, top + frame_height)


_SCAN = b"\xff\xda"
_MARKER = re.compile(rb"\xff+([^\x00\xff])", re.DOTALL)
_ALONE = frozenset([0x01, *range(0xD0, 0xD9)])  # TEM, restarts, SOI: no length follows


def _refuse_scans(data: bytes, size: tuple[int, int]) -> None:
    if len(data) * size[0] * size[1] < _WORTH_COUNTING or data.count(_SCAN) <= MAX_SCANS:
        return
    if (scans := _scans(data)) > MAX_SCANS:
        raise ImageError(
            f"jpg image has {scans:,} scans, more than the {MAX_SCANS} allowed; save it again"
        )


def _scans(data: bytes) -> int:
    """Number of scans of a JPEG (T.81, annex B), without those of a thumbnail in its metadata."""
    scans, at = 0, 2
    while (marker := _MARKER.search(data, at)) is not None and marker[1] != b"\xd9":
        at = marker.end()
        if marker[1][0] not in _ALONE:
            scans += marker[1] == b"\xda"
            at += int.from_bytes(data[at : at + 2], "big")
    return scans


def _orientation(image: Image.Image) -> int:
    """EXIF (or XMP) orientation, 1 to 8; 1 if the metadata cannot be read."""
    try:
        return int(Image.Image.getexif(image).get(ExifTags.Base.Orientation, 1))
    except Exception:  # a damaged EXIF block does not make the pixels wrong
        return 1


def _to_rgb(image: ImageFile.ImageFile, data: bytes) -> RGB:
    """Pixels of a loaded image, rotated and composited on white."""
    if image.mode.startswith("I;16"):
        return _grey16_to_rgb(image)
    return _composited(_with_true_alpha(image, data))


def _composited(image: Image.Image) -> RGB:
    """Pixels of an image of at most 8 bits, rotated and composited on white."""
    turned = _rotated(image)
    if turned.has_transparency_data:
        turned = _on_white(turned if turned.mode == "RGBA" else turned.convert("RGBA"))
    # np.array, not np.asarray: torch shares this memory and may write to it. convert() would copy
    # even an RGB image.
    return np.array(turned if turned.mode == "RGB" else turned.convert("RGB"))


def _rotated(image: Image.Image) -> Image.Image:
    # Pillow has already rotated a TIFF when it loaded it.
    method = None if image.format == "TIFF" else _TRANSPOSE.get(_orientation(image))
    return image if method is None else image.transpose(method)


def _with_true_alpha(image: ImageFile.ImageFile, data: bytes) -> Image.Image:
    """A loaded image with the transparency that its file means, where Pillow has another."""
    if image.format == "PNG":
        png.apply_key(image, data)
    if image.format == "BMP":
        bmp.add_alpha(image, data)
    guessed = isinstance(image, TiffImagePlugin.TiffImageFile) and tiff.alpha_is_a_guess(image)
    # Writers that mean no alpha leave its bytes at zero; nobody stores a page that is not seen.
    if (image.format == "BMP" or guessed) and image.mode == "RGBA":
        return image if image.getchannel("A").getextrema()[1] else image.convert("RGB")
    return image


def _on_white(image: Image.Image) -> Image.Image:
    """An RGBA image composited on white."""
    if image.getchannel("A").getextrema() == (255, 255):
        return image
    canvas = Image.new("RGB", image.size, WHITE)
    canvas.paste(image, (0, 0), image)
    return canvas


def _grey16_to_rgb(image: Image.Image) -> RGB:
    values = np.asarray(_rotated(image))
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        values = tiff.to_sixteen_bits(image, values)
    grey = (values >> 8).astype(np.uint8)
    key = image.info.get("transparency")
    if isinstance(key, int):
        grey[values == key] = 255
    return np.repeat(grey[:, :, None], 3, axis=2)
