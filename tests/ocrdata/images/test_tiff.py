"""TIFFs of every sample layout, written by the tests: right pixels or an ImageError.

The oracle is the definition of each photometric interpretation (TIFF 6.0), computed by numpy.
"""

from __future__ import annotations

import io
import struct
import zlib
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from PIL import Image

from ocrdata.errors import ImageError
from ocrdata.images.decode import decode_rgb, read_header
from tests.support.tiff import DEFLATE, LZW, NONE, PACKBITS, Layout, tiff

CHANNELS = {0: 1, 1: 1, 2: 3, 3: 1, 5: 4}
READ = {0: (1, 2, 4, 8, 16), 1: (1, 2, 4, 8, 12, 16), 2: (8, 16), 3: (1, 2, 4, 8), 5: (8, 16)}
"""Photometric interpretation -> bits that must be read, not refused (16-bit white is zero only in
the byte order of Intel)."""

HEIGHT, WIDTH = 3, 11


def samples(layout: Layout, seed: int = 0) -> np.ndarray:
    """Random samples; a premultiplied colour is not above its alpha."""
    assert layout.photometric is not None
    channels = CHANNELS[layout.photometric]
    values = np.random.default_rng(seed).integers(
        0, 1 << layout.bits, (HEIGHT, WIDTH, channels + len(layout.extra))
    )
    if layout.extra[:1] == (1,):
        values[..., :channels] = np.minimum(
            values[..., :channels], values[..., channels : channels + 1]
        )
    return values


