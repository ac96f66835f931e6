"""TIFFs: which sample layouts Pillow reads rightly, and what is left to do with its samples.

TIFF is a container of any number of bits, channels and meanings, and Pillow takes several for
another without a word: 12 bits for 16, white for black in 16-bit files, signed samples for unsigned
ones. Here each layout is either read rightly or refused with the reason. Whatever is accepted is
compared with an encoder of its own in the tests, layout by layout.
"""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, ImagePalette, TiffImagePlugin

from ocrdata.errors import ImageError

_Tag = ExifTags.Base
_SUBSAMPLING, _COEFFICIENTS, _REFERENCE = 530, 529, 532  # of YCbCr (TIFF 6.0, section 21)
_INK_SET = 332

WHITE_IS_ZERO, BLACK_IS_ZERO, RGB, PALETTE, CMYK, YCBCR, LAB = 0, 1, 2, 3, 5, 6, 8
"""Photometric interpretations (TIFF 6.0, page 37)."""

_FORMATS = {1: "unsigned", 2: "signed", 3: "floating-point", 4: "undefined"}
_FAX = (2, 3, 4)
"""Compressions of black and white pages, in which white is zero unless the file says otherwise."""

_UNCOMPRESSED = 1
_OLD_JPEG = 6


def layout(tags: Any) -> str:
    """The sample layout in words, for messages: '16-bit signed samples, 1 a pixel, ...'."""
    bits = tags.get(_Tag.BitsPerSample, (1,))
    names = [_FORMATS.get(kind, str(kind)) for kind in _formats(tags)]
    return (
        f"{'/'.join(map(str, dict.fromkeys(bits)))}-bit {'/'.join(names)} samples, "
        f"{tags.get(_Tag.SamplesPerPixel, len(bits))} a pixel, photometric interpretation "
        f"{tags.get(_Tag.PhotometricInterpretation)}, extra samples "
        f"{tags.get(_Tag.ExtraSamples, ())}"
    )


def _formats(tags: Any) -> list[int]:
    return list(dict.fromkeys(tags.get(_Tag.SampleFormat, (1,))))


def unread_layout(data: bytes) -> str | None:
    """The layout of a TIFF that Pillow cannot open, None if not even its tags can be read."""
    try:
        file = io.BytesIO(data)
        head = file.read(8)
        if 43 in head[2:4]:  # BigTIFF
            head += file.read(8)
        tags = TiffImagePlugin.ImageFileDirectory_v2(head)
        file.seek(tags.next)
        tags.load(file)
        return layout(tags) if _Tag.ImageWidth in tags else None
    except Exception:  # as for Pillow's header: any, on corrupted bytes
        return None


def prepare(image: TiffImagePlugin.TiffImageFile) -> None:
    """Make an opened image ready for loading. Raises ImageError where Pillow would return other
    pixels than the file's."""
    problem = _problem(image.tag_v2)
    if problem:
        raise ImageError(f"tif image {problem} ({layout(image.tag_v2)}); save it as PNG")
    if image.tag_v2.get(_Tag.PlanarConfiguration) == 2:
        _correct_planes(image)
    if image.mode in ("P", "PA"):
        colours = image.tag_v2[_Tag.ColorMap]
        if max(colours) < 256:  # written with 8 bits instead of 16, as libtiff assumes too
            image.palette = ImagePalette.raw("RGB;L", bytes(colours))


def _problem(tags: Any) -> str | None:
    photometric = tags.get(_Tag.PhotometricInterpretation)
    compression = tags.get(_Tag.Compression, _UNCOMPRESSED)
    bits = tags.get(_Tag.BitsPerSample, (1,))
    if photometric is None and compression not in (*_FAX, _OLD_JPEG):
        return "does not say whether black or white is zero (no PhotometricInterpretation)"
    if _formats(tags) != [1] or max(bits) > 16:
        return "has signed, floating-point or more than 16-bit samples, whose white is unknown"
    if photometric == CMYK and tags.get(_INK_SET, 1) != 1:
        return "has inks other than cyan, magenta, yellow and black"
    if tags.get(_Tag.PlanarConfiguration) == 2 and tags.get(_Tag.SamplesPerPixel, 1) > 1:
        return _problem_of_planes(tags, photometric, compression, bits)
    if photometric == YCBCR and compression == _UNCOMPRESSED and not _is_plain_ycbcr(tags):
        return "has uncompressed YCbCr with chroma subsampling or coefficients of its own"
    return None


def _problem_of_planes(
    tags: Any, photometric: int, compression: int, bits: tuple[int, ...]
) -> str | None:
    """A problem of a file with a plane for each channel."""
    alpha = any(tags.get(_Tag.ExtraSamples, ()))
    if photometric == LAB or (alpha and photometric not in (RGB, CMYK)):
        return "has a plane for each channel, which is not read for this interpretation"
    if compression == _UNCOMPRESSED and (
        tags.get(_Tag.FillOrder, 1) != 1 or (max(bits) > 8 and photometric != RGB)
    ):
        return "has an uncompressed plane for each channel, which is not read for these samples"
    return None


def _is_plain_ycbcr(tags: Any) -> bool:
    """Whether every pixel has its own chroma, by the coefficients and the range of JPEG."""
    coefficients = [float(value) for value in tags.get(_COEFFICIENTS, (0.299, 0.587, 0.114))]
    reference = [float(value) for value in tags.get(_REFERENCE, (0, 255, 128, 255, 128, 255))]
    return (
        tuple(tags.get(_SUBSAMPLING, (2, 2))) == (1, 1)
        and np.allclose(coefficients, (0.299, 0.587, 0.114), atol=1e-4)
        and np.allclose(reference, (0, 255, 128, 255, 128, 255))
    )


def _correct_planes(image: TiffImagePlugin.TiffImageFile) -> None:
    """Pillow unpacks each uncompressed plane as if it had 8 bits, and black were zero."""
    tags = image.tag_v2
    bits = tags.get(_Tag.BitsPerSample, (1,))
    if image.info["compression"] != "raw":
        return
    if tags.get(_Tag.SamplesPerPixel, 1) == 1:  # a single plane is like the whole image
        kind, fill_order = tags[_Tag.PhotometricInterpretation], tags.get(_Tag.FillOrder, 1)
        unpacker = TiffImagePlugin.OPEN_INFO[tags.prefix, kind, (1,), fill_order, bits[:1], ()][1]
    elif max(bits) == 16:
        unpacker = "{};16L" if tags.prefix == b"II" else "{};16B"
    else:
        return
    tiles = []
    for tile in image.tile:
        assert isinstance(tile.args, tuple)
        tiles.append(tile._replace(args=(unpacker.format(tile.args[0]), *tile.args[1:])))
    image.tile = tiles


def to_sixteen_bits(
    image: TiffImagePlugin.TiffImageFile, values: npt.NDArray[Any]
) -> npt.NDArray[Any]:
    """Grey samples of a loaded 16-bit image as 0 (black) to 65535 (white)."""
    if image.tag_v2.get(_Tag.BitsPerSample) == (12,):
        return values << 4
    if image.tag_v2.get(_Tag.PhotometricInterpretation) == WHITE_IS_ZERO:
        return ~values
    return values


def alpha_is_a_guess(image: TiffImagePlugin.TiffImageFile) -> bool:
    """Whether a file has a fourth channel but does not say that it is alpha."""
    return not any(kind in (1, 2) for kind in image.tag_v2.get(_Tag.ExtraSamples, ()))
