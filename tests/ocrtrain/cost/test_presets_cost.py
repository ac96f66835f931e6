"""What `--help` says of each preset is what the cost formulas give."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from ocrdata.tokens.tokenizer import load_tokenizer
from ocrtrain.cost.flops import parameters
from ocrtrain.cost.memory import (
    CPU_OVERHEAD,
    OVERHEAD,
    SHORT_TEXT,
    USABLE,
    Machine,
    MicroBatch,
    estimate_memory,
    refusal,
    run_memory,
)
from ocrtrain.model.factory import with_vocabulary
from ocrtrain.model.ocr_model import OcrModel
from ocrtrain.settings.config import BYTES, Config
from ocrtrain.settings.image_slots import image_slots
from ocrtrain.settings.presets import FIGURES, PURPOSES, STAGES, Figures
from tests.support.saved import saved_bytes


def config_of(stage: str, preset: str) -> Config:
    """With the vocabulary of the tokenizer that it has without --tokenizer."""
    config = STAGES[stage](preset)
    return config if config.model.vocab_size else with_vocabulary(config, load_tokenizer(BYTES))


def computed(config: Config) -> Figures:
    """Figures as `--help` has them."""
    gpu = run_memory(config, short=True).total + OVERHEAD
    cpu = run_memory(config, short=True, cuda=False).total + CPU_OVERHEAD
    return Figures(
        f"{sum(parameters(config.model).values()) / 1e6:.3g} M",
        config.batch * (image_slots(config.image_size) + SHORT_TEXT),
        _gigabytes(gpu),
        _gigabytes(cpu),
    )


def _gigabytes(number: float) -> str:
    return f"{number / 1e9:.0f} GB" if number >= 9.95e9 else f"{number / 1e9:.1f} GB"


def test_help_has_the_figures_that_are_computed() -> None:
    found = {
        stage: {preset: computed(config_of(stage, preset)) for preset in PURPOSES}
        for stage in STAGES
    }
    assert found == FIGURES


@pytest.mark.parametrize(("stage", "preset"), [("stage1", "small"), ("stage2", "base")])
def test_a_pass_of_each_shape_saves_what_is_forecast(stage: str, preset: str) -> None:
    """Forward through encoder and decoder, on tensors without data."""
    config = config_of(stage, preset)
    rows = config.rows_per_pass
    batch = MicroBatch(
        rows, image_slots(config.image_size) + SHORT_TEXT, {config.image_size: rows}, bf16=True
    )
    memory = estimate_memory(config.model, batch, frozen=config.freeze)
    saved = saved_bytes(config.model, batch, frozen=config.freeze)
    assert saved == pytest.approx(memory.activations + memory.copies, rel=0.05)


@pytest.mark.parametrize("preset", ["small", "base"])
def test_every_parameter_of_each_shape_gets_a_gradient(preset: str) -> None:
    """But the output head's, which is not part of the pass."""
    config = config_of("stage1", preset)
    with FakeTensorMode():
        model = OcrModel(config.model, image_size=config.image_size, image_token=0).train()
        ids = torch.ones(1, model.slots + 8, dtype=torch.long)
        features = model.encoder(torch.empty(1, 3, config.image_size, config.image_size))
        embeds = model.embed(ids, features, torch.arange(model.slots))
        model.hidden(embeds, ids, ((len(ids[0]),),)).sum().backward()
        without = [name for name, one in model.named_parameters() if one.grad is None]
    assert len(without) == 1 and "lm_head" in without[0]


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize(("preset", "memory"), [("small", 8), ("base", 24), ("full", 80)])
def test_each_fits_the_gpu_it_is_for(stage: str, preset: str, memory: int) -> None:
    """Also where every row is as long as it may be, but in the original experiment's."""
    config = config_of(stage, preset)
    gpu = Machine("cuda", "a GPU", memory * 1e9, 8)
    assert refusal(config, gpu) == ""
    if preset != "full":
        longest = run_memory(config, short=False).total + OVERHEAD
        assert longest <= memory * 1e9 * USABLE


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize(("preset", "cores", "memory"), [("tiny", 2, 4), ("small", 4, 8)])
def test_each_runs_on_the_cpu_it_is_for(stage: str, preset: str, cores: int, memory: int) -> None:
    machine = Machine("cpu", "laptop", memory * 1e9, cores)
    assert refusal(config_of(stage, preset), machine) == ""
    assert "hours" in refusal(replace(config_of(stage, "base")), machine)
