"""Pixels: uint8 images of any size become the square float images the encoder reads.

Owner of letterboxing on the device: bicubic with antialias, as Pillow does it, centred on grey 127,
then (x/255 - 0.5)/0.5. The geometry is `ocrdata.images.letterbox.letterbox_geometry`'s. Images
travel as uint8 at their own size (96 % of real charts are smaller than 1,024 px), so that a worker
only decodes, and the copy to the device is small.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ocrdata.images.letterbox import letterbox_geometry

FILL = 127
"""Grey of the border, in all channels (the original's, from DeepSeek-OCR)."""


def letterbox(images: Sequence[Tensor], size: int) -> Tensor:
    """uint8 [H, W, 3] images on one device -> float32 [N, 3, size, size] in [-1, 1] there.

    Images of equal size are resized together. Values are rounded to whole ones before they are
    normalised, as Pillow's are. The difference to `PIL.ImageOps.pad` is a grey level or two, but
    where black or white overshoots: Pillow clips between its two passes, and takes the
    vertical one first for tall images (Pillow 13). `benchmarks/pixels.py` measures it.
    Deterministic. Raises ValueError for an empty list or other shapes.
    """
    if not images:
        raise ValueError("no images to letterbox")
    groups: dict[tuple[int, int], list[int]] = defaultdict(list)
    for number, image in enumerate(images):
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != torch.uint8:
            raise ValueError(f"image {number} is {image.dtype} {tuple(image.shape)}, not [H, W, 3]")
        groups[image.shape[0], image.shape[1]].append(number)
    out = torch.full((len(images), 3, size, size), FILL, dtype=torch.uint8, device=images[0].device)
    for (height, width), numbers in groups.items():
        box = letterbox_geometry(width, height, size)
        stacked = torch.stack([images[number] for number in numbers])
        resized = _resize(stacked.permute(0, 3, 1, 2), box.height, box.width)
        rows = slice(box.top, box.top + box.height)
        columns = slice(box.left, box.left + box.width)
        out[torch.tensor(numbers, device=out.device), :, rows, columns] = resized
    return normalise(out)


def normalise(pixels: Tensor) -> Tensor:
    """uint8 -> float32, (x/255 - 0.5)/0.5 (DeepSeek-OCR's processor), in two passes not four."""
    return pixels.float().div_(127.5).sub_(1)


def seen(image: Tensor, size: int) -> Tensor:
    """One uint8 [H, W, 3] image as the encoder sees it, uint8 [size, size, 3]: letterboxed, and the
    normalisation undone, which is exact."""
    pixels = letterbox([image], size)[0].add_(1).mul_(127.5).round_().to(torch.uint8)
    return pixels.permute(1, 2, 0)


def _resize(pixels: Tensor, height: int, width: int) -> Tensor:
    """uint8 [N, 3, H, W] -> uint8 [N, 3, height, width], Pillow's bicubic (a = -0.5, antialias)."""
    if pixels.shape[2:] == (height, width):
        return pixels
    if pixels.device.type == "cpu":
        # Only the CPU has uint8 kernels; they are three to four times as fast as float ones there.
        return F.interpolate(pixels, size=(height, width), mode="bicubic", antialias=True)
    return resize_float(pixels, height, width)


def resize_float(pixels: Tensor, height: int, width: int) -> Tensor:
    """The same in float32, on any device; Pillow also rounds between its two passes."""
    resized = F.interpolate(pixels.float(), size=(height, width), mode="bicubic", antialias=True)
    return resized.round_().clamp_(0, 255).to(torch.uint8)
