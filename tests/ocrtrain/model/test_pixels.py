"""Letterboxing on the device is compared with Pillow's `ImageOps.pad`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from ocrdata.images.decode import decode_rgb
from ocrdata.images.letterbox import letterbox_geometry, shrink_to_fit
from ocrtrain.model.pixels import FILL, encoder_view, letterbox, normalise, resize_float

DATA = Path(__file__).parents[4] / "shared" / "data"


def pillow(rgb: np.ndarray, size: int) -> np.ndarray:
    """The image letterboxed by Pillow, uint8 [size, size, 3]."""
    image = Image.fromarray(rgb)
    padded = ImageOps.pad(image, (size, size), Image.Resampling.BICUBIC, color=(FILL,) * 3)
    return np.array(padded)


def levels(pixels: torch.Tensor) -> np.ndarray:
    """Normalised [3, S, S] back to grey levels [S, S, 3]."""
    return ((pixels * 0.5 + 0.5) * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()


def test_encoder_view_undoes_the_normalisation() -> None:
    every = torch.arange(256, dtype=torch.uint8).reshape(16, 16, 1).expand(16, 16, 3).contiguous()
    assert torch.equal(encoder_view(every, 16), every)
    sizes = ((30, 90), (64, 64), (30, 90), (200, 31), (7, 5))
    images = [torch.from_numpy(noise(*size, seed=n)) for n, size in enumerate(sizes)]
    for image, together in zip(images, letterbox(images, 64), strict=True):
        alone = encoder_view(image, 64)
        assert alone.shape == (64, 64, 3) and alone.dtype == torch.uint8
        assert np.array_equal(alone.numpy(), levels(together))


def noise(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def grey_noise(height: int, width: int) -> np.ndarray:
    """Noise from 64 to 191: bicubic overshoot never reaches black or white."""
    return np.ascontiguousarray(noise(height, width) // 2 + 64)


@given(height=st.integers(1, 90), width=st.integers(1, 90), size=st.sampled_from([16, 32, 64]))
@settings(max_examples=150, deadline=None)
def test_equal_to_pillow(height: int, width: int, size: int) -> None:
    """On noise, the worst case. Where Pillow rounds a side to 0 px, ours is 1 px."""
    box = letterbox_geometry(width, height, size)
    if round(min(width, height) / max(width, height) * size) == 0:
        assert min(box.width, box.height) == 1
        return
    for rgb, most in ((grey_noise(height, width), 2), (noise(height, width), 40)):
        ours = levels(letterbox([torch.from_numpy(rgb)], size)[0])
        difference = np.abs(ours.astype(int) - pillow(rgb, size))
        assert difference.max() <= most and difference.mean() <= 0.5


@given(height=st.integers(8, 90), width=st.integers(8, 90), size=st.sampled_from([32, 64]))
@settings(max_examples=50, deadline=None)
def test_float_resizing_is_close_to_pillow(height: int, width: int, size: int) -> None:
    """The code for CUDA, run on the CPU; only Pillow's rounding between its passes differs."""
    rgb = grey_noise(height, width)
    box = letterbox_geometry(width, height, size)
    pixels = torch.from_numpy(rgb).permute(2, 0, 1)[None]
    ours = resize_float(pixels, box.height, box.width)[0].permute(1, 2, 0).numpy()
    expected = Image.fromarray(rgb).resize((box.width, box.height), Image.Resampling.BICUBIC)
    difference = np.abs(ours.astype(int) - np.asarray(expected))
    assert ours.dtype == np.uint8 and difference.max() <= 1 and difference.mean() < 0.5


def test_border_and_range() -> None:
    white = torch.full((4, 8, 3), 255, dtype=torch.uint8)
    out = letterbox([white, white - 255], 16)
    assert out.shape == (2, 3, 16, 16) and out.dtype == torch.float32
    assert torch.equal(out[0, :, 4:12], torch.ones(3, 8, 16))
    assert torch.equal(out[1, :, 4:12], -torch.ones(3, 8, 16))
    border = torch.full((3, 4, 16), (FILL / 255 - 0.5) / 0.5)
    for image in out:
        torch.testing.assert_close(image[:, :4], border)
        torch.testing.assert_close(image[:, 12:], border)


def test_normalise_equals_the_formula() -> None:
    values = torch.arange(256, dtype=torch.uint8)
    expected = (values.float() / 255 - 0.5) / 0.5
    torch.testing.assert_close(normalise(values), expected, rtol=0, atol=1e-6)


def test_images_of_different_sizes_give_the_same_together_and_alone() -> None:
    shapes = [(20, 30), (30, 20), (20, 30), (64, 64), (7, 90), (20, 30)]
    images = [torch.from_numpy(noise(*shape, seed=n)) for n, shape in enumerate(shapes)]
    together = letterbox(images, 64)
    for number, image in enumerate(images):
        assert torch.equal(together[number], letterbox([image], 64)[0])
    assert torch.equal(together, letterbox(images, 64))


@pytest.mark.parametrize(
    ("images", "message"),
    [
        ([torch.zeros(4, 4, dtype=torch.uint8)], r"image 0 .*torch.uint8 \(4, 4\)"),
        ([torch.zeros(3, 4, 4, dtype=torch.uint8)], r"image 0 .*\(3, 4, 4\)"),
        ([torch.zeros(4, 4, 3)], r"image 0 .*torch.float32"),
    ],
)
def test_images_of_a_wrong_type_or_shape_are_refused(
    images: list[torch.Tensor], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        letterbox(images, 16)


@pytest.mark.parametrize("size", [512, 1024])
def test_real_images_are_close_to_pillow(size: int) -> None:
    """With the worker's shrinking too; `benchmarks/pixels.py` measures all images."""
    paths = sorted((DATA / "charts/images").glob("*"))[::40]
    documents = sorted((DATA / "docs/images").glob("*"), key=lambda path: path.stat().st_size)
    paths += documents[::10] + documents[-4:]  # the largest are shrunk even for 1,024 px
    if not paths:
        pytest.skip(f"needs real images in {DATA}")
    shrunk = 0
    for path in paths:
        rgb = decode_rgb(path.read_bytes())
        small = shrink_to_fit(rgb, size)
        shrunk += small is not rgb
        ours = levels(letterbox([torch.from_numpy(small)], size)[0])
        difference = np.abs(ours.astype(int) - pillow(rgb, size))
        assert difference.mean() <= (1 if small is not rgb else 0.1), path
    assert shrunk >= 1


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_cuda_is_close_to_pillow_and_deterministic() -> None:
    images = [noise(200, 300), noise(90, 40), noise(1500, 900)]
    moved = [torch.from_numpy(image).cuda() for image in images]
    out = letterbox(moved, 256)
    assert torch.equal(out, letterbox(moved, 256))
    for image, pixels in zip(images, out.cpu(), strict=True):
        difference = np.abs(levels(pixels).astype(int) - pillow(image, 256))
        assert difference.mean() <= 1 and difference.max() <= 40
