"""Peaks by the names of GPUs, FLOPs of a batch, and the summary of a model."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from ocrtrain.cost.flops import step_flops
from ocrtrain.cost.gpus import batch_flops, model_summary, peak_flops, peak_of
from ocrtrain.settings.presets import stage1, stage2
from tests.support.models import make_batch


@pytest.mark.parametrize(
    ("name", "tera"),
    [
        ("NVIDIA A100-SXM4-80GB", 312),
        ("NVIDIA A100 80GB PCIe", 312),
        ("NVIDIA H100 80GB HBM3", 989),
        ("NVIDIA H100 PCIe", 756),
        ("NVIDIA H100 NVL", 835),
        ("NVIDIA H200", 989),
        ("NVIDIA H200 NVL", 835),
        ("NVIDIA GH200 480GB", 989),
        ("NVIDIA B200", 2250),
        ("NVIDIA L4", 121),
        ("NVIDIA L40", 181),
        ("NVIDIA L40S", 362),
        ("NVIDIA A10", 125),
        ("NVIDIA A10G", 70),
        ("NVIDIA RTX A6000", 154.8),
        ("NVIDIA RTX 6000 Ada Generation", 364),
        ("NVIDIA GeForce RTX 4090", 165.2),
        ("NVIDIA GeForce RTX 3090", 71),
        ("NVIDIA GeForce RTX 3090 Ti", 80),
    ],
)
def test_peak_of_a_known_gpu(name: str, tera: float) -> None:
    assert peak_of(name) == tera * 1e12


@pytest.mark.parametrize(
    "name",
    ["Tesla V100-SXM2-32GB", "Tesla T4", "NVIDIA GeForce RTX 4090 D",
     "NVIDIA GeForce RTX 4080 SUPER", "NVIDIA GeForce RTX 4090 Laptop GPU", "NVIDIA A1000",
     "NVIDIA A100-SXM4-40GB MIG 1g.5gb", "AMD Instinct MI300X", "NVIDIA L400", ""],
)  # fmt: skip
def test_an_unknown_gpu_has_no_peak(name: str) -> None:
    assert peak_of(name) is None


def test_a_cpu_has_no_peak() -> None:
    assert peak_flops(torch.device("cpu")) is None


def test_flops_of_a_batch_leave_out_its_padding() -> None:
    batch = make_batch([40, 25, 9], [1, 0, 1])
    config = replace(stage1(), image_size=128)
    wanted = step_flops(
        config.model,
        images={128: len(batch.images)},
        row_lengths=[row.length for row in batch.rows],
        supervised=batch.supervised,
    )
    assert batch_flops(config, batch) == wanted
    assert batch_flops(replace(config, freeze=("sam",)), batch) < wanted


def test_model_summary_is_one_line() -> None:
    line = model_summary(stage1())
    assert "961.8 M parameters, 961.8 M trained" in line
    assert "3.42 TFLOP per image of 1024 px" in line
    assert "\n" not in line
    frozen = model_summary(stage2())
    assert "866.2 M trained" in frozen and "1.47 TFLOP per image" in frozen
