"""The batch: what one step trains on, and who is in it.

Owner of the way from samples to tensors: rendering, cutting, padding, targets shifted by one, and
the identity that says two batches are the same (law 2). Images stay uint8 at their own size until
they are on the device (`ocrtrain.pixels`). It reads no shard and chooses no sample.

Rows are padded on the right, to the longest row of the batch. The padding is <|bos|>, at positions
that go on counting: attention is causal, so nothing real ever sees it, its targets are ignored, and
to a reader it is what the end of a document is followed by. (<|assistant_end|>, nanochat's choice,
would do as well, but would look like ends of answers that are not there.)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
import xxhash
from torch import Tensor

from ocrdata.errors import RejectedRow, ShardError, UsageError
from ocrdata.image import letterbox_geometry
from ocrdata.loader import Item
from ocrdata.reader import SampleRef
from ocrdata.tokenizer import Tokenizer
from ocrdata.tokens import Rendered, render, truncate
from ocrtrain.encoder import image_slots

IGNORE = -100
"""Target of a position that carries no loss (torch's cross_entropy default)."""


@dataclass(frozen=True)
class Row:
    """One row's origin: which sample, real ids, images, and what `truncate` left out of it."""

    ref: SampleRef
    source: str
    length: int
    images: int
    cut_tokens: int
    cut_turns: int


@dataclass(frozen=True)
class Batch:
    """B rows of T positions.

    `input_ids`, `targets` and `position_ids` are int64 [B, T]; `targets[b, t]` is the id at
    t + 1 where that one is supervised, else IGNORE. `images` are uint8 [H, W, 3], in the order of
    the image positions, row by row; `image_size` is the square in px they will be letterboxed to.
    """

    step: int
    rows: tuple[Row, ...]
    input_ids: Tensor
    targets: Tensor
    position_ids: Tensor
    images: tuple[Tensor, ...]
    image_size: int

    @property
    def refs(self) -> tuple[SampleRef, ...]:
        """The sample of each row."""
        return tuple(row.ref for row in self.rows)

    @property
    def sources(self) -> tuple[str, ...]:
        """The source of each row."""
        return tuple(row.source for row in self.rows)

    @property
    def tokens(self) -> int:
        """Real tokens (image positions among them), padding not counted."""
        return sum(row.length for row in self.rows)

    @property
    def supervised(self) -> int:
        """Positions that carry loss."""
        return int((self.targets != IGNORE).sum())

    @property
    def cut_tokens(self) -> int:
        """Tokens that did not fit into seq_len."""
        return sum(row.cut_tokens for row in self.rows)

    @property
    def cut_turns(self) -> int:
        """Turns left out whole because they did not fit."""
        return sum(row.cut_turns for row in self.rows)

    @property
    def identity(self) -> str:
        """32 hex digits (xxh3_128) over ids, targets, positions, images and letterbox geometry."""
        digest = xxhash.xxh3_128(b"batch 1")
        for tensor in (self.input_ids, self.targets, self.position_ids):
            _update(digest, tensor)
        for image in self.images:
            height, width = image.shape[:2]
            geometry = letterbox_geometry(width, height, self.image_size)
            digest.update(np.array([*geometry, self.image_size], "<i8").tobytes())
            _update(digest, image)
        return digest.hexdigest()

    def split(self, rows: int) -> list[Batch]:
        """Micro-batches of at most `rows` rows, each with its images, padded to its longest row."""
        if rows < 1:
            raise ValueError(f"micro-batches of {rows} rows")
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
                )
            )
            image += images
        return parts

    def to(self, device: torch.device | str) -> Batch:
        """The same batch on a device; to CUDA from pinned memory, without waiting for the copy."""
        device = torch.device(device)

        def move(tensor: Tensor) -> Tensor:
            if device.type == "cuda" and tensor.device.type == "cpu":
                tensor = tensor.contiguous().pin_memory()
            return tensor.to(device, non_blocking=True)

        return replace(
            self,
            input_ids=move(self.input_ids),
            targets=move(self.targets),
            position_ids=move(self.position_ids),
            images=tuple(move(image) for image in self.images),
        )


def _update(digest: xxhash.xxh3_128, tensor: Tensor) -> None:
    """Shape, then bytes (little-endian)."""
    values = np.ascontiguousarray(tensor.cpu().numpy())
    digest.update(np.array(values.shape, "<i8").tobytes())
    digest.update(values.astype(values.dtype.newbyteorder("<"), copy=False).data)


def collate(
    step: int,
    items: Sequence[Item],
    *,
    tokenizer: Tokenizer,
    image_size: int,
    seq_len: int,
) -> Batch:
    """A row for each item, rendered and cut to `seq_len`, in the order of the items.

    Raises UsageError where a question alone is longer than `seq_len`, ShardError where a sample
    is no conversation or its images are not those it places; both name the sample.
    """
    if not items:
        raise ValueError(f"step {step}: a batch of no samples")
    slots = image_slots(image_size)
    rendered = [_render(item, tokenizer, slots=slots, seq_len=seq_len) for item in items]
    rows = tuple(
        Row(item.ref, item.source, len(r), len(r.image_starts), r.cut_tokens, r.cut_turns)
        for item, r in zip(items, rendered, strict=True)
    )
    shape = len(rows), max(row.length for row in rows)
    input_ids = np.full(shape, tokenizer.bos, np.int64)
    targets = np.full(shape, IGNORE, np.int64)
    for number, r in enumerate(rendered):
        input_ids[number, : len(r)] = r.ids
        # The last id of a row predicts nothing; it stays, so that a row has as many positions
        # as `ocrdata.tokens` counts.
        targets[number, : len(r) - 1] = np.where(r.supervised[1:], r.ids[1:], IGNORE)
    images = [
        torch.from_numpy(image)
        for item, row in zip(items, rows, strict=True)
        for image in item.images[: row.images]
    ]
    positions = torch.arange(shape[1]).repeat(shape[0], 1)
    return Batch(
        step=step,
        rows=rows,
        input_ids=torch.from_numpy(input_ids),
        targets=torch.from_numpy(targets),
        position_ids=positions,
        images=tuple(images),
        image_size=image_size,
    )


def _render(item: Item, tokenizer: Tokenizer, *, slots: int, seq_len: int) -> Rendered:
    """One row, with the sample's name on every error."""
    place = item.ref
    try:
        whole = render(item.sample.messages, tokenizer, [slots] * len(item.images))
        return truncate(whole, seq_len)
    except UsageError as exc:
        raise UsageError(f"{place.shard}: sample {place.key}: {exc}") from exc
    except (RejectedRow, ValueError) as exc:
        raise ShardError(place.shard, str(exc), key=place.key) from exc