def expected(values: np.ndarray, layout: Layout) -> np.ndarray:
    """The colours that the samples mean."""

    def eight(part: np.ndarray) -> np.ndarray:
        if layout.bits > 8:
            return part >> layout.bits - 8
        return part * 255 // ((1 << layout.bits) - 1)

    kind = layout.photometric
    assert kind is not None
    channels = CHANNELS[kind]
    colours = values[..., :channels]
    if kind == 3:
        palette = np.array(layout.palette).reshape(3, -1)
        rgb = np.moveaxis(palette[:, colours[..., 0]] // 256, 0, 2)
    elif kind == 5:
        inks = 255 - eight(colours)
        rgb = np.round(inks[..., :3] * inks[..., 3:] / 255).astype(int)
    else:
        light = (1 << layout.bits) - 1 - colours if kind == 0 else colours
        rgb = np.broadcast_to(eight(light), (HEIGHT, WIDTH, 3))
    alpha = eight(values[..., channels : channels + 1])
    if layout.extra[:1] == (1,):
        return np.minimum(255, rgb + 255 - alpha)
    if layout.extra[:1] == (2,):
        return np.round((rgb * alpha + 255 * (255 - alpha)) / 255).astype(int)
    return rgb


def with_palette(layout: Layout) -> Layout:
    if layout.photometric != 3:
        return layout
    return replace(
        layout,
        palette=np.random.default_rng(layout.bits).integers(0, 65536, 3 << layout.bits).tolist(),
    )


def outcome(layout: Layout) -> str:
    """'right', 'wrong' or 'refused'."""
    layout = with_palette(layout)
    values = samples(layout)
    try:
        pixels = decode_rgb(tiff(values, layout))
    except ImageError:
        return "refused"
    # Ink and alpha are multiplied, and rounded once more, by Pillow.
    near = 3 if layout.photometric == 5 or layout.extra else 0
    difference = np.abs(pixels.astype(int) - expected(values, layout)).max()
    return "right" if difference <= near else "wrong"


VARIANTS = [
    *product("<>", (NONE, LZW, DEFLATE, PACKBITS), (None,), (False,)),
    *product("<>", (NONE, DEFLATE), (16,), (False,)),
    ("<", NONE, None, True),
    ("<", DEFLATE, None, True),
]
"""Byte order, compression, tile, BigTIFF."""


@pytest.mark.parametrize(
    ("photometric", "bits"), [(kind, bits) for kind, all_bits in READ.items() for bits in all_bits]
)
def test_the_layouts_of_scanners_and_cameras_are_read(photometric: int, bits: int) -> None:
    for order, compression, tile, big in VARIANTS:
        layout = Layout(bits, photometric, order, compression=compression, tile=tile, big=big)
        refused = order == ">" and (photometric, bits) in ((0, 16), (1, 12))
        assert outcome(layout) == ("refused" if refused else "right"), layout
        if CHANNELS[photometric] == 1:  # then planes are the same
            assert outcome(replace(layout, planar=2)) == ("refused" if refused else "right"), layout


@pytest.mark.parametrize(("photometric", "bits"), [(0, 16), (1, 12), (1, 16), (2, 16)])
def test_a_turned_image_of_more_than_8_bits(photometric: int, bits: int) -> None:
    layout = Layout(bits, photometric, more=((274, 3, (6,)),))
    values = samples(layout)
    shown = np.rot90(expected(values, layout), -1)
    data = tiff(values, layout)
    assert np.array_equal(decode_rgb(data), shown)
    assert read_header(data)[1:] == (HEIGHT, WIDTH)


@pytest.mark.parametrize("bits", [8, 16])
def test_planes_alpha_and_predictors(bits: int) -> None:
    for order, compression, tile, _ in VARIANTS[:12]:
        layout = Layout(bits, 2, order, compression=compression, tile=tile)
        planes = replace(layout, planar=2)
        assert outcome(planes) == "right", planes
        for extra in ((0,), (1,), (2,)):
            assert outcome(replace(layout, extra=extra)) == "right", (layout, extra)
        if compression in (LZW, DEFLATE):
            assert outcome(replace(layout, predictor=2)) == "right", layout


def test_every_other_layout_is_right_or_refused() -> None:
    found = {"right": 0, "refused": 0}
    for photometric, bits, order, planar, extra in product(
        CHANNELS, (4, 8, 12, 16), "<>", (1, 2), ((), (0,), (1,), (2,))
    ):
        if (photometric == 3 and bits > 8) or (extra and bits not in (4, 8, 16)):
            continue
        layout = Layout(bits, photometric, order, planar=planar, extra=extra)
        for one in (
            layout,
            replace(layout, fill_order=2),
            replace(layout, compression=DEFLATE),
        ):
            result = outcome(one)
            assert result != "wrong", one
            found[result] += 1
    assert min(found.values()) > 100


@pytest.mark.parametrize(
    ("bits", "sample_format"),
    [(8, 2), (8, 4), *product((16, 32, 64), (2, 3, 4))],
)
def test_samples_without_a_known_white_are_refused(bits: int, sample_format: int) -> None:
    values = np.arange(12).reshape(3, 4, 1)
    for photometric, order in product((0, 1), "<>"):
        data = tiff(values, Layout(bits, photometric, order, sample_format))
        name = {2: "signed", 3: "floating-point", 4: "undefined"}[sample_format]
        with pytest.raises(ImageError, match=f"{bits}-bit {name} samples"):
            decode_rgb(data)


@pytest.mark.parametrize("bits", [24, 32, 64])
def test_unsigned_samples_above_16_bits_are_refused(bits: int) -> None:
    data = tiff(np.arange(12).reshape(3, 4, 1), Layout(bits))
    with pytest.raises(ImageError, match=f"{bits}-bit unsigned samples"):
        decode_rgb(data)


def test_a_missing_photometric_interpretation_is_refused() -> None:
    data = tiff(np.arange(12).reshape(3, 4, 1), Layout(8, None))
    assert read_header(data)[1:] == (4, 3)
    with pytest.raises(ImageError, match="PhotometricInterpretation"):
        decode_rgb(data)


@pytest.mark.parametrize("photometric", [0, 1])
@pytest.mark.parametrize("compression", ["group3", "group4", "tiff_ccitt"])
def test_fax_pages(compression: str, photometric: int) -> None:
    shown = np.random.default_rng(0).random((9, 30)) > 0.5
    out = io.BytesIO()
    Image.fromarray(shown).save(out, "TIFF", compression=compression, tiffinfo={262: photometric})
    assert np.array_equal(decode_rgb(out.getvalue())[:, :, 0], shown * 255)


def test_a_palette_of_8_bit_values() -> None:
    values = np.arange(256).reshape(8, 32, 1)
    ramp = [*range(256), *range(255, -1, -1), *[7] * 256]
    pixels = decode_rgb(tiff(values, Layout(8, 3, palette=ramp)))
    assert pixels[3, 5].tolist() == [101, 154, 7]


def test_a_fourth_channel_of_zeros_that_is_not_said_to_be_alpha() -> None:
    values = np.full((3, 4, 4), 77)
    values[..., 3] = 0
    assert set(decode_rgb(tiff(values, Layout(8, 2))).ravel()) == {77}
    assert set(decode_rgb(tiff(values, Layout(8, 2, extra=(2,)))).ravel()) == {255}


def test_inks_that_are_not_cmyk_are_refused() -> None:
    layout = Layout(8, 5, more=((332, 3, (2,)),))
    with pytest.raises(ImageError, match="inks other than"):
        decode_rgb(tiff(np.zeros((3, 4, 4), int), layout))


def ycbcr(rgb: np.ndarray) -> np.ndarray:
    """JPEG's YCbCr (ITU-R BT.601, full range)."""
    red, green, blue = np.moveaxis(rgb.astype(float), 2, 0)
    luma = 0.299 * red + 0.587 * green + 0.114 * blue
    return (
        np.stack([luma, (blue - luma) / 1.772 + 128, (red - luma) / 1.402 + 128], axis=2)
        .round()
        .astype(int)
        .clip(0, 255)
    )


def subsampled(rgb: np.ndarray, across: int, down: int, *, compression: int) -> bytes:
    """A YCbCr TIFF in one strip: for each block of pixels their lumas, then one chroma pair."""
    height, width, _ = rgb.shape
    values, body = ycbcr(rgb), bytearray()
    for top, left in product(range(0, height, down), range(0, width, across)):
        body += bytes(values[top : top + down, left : left + across, 0].ravel().tolist())
        body += bytes(values[top, left, 1:].tolist())
    data = zlib.compress(bytes(body)) if compression == DEFLATE else bytes(body)
    tags = [
        (256, 4, width), (257, 4, height), (258, 3, 8), (259, 3, compression), (262, 3, 6),
        (273, 4, 8), (277, 3, 3), (278, 4, height), (279, 4, len(data)),
    ]  # fmt: skip
    entries = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in tags)
    entries += struct.pack("<HHIHH", 530, 3, 2, across, down)
    data += bytes(len(data) % 2)
    directory = struct.pack("<H", len(tags) + 1) + entries + bytes(4)
    return b"II*\0" + struct.pack("<I", 8 + len(data)) + data + directory


