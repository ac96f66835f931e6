"""Damage that Pillow conceals is reported, and nothing else is."""

from __future__ import annotations

import io
import random
from itertools import product

import numpy as np
import pytest
import simplejpeg
from PIL import Image

from ocrdata.errors import ImageError
from ocrdata.images.decode import decode_rgb
from ocrdata.images.jpeg import damage
from tests.support.pictures import damaged_jpeg, rotated

KINDS = [*product(("RGB", "L"), (False, True), (0, 2), (0, 1)), ("CMYK", False, 0, 0)]


def jpeg(mode: str, progressive: bool, subsampling: int, restarts: int) -> bytes:
    blocks = np.random.default_rng(0).integers(0, 256, (9, 12, 3), np.uint8)
    picture = Image.fromarray(np.kron(blocks, np.ones((8, 8, 1), np.uint8)))
    out = io.BytesIO()
    picture.convert(mode).save(
        out,
        "JPEG",
        quality=80,
        progressive=progressive,
        subsampling=subsampling,
        restart_marker_rows=restarts,
    )
    return out.getvalue()


def full_decoding_complains(data: bytes, mode: str) -> bool:
    try:
        simplejpeg.decode_jpeg(data, "CMYK" if mode == "CMYK" else "RGB", strict=True)
    except ValueError:
        return True
    return False


@pytest.mark.parametrize(("mode", "progressive", "subsampling", "restarts"), KINDS)
def test_random_damage_is_reported_as_by_a_full_decoding(
    mode: str, progressive: bool, subsampling: int, restarts: int
) -> None:
    whole = jpeg(mode, progressive, subsampling, restarts)
    assert damage(whole) is None
    assert damage(whole + b"what follows the image") is None
    rng, reported = random.Random(0), 0
    for _ in range(12):
        data = bytearray(whole)
        at = rng.randrange(len(data) // 2, len(data) - 60)
        data[at : at + rng.randrange(1, 50)] = b""
        try:
            decode_rgb(bytes(data))
        except ImageError:
            continue
        found = damage(bytes(data))
        assert (found is not None) == full_decoding_complains(bytes(data), mode)
        reported += found is not None
    assert reported


def test_concealed_damage_is_named() -> None:
    whole = jpeg("RGB", False, 0, 0)
    data = damaged_jpeg(whole)
    pixels, right = decode_rgb(data), decode_rgb(whole)
    assert np.array_equal(pixels[:8], right[:8])
    assert (pixels[-8:] == pixels[-1, -1]).all() and not np.array_equal(pixels, right)
    assert damage(data) == "Corrupt JPEG data: premature end of data segment"


def test_a_subsampling_unknown_to_turbojpeg_is_not_taken_for_damage() -> None:
    whole = jpeg("CMYK", False, 2, 0)
    with pytest.raises(ValueError, match="subsampling"):
        simplejpeg.decode_jpeg(whole, "CMYK", strict=False)
    assert damage(whole) is None


def test_metadata_do_no_harm() -> None:
    out = io.BytesIO()
    Image.new("RGB", (20, 10)).save(out, "JPEG", exif=rotated(6), comment=b"x" * 1000, dpi=(9, 9))
    assert damage(out.getvalue()) is None


@pytest.mark.parametrize("name", ["PNG", "GIF", "TIFF", "WEBP", "BMP"])
def test_other_formats_are_left_to_pillow(name: str) -> None:
    out = io.BytesIO()
    Image.new("RGB", (20, 10)).save(out, name)
    assert damage(out.getvalue()) is None
