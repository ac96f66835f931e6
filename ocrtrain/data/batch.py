"""The batch: what one step trains on, and who is in it.

Owner of the way from samples to tensors: rendering, cutting, packing side by side, padding, targets
shifted by one, and the identity that says two batches are the same. Images stay uint8 at their own
size until they are on the device (`ocrtrain.model.pixels`). It reads no shard and chooses no
sample.

Positions begin at 0 with every sample of a row: that is how the model knows where one ends, and
keeps it from seeing the next (`OcrModel.hidden`). Rows are padded on the right, to the longest row
of the batch. The padding is <|bos|>, at positions that go on counting: attention is causal, so
nothing real ever sees it, its targets are ignored, and to a reader it is what the end of a document
is followed by. (<|assistant_end|>, nanochat's choice, would do as well, but would look like ends of
answers that are not there.)
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

from ocrdata.errors import RejectedRow, ShardError, UsageError
from ocrdata.images.letterbox import letterbox_geometry
from ocrdata.reading.samples import DecodedSample
from ocrdata.reading.view import SampleRef
from ocrdata.tokens.rendering import IGNORE, TokenizedConversation, render, truncate
from ocrdata.tokens.tokenizer import Tokenizer
from ocrtrain.settings.image_slots import image_slots


@dataclass(frozen=True)
class Segment:
    """One sample in a row: which, from which id of the row on, how many ids and images, and what
    `truncate` left out. `skipped` is why it was skipped ("" where it was not): a single id,
    masked."""

    ref: SampleRef
    source: str
    start: int
    length: int
    images: int
    truncated_tokens: int = 0
    truncated_turns: int = 0
    skipped: str = ""


@dataclass(frozen=True)
class Row:
    """One row's samples, in their order; one of them where rows are not packed."""

    segments: tuple[Segment, ...]

    @property
    def source(self) -> str:
        """The source its samples come from."""
        return self.segments[0].source

    @property
    def length(self) -> int:
        """Real ids."""
        return sum(segment.length for segment in self.segments)

    @property
    def images(self) -> int:
        """Images in it."""
        return sum(segment.images for segment in self.segments)


@dataclass(frozen=True)
class Batch:
    """B rows of T positions.

    `input_ids`, `targets` and `position_ids` are int64 [B, T]; `targets[b, t]` is the id at
    t + 1 where that one is supervised and of the same sample, else IGNORE. `images` are uint8
    [H, W, 3], in the order of the image positions, row by row; `image_size` is the square in px
    they will be letterboxed to.
    """

    step: int
    rows: tuple[Row, ...]
    input_ids: Tensor
    targets: Tensor
    position_ids: Tensor
    images: tuple[Tensor, ...]
    image_size: int

    @property
    def segments(self) -> tuple[Segment, ...]:
        """Every sample, row by row."""
        return tuple(segment for row in self.rows for segment in row.segments)

    @property
    def refs(self) -> tuple[SampleRef, ...]:
        """The sample of each segment."""
        return tuple(segment.ref for segment in self.segments)

    @property
    def sources(self) -> tuple[str, ...]:
        """The source of each row."""
        return tuple(row.source for row in self.rows)

    @property
    def skipped(self) -> tuple[Segment, ...]:
        """The samples that were skipped."""
        return tuple(segment for segment in self.segments if segment.skipped)

    @property
    def tokens(self) -> int:
        """Real tokens (image positions among them), padding not counted."""
        return sum(row.length for row in self.rows)

    @property
    def supervised(self) -> int:
        """Positions that carry loss."""
        return int((self.targets != IGNORE).sum())

    @property
    def truncated_tokens(self) -> int:
        """Tokens that did not fit into seq_len."""
        return sum(segment.truncated_tokens for segment in self.segments)

    @property
    def truncated_turns(self) -> int:
        """Turns left out whole because they did not fit."""
        return sum(segment.truncated_turns for segment in self.segments)

    @cached_property
    def row_identities(self) -> tuple[bytes, ...]:
        """Of each row 16 bytes (xxh3_128) over its ids, targets, positions, images and letterbox
        geometry; padding is no part of it. Ranks that hold parts of a batch exchange these."""
        found, image = [], 0
        for number, row in enumerate(self.rows):
            digest = xxhash.xxh3_128(b"row 2")
            for tensor in (self.input_ids, self.targets, self.position_ids):
                _update(digest, tensor[number, : row.length])
            for pixels in self.images[image : image + row.images]:
                height, width = pixels.shape[:2]
                geometry = letterbox_geometry(width, height, self.image_size)
                digest.update(np.array([*geometry, self.image_size], "<i8").tobytes())
                _update(digest, pixels)
            image += row.images
            found.append(digest.digest())
        return tuple(found)

    @property
    def identity(self) -> str:
        """32 hex digits: the identity of the whole batch, from its rows'."""
        return identity_of(self.row_identities)

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


