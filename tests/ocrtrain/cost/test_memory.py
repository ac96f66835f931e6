"""The memory estimate is compared with torch; runs that cannot be done are refused."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
import torch

from ocrdata.errors import TrainError
from ocrtrain.cost.memory import (
    Machine,
    MicroBatch,
    estimate_memory,
    preflight,
    refusal,
    run_memory,
    this_machine,
)
from ocrtrain.model.ocr_model import OcrModel
from ocrtrain.run.optimizer import build_optimizer
from ocrtrain.settings.config import Config
from ocrtrain.settings.model_config import ModelConfig
from ocrtrain.settings.presets import stage1, stage2
from tests.support.encoders import SMALL
from tests.support.saved import saved_bytes

WIDE = ModelConfig(
    sam_width=128, sam_layers=4, sam_heads=2, sam_mlp=512, sam_window=4, sam_global_layers=(1, 3),
    sam_neck=32, sam_mid=64, sam_out=128, sam_grid=16, clip_width=128, clip_layers=4,
    clip_heads=2, clip_mlp=512, clip_grid=4, gpt_width=128, gpt_layers=6, gpt_heads=2,
    gpt_mlp=512, vocab_size=1000,
)  # fmt: skip


MIDDLE = replace(
    WIDE, sam_window=14, sam_grid=32, clip_grid=8, sam_width=192, sam_heads=3, gpt_width=256
)  # fmt: skip


@pytest.mark.parametrize("bf16", [False, True])
@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("frozen", [(), ("sam",), ("sam", "clip", "projector")])
def test_activations_equal_what_torch_saves_on_cuda(
    bf16: bool, checkpointing: bool, frozen: tuple[str, ...]
) -> None:
    """Of both stages, packed and not, with images of two sizes; see `tests/support/saved.py`."""
    for rows, length, images, samples in (
        (10, 200, {512: 10}, 1), (4, 2048, {512: 6}, 2), (4, 512, {128: 5, 512: 2}, 1),
    ):  # fmt: skip
        batch = MicroBatch(
            rows, length, images, bf16=bf16, checkpointing=checkpointing, packed=samples > 1
        )
        memory = estimate_memory(MIDDLE, batch, frozen=frozen)
        # With checkpointing the weights are converted to bf16 again, so that no copy is saved.
        wanted = memory.activations + (0 if checkpointing else memory.copies)
        saved = saved_bytes(MIDDLE, batch, frozen=frozen, samples=samples)
        assert saved == pytest.approx(wanted, rel=0.05), (rows, length)


@pytest.mark.parametrize("bf16", [False, True])
def test_activations_are_near_what_torch_saves_on_a_cpu(bf16: bool) -> None:
    batch = MicroBatch(3, 200, {512: 3}, bf16=bf16, cuda=False)
    memory = estimate_memory(MIDDLE, batch)
    saved = saved_bytes(MIDDLE, batch, sdpa=torch.nn.functional.scaled_dot_product_attention)
    assert saved == pytest.approx(memory.activations + memory.copies, rel=0.2)


def test_the_full_model_needs_what_it_is_said_to_need() -> None:
    """Stage 1 with 10 images of 1,024 px, without checkpointing; stage 2 with 4 x 8,192."""
    model = ModelConfig(vocab_size=65_537)
    first = MicroBatch(10, 401, {1024: 10}, bf16=True)
    memory = estimate_memory(model, first)
    assert saved_bytes(model, first) == pytest.approx(memory.activations + memory.copies, rel=0.05)
    assert memory.total < 60e9
    second = MicroBatch(4, 8192, {1024: 8}, bf16=True, checkpointing=True, packed=True)
    memory = estimate_memory(model, second, frozen=("sam",))
    found = saved_bytes(model, second, frozen=("sam",), samples=2)
    assert found == pytest.approx(memory.activations, rel=0.05)
    assert memory.total < 40e9


def test_weights_gradients_and_adam_take_16_bytes_per_parameter() -> None:
    memory = estimate_memory(ModelConfig(), MicroBatch(1, 512, {1024: 1}, bf16=True))
    assert memory.weights + memory.gradients + memory.moments == 16 * 961_760_768


def test_muon_keeps_one_moment_of_each_matrix() -> None:
    """As its state has them, and for the full model by hand: AdamW keeps its embedding, head and
    all that is no matrix."""
    config = Config(optimizer="muon", model=SMALL, init="random")
    model = OcrModel(SMALL, image_size=64, image_token=0)
    model.freeze(("clip",))
    optimizer = build_optimizer(model, config)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter) if parameter.requires_grad else None
    optimizer.step()
    kept = sum(t.nbytes for state in optimizer.state.values() for t in state.values() if t.ndim)
    batch = MicroBatch(1, 32, {64: 1})
    estimated = estimate_memory(SMALL, batch, optimizer="muon", frozen=("clip",))
    assert estimated.moments == kept < estimate_memory(SMALL, batch, frozen=("clip",)).moments
    full = estimate_memory(ModelConfig(), batch, optimizer="muon").moments
    others = 2 * 65_537 * 1280 + 3_950_000  # positions, norms, biases: about
    assert full == pytest.approx(4 * 961_760_768 + 4 * others, rel=1e-3)
    # Decoder activations of 4 x 8,192 tokens: 61.8 KB per token and layer were measured.
    text = MicroBatch(4, 8192, {}, bf16=True)
    assert estimate_memory(ModelConfig(), text).activations == pytest.approx(40.5e9, rel=0.01)


def test_checkpointing_and_micro_batches_need_less_memory() -> None:
    full = stage1()
    base = run_memory(full, short=True).total
    assert run_memory(replace(full, checkpointing=True), short=True).total < 0.6 * base
    assert run_memory(replace(full, micro_batch=1), short=True).total < 0.4 * base
    assert run_memory(full, short=False).total > base
    assert run_memory(stage2(), short=True).total < base


LAPTOP = Machine("cpu", "machine", 24e9, 2)
A100 = Machine("cuda", "NVIDIA A100-SXM4-80GB", 84.5e9, 16)


def test_a_laptop_is_refused_with_needs_and_two_remedies() -> None:
    for config in (stage1(), stage2()):
        line = refusal(config, LAPTOP)
        assert "\n" not in line
        assert re.search(r"needs about \d+ GB of memory and about [\d,]+ hours on 2 cores", line)
        assert "this machine has 24.0 GB free" in line
        assert "--preset tiny --init random" in line
        assert re.search(r"a GPU with \d+ GB", line)


def test_the_gpu_of_the_experiment_is_not_refused() -> None:
    assert refusal(stage1(), A100) == refusal(stage2(), A100) == ""


def test_a_small_gpu_is_offered_micro_batches_if_they_fit() -> None:
    line = refusal(stage1(), replace(A100, name="NVIDIA L4", memory=23.5e9))
    assert "this NVIDIA L4 has 23.5 GB free" in line
    assert "--micro-batch 1 --checkpointing here, or a GPU with 80 GB" in line
    for memory, preset in ((16e9, "small"), (8e9, "small"), (3.5e9, "tiny")):
        line = refusal(stage1(), replace(A100, memory=memory))
        assert f"--preset {preset} --init random here, or a GPU with 80 GB" in line
    # Without a pass of fewer rows that fits, a smaller model with the full encoder may.
    wide = replace(stage2(), model=replace(ModelConfig(), gpt_layers=40))
    line = refusal(wide, replace(A100, memory=18e9))
    assert "--preset base --init pretrained here, or a GPU with" in line
    assert "a smaller --batch here" in refusal(
        replace(stage1("tiny"), batch=10**6), replace(A100, memory=2e9)
    )
    assert "fewer --steps here" in refusal(replace(stage1("tiny"), steps=10**9), LAPTOP)


def test_a_run_too_large_for_every_gpu_is_offered_a_smaller_micro_batch() -> None:
    line = refusal(replace(stage1(), batch=1000), A100)
    assert "a smaller --micro-batch on a GPU with 192 GB" in line


def test_a_small_model_is_not_refused() -> None:
    config = Config(model=replace(WIDE, vocab_size=0), image_size=256, seq_len=512, init="random")
    assert refusal(config, LAPTOP) == ""
    preflight(config, torch.device("cpu"))


def test_only_the_steps_that_are_left_count_on_a_cpu() -> None:
    config = replace(stage1(), micro_batch=1, steps=100_000)
    machine = replace(LAPTOP, memory=1e12)
    assert "hours on" in refusal(config, machine)
    assert "hours on" in refusal(config, machine, done=50_000)
    assert refusal(config, machine, done=99_999) == ""
    assert refusal(replace(config, stop_at=1), machine) == ""
    assert refusal(replace(config, stop_at=60_001), machine, done=60_000) == ""


def test_preflight_refuses_before_anything_is_loaded() -> None:
    enormous = Config(batch=100_000, val_batch=1)
    with pytest.raises(TrainError, match=r"needs about [\d,]+ GB"):
        preflight(enormous, torch.device("cpu"))


def test_this_machine_has_memory_and_cores() -> None:
    machine = this_machine(torch.device("cpu"))
    assert machine.kind == "cpu" and machine.cores >= 1 and 1e8 < machine.memory < 1e14
