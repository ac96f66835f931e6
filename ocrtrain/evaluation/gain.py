"""What the right images are worth to single answers: the loss of a gold answer with another
sample's images minus its loss with its own. Near 0 the question can be answered without looking; of
a whole set, `validation.py` measures it on every third sample."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from ocrdata.images.modes import ImageMode
from ocrdata.reading.samples import DecodedSample
from ocrdata.reading.view import SampleRef
from ocrdata.sample import Message, Sample, text_part
from ocrdata.tokens.tokenizer import Tokenizer
from ocrtrain.data.batch import collate, prepare_sample
from ocrtrain.evaluation.generation import inference
from ocrtrain.evaluation.validation import batch_losses
from ocrtrain.model.ocr_model import OcrModel

UNCUT = 1 << 30
"""Positions; a longer sample does not exist."""


class GoldAnswer(NamedTuple):
    """A question, which is the last of its messages, its gold answer, and the images that its
    messages place, uint8 [H, W, 3]."""

    ref: SampleRef
    messages: Sequence[Message]
    gold: str
    images: tuple[npt.NDArray[np.uint8], ...]


def answer_gains(
    model: OcrModel,
    tokenizer: Tokenizer,
    pairs: Sequence[tuple[GoldAnswer, GoldAnswer]],
    *,
    mode: ImageMode,
    precision: torch.dtype | None,
) -> list[float]:
    """The gain of each answer in nats per token, its end included, from the answer with its own
    images and the same with others, shown as `mode` says; of earlier answers in its messages none
    counts. A forward pass has one pair, so that a gain does not depend on other questions."""
    gains = []
    with inference(model, precision):
        for pair in pairs:
            rows = [
                [prepare_sample(_whole(one), tokenizer=tokenizer, mode=mode, seq_len=UNCUT)]
                for one in pair
            ]
            batch = collate(0, rows, tokenizer=tokenizer)
            (own, _), (other, _) = batch_losses(model, batch)
            gains.append((other.loss - own.loss) / own.tokens)
    return gains


def _whole(one: GoldAnswer) -> DecodedSample:
    """The question with its gold answer, as a sample of which only that answer carries loss."""
    before = [
        {**message, "weight": 0} if message["role"] == "assistant" else message
        for message in one.messages
    ]
    gold = {"role": "assistant", "content": [text_part(one.gold)]}
    return DecodedSample(one.ref, "", Sample([*before, gold]), one.images)
