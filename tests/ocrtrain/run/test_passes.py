"""The inputs of a step's passes, and that a step waits for the device once, at its end."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from ocrdata.reading.prefetch import Assembly
from ocrtrain.run import step as module
from ocrtrain.run.job import Job
from ocrtrain.run.launch import train
from ocrtrain.run.passes import Passes, PassMaker
from tests.support.data import losses, small_config
from tests.support.losses import inputs_of
from tests.support.models import make_batch, random_model
from tests.support.waits import NoWaits

CPU = torch.device("cpu")


def test_a_batch_is_split_into_the_inputs_of_its_passes() -> None:
    model, batch = random_model(), make_batch([40, 25, 9], [2, 0, 1])
    maker = PassMaker(lambda _: Assembly([], lambda _: batch), model, rows=2, device=CPU)
    passes = maker(0).make()
    assert passes.batch is batch and passes.positions == 2 * 40 + 9
    wanted = [inputs_of(model, part) for part in batch.split(2)]
    for ours, other in zip(passes.arrived(), wanted, strict=True):
        assert ours.lengths == other.lengths
        for one, two in zip(ours.tensors(), other.tensors(), strict=True):
            assert torch.equal(one, two)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
def test_inputs_arrive_on_cuda() -> None:
    model, batch = random_model(), make_batch([40, 25, 9], [2, 0, 1])
    maker = PassMaker(
        lambda _: Assembly([], lambda _: batch), model, rows=2, device=torch.device("cuda")
    )
    for ours, part in zip(maker(0).make().arrived(), batch.split(2), strict=True):
        for one, two in zip(ours.tensors(), inputs_of(model, part).tensors(), strict=True):
            assert one.is_cuda and torch.equal(one.cpu(), two)


def test_a_question_to_the_device_fails() -> None:
    values = torch.arange(3)
    for ask in (
        lambda: values.sum().item(),
        lambda: bool(values[0] == 0),
        lambda: values[values > 0],
        values.nonzero,
        lambda: values.masked_select(values > 1),
    ):
        with pytest.raises(AssertionError, match="waits"), NoWaits():
            ask()


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("values", [{}, {"pack": True, "checkpointing": True, "micro_batch": 1}])
def test_gradients_are_computed_without_waiting_for_the_device(
    inputs: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    values: dict[str, object],
) -> None:
    """Loss and gradient norm are read together, once they are all computed."""
    calls = []
    compute = module._gradients

    def watched(job: Job, passes: Passes) -> torch.Tensor:
        with NoWaits():
            found = compute(job, passes)
        calls.append(found)
        return found

    monkeypatch.setattr(module, "_gradients", watched)
    assert train(small_config(inputs, tmp_path / "run", steps=2, eval_every=0, **values)) == 0
    assert len(calls) == 2 and all(len(found) > 2 for found in calls)  # and the loss of each row
    assert [loss for _, loss in losses(tmp_path / "run")] == [found[0].item() for found in calls]
