"""What the model takes is found on the CPU, and found right."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from ocrdata.tokens.rendering import IGNORE
from ocrtrain.model.inputs import sample_lengths
from tests.support.losses import inputs_of
from tests.support.models import IMAGE, make_batch, random_model


def test_slots_and_supervised_positions_are_those_of_the_rows() -> None:
    batch = make_batch([40, 25, 9], [2, 0, 1])
    inputs = inputs_of(random_model(), batch)
    ids, targets = batch.input_ids.flatten().tolist(), batch.targets.flatten().tolist()
    assert inputs.slots_at.tolist() == [at for at, one in enumerate(ids) if one == IMAGE]
    wanted = [at for at, one in enumerate(targets) if one != IGNORE]
    assert inputs.supervised_at.tolist() == wanted and len(wanted) == batch.supervised
    assert inputs.targets.tolist() == [targets[at] for at in wanted]
    assert inputs.lengths == ((40,), (40,), (40,))  # padding belongs to the last sample
    assert all(one is other for one, other in zip(inputs.images, batch.images, strict=True))


@given(st.lists(st.integers(1, 9), min_size=1, max_size=6), st.integers(0, 5))
def test_lengths_are_read_from_the_positions(lengths: list[int], padding: int) -> None:
    lengths[-1] += padding
    row = torch.cat([torch.arange(length) for length in lengths])
    other = torch.arange(len(row)) + 7  # not from 0: one sample
    assert sample_lengths(torch.stack([row, other])) == (tuple(lengths), (len(row),))


def test_moving_inputs_changes_only_their_device() -> None:
    inputs = inputs_of(random_model(), make_batch([40, 25], [2, 0]))
    moved = inputs.to("meta")
    assert {tensor.device.type for tensor in moved.tensors()} == {"meta"}
    assert [one.shape for one in moved.tensors()] == [one.shape for one in inputs.tensors()]
    assert len(list(moved.tensors())) == 6 + 2 and moved.lengths == inputs.lengths
