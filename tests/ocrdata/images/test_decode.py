"""Images: Pillow's own tools are the oracle, real and synthetic files the input."""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from ocrdata.errors import ImageError, RejectedRow
from ocrdata.images.decode import (
    MAX_PIXELS,
    ImageInfo,
    check_image,
    decode_rgb,
    pillow_to_rgb,
    read_header,
    sniff,
)
from ocrdata.sample import check, from_turns
from tests.support.pictures import DATA, png_chunk, rotated

SAVE_AS = {"png": "PNG", "jpg": "JPEG", "gif": "GIF", "webp": "WEBP", "bmp": "BMP", "tif": "TIFF"}


def picture(width: int = 37, height: int = 21) -> Image.Image:
    """A smooth picture without symmetry, so that a wrong rotation shows even through JPEG."""
    x, y = np.meshgrid(np.linspace(0, 1, width), np.linspace(0, 1, height))
    return Image.fromarray((np.stack([x, y, x * y], axis=2) * 255).astype(np.uint8))


def save(image: Image.Image, name: str, exif: Image.Exif | None = None) -> bytes:
    out = io.BytesIO()
    options = {"lossless": True} if name == "webp" else {}
    if exif is not None:
        image.save(out, SAVE_AS[name], exif=exif, **options)
    else:
        image.save(out, SAVE_AS[name], **options)
    return out.getvalue()


def oracle(data: bytes) -> np.ndarray:
    """The same rules by Pillow's own functions."""
    with Image.open(io.BytesIO(data)) as image:
        image = ImageOps.exif_transpose(image)
        if image.has_transparency_data:
            white = Image.new("RGBA", image.size, "white")
            image = Image.alpha_composite(white, image.convert("RGBA"))
        return np.asarray(image.convert("RGB"))


def real_images() -> list[Path]:
    folders = ("charts/images", "docs/images", "overfit10/images")
    found = [path for folder in folders for path in sorted((DATA / folder).glob("*"))[::4]]
    if not found:
        pytest.skip(f"no real images at {DATA}")
    return found


def test_real_images_equal_pillow() -> None:
    for path in real_images():
        data = path.read_bytes()
        pixels = decode_rgb(data)
        expected = oracle(data)
        header = read_header(data)
        assert (header.height, header.width, 3) == pixels.shape == expected.shape, path
        assert pixels.dtype == np.uint8 and pixels.flags.writeable and pixels.flags.owndata
        # The two ways to composite round differently by one.
        assert np.abs(pixels.astype(int) - expected).max() <= 1, path


@pytest.mark.parametrize("name", SAVE_AS)
def test_sniff_and_header(name: str) -> None:
    data = save(picture(), name)
    assert sniff(data) == name
    assert read_header(data) == ImageInfo(name, 37, 21)
    tolerance = {"jpg": 40, "gif": 40}.get(name, 0)
    assert np.abs(decode_rgb(data).astype(int) - np.asarray(picture())).max() <= tolerance


