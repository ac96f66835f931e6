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

import torch
import xxhash
from torch import Tensor

from ocrtrain.model.ocr_model import OcrModel


class Similarity:
    """Compares images by one vector each: all of `DeepEncoder.features`, (S/64)^2 positions with
    the channels of CLIP and SAM.

    Images with the same pixels count once; only the first `limit` images are used.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._seen: set[str] = set()
        self._count = 0
        self._units = self._sum = self._squares = torch.zeros(1, dtype=torch.float64)

    @property
    def is_full(self) -> bool:
        """Whether further images are left out."""
        return len(self._seen) >= self._limit

    def add(self, model: OcrModel, images: Sequence[Tensor]) -> None:
        """Add those of the uint8 [H, W, 3] images that were not seen before."""
        fresh = []
        for image in images:
            identity = None if self.is_full else _identity(image)
            if identity is not None and identity not in self._seen:
                self._seen.add(identity)
                fresh.append(image)
        if fresh:
            self.add_vectors(model.features(fresh).flatten(1))

    def add_vectors(self, vectors: Tensor) -> None:
        """Add image vectors [N, D]."""
        vectors = vectors.cpu().double()
        self._count += len(vectors)
        self._units = self._units + torch.nn.functional.normalize(vectors, dim=1).sum(dim=0)
        self._sum = self._sum + vectors.sum(dim=0)
        self._squares = self._squares + vectors.square().sum(dim=0)

    @property
    def similarity(self) -> float | None:
        """Mean cosine over all pairs of different images, in [-1, 1]; None for fewer than two.

        For unit vectors u the sum over ordered pairs is |sum u|^2 - n, so no pair is ever formed.
        """
        if self._count < 2:
            return None
        pairs = self._count * (self._count - 1)
        return float((self._units.square().sum() - self._count) / pairs)

    @property
    def std(self) -> float | None:
        """Root of the variance over images, averaged over positions and channels: in the units of
        the features, 0 if all images have the same. None for fewer than two images."""
        if self._count < 2:
            return None
        variance = self._squares / self._count - (self._sum / self._count).square()
        return math.sqrt(max(0.0, float(variance.mean())))


def _identity(image: Tensor) -> str:
    """Digest of an image's size and pixels."""
    digest = xxhash.xxh3_128(repr(tuple(image.shape)).encode())
    digest.update(image.cpu().contiguous().numpy().data)
    return digest.hexdigest()
