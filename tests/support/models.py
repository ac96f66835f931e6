"""Small models with random weights, and batches for them without shards."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from ocrdata.images.modes import ImageLayout
from ocrdata.reading.view import SampleRef
from ocrdata.tokens.rendering import IGNORE
from ocrtrain.data.batch import Batch
from ocrtrain.data.batch_rows import Row, Segment
from ocrtrain.model.ocr_model import OcrModel
from ocrtrain.settings.image_slots import image_slots
from ocrtrain.settings.model_config import ModelConfig
from tests.support.encoders import SMALL, randomise

IMAGE = 299  # the image token

REAL_GPT = replace(SMALL, gpt_width=256, gpt_heads=2, gpt_mlp=512, gpt_layers=3)  # heads of 128


def random_model(config: ModelConfig = SMALL, seed: int = 0) -> OcrModel:
    model = OcrModel(config, image_size=128, image_token=IMAGE)
    randomise(model, seed=seed)
    return model


def make_batch(lengths: Sequence[int], images: Sequence[int], seed: int = 0) -> Batch:
    """A batch with one sample per row: `images[i]` images, then text up to `lengths[i]` ids.

    About half of the text is supervised.
    """
    draw = torch.Generator().manual_seed(seed)
    slots, longest = image_slots(128), max(lengths)
    ids = torch.zeros(len(lengths), longest, dtype=torch.long)
    targets = torch.full_like(ids, IGNORE)
    for row, (length, count) in enumerate(zip(lengths, images, strict=True)):
        start = count * slots
        ids[row, :start] = IMAGE
        ids[row, start:length] = torch.randint(1, 290, (length - start,), generator=draw)
        wanted = torch.randint(1, 290, (length - start,), generator=draw)
        chosen = torch.rand(length - start, generator=draw) < 0.5
        targets[row, start:length] = torch.where(chosen, wanted, IGNORE)
    shapes = [(100 + 10 * number, 150, 3) for number in range(sum(images))]
    return Batch(
        step=0,
        rows=tuple(
            Row((Segment(SampleRef("x-000.tar", f"{row:09d}", row, ""), "x", 0, length, count),))
            for row, (length, count) in enumerate(zip(lengths, images, strict=True))
        ),
        input_ids=ids,
        targets=targets,
        position_ids=torch.arange(longest).repeat(len(lengths), 1),
        images=tuple(torch.randint(0, 256, s, generator=draw, dtype=torch.uint8) for s in shapes),
        layouts=(ImageLayout(128),) * len(shapes),
    )


def close(ours: Tensor, wanted: Tensor, tolerance: float = 1e-5) -> None:
    """Assert that tensors are equal up to `tolerance` times the largest value."""
    torch.testing.assert_close(ours, wanted, rtol=0, atol=tolerance * float(wanted.abs().max()))
