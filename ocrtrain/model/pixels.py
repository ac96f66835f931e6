"""Letterboxing on the device: uint8 images of any size -> square float images for the encoder.

Images are resized with antialiased bicubic interpolation like Pillow's, centred on grey 127, and
normalised to (x/255 - 0.5)/0.5. `ocrdata.images.letterbox.letterbox_geometry` gives the geometry.
Images reach the device as uint8 in their own size (96 % of real charts are smaller than 1,024 px),
so that workers only decode and little is copied.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ocrdata.images.letterbox import letterbox_geometry

FILL = 127
"""Grey level of the border, in all channels (as in DeepSeek-OCR)."""


def letterbox(images: Sequence[Tensor], size: int) -> Tensor:
    """N images, uint8 [H, W, 3] on one device -> float32 [N, 3, size, size] in [-1, 1]; of none,
    on the CPU.

    Deterministic. Images of equal size are resized together. Values are rounded to integers before
    they are normalised, as Pillow's are. The result differs from `PIL.ImageOps.pad` by one or two
    grey levels, and by more where the interpolation overshoots black or white: Pillow clips between
    its two passes, and does the vertical one first for tall images (Pillow 13).
    `benchmarks/pixels.py` measures the difference. Raises ValueError for another type or shape.
    """
    groups: dict[tuple[int, int], list[int]] = defaultdict(list)
    for number, image in enumerate(images):
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != torch.uint8:
            raise ValueError(
                f"image {number} is {image.dtype} {tuple(image.shape)}, not uint8 [H, W, 3]"
            )
        groups[image.shape[0], image.shape[1]].append(number)
    device = images[0].device if images else "cpu"
    out = torch.full((len(images), 3, size, size), FILL, dtype=torch.uint8, device=device)
    for (height, width), numbers in groups.items():
        box = letterbox_geometry(width, height, size)
        stacked = torch.stack([images[number] for number in numbers])
        resized = _resize(stacked.permute(0, 3, 1, 2), box.height, box.width)
        rows = slice(box.top, box.top + box.height)
        columns = slice(box.left, box.left + box.width)
        for number, image in zip(numbers, resized, strict=True):
            out[number, :, rows, columns] = image
    return normalise(out)


def normalise(pixels: Tensor) -> Tensor:
    """uint8 -> float32 of the same shape: (x/255 - 0.5)/0.5, as DeepSeek-OCR's processor does."""
    # x/127.5 - 1: two passes over the tensor instead of four.
    return pixels.float().div_(127.5).sub_(1)


def encoder_view(image: Tensor, size: int) -> Tensor:
    """What the encoder sees of an image: uint8 [H, W, 3] -> letterboxed uint8 [size, size, 3].

    The normalisation is undone, which is exact. Raises ValueError as `letterbox` does.
    """
    pixels = letterbox([image], size)[0].add_(1).mul_(127.5).round_().to(torch.uint8)
    return pixels.permute(1, 2, 0)


def _resize(pixels: Tensor, height: int, width: int) -> Tensor:
    """uint8 [N, 3, H, W] -> uint8 [N, 3, height, width]; Pillow's bicubic (a = -0.5, antialias)."""
    if pixels.shape[2:] == (height, width):
        return pixels
    if pixels.device.type == "cpu":
        # The CPU has uint8 kernels, three to four times as fast as its float32 ones; CUDA has none.
        return F.interpolate(pixels, size=(height, width), mode="bicubic", antialias=True)
    return resize_float(pixels, height, width)


def resize_float(pixels: Tensor, height: int, width: int) -> Tensor:
    """Resize uint8 [N, 3, H, W] to [N, 3, height, width] in float32, on any device.

    Pillow also rounds between its two passes; this does not.
    """
    resized = F.interpolate(pixels.float(), size=(height, width), mode="bicubic", antialias=True)
    return resized.round_().clamp_(0, 255).to(torch.uint8)