def identity_of(rows: Sequence[bytes]) -> str:
    """The identity of a batch from those of its rows (`Batch.row_identities`), in order."""
    return xxhash.xxh3_128_hexdigest(b"batch 2" + b"".join(rows))


def _update(digest: xxhash.xxh3_128, tensor: Tensor) -> None:
    """Shape, then bytes (little-endian)."""
    values = np.ascontiguousarray(tensor.cpu().numpy())
    digest.update(np.array(values.shape, "<i8").tobytes())
    digest.update(values.astype(values.dtype.newbyteorder("<"), copy=False).data)


@dataclass(frozen=True)
class PreparedSample:
    """A sample made ready for a row: its rendering, cut to seq_len, and the images that are left
    in it. `skipped` is why it was skipped."""

    ref: SampleRef
    source: str
    rendered: TokenizedConversation
    images: tuple[npt.NDArray[np.uint8], ...]
    skipped: str = ""


def prepare_sample(
    item: DecodedSample, *, tokenizer: Tokenizer, image_size: int, seq_len: int
) -> PreparedSample:
    """Render an item and cut it to `seq_len`.

    Raises UsageError for a `seq_len` that holds nothing, ShardError where a sample is no
    conversation or its images are not those it places; both name the sample.
    """
    place = item.ref
    try:
        whole = render(
            item.sample.messages, tokenizer, [image_slots(image_size)] * len(item.images)
        )
        rendered = truncate(whole, seq_len)
    except UsageError as exc:
        raise UsageError(f"{place.shard}: sample {place.key}: {exc}") from exc
    except (RejectedRow, ValueError) as exc:
        raise ShardError(place.shard, str(exc), key=place.key) from exc
    return PreparedSample(place, item.source, rendered, item.images[: len(rendered.image_starts)])


def masked_sample(
    ref: SampleRef, source: str, *, reason: str, tokenizer: Tokenizer
) -> PreparedSample:
    """What a skipped sample leaves in its row: one <|bos|> that nothing is learned from."""
    nothing = TokenizedConversation(
        np.array([tokenizer.bos], np.int32), np.zeros(1, np.bool_), (), (), (1,)
    )
    return PreparedSample(ref, source, nothing, (), reason)


def collate(
    step: int, rows: Sequence[Sequence[PreparedSample]], *, tokenizer: Tokenizer, image_size: int
) -> Batch:
    """A row for each group of pieces, side by side in their order."""
    if not rows or not all(rows):
        raise ValueError(f"step {step}: a batch, or a row, of no samples")
    made = [_row(pieces) for pieces in rows]
    shape = len(made), max(row.length for row in made)
    input_ids = np.full(shape, tokenizer.bos, np.int64)
    targets = np.full(shape, IGNORE, np.int64)
    positions = np.empty(shape, np.int64)
    for number, (row, pieces) in enumerate(zip(made, rows, strict=True)):
        for segment, piece in zip(row.segments, pieces, strict=True):
            first, last = segment.start, segment.start + segment.length
            r = piece.rendered
            input_ids[number, first:last] = r.ids
            # The last id of a sample predicts nothing; it stays, so that a row has as many
            # positions as `ocrdata.tokens.rendering` counts.
            targets[number, first : last - 1] = np.where(r.loss_mask[1:], r.ids[1:], IGNORE)
            # The last sample's positions go on through the padding.
            positions[number, first:] = np.arange(shape[1] - first)
    return Batch(
        step=step,
        rows=tuple(made),
        input_ids=torch.from_numpy(input_ids),
        targets=torch.from_numpy(targets),
        position_ids=torch.from_numpy(positions),
        images=tuple(
            torch.from_numpy(image) for pieces in rows for piece in pieces for image in piece.images
        ),
        image_size=image_size,
    )


def _row(pieces: Sequence[PreparedSample]) -> Row:
    """Who lies where in a row."""
    segments, start = [], 0
    for piece in pieces:
        r = piece.rendered
        segments.append(
            Segment(
                ref=piece.ref,
                source=piece.source,
                start=start,
                length=len(r),
                images=len(piece.images),
                truncated_tokens=r.truncated_tokens,
                truncated_turns=r.truncated_turns,
                skipped=piece.skipped,
            )
        )
        start += len(r)
    return Row(tuple(segments))
