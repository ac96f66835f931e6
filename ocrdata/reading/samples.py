"""Reads, verifies and decodes one sample, for training and evaluation."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ocrdata.errors import ImageError, ShardError, TransportError
from ocrdata.images.decode import decode_rgb
from ocrdata.images.letterbox import shrink_to_fit
from ocrdata.reading.view import SampleRef, Shards
from ocrdata.sample import Sample


@dataclass(frozen=True)
class DecodedSample:
    """A verified sample with decoded images: uint8 [H, W, 3], in the order of its image parts."""

    ref: SampleRef
    source: str
    sample: Sample
    images: tuple[npt.NDArray[np.uint8], ...]


def skippable(error: ShardError) -> bool:
    """Whether an error concerns the content of one sample, which may then be skipped; a shard that
    cannot be read is no reason to skip its samples."""
    return bool(error.key) and not isinstance(error, TransportError)


def load_sample(shards: Shards, position: int, *, source: str, image_size: int) -> DecodedSample:
    """Read, verify and decode the sample at `position`.

    Images far larger than `image_size` are shrunk here, so that memory depends only on the
    settings. Raises ShardError naming shard and sample, also for an image that cannot be decoded.
    """
    sample = shards[position]
    ref = shards.ref(position)
    images = []
    for number, data in enumerate(sample.images):
        try:
            images.append(shrink_to_fit(decode_rgb(data), image_size))
        except ImageError as exc:
            raise ShardError(ref.shard, f"image {number}: {exc}", key=ref.key) from exc
    return DecodedSample(ref=ref, source=source, sample=sample, images=tuple(images))
