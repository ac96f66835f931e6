"""The device a model runs on, and the precision of its arithmetic there."""

from __future__ import annotations

import torch

from ocrdata.errors import UsageError


def resolve_device(name: str) -> torch.device:
    """'auto' is CUDA where there is one. Raises UsageError for a device that is not there."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        device = torch.device("meta")
    if device.type not in ("cpu", "cuda"):
        raise UsageError(f"--device {name!r} is no device; give auto, cpu, cuda or cuda:N")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UsageError(
            f"--device {name}: this machine has {torch.cuda.device_count()} CUDA devices"
        )
    return device


def autocast_type(precision: str, device: torch.device) -> torch.dtype | None:
    """The type of autocast, None for plain fp32."""
    bf16 = precision == "bf16" or (precision == "auto" and device.type == "cuda")
    return torch.bfloat16 if bf16 else None
