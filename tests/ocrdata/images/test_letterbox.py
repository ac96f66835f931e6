"""The letterbox: Pillow's own is the oracle."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from ocrdata.images.letterbox import letterbox_geometry, shrink_to_fit


@given(st.integers(1, 3000), st.integers(1, 3000), st.integers(1, 64))
@settings(max_examples=500, deadline=None)
def test_geometry_equals_pillows_contain(width: int, height: int, size: int) -> None:
    box = letterbox_geometry(width, height, size)
    scaled = ImageOps.contain(
        Image.new("1", (width, height)), (size, size), Image.Resampling.NEAREST
    )
    assert (box.width, box.height) == (max(1, scaled.width), max(1, scaled.height))
    assert (box.left, box.top) == (round((size - box.width) / 2), round((size - box.height) / 2))


def test_geometry_equals_pillows_pad() -> None:
    for width, height in ((5, 3), (3, 5), (4, 4), (7, 6), (1, 64), (64, 1)):
        white = Image.new("L", (width, height), 255)
        padded = np.asarray(ImageOps.pad(white, (33, 33), color=0))
        box = letterbox_geometry(width, height, 33)
        ours = np.zeros((33, 33), np.uint8)
        ours[box.top : box.top + box.height, box.left : box.left + box.width] = 255
        assert np.array_equal(ours, padded)


def test_an_empty_image_is_refused() -> None:
    with pytest.raises(ValueError, match=r"0 x 5 px .* 8 px"):
        letterbox_geometry(0, 5, 8)


long_sides = st.integers(600, 3000)


@given(
    shape=st.one_of(
        st.tuples(st.integers(1, 300), st.integers(1, 300)),
        st.tuples(st.integers(1, 20), long_sides),
        st.tuples(long_sides, st.integers(1, 20)),
    ),
    size=st.integers(1, 64),
)
@settings(max_examples=200, deadline=None)
def test_shrinking_bounds_the_factor_and_keeps_the_geometry(
    shape: tuple[int, int], size: int
) -> None:
    height, width = shape
    rgb = np.zeros((height, width, 3), np.uint8)
    small = shrink_to_fit(rgb, size)
    assert max(small.shape[:2]) <= 16 * size
    assert small.dtype == np.uint8 and small.flags.writeable
    assert letterbox_geometry(small.shape[1], small.shape[0], size) == letterbox_geometry(
        width, height, size
    )
    if max(shape) <= 16 * size:
        assert small is rgb


@pytest.mark.parametrize("size", [640, 1024])
def test_shrinking_bounds_memory(size: int) -> None:
    most = 4 * 1024 * 1024
    whole = np.zeros((1024, 4096, 3), np.uint8)
    assert whole.size == 3 * most and shrink_to_fit(whole, size) is whole
    assert shrink_to_fit(np.zeros((1025, 4096, 3), np.uint8), size).shape == (
        2 * round(1025 / 4096 * size),
        2 * size,
        3,
    )


def test_shrinking_keeps_the_picture() -> None:
    across, down = np.meshgrid(np.arange(1600), np.arange(1000))
    rgb = np.stack([across // 8, down // 4, (across + down) // 16], axis=2).astype(np.uint8)
    small = shrink_to_fit(rgb, 64)
    assert small.shape == (80, 128, 3)
    expected = np.asarray(Image.fromarray(rgb).resize((128, 80), Image.Resampling.BICUBIC))
    assert np.abs(small.astype(int) - expected).max() <= 2
