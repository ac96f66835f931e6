"""What one forward pass takes: the tensors of some rows, and what must be known of them without
asking the device.

Where the image slots, the supervised positions and the samples of packed rows lie is found here, on
the CPU, in the thread that prepares the batch: found on a GPU, each of them would make the program
wait until the GPU has finished all that it was given.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ocrdata.images.modes import ImageLayout
from ocrdata.tokens.rendering import IGNORE
from ocrtrain.model.attention import starts_of
from ocrtrain.settings.image_slots import layout_slots


class ModelInputs(NamedTuple):
    """B rows of T positions, all tensors on one device.

    `input_ids` and `position_ids` are int64 [B, T]. Positions of the flattened rows, b * T + t, in
    ascending order: `slots_at` those of the image tokens, `supervised_at` those that carry loss,
    with their `targets`, int64 [K]. `images` are uint8 [H, W, 3] in the order of their slots, each
    shown as its one of `layouts` says. `lengths` are the samples of each row, padding counted as
    the last one's; `starts`, int32 [samples + 1], where they begin in the flattened rows, and where
    the last ends.
    """

    input_ids: Tensor
    position_ids: Tensor
    images: tuple[Tensor, ...]
    layouts: tuple[ImageLayout, ...]
    slots_at: Tensor
    supervised_at: Tensor
    targets: Tensor
    lengths: tuple[tuple[int, ...], ...]
    starts: Tensor

    def tensors(self) -> Iterator[Tensor]:
        """Every tensor."""
        yield from (self.input_ids, self.position_ids, self.slots_at, self.supervised_at)
        yield from (self.targets, self.starts, *self.images)

    def map(self, function: Callable[[Tensor], Tensor]) -> ModelInputs:
        """The same with `function` of every tensor."""
        return ModelInputs(
            function(self.input_ids),
            function(self.position_ids),
            tuple(function(image) for image in self.images),
            self.layouts,
            function(self.slots_at),
            function(self.supervised_at),
            function(self.targets),
            self.lengths,
            function(self.starts),
        )

    def to(self, device: torch.device | str) -> ModelInputs:
        """On `device`."""
        return self.map(lambda tensor: tensor.to(device))


def model_inputs(
    input_ids: Tensor,
    position_ids: Tensor,
    targets: Tensor,
    images: Sequence[Tensor],
    layouts: Sequence[ImageLayout],
    *,
    image_token: int,
) -> ModelInputs:
    """The inputs for rows on the CPU: `input_ids`, `position_ids` and `targets` (IGNORE: no loss)
    are int64 [B, T]; each image is shown as its one of `layouts` says.

    Raises ValueError where the number of image tokens in a row does not match the images.
    """
    is_slot = input_ids == image_token
    per_row = is_slot.sum(dim=1).tolist()
    slots = [layout_slots(layout) for layout in layouts]
    if len(images) != len(layouts) or not _fills(per_row, slots):
        raise ValueError(
            f"{len(images)} images take {_describe(slots)}, but the rows have {per_row} image "
            "tokens"
        )
    supervised_at = (targets != IGNORE).flatten().nonzero().squeeze(1)
    lengths = sample_lengths(position_ids)
    return ModelInputs(
        input_ids=input_ids,
        position_ids=position_ids,
        images=tuple(images),
        layouts=tuple(layouts),
        slots_at=is_slot.flatten().nonzero().squeeze(1),
        supervised_at=supervised_at,
        targets=targets.flatten()[supervised_at],
        lengths=lengths,
        starts=starts_of(lengths),
    )


def _fills(rows: Sequence[int], slots: Sequence[int]) -> bool:
    """Whether images of so many `slots`, one after the other, fill the image tokens of the rows,
    none of them divided between two rows."""
    ends = {0, *itertools.accumulate(slots)}
    return sum(rows) == sum(slots) and ends.issuperset(itertools.accumulate(rows))


def _describe(slots: Sequence[int]) -> str:
    """'7 slots each', or '7 and 21 slots' if images take different numbers."""
    different = " and ".join(map(str, sorted(set(slots)))) or "0"
    return f"{different} slots" + (" each" if len(set(slots)) < 2 else "")


def sample_lengths(position_ids: Tensor) -> tuple[tuple[int, ...], ...]:
    """Lengths of the samples of each row of positions [B, T], on the CPU: a position that is not
    the previous one plus 1 begins a new sample."""
    begins = torch.ones_like(position_ids, dtype=torch.bool)
    begins[:, 1:] = position_ids.diff(dim=1) != 1
    end = position_ids.new_tensor([position_ids.shape[1]])
    return tuple(
        tuple(torch.cat([row.nonzero().squeeze(1), end]).diff().tolist()) for row in begins
    )
