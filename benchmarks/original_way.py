"""The original experiment's way of training, and nanoVLM's way of packing, as small references.

Both are written anew from what they do, for `benchmarks/original.py`; the model, its weights and
the order of the samples are those of the project, so that only the way of training differs.

The original: images letterboxed to float32 in the loader; of a chart only the first question and
the first image, of a chat the whole conversation; rows padded on the right to the longest of their
batch; the logits of every position; loss on every text token that does not follow an image's,
the user's included; torch's AdamW with its defaults.

nanoVLM (data/advanced_datasets.py, data/collators.py and models/vision_language_model.py of
huggingface/nanoVLM, 2025-10): all turns, loss on answers only; each sample ends in a padding token;
samples of a buffer are packed by a balanced greedy knapsack (longest first, each into the row with
the least in it that has room, from five rows more than needed on) into rows of a constant length,
padded on the left; samples of a row attend to each other; the logits of every position. Images,
optimizer and model are as above.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.pixels import original as letterboxed
from ocrdata.sample import Sample
from ocrdata.tokens.rendering import IGNORE, TokenizedConversation, render
from ocrdata.tokens.tokenizer import Tokenizer
from ocrtrain.model.ocr_model import OcrModel
from ocrtrain.settings.image_slots import image_slots

SPARE_ROWS = 5
"""nanoVLM's `delta`: rows beyond the fewest that samples could fit in."""

MOST_IMAGES = 18
"""nanoVLM's `max_images_per_knapsack`."""


@dataclass(frozen=True)
class Example:
    """A sample as a loader gives it: ids, `tokens` of them real, whether each is to be predicted,
    whether it belongs to an answer, and float32 pixels [3, S, S] of each image."""

    ids: Tensor
    tokens: int
    predicted: Tensor
    answers: Tensor
    images: tuple[Tensor, ...]


@dataclass(frozen=True)
class PaddedBatch:
    """Rows of equal length: ids and targets [B, T], pixels [N, 3, S, S] or None, the number of real
    tokens, and of targets that belong to answers."""

    ids: Tensor
    targets: Tensor
    pixels: Tensor | None
    tokens: int
    answers: int

    @property
    def positions(self) -> int:
        """Positions of all rows, padding included."""
        return self.ids.numel()

    @property
    def squares(self) -> int:
        """The sum of the squared lengths of the rows."""
        return self.ids.shape[0] * self.ids.shape[1] ** 2


def first_turn(sample: Sample) -> Sample:
    """What the original keeps of a sample: of one with images the first turn and image."""
    if not sample.images:
        return sample
    user, answer = sample.messages[:2]
    texts = [part for part in user["content"] if part["type"] == "text"]
    message = {"role": user["role"], "content": [{"type": "image"}, *texts]}
    return Sample([message, answer], sample.images[:1], sample.source, sample.meta)


def original_example(sample: Sample, tokenizer: Tokenizer, image_size: int) -> Example:
    """A sample the original's way."""
    kept = first_turn(sample)
    rendered = _rendered(kept, tokenizer, image_size)
    ids = torch.from_numpy(rendered.ids.astype(np.int64))
    text = ids != tokenizer.image
    predicted = text.clone()
    predicted[1:] &= text[:-1]  # what follows an image is not predicted
    predicted[0] = False  # nothing comes before it
    answers = torch.from_numpy(rendered.loss_mask)
    return Example(ids, len(ids), predicted, answers, _images(kept, image_size))


def nanovlm_example(sample: Sample, tokenizer: Tokenizer, image_size: int) -> Example:
    """A sample nanoVLM's way: whole, with a padding token at its end."""
    rendered = _rendered(sample, tokenizer, image_size)
    ids = torch.from_numpy(np.append(rendered.ids, tokenizer.bos).astype(np.int64))
    answers = torch.from_numpy(np.append(rendered.loss_mask, False))
    return Example(ids, len(rendered), answers, answers, _images(sample, image_size))


def _rendered(sample: Sample, tokenizer: Tokenizer, image_size: int) -> TokenizedConversation:
    return render(sample.messages, tokenizer, [image_slots(image_size)] * len(sample.images))


def _images(sample: Sample, image_size: int) -> tuple[Tensor, ...]:
    return tuple(letterboxed(data, image_size) for data in sample.images)


