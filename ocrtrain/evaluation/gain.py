"""What the right images are worth to single answers: the loss of a gold answer with another
sample's images minus its loss with its own. Near 0 the question can be answered without looking; of
a whole set, `validation.py` measures it on every third sample."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from ocrdata.reading.samples import DecodedSample
from ocrdata.reading.view import SampleRef
from ocrdata.sample import Message, Sample, text_part
from ocrdata.tokens.tokenizer import Tokenizer
from ocrtrain.data.batch import collate, prepare_sample
from ocrtrain.evaluation.generation import inference
from ocrtrain.evaluation.validation import batch_losses
from ocrtrain.model.ocr_model import OcrModel

ANSWERS_AT_ONCE = 8
"""Answers a forward pass, as many as validation takes by default."""

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
    precision: torch.dtype | None,
) -> list[float]:
    """The gain of each answer in nats per token, from the answer with its own images and the same
    with others."""
    answers = [one for pair in pairs for one in pair]
    with inference(model, precision):
        means = list(_mean_losses(model, tokenizer, answers))
    return [other - own for own, other in zip(means[::2], means[1::2], strict=True)]


def _mean_losses(
    model: OcrModel, tokenizer: Tokenizer, answers: Sequence[GoldAnswer]
) -> Iterator[float]:
    """Nats per token of each gold answer, its end included; of earlier answers in its messages none
    counts."""
    for start in range(0, len(answers), ANSWERS_AT_ONCE):
        rows = [
            [
                prepare_sample(
                    _whole(one), tokenizer=tokenizer, image_size=model.image_size, seq_len=UNCUT
                )
            ]
            for one in answers[start : start + ANSWERS_AT_ONCE]
        ]
        batch = collate(0, rows, tokenizer=tokenizer, image_size=model.image_size)
        for whole, _ in batch_losses(model, batch):
            yield whole.loss / whole.tokens


def _whole(one: GoldAnswer) -> DecodedSample:
    """The question with its gold answer, as a sample of which only that answer carries loss."""
    before = [
        {**message, "weight": 0} if message["role"] == "assistant" else message
        for message in one.messages
    ]
    gold = {"role": "assistant", "content": [text_part(one.gold)]}
    return DecodedSample(one.ref, "", Sample([*before, gold]), one.images)
