import dataclasses
from dataclasses import replace

import pytest
import torch
from torch import nn

from ocrtrain.model.ocr_model import build_model
from ocrtrain.run.muon import Muon
from ocrtrain.run.optimizer import build_optimizer, learning_rate, muon_matrices, set_rate
from ocrtrain.settings.config import Config
from tests.support.data import SMALL_MODEL


def test_the_cosine_schedule_with_warm_up() -> None:
    config = Config(steps=1000, warmup=10, lr=5e-5)
    rates = [learning_rate(config, step) for step in range(1000)]
    assert rates[0] == pytest.approx(5e-6)
    assert rates[9] == rates[10] == pytest.approx(5e-5)
    assert rates[505] == pytest.approx(2.5e-5, rel=1e-6)
    assert 0 < rates[-1] < 1e-9
    assert rates[10:] == sorted(rates[10:], reverse=True)


@pytest.mark.parametrize("schedule", ["cosine", "linear", "step", "constant"])
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


def test_the_linear_schedule_is_flat_and_then_falls_to_0() -> None:
    config = Config(steps=100, warmup=10, lr=2.0, schedule="linear", decay_part=0.3)
    rates = [learning_rate(config, step) for step in range(100)]
    assert rates[9:71] == [2.0] * 62
    assert rates[70:] == pytest.approx([2.0 * (100 - step) / 30 for step in range(70, 100)])
    whole = dataclasses.replace(config, decay_part=1.0)  # from the end of the warm-up on
    assert learning_rate(whole, 10) == 2.0
    assert learning_rate(whole, 55) == pytest.approx(1.0)
    later = dataclasses.replace(config, steps=150, schedule_from=50)
    assert [learning_rate(later, step + 50) for step in range(100)] == rates


@pytest.mark.parametrize("schedule", ["cosine", "linear", "step", "constant"])
@pytest.mark.parametrize("warmup", [0, 10])
def test_before_its_schedule_begins_a_step_has_the_first_rate(schedule: str, warmup: int) -> None:
    """A run that went back to an older checkpoint than the one it was extended from."""
    config = Config(steps=100, warmup=warmup, lr=2.0, schedule=schedule, schedule_from=50)
    first = learning_rate(config, 50)
    assert first == (0.2 if warmup else 2.0)
    assert {learning_rate(config, step) for step in range(50)} == {first}
    last = dataclasses.replace(config, schedule_from=99)  # no step is left for a warm-up
    assert learning_rate(last, 0) == learning_rate(last, 99) == 2.0


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


def test_muon_takes_the_matrices_and_kernels_and_adamw_the_rest() -> None:
    model = build_model(
        replace(SMALL_MODEL, vocab_size=300), image_size=64, image_token=299, seed=0
    )
    matrices = muon_matrices(model)
    rest = {name for name, p in model.named_parameters() if p.ndim >= 2} - matrices
    assert {name.removeprefix("encoder.") for name in rest if "rel_pos" not in name} == {
        "sam.pos_embed", "clip.embeddings.position_embedding.weight",
        "gpt.model.embed_tokens.weight", "gpt.lm_head.weight",
    }  # fmt: skip
    assert {"encoder.sam.patch_embed.projection.weight", "encoder.projector.weight"} <= matrices
    assert all(model.get_parameter(name).ndim in (2, 4) for name in matrices)

    model.freeze(("clip",))
    config = Config(
        optimizer="muon", lr=0.01, lr_adamw=0.001, sam_lr_scale=0.5, weight_decay=0.1, momentum=0.8
    )
    optimizer = build_optimizer(model, config)
    set_rate(optimizer, 0.02)
    names = {p: name for name, p in model.named_parameters()}
    found = {
        names[p]: (group["lr"], group["weight_decay"], group.get("momentum"))
        for group in optimizer.param_groups
        for p in group["params"]
    }
    assert found.keys() == {n for n in names.values() if not n.startswith("encoder.clip.")}
    for name, (rate, decay, momentum) in found.items():
        half = 0.5 if name.startswith("encoder.sam.") else 1.0
        if name in matrices:
            assert (rate, decay, momentum) == (pytest.approx(0.02 * half), 0.1, 0.8), name
        else:
            wanted = 0.1 if model.get_parameter(name).ndim >= 2 else 0.0
            assert (rate, decay, momentum) == (pytest.approx(0.002 * half), wanted, None), name


def test_one_rate_serves_both_unless_adamw_has_its_own() -> None:
    optimizer = build_optimizer(Parts(), Config(optimizer="muon", lr=0.01))
    assert {group["scale"] for group in optimizer.param_groups} == {1.0}
    assert isinstance(optimizer, Muon)


def test_the_rate_of_adamw_is_that_of_all_where_it_updates_all() -> None:
    config = Config(lr=0.01, lr_adamw=0.003, schedule="constant", warmup=0)
    optimizer = build_optimizer(Parts(), config)
    set_rate(optimizer, learning_rate(config, 5))
    assert {group["lr"] for group in optimizer.param_groups} == {0.003}


def test_muon_without_a_matrix_to_train_is_adamw() -> None:
    model = Parts()
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name.endswith("bias"))
    assert type(build_optimizer(model, Config(optimizer="muon"))) is torch.optim.AdamW