@pytest.mark.parametrize("name", ["png", "jpg", "webp", "tif"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_rotation(name: str, orientation: int) -> None:
    data = save(picture(), name, rotated(orientation))
    pixels = decode_rgb(data)
    swapped = orientation >= 5
    assert pixels.shape == ((37, 21, 3) if swapped else (21, 37, 3))
    assert read_header(data) == ImageInfo(name, *((21, 37) if swapped else (37, 21)))
    assert np.array_equal(pixels, oracle(data))


def test_png_with_exif_after_its_pixels() -> None:
    data = save(picture(), "png")
    assert data[-8:-4] == b"IEND"
    late = png_chunk(b"eXIf", rotated(6).tobytes().removeprefix(b"Exif\0\0"))
    data = data[:-12] + late + data[-12:]
    assert read_header(data) == ImageInfo("png", 21, 37)
    assert np.array_equal(decode_rgb(data), np.rot90(np.asarray(picture()), -1))


def test_unreadable_exif_does_not_rotate() -> None:
    plain = save(picture(), "png")
    data = plain[:33] + png_chunk(b"eXIf", b"MM\0*\xff\xff") + plain[33:]
    assert read_header(data) == ImageInfo("png", 37, 21)
    assert np.array_equal(decode_rgb(data), decode_rgb(plain))


def png(width: int, height: int, depth: int, kind: int, rows: bytes, extra: bytes = b"") -> bytes:
    header = struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + png_chunk(b"IHDR", header)
        + extra
        + png_chunk(b"IDAT", zlib.compress(rows))
        + png_chunk(b"IEND", b"")
    )


def test_sixteen_bit_keeps_the_upper_eight() -> None:
    grey = png(2, 1, 16, 0, b"\0" + struct.pack(">HH", 0x12FF, 0xFF00))
    assert decode_rgb(grey).tolist() == [[[0x12] * 3, [0xFF] * 3]]
    colour = png(1, 1, 16, 2, b"\0" + struct.pack(">HHH", 0x12FF, 0x3400, 0xFFFF))
    assert decode_rgb(colour).tolist() == [[[0x12, 0x34, 0xFF]]]


def test_key_colours_become_white() -> None:
    grey8 = png(2, 1, 8, 0, b"\0\x07\x08", png_chunk(b"tRNS", struct.pack(">H", 7)))
    assert decode_rgb(grey8).tolist() == [[[255] * 3, [8] * 3]]
    rows = b"\0" + struct.pack(">HH", 0x1234, 0x1235)
    grey16 = png(2, 1, 16, 0, rows, png_chunk(b"tRNS", struct.pack(">H", 0x1234)))
    assert decode_rgb(grey16).tolist() == [[[255] * 3, [0x12] * 3]]
    key = struct.pack(">HHH", 0x0102, 0x0304, 0x0506)
    rows = b"\0" + key + struct.pack(">HHH", 0x1102, 0x0304, 0x0506)
    rgb16 = png(2, 1, 16, 2, rows, png_chunk(b"tRNS", key))
    assert decode_rgb(rgb16).tolist() == [[[255] * 3, [0x11, 3, 5]]]


def test_alpha_is_composited_on_white() -> None:
    pixels = np.zeros((1, 3, 4), np.uint8)
    pixels[0, :, 3] = (0, 128, 255)
    data = save(Image.fromarray(pixels), "png")
    assert decode_rgb(data).tolist() == [[[255] * 3, [127] * 3, [0] * 3]]
    grey = save(Image.merge("LA", [Image.new("L", (2, 2), 9), Image.new("L", (2, 2), 0)]), "png")
    assert decode_rgb(grey).min() == 255


def test_palettes_with_transparency() -> None:
    palette = Image.new("P", (3, 1))
    palette.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90])
    palette.putdata([0, 1, 2])
    for name in ("png", "gif"):
        out = io.BytesIO()
        palette.save(out, SAVE_AS[name], transparency=1)
        assert decode_rgb(out.getvalue()).tolist() == [[[10, 20, 30], [255] * 3, [70, 80, 90]]]
    out = io.BytesIO()
    palette.save(out, "PNG", transparency=bytes([255, 128, 0]))
    assert decode_rgb(out.getvalue()).tolist() == [[[10, 20, 30], [147, 152, 157], [255] * 3]]


@pytest.mark.parametrize("mode", ["1", "L", "P", "CMYK", "YCbCr"])
def test_other_modes(mode: str) -> None:
    name = "jpg" if mode in ("CMYK", "YCbCr") else "png"
    data = save(picture().convert(mode), name)
    assert np.array_equal(decode_rgb(data), oracle(data))


def test_first_frame_of_an_animation() -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    for name in ("GIF", "WEBP", "PNG", "TIFF"):
        out = io.BytesIO()
        options = {"lossless": True} if name == "WEBP" else {}
        frames[0].save(out, name, save_all=True, append_images=frames[1:], **options)
        assert set(map(tuple, decode_rgb(out.getvalue()).reshape(-1, 3))) == {(255, 0, 0)}


