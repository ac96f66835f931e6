"""Builds the batch of a step: from decoded samples to padded tensors, and the batch's identity.

Each sample is rendered to token ids, truncated to seq_len, and placed in a row, alone or packed
with others (`ocrdata.tokens.padding`). Rows are padded with <|bos|>. (nanochat pads with
<|assistant_end|>, which would work too but reads like the end of an answer that is not there.)
Images stay uint8 at their own size until they are on the device (`ocrtrain.model.pixels`). Choosing
and reading the samples is done elsewhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt
import torch
import xxhash
from torch import Tensor

from ocrdata.images.letterbox import letterbox_geometry
from ocrdata.images.modes import ImageLayout, ImageMode
from ocrdata.reading.samples import DecodedSample, tokenize_sample
from ocrdata.reading.view import SampleRef
from ocrdata.tokens.padding import pad_rows, with_targets
from ocrdata.tokens.rendering import IGNORE, TokenizedConversation
from ocrdata.tokens.tokenizer import Tokenizer
from ocrtrain.data.batch_rows import BatchSummary, HasRows, Row, Segment, identity_of
from ocrtrain.settings.image_slots import layout_slots


@dataclass(frozen=True)
class Batch(HasRows):
    """B rows of T positions.

    `input_ids`, `targets` and `position_ids` are int64 [B, T]. `targets[b, t]` is the id at t + 1
    if that id is supervised and belongs to the same sample, else IGNORE. `images` are uint8
    [H, W, 3] in the order of their slots, row by row; `layouts` say how each is shown.
    """

    step: int
    rows: tuple[Row, ...]
    input_ids: Tensor
    targets: Tensor
    position_ids: Tensor
    images: tuple[Tensor, ...]
    layouts: tuple[ImageLayout, ...]

    @property
    def supervised(self) -> int:
        """Positions that carry loss."""
        return sum(self.row_supervised)

    @cached_property
    def row_supervised(self) -> tuple[int, ...]:
        """Positions that carry loss, of each row."""
        return tuple((self.targets != IGNORE).sum(dim=1).tolist())

    @cached_property
    def row_identities(self) -> tuple[bytes, ...]:
        """One digest a row, 16 bytes (xxh3_128): of its ids, targets, positions, images and
        letterbox geometry, without padding. The identity of a batch follows from those of its
        parts."""
        found, image = [], 0
        for number, row in enumerate(self.rows):
            digest = xxhash.xxh3_128(b"row 2")
            for tensor in (self.input_ids, self.targets, self.position_ids):
                _update(digest, tensor[number, : row.length])
            shown = slice(image, image + row.images)
            for pixels, layout in zip(self.images[shown], self.layouts[shown], strict=True):
                height, width = pixels.shape[:2]
                geometry = letterbox_geometry(width, height, layout.size)
                digest.update(np.array([*geometry, layout.size], "<i8").tobytes())
                _update(digest, pixels)
            image += row.images
            found.append(digest.digest())
        return tuple(found)

    @property
    def identity(self) -> str:
        """The identity of the whole batch, from its rows': 32 hex digits."""
        return identity_of(self.row_identities)

    @cached_property
    def summary(self) -> BatchSummary:
        """What is logged about the batch. It hashes the rows: made ahead, in a worker."""
        return BatchSummary(self.step, self.rows, self.row_identities, self.row_supervised)

    def images_of(self, row: int, segment: Segment) -> range:
        """The numbers of a segment's images, which is in a row of the batch."""
        before = sum(earlier.images for earlier in self.rows[:row])
        before += sum(
            other.images for other in self.rows[row].segments if other.start < segment.start
        )
        return range(before, before + segment.images)

    def split(self, rows: int) -> list[Batch]:
        """Micro-batches of at most `rows` rows, each padded to its own longest row."""
        if rows < 1:
            raise ValueError(f"a micro-batch needs at least 1 row, not {rows}")
        parts, image = [], 0
        for start in range(0, len(self.rows), rows):
            part = self.rows[start : start + rows]
            longest = max(row.length for row in part)
            images = sum(row.images for row in part)
            parts.append(
                replace(
                    self,
                    rows=part,
                    input_ids=self.input_ids[start : start + rows, :longest],
                    targets=self.targets[start : start + rows, :longest],
                    position_ids=self.position_ids[start : start + rows, :longest],
                    images=self.images[image : image + images],
                    layouts=self.layouts[image : image + images],
                )
            )
            image += images
        return parts


