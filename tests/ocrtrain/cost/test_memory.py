"""The memory estimate is compared with torch; runs that cannot be done are refused."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from typing import Any

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
from ocrtrain.settings.config import Config, ModelConfig
from ocrtrain.settings.presets import stage1, stage2
from tests.support.encoders import pixels

WIDE = ModelConfig(
    sam_width=128, sam_layers=4, sam_heads=2, sam_mlp=512, sam_window=4, sam_global_layers=(1, 3),
    sam_neck=32, sam_mid=64, sam_out=128, sam_grid=16, clip_width=128, clip_layers=4,
    clip_heads=2, clip_mlp=512, clip_grid=4, gpt_width=128, gpt_layers=6, gpt_heads=2,
    gpt_mlp=512, vocab_size=1000,
)  # fmt: skip


@contextmanager
def saved_bytes(model: torch.nn.Module) -> Iterator[list[int]]:
    """Counts the bytes saved for the backward pass, each storage once, parameters left out."""
    own = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    seen: dict[int, Any] = {}
    total = [0]

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own and storage.data_ptr() not in seen:
            seen[storage.data_ptr()] = storage  # kept alive so that its address is not reused
            total[0] += storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        yield total


@pytest.mark.parametrize("bf16", [False, True])
@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("frozen", [(), ("sam",), ("sam", "clip", "projector")])
def test_activations_equal_what_torch_saves(
    bf16: bool, checkpointing: bool, frozen: tuple[str, ...]
) -> None:
    model = OcrModel(WIDE, image_size=256, image_token=0).train()
    model.freeze(frozen)
    model.checkpoint_blocks(checkpointing)
    rows, length = 3, 200
    ids = torch.ones(rows, length, dtype=torch.long)
    ids[:, : model.slots] = 0
    positions = torch.arange(length).repeat(rows, 1)
    autocast = torch.autocast("cpu", torch.bfloat16) if bf16 else nullcontext()
    with autocast, saved_bytes(model) as saved:
        states = model.hidden(model.embed(ids, pixels(256, count=rows)), positions)
    batch = MicroBatch(rows, length, rows, 256, bf16=bf16, checkpointing=checkpointing)
    memory = estimate_memory(WIDE, batch, frozen=frozen)
    assert states.requires_grad
    # With checkpointing the weights are converted to bf16 again, so that no copy is saved.
    wanted = memory.activations + (0 if checkpointing else memory.copies)
    assert saved[0] == pytest.approx(wanted, rel=0.2)


def test_weights_gradients_and_adam_take_16_bytes_per_parameter() -> None:
    memory = estimate_memory(ModelConfig(), MicroBatch(1, 512, 1, 1024, bf16=True))
    assert memory.weights + memory.gradients + memory.adam == 16 * 961_760_768
    # Decoder activations of 4 x 8,192 tokens: 61.8 KB per token and layer were measured.
    text = MicroBatch(4, 8192, 0, 1024, bf16=True)
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
    line = refusal(stage1(), replace(A100, memory=8e9))
    assert "--preset tiny --init random here, or a GPU with 80 GB" in line


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
