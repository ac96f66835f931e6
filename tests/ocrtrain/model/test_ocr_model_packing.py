"""Packed rows: each sample of a row gives the same results as alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch

from ocrdata.tokens.rendering import IGNORE
from ocrtrain.data.batch import Batch
from ocrtrain.data.batch_rows import Row
from tests.support import oracle
from tests.support.losses import loss_of
from tests.support.models import REAL_GPT, close, make_batch, random_model
from tests.support.pretrained import to_nanochat


def pack(batch: Batch, groups: Sequence[Sequence[int]]) -> Batch:
    """Pack rows of an unpacked batch into one row per group; positions restart at each sample."""
    longest = max(sum(batch.rows[row].length for row in group) for group in groups)
    tensors = {
        name: torch.full((len(groups), longest), fill)
        for name, fill in (("input_ids", 0), ("targets", IGNORE), ("position_ids", 0))
    }
    rows, images = [], []
    firsts = [sum(row.images for row in batch.rows[:n]) for n in range(len(batch.rows))]
    for number, group in enumerate(groups):
        start, segments = 0, []
        for row in group:
            (segment,) = batch.rows[row].segments
            for name, tensor in tensors.items():
                tensor[number, start : start + segment.length] = getattr(batch, name)[
                    row, : segment.length
                ]
            segments.append(replace(segment, start=start))
            images += batch.images[firsts[row] : firsts[row] + segment.images]
            start += segment.length
        rest = torch.arange(longest - start) + int(tensors["position_ids"][number, start - 1]) + 1
        tensors["position_ids"][number, start:] = rest
        rows.append(Row(tuple(segments)))
    return replace(batch, rows=tuple(rows), images=tuple(images), **tensors)


@pytest.mark.parametrize("checkpointing", [False, True])
def test_packed_rows_have_the_loss_and_gradients_of_unpacked_ones(
    checkpointing: bool,
) -> None:
    """In fp32, with images and text in the same rows."""
    batch = make_batch([40, 25, 9, 31, 60, 12], [1, 0, 0, 1, 2, 0])
    packed = pack(batch, [[1, 0, 2], [3], [5, 4]])
    assert (packed.tokens, packed.supervised) == (batch.tokens, batch.supervised)
    found = []
    for one in (batch, packed):
        model = random_model().train()
        model.checkpoint_blocks(checkpointing)
        total, supervised, _ = loss_of(model, one)
        assert supervised == batch.supervised
        (total / supervised).backward()
        found.append((total / supervised, {n: p.grad for n, p in model.named_parameters()}))
    (loss, gradients), (packed_loss, packed_gradients) = found
    assert abs(loss.item() - packed_loss.item()) < 1e-5
    assert gradients.keys() == packed_gradients.keys()
    for name, gradient in gradients.items():
        other = packed_gradients[name]
        if gradient is None or other is None:
            assert gradient is None and other is None
            continue
        assert float((gradient - other).abs().max()) < 1e-5 * max(1.0, float(gradient.abs().max()))


def test_without_restarting_positions_samples_see_each_other() -> None:
    """The test above would detect it: continuous positions give another loss."""
    packed = pack(make_batch([40, 25, 9], [1, 0, 0]), [[0, 1, 2]])
    continuous = replace(packed, position_ids=torch.arange(packed.input_ids.shape[1])[None])
    model = random_model()
    with torch.no_grad():
        assert (
            float((loss_of(model, packed).loss_sum - loss_of(model, continuous).loss_sum).abs())
            > 1e-2
        )


@pytest.mark.parametrize("training", [False, True])
def test_packed_samples_do_not_see_each_other(training: bool) -> None:
    model = random_model(REAL_GPT).train(training)
    model.checkpoint_blocks(training)
    lengths = (11, 1, 30)
    positions = torch.cat([torch.arange(n) for n in lengths])[None]
    embeds = torch.randn(1, sum(lengths), REAL_GPT.gpt_width)
    with torch.no_grad():
        packed = model.logits(model.hidden(embeds, positions))[0].split(lengths)
        for ours, sample in zip(packed, embeds[0].split(lengths), strict=True):
            close(ours, oracle.gpt(to_nanochat(model.gpt), sample, heads=REAL_GPT.gpt_heads))