def _update(digest: xxhash.xxh3_128, tensor: Tensor) -> None:
    """Hash a tensor: its shape, then its bytes, little-endian."""
    values = np.ascontiguousarray(tensor.cpu().numpy())
    digest.update(np.array(values.shape, "<i8").tobytes())
    digest.update(values.astype(values.dtype.newbyteorder("<"), copy=False).data)


@dataclass(frozen=True)
class PreparedSample:
    """A sample ready to be placed in a row: its ids, truncated to seq_len, and the images that are
    left, with their layouts. `skipped` is the reason it was skipped, "" if it was not."""

    ref: SampleRef
    source: str
    rendered: TokenizedConversation
    images: tuple[npt.NDArray[np.uint8], ...]
    layouts: tuple[ImageLayout, ...]
    skipped: str = ""


def prepare_sample(
    item: DecodedSample, *, tokenizer: Tokenizer, mode: ImageMode, seq_len: int
) -> PreparedSample:
    """Render a decoded sample, whose images are shown as `mode` says, to token ids and truncate it
    to `seq_len`. Raises like `tokenize_sample`."""
    layouts = tuple(mode.layout(*image.shape[1::-1]) for image in item.images)
    slots = [layout_slots(layout) for layout in layouts]
    rendered = tokenize_sample(item.sample, item.ref, tokenizer, slots=slots, seq_len=seq_len)
    left = len(rendered.image_starts)
    return PreparedSample(item.ref, item.source, rendered, item.images[:left], layouts[:left])


def masked_sample(
    ref: SampleRef, source: str, *, reason: str, tokenizer: Tokenizer
) -> PreparedSample:
    """What replaces a skipped sample in its row: one <|bos|> without loss."""
    masked = TokenizedConversation(
        np.array([tokenizer.bos], np.int32), np.zeros(1, np.bool_), (), (), (1,)
    )
    return PreparedSample(ref, source, masked, (), (), reason)


def collate(step: int, rows: Sequence[Sequence[PreparedSample]], *, tokenizer: Tokenizer) -> Batch:
    """The batch of a step: one row for each group of samples, one after the other."""
    if not rows or not all(rows):
        raise ValueError(f"step {step}: the batch or one of its rows has no samples")
    padded = pad_rows(
        [[with_targets(sample.rendered) for sample in samples] for samples in rows],
        pad=tokenizer.bos,
    )
    return Batch(
        step=step,
        rows=tuple(_row(samples) for samples in rows),
        input_ids=torch.from_numpy(padded.input_ids),
        targets=torch.from_numpy(padded.targets),
        position_ids=torch.from_numpy(padded.position_ids),
        images=tuple(
            torch.from_numpy(image)
            for samples in rows
            for sample in samples
            for image in sample.images
        ),
        layouts=tuple(
            layout for samples in rows for sample in samples for layout in sample.layouts
        ),
    )


def _row(samples: Sequence[PreparedSample]) -> Row:
    """Place samples one after the other in a row."""
    segments, start = [], 0
    for sample in samples:
        r = sample.rendered
        segments.append(
            Segment(
                ref=sample.ref,
                source=sample.source,
                start=start,
                length=len(r),
                images=len(sample.images),
                truncated_tokens=r.truncated_tokens,
                truncated_turns=r.truncated_turns,
                skipped=sample.skipped,
            )
        )
        start += len(r)
    return Row(tuple(segments))