@pytest.mark.parametrize("name", SAVE_AS)
def test_a_truncated_image_is_an_error_or_complete(name: str) -> None:
    data = save(picture(64, 48), name)
    whole = decode_rgb(data)
    errors = 0
    for cut in range(0, len(data), max(1, len(data) // 150)):
        try:
            pixels = decode_rgb(data[:cut])
        except ImageError:
            errors += 1
        else:  # only bytes after the pixels may be missing
            assert np.array_equal(pixels, whole), cut
    assert errors >= 0.9 * min(150, len(data))


@given(name=st.sampled_from(sorted(SAVE_AS)), tail=st.binary(max_size=64), keep=st.integers(0, 40))
@settings(max_examples=300, deadline=None)
def test_garbage_is_an_image_error(name: str, tail: bytes, keep: int) -> None:
    data = save(picture(9, 7), name)[:keep] + tail
    for read in (read_header, decode_rgb):
        try:
            read(data)
        except ImageError as exc:
            assert str(exc)


@given(name=st.sampled_from(sorted(SAVE_AS)), flips=st.lists(st.integers(0, 1 << 20), max_size=4))
@settings(max_examples=300, deadline=None)
def test_flipped_bits_are_pixels_or_an_image_error(name: str, flips: list[int]) -> None:
    data = bytearray(save(picture(33, 17), name))
    for flip in flips:
        data[flip // 8 % len(data)] ^= 1 << flip % 8
    try:
        with warnings.catch_warnings():
            # Pillow may warn about metadata it cannot read, but never about the image's size.
            warnings.simplefilter("ignore", UserWarning)
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            pixels = decode_rgb(bytes(data), max_pixels=10_000)
    except ImageError:
        return
    assert (
        pixels.dtype == np.uint8
        and pixels.ndim == 3
        and pixels.shape[0] * pixels.shape[1] <= 10_000
    )


def test_unknown_bytes_are_named() -> None:
    with pytest.raises(ImageError, match="12 bytes that begin with b'%PDF"):
        sniff(b"%PDF-1.4 abc")
    with pytest.raises(ImageError, match="0 bytes"):
        decode_rgb(b"")


def test_a_too_large_image_is_refused_before_decoding() -> None:
    with pytest.raises(ImageError, match=r"37 x 21 pixels is larger than the 776 pixels"):
        decode_rgb(save(picture(), "png"), max_pixels=776)
    assert decode_rgb(save(picture(), "png"), max_pixels=777).shape == (21, 37, 3)
    # Between Pillow's warning (89 M) and its error (179 M), and beyond: one ImageError, no warning.
    for side in (10_000, 40_000):
        huge = png(side, side, 8, 2, b"")
        for read in (read_header, decode_rgb):
            with pytest.raises(ImageError, match=f"{side} x {side} pixels is larger"):
                read(huge)


def test_a_gif_frame_larger_than_its_canvas() -> None:
    data = bytearray(save(picture(9, 7), "gif"))
    at = data.index(b",", 13 + (3 << (data[10] & 7) + 1))  # after the palette
    struct.pack_into("<HH", data, at + 5, 12_000, 9_000)
    with pytest.raises(ImageError, match="12000 x 9000"):
        read_header(bytes(data))


def test_empty_images_are_refused() -> None:
    with pytest.raises(ImageError, match="is empty"):
        read_header(save(picture(), "gif")[:6] + bytes(100))


@pytest.mark.parametrize("depth", [1, 2, 4, 8])
def test_a_grey_key_colour_has_the_depth_of_the_file(depth: int) -> None:
    white = (1 << depth) - 1
    values = list(range(min(white, 15) + 1))
    text = "".join(f"{value:0{depth}b}" for value in values)
    text += "0" * (-len(text) % 8)
    row = b"\0" + int(text, 2).to_bytes(len(text) // 8, "big")
    for key in values:
        data = png(len(values), 1, depth, 0, row, png_chunk(b"tRNS", struct.pack(">H", key)))
        expected = [255 if value == key else value * 255 // white for value in values]
        assert decode_rgb(data)[0, :, 0].tolist() == expected, key


@given(
    key=st.tuples(*[st.integers(0, 65535)] * 3),
    near=st.tuples(*[st.sampled_from([0, 1, 255, 256, 65535])] * 3),
    turned=st.sampled_from([1, 6]),
)
@settings(max_examples=50, deadline=None)
def test_a_16_bit_key_colour_is_compared_with_all_bits(
    key: tuple[int, int, int], near: tuple[int, int, int], turned: int
) -> None:
    other = tuple((value + step) % 65536 for value, step in zip(key, near, strict=True))
    rows = b"".join(b"\0" + struct.pack(">6H", *a, *b) for a, b in ((key, other), (other, key)))
    extra = png_chunk(b"tRNS", struct.pack(">3H", *key))
    extra += png_chunk(b"eXIf", rotated(turned).tobytes().removeprefix(b"Exif\0\0"))
    shown = [value >> 8 for value in other] if other != key else [255] * 3
    expected = [[[255] * 3, shown], [shown, [255] * 3]]
    if turned == 6:
        expected = [[shown, [255] * 3], [[255] * 3, shown]]
    assert decode_rgb(png(2, 2, 16, 2, rows, extra)).tolist() == expected


@pytest.mark.parametrize("limit", [0, -1, MAX_PIXELS + 1])
def test_max_pixels_out_of_range(limit: int) -> None:
    with pytest.raises(ValueError, match="max_pixels is"):
        decode_rgb(save(picture(), "png"), max_pixels=limit)


def test_the_check_at_conversion_does_not_depend_on_the_fast_decoder() -> None:
    """A wrong checksum inside the compressed pixels: Pillow refuses it, the fast one accepts it."""
    rows = b"".join(b"\0" + bytes(range(3 * 8)) for _ in range(8))
    whole = bytearray(zlib.compress(rows))
    whole[-1] ^= 1
    header = struct.pack(">IIBBBBB", 8, 8, 8, 2, 0, 0, 0)
    chunks = png_chunk(b"IHDR", header) + png_chunk(b"IDAT", bytes(whole)) + png_chunk(b"IEND", b"")
    data = b"\x89PNG\r\n\x1a\n" + chunks
    with pytest.raises(ImageError, match="png image cannot be decoded"):
        check_image(data)
    sound = from_turns([("What?", "Seven.")], [data], source="", meta={})
    with pytest.raises(RejectedRow, match="image 0: png image cannot be decoded"):
        check(sound)


def many_scans(*, progressive: bool, extra: int, side: int = 2000) -> bytes:
    """A JPEG with its last scan repeated `extra` times."""
    buffer = io.BytesIO()
    Image.new("L", (side, side), 200).save(buffer, "JPEG", progressive=progressive)
    data = buffer.getvalue()
    scan = data[data.rfind(b"\xff\xda") : -2]
    return data[:-2] + (scan if progressive else scan[:10]) * extra + data[-2:]


def test_a_jpeg_of_many_scans() -> None:
    for progressive in (True, False):
        whole = many_scans(progressive=progressive, extra=5000)
        for read in (read_header, decode_rgb):
            with pytest.raises(ImageError, match=r"jpg image has 5,0\d\d scans, .*\b100\b"):
                read(whole)
    assert decode_rgb(many_scans(progressive=True, extra=90)).shape == (2000, 2000, 3)


def test_scans_of_a_thumbnail_are_not_counted() -> None:
    thumbnail = b"\xff\xda\0\2" * 5000
    head = b"\xff\xe1" + (len(thumbnail) + 2).to_bytes(2, "big")
    whole = many_scans(progressive=True, extra=0)
    whole = whole[:2] + head + thumbnail + whole[2:]
    assert read_header(whole).width == 2000


@pytest.mark.parametrize("name", list(SAVE_AS))
def test_an_image_that_pillow_opened_has_the_pixels_of_its_file(name: str) -> None:
    for image in (picture(), picture().convert("P"), picture().convert("L")):
        exif = Image.Exif()
        exif[0x0112] = 6
        data = save(image.convert("RGB") if name == "jpg" else image, name, exif)
        assert np.array_equal(pillow_to_rgb(Image.open(io.BytesIO(data))), decode_rgb(data))


def test_alpha_and_sixteen_bits_of_an_opened_image() -> None:
    alpha = picture().convert("RGBA")
    alpha.putalpha(Image.linear_gradient("L").resize(alpha.size))
    grey = Image.fromarray(np.arange(0, 60_000, 100, dtype=np.uint16).reshape(20, 30))
    for image in (alpha, grey, picture().convert("CMYK"), picture().convert("1")):
        data = save(image, "tif" if image.mode == "CMYK" else "png")
        assert np.array_equal(pillow_to_rgb(image), decode_rgb(data)), image.mode


def test_opened_images_of_unknown_meaning_too_large_or_damaged_are_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for mode in ("I", "F"):
        with pytest.raises(ImageError, match=f"mode {mode}"):
            pillow_to_rgb(Image.new(mode, (3, 3)))
    with pytest.raises(ImageError, match="cannot be decoded"):
        pillow_to_rgb(Image.open(io.BytesIO(save(picture(), "png")[:-40])))
    monkeypatch.setattr("ocrdata.images.decode.MAX_PIXELS", 100)
    with pytest.raises(ImageError, match="37 x 21"):
        pillow_to_rgb(picture())
