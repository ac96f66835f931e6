"""Choice of device and precision."""

from __future__ import annotations

import pytest
import torch

from ocrdata.errors import UsageError
from ocrtrain.model.device import autocast_type, resolve_device

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


def test_auto_is_cuda_if_available() -> None:
    assert resolve_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
    assert resolve_device("cpu") == CPU


@pytest.mark.parametrize("name", ["abacus", "", "cuda:x", "cuda:-1", "mps", "meta", "cpu,cuda"])
def test_an_unsupported_device_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match=f"--device '{name}'.* auto, cpu, cuda"):
        resolve_device(name)


def test_a_missing_cuda_device_is_refused() -> None:
    count = torch.cuda.device_count()
    with pytest.raises(UsageError, match=f"--device cuda:{count}: .* {count} CUDA"):
        resolve_device(f"cuda:{count}")
    for number in range(count):
        assert resolve_device(f"cuda:{number}").index == number


@pytest.mark.parametrize(
    ("precision", "device", "kind"),
    [
        ("auto", CPU, None),
        ("auto", CUDA, torch.bfloat16),
        ("fp32", CPU, None),
        ("fp32", CUDA, None),
        ("bf16", CPU, torch.bfloat16),
        ("bf16", CUDA, torch.bfloat16),
    ],
)
def test_autocast_type(precision: str, device: torch.device, kind: torch.dtype | None) -> None:
    assert autocast_type(precision, device) == kind
