"""BMPs, written byte by byte, against the colours they were written with."""

from __future__ import annotations

import struct

import numpy as np
import pytest

from ocrdata.errors import ImageError
from ocrdata.images.decode import decode_rgb, read_header

BLACK_WHITE = b"\0\0\0\0\xff\xff\xff\0"
ARGB = (0xFF0000, 0xFF00, 0xFF, 0xFF000000)
RGBA = (0xFF000000, 0xFF0000, 0xFF00, 0xFF)
COLOUR = (200, 20, 10)


def bmp(
    rows: list[bytes],
    width: int,
    bits: int,
    *,
    header: int = 40,
    masks: tuple[int, ...] = (),
    palette: bytes = b"",
    colours: int = 0,
    top_down: bool = False,
    skip_palette: bool = False,
) -> bytes:
    """A BMP with an info header of that size; `skip_palette` leaves the palette out of the offset
    of the pixels, as some writers do."""
    body = b"".join(row.ljust(-(-width * bits // 32) * 4, b"\0") for row in rows)
    height = -len(rows) if top_down else len(rows)
    info = struct.pack(
        "<IiiHHIIiiII",
        header,
        width,
        height,
        1,
        bits,
        3 if masks else 0,
        len(body),
        0,
        0,
        colours,
        0,
    )
    packed = b"".join(struct.pack("<I", mask) for mask in masks)
    info = (info + packed).ljust(header, b"\0") + palette
    offset = 14 + len(info)
    start = 14 + header if skip_palette else offset
    return b"BM" + struct.pack("<IHHI", offset + len(body), 0, 0, start) + info + body


def word(masks: tuple[int, ...], *channels: int) -> bytes:
    """A 32-bit pixel with red, green, blue and alpha where the masks say."""
    value = sum(
        channel << (mask & -mask).bit_length() - 1
        for channel, mask in zip(channels, masks, strict=True)
    )
    return struct.pack("<I", value)


@pytest.mark.parametrize("header", [56, 108, 124])
@pytest.mark.parametrize("masks", [ARGB, RGBA, (0xFF, 0xFF00, 0xFF0000, 0xFF000000)])
def test_alpha_that_is_zero_everywhere_is_none(header: int, masks: tuple[int, ...]) -> None:
    none = bmp([word(masks, *COLOUR, 0) * 2], 2, 32, header=header, masks=masks)
    assert decode_rgb(none).tolist() == [[list(COLOUR)] * 2]
    some = bmp(
        [word(masks, *COLOUR, 0) + word(masks, *COLOUR, 255)], 2, 32, header=header, masks=masks
    )
    assert decode_rgb(some).tolist() == [[[255] * 3, list(COLOUR)]]
    half = bmp([word(masks, 255, 0, 0, 128)], 1, 32, header=header, masks=masks)
    assert decode_rgb(half).tolist() == [[[255, 127, 127]]]


@pytest.mark.parametrize("header", [40, 52, 108])
def test_the_fourth_byte_without_a_mask_is_no_alpha(header: int) -> None:
    pixels = bytes([10, 20, 200, 0, 10, 20, 200, 99])
    for masks in ((), ARGB[:3]):
        data = bmp([pixels], 2, 32, header=header, masks=masks)
        assert decode_rgb(data).tolist() == [[list(COLOUR)] * 2]


@pytest.mark.parametrize("top_down", [False, True])
def test_the_alpha_bit_of_16_bit_pixels(top_down: bool) -> None:
    masks = (0x7C00, 0x3E0, 0x1F, 0x8000)
    red, blue = struct.pack("<H", 0x7C00), struct.pack("<H", 0x801F)
    data = bmp([red * 3, blue * 3], 3, 16, header=56, masks=masks, top_down=top_down)
    expected = [[[255] * 3] * 3, [[0, 0, 255]] * 3]
    assert decode_rgb(data).tolist() == (expected if top_down else expected[::-1])
    opaque = bmp([red * 3], 3, 16, header=56, masks=masks)
    assert decode_rgb(opaque).tolist() == [[[255, 0, 0]] * 3]


@pytest.mark.parametrize("bits", [1, 4, 8])
@pytest.mark.parametrize("skip_palette", [False, True])
def test_a_palette_of_black_and_white(bits: int, skip_palette: bool) -> None:
    shown = np.random.default_rng(bits).integers(0, 2, (3, 11))
    rows = []
    for line in shown[::-1]:
        text = "".join(f"{value:0{bits}b}" for value in line)
        text += "0" * (-len(text) % 8)
        rows.append(int(text, 2).to_bytes(len(text) // 8, "big"))
    data = bmp(rows, 11, bits, palette=BLACK_WHITE, colours=2, skip_palette=skip_palette)
    assert np.array_equal(decode_rgb(data)[:, :, 0], shown * 255)


def test_a_palette_that_pillow_misreads_is_refused() -> None:
    greys = b"".join(bytes([value, value, value, 0]) for value in range(16))
    data = bmp([bytes([0x01, 0xEF])], 4, 4, palette=greys)
    assert read_header(data).width == 4
    with pytest.raises(ImageError, match="4 bits and a palette of 16 dark greys"):
        decode_rgb(data)
    coloured = bmp([bytes([0x01, 0xEF])], 4, 4, palette=greys[:-4] + b"\1\2\3\0")
    assert decode_rgb(coloured)[0].tolist() == [[0] * 3, [1] * 3, [14] * 3, [3, 2, 1]]