@pytest.mark.parametrize(("across", "down"), [(1, 1), (2, 1), (2, 2), (1, 2), (4, 4)])
def test_ycbcr(across: int, down: int) -> None:
    blocks = np.random.default_rng(0).integers(0, 256, (3, 4, 3))
    rgb = np.kron(blocks, np.ones((4, 4, 1), int))
    packed = decode_rgb(subsampled(rgb, across, down, compression=DEFLATE)).astype(int)
    assert np.abs(packed - rgb).max() <= 2
    plain = subsampled(rgb, across, down, compression=NONE)
    if (across, down) == (1, 1):
        assert np.abs(decode_rgb(plain).astype(int) - rgb).max() <= 2
    else:
        with pytest.raises(ImageError, match="chroma subsampling"):
            decode_rgb(plain)


def test_jpeg_in_tiff() -> None:
    rgb = np.kron(np.random.default_rng(0).integers(0, 256, (2, 3, 3)), np.ones((16, 16, 1), int))
    for mode in ("RGB", "YCbCr", "L", "CMYK"):
        image, out = Image.fromarray(rgb.astype(np.uint8)).convert(mode), io.BytesIO()
        image.save(out, "TIFF", compression="jpeg", quality=95)
        shown = np.asarray(image.convert("RGB")).astype(int)
        assert np.abs(decode_rgb(out.getvalue()).astype(int) - shown).mean() < 4, mode


def lab_to_rgb(lab: np.ndarray) -> np.ndarray:
    """CIE L*a*b* under D50 to sRGB (IEC 61966-2-1, Bradford adaptation), unclipped colours only."""
    lightness = lab[..., 0] * 100 / 255
    fy = (lightness + 16) / 116
    f = np.stack([fy + lab[..., 1] / 500, fy, fy - lab[..., 2] / 200], axis=-1)
    xyz = np.where(f > 6 / 29, f**3, 3 * (6 / 29) ** 2 * (f - 4 / 29)) * (0.9642, 1.0, 0.8249)
    matrix = np.array(
        [
            [3.1338561, -1.6168667, -0.4906146],
            [-0.9787684, 1.9161415, 0.0334540],
            [0.0719453, -0.2289914, 1.4052427],
        ]
    )
    linear = xyz @ matrix.T
    return 255 * np.where(linear > 0.0031308, 1.055 * linear ** (1 / 2.4) - 0.055, 12.92 * linear)


def test_lab() -> None:
    lab = np.array([[[255, 0, 0], [0, 0, 0], [128, 0, 0], [140, 40, 30], [160, -30, 25]]])
    shown = decode_rgb(tiff(lab, Layout(8, 8))).astype(int)
    assert np.abs(shown - lab_to_rgb(lab.astype(float))).max() <= 3
    with pytest.raises(ImageError, match="plane for each channel"):
        decode_rgb(tiff(lab, Layout(8, 8, planar=2)))