def pad_right(examples: Sequence[Example], padding: int) -> PaddedBatch:
    """One row for each example, padded on the right to the longest, as the original does."""
    longest = max(len(example.ids) for example in examples)
    return _batch(examples, [[example] for example in examples], longest, padding, left=False)


def pack_constant(
    examples: Sequence[Example], length: int, padding: int, *, rows: int, spare: int = SPARE_ROWS
) -> list[PaddedBatch]:
    """Batches of `rows` rows of a constant length, as nanoVLM packs and pads them. nanoVLM then
    shuffles the rows; here they stay in their order."""
    sizes = [len(example.ids) for example in examples]
    groups = knapsacks(sizes, [len(one.images) for one in examples], length, spare=spare)
    packed = [[examples[number] for number in group] for group in groups]
    return [
        _batch(
            [example for row in packed[start : start + rows] for example in row],
            packed[start : start + rows], length, padding, left=True,
        )
        for start in range(0, len(packed), rows)
    ]  # fmt: skip


def knapsacks(
    sizes: Sequence[int], images: Sequence[int], length: int, *, spare: int = SPARE_ROWS
) -> list[list[int]]:
    """nanoVLM's balanced greedy knapsack: the numbers of the samples in each row of `length`.

    Longest samples first, each into the row with the least in it that has room for it and its
    images, or into a new one. Raises ValueError for a sample longer than a row.
    """
    if max(sizes) > length:
        raise ValueError(f"a sample of {max(sizes)} tokens does not fit into {length}")
    count = -(-sum(sizes) // length) + spare
    groups: list[list[int]] = [[] for _ in range(count)]
    loads, shown = [0] * count, [0] * count
    for number in sorted(range(len(sizes)), key=lambda one: -sizes[one]):
        order = sorted(range(len(groups)), key=loads.__getitem__)
        fits = (
            row
            for row in order
            if loads[row] + sizes[number] <= length and shown[row] + images[number] <= MOST_IMAGES
        )
        row = next(fits, len(groups))
        if row == len(groups):
            groups.append([])
            loads.append(0)
            shown.append(0)
        groups[row].append(number)
        loads[row] += sizes[number]
        shown[row] += images[number]
    return [group for group in groups if group]


def _batch(
    examples: Sequence[Example],
    rows: Sequence[Sequence[Example]],
    length: int,
    padding: int,
    *,
    left: bool,
) -> PaddedBatch:
    """Rows of `length` positions. A target is the next id of the row, where that is predicted."""
    ids = torch.full((len(rows), length), padding)
    predicted = torch.zeros(len(rows), length, dtype=torch.bool)
    answers = torch.zeros(len(rows), length, dtype=torch.bool)
    for number, row in enumerate(rows):
        joined = torch.cat([example.ids for example in row])
        start = length - len(joined) if left else 0
        span = slice(start, start + len(joined))
        ids[number, span] = joined
        predicted[number, span] = torch.cat([example.predicted for example in row])
        answers[number, span] = torch.cat([example.answers for example in row])
    targets = torch.full_like(ids, IGNORE)
    targets[:, :-1] = torch.where(predicted[:, 1:], ids[:, 1:], IGNORE)
    images = [image for example in examples for image in example.images]
    return PaddedBatch(
        ids,
        targets,
        torch.stack(images) if images else None,
        tokens=sum(example.tokens for example in examples),
        answers=int((answers & predicted).sum()),
    )


def full_loss(model: OcrModel, batch: PaddedBatch) -> Tensor:
    """The mean loss over the targets of a batch, from the logits of every position. The rows are
    one causal sequence each."""
    positions = torch.arange(batch.ids.shape[1]).expand_as(batch.ids)
    features = None if batch.pixels is None else model.encoder(batch.pixels)
    hidden = model.hidden(model.embed(batch.ids, features), positions)
    logits = model.logits(hidden)
    return F.cross_entropy(logits.flatten(0, 1), batch.targets.flatten(), ignore_index=IGNORE)


def optimizer_of(model: OcrModel) -> torch.optim.AdamW:
    """torch's AdamW with its defaults, over all that is trained."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return torch.optim.AdamW(trained, lr=5e-5, weight_decay=0.0)


def train_on(model: OcrModel, optimizer: torch.optim.Optimizer, batch: PaddedBatch) -> float:
    """One optimizer step; returns the loss."""
    optimizer.zero_grad()
    loss = full_loss(model, batch)
    loss.backward()  # type: ignore[no-untyped-call]  # torch has no types here
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    return loss.item()
