import dataclasses

import pytest
import torch
from torch import nn

from ocrtrain.run.optimizer import build_optimizer, learning_rate, set_rate
from ocrtrain.settings.config import Config


def test_the_cosine_schedule_with_warm_up() -> None:
    config = Config(steps=1000, warmup=10, lr=5e-5)
    rates = [learning_rate(config, step) for step in range(1000)]
    assert rates[0] == pytest.approx(5e-6)
    assert rates[9] == rates[10] == pytest.approx(5e-5)
    assert rates[505] == pytest.approx(2.5e-5, rel=1e-6)
    assert 0 < rates[-1] < 1e-9
    assert rates[10:] == sorted(rates[10:], reverse=True)


@pytest.mark.parametrize("schedule", ["cosine", "step", "constant"])
@pytest.mark.parametrize("steps", [1, 2, 9, 10, 11])
def test_the_peak_is_reached_in_every_run(steps: int, schedule: str) -> None:
    config = Config(steps=steps, warmup=10, lr=1.0, schedule=schedule)
    rates = [learning_rate(config, step) for step in range(steps)]
    assert max(rates) == 1.0 and min(rates) > 0
    assert rates[: steps - 1] == sorted(rates[: steps - 1])


def test_the_step_and_constant_schedules() -> None:
    config = Config(steps=5000, warmup=100, lr=1.0, schedule="step", step_every=2000)
    assert [learning_rate(config, s) for s in (0, 99, 100, 1999)] == [0.01, 1.0, 1.0, 1.0]
    assert learning_rate(config, 2000) == pytest.approx(0.1)
    assert learning_rate(config, 4000) == pytest.approx(0.01)
    constant = dataclasses.replace(config, schedule="constant")
    assert learning_rate(constant, 4000) == 1.0


def test_the_step_schedule_equals_torchs_step_lr() -> None:
    config = Config(steps=60, warmup=0, lr=0.5, schedule="step", step_every=7)
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.5)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 7, 0.1)
    for step in range(60):
        assert learning_rate(config, step) == pytest.approx(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()


class Parts(nn.Module):
    """Parameters with the names of the real model."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.ModuleDict(
            {"sam": nn.Linear(3, 4), "clip": nn.Linear(4, 4), "projector": nn.Linear(4, 2)}
        )
        self.gpt = nn.Linear(2, 5)


def test_trainable_parameters_are_grouped_by_rate_and_decay() -> None:
    model = Parts()
    model.encoder["projector"].bias.requires_grad_(False)
    config = Config(weight_decay=0.1, sam_lr_scale=0.05, clip_lr_scale=0.5)
    optimizer = build_optimizer(model, config)
    set_rate(optimizer, 0.25)
    found = {
        (g["lr"], g["weight_decay"]): [tuple(p.shape) for p in g["params"]]
        for g in optimizer.param_groups
    }
    assert found == {
        (0.0125, 0.1): [(4, 3)],
        (0.0125, 0.0): [(4,)],
        (0.125, 0.1): [(4, 4)],
        (0.125, 0.0): [(4,)],
        (0.25, 0.1): [(2, 4), (5, 2)],
        (0.25, 0.0): [(5,)],
    }
