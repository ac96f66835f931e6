"""One sample, read, verified and decoded: what training and evaluation work on."""

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
    """A sample, read, verified and decoded. `images` are uint8 [H, W, 3], in the order of the
    sample's image parts."""

    ref: SampleRef
    source: str
    sample: Sample
    images: tuple[npt.NDArray[np.uint8], ...]


def skippable(error: ShardError) -> bool:
    """Whether an error is of one sample's content, and not of the way to it: only such a sample
    may be skipped."""
    return bool(error.key) and not isinstance(error, TransportError)


def load_sample(shards: Shards, position: int, *, source: str, image_size: int) -> DecodedSample:
    """Fetch, verify and decode one sample.

    Images with far more pixels than `image_size` needs are shrunk here, so that memory depends on
    the settings alone. Raises ShardError with the place, also for an image that cannot be decoded.
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
