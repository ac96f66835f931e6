"""How alike the encoder's features of different images are, to detect a collapsed encoder.

Computes val/image_similarity and val/feature_std. Only sums are kept, so memory does not grow with
the number of images.

Features are compared position by position, not averaged over the image first: text is at different
positions in every image, and the average hides that. (On 24 real charts with random weights at 512
px, averages have a cosine of 0.92 and features by position one of 0.47, so only the latter leaves
room to see a collapse; in the experiment whose model did not learn to read it rose from 0.59 to
0.9998.)
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
import xxhash
from torch import Tensor

from ocrtrain.model.ocr_model import OcrModel


class Similarity:
    """Compares images by one vector each: all of `DeepEncoder.features` of their square view,
    (S/64)^2 positions with the channels of CLIP and SAM.

    Images with the same pixels count once; only the first `limit` images are used. Images are
    compared with those of the same size.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._seen: set[str] = set()
        self._sums: dict[int, _Sums] = {}  # by the length of the vectors

    @property
    def is_full(self) -> bool:
        """Whether further images are left out."""
        return len(self._seen) >= self._limit

    def add(self, model: OcrModel, images: Sequence[Tensor], sizes: Sequence[int]) -> None:
        """Add those of the uint8 [H, W, 3] images that were not seen before; `sizes` are the sides
        of their square views in px."""
        fresh: dict[int, list[Tensor]] = {}
        for image, size in zip(images, sizes, strict=True):
            identity = None if self.is_full else _identity(image)
            if identity is not None and identity not in self._seen:
                self._seen.add(identity)
                fresh.setdefault(size, []).append(image)
        for size, found in sorted(fresh.items()):
            self.add_vectors(model.features(found, size).flatten(1))

    def add_vectors(self, vectors: Tensor) -> None:
        """Add image vectors [N, D]."""
        vectors = vectors.cpu().double()
        sums = self._sums.setdefault(vectors.shape[1], _Sums())
        sums.count += len(vectors)
        sums.units = sums.units + torch.nn.functional.normalize(vectors, dim=1).sum(dim=0)
        sums.sum = sums.sum + vectors.sum(dim=0)
        sums.squares = sums.squares + vectors.square().sum(dim=0)

    @property
    def similarity(self) -> float | None:
        """Mean cosine over all pairs of different images of equal size, in [-1, 1]; None if there
        are none.

        For unit vectors u the sum over ordered pairs is |sum u|^2 - n, so no pair is ever formed.
        """
        pairs = sum(one.count * (one.count - 1) for one in self._sums.values())
        if not pairs:
            return None
        return (
            sum(float(one.units.square().sum() - one.count) for one in self._sums.values()) / pairs
        )

    @property
    def std(self) -> float | None:
        """Root of the variance over images of one size, averaged over positions and channels, and
        over images: in the units of the features, 0 if all images have the same. None if no two
        images have one size."""
        several = [one for one in self._sums.values() if one.count > 1]
        if not several:
            return None
        total = sum(one.count for one in several)
        return math.sqrt(sum(one.count / total * max(0.0, one.variance) for one in several))


@dataclass
class _Sums:
    """Sums over the vectors of images of one size: their number, the unit vectors, the vectors and
    their squares."""

    count: int = 0
    units: Tensor = field(default_factory=lambda: torch.zeros(1, dtype=torch.float64))
    sum: Tensor = field(default_factory=lambda: torch.zeros(1, dtype=torch.float64))
    squares: Tensor = field(default_factory=lambda: torch.zeros(1, dtype=torch.float64))

    @property
    def variance(self) -> float:
        """Over the vectors, averaged over their numbers."""
        variance = self.squares / self.count - (self.sum / self.count).square()
        return float(variance.mean())


def _identity(image: Tensor) -> str:
    """Digest of an image's size and pixels."""
    digest = xxhash.xxh3_128(repr(tuple(image.shape)).encode())
    digest.update(image.cpu().contiguous().numpy().data)
    return digest.hexdigest()
