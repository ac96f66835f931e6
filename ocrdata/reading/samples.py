"""Reads, verifies, decodes and tokenizes one sample, for training and evaluation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ocrdata.errors import ImageError, RejectedRow, ShardError, TransportError, UsageError
from ocrdata.images.decode import RGB, decode_rgb
from ocrdata.images.letterbox import shrink_to_fit
from ocrdata.images.modes import ImageMode
from ocrdata.reading.view import SampleRef, Shards
from ocrdata.sample import Sample
from ocrdata.tokens.rendering import TokenizedConversation, render, truncate
from ocrdata.tokens.tokenizer import Tokenizer


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


def load_sample(shards: Shards, position: int, *, source: str, mode: ImageMode) -> DecodedSample:
    """Read, verify and decode the sample at `position`, whose images are shown as `mode` says.

    Images far larger than they are shown are shrunk here, so that memory depends only on the
    settings. Raises ShardError naming shard and sample, also for an image that cannot be decoded.
    """
    sample = shards[position]
    images = decode_images(shards, position, sample, mode=mode)
    return DecodedSample(shards.ref(position), source, sample, tuple(images))


def decode_images(
    shards: Shards, position: int, sample: Sample, *, mode: ImageMode | None
) -> list[RGB]:
    """The images of the sample at `position`, decoded as `load_sample` does; with None as mode they
    keep their size. Raises ShardError for an image that cannot be decoded."""
    images = []
    for number, data in enumerate(sample.images):
        try:
            image = decode_rgb(data)
            images.append(image if mode is None else shrink_to_fit(image, mode.size))
        except ImageError as exc:
            ref = shards.ref(position)
            raise ShardError(ref.shard, f"image {number}: {exc}", key=ref.key) from exc
    return images


def tokenize_sample(
    sample: Sample, ref: SampleRef, tokenizer: Tokenizer, *, slots: Sequence[int], seq_len: int
) -> TokenizedConversation:
    """A sample's ids, truncated to `seq_len`; its n-th image takes `slots[n]` positions.

    Raises UsageError if `seq_len` is too short for anything, and ShardError if the messages are not
    a conversation or do not match the images; both name the sample.
    """
    try:
        whole = render(sample.messages, tokenizer, slots)
        return truncate(whole, seq_len)
    except UsageError as exc:
        raise UsageError(f"{ref.shard}: sample {ref.key}: {exc}") from exc
    except (RejectedRow, ValueError) as exc:
        raise ShardError(ref.shard, str(exc), key=ref.key) from exc
