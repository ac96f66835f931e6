"""Choice of the device, and of the precision on it."""

from __future__ import annotations

import torch

from ocrdata.errors import UsageError


def resolve_device(name: str) -> torch.device:
    """The device called `name`; "auto" is CUDA if available, else the CPU.

    Raises UsageError for another kind of device, or one that this machine does not have.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    if device is None or device.type not in ("cpu", "cuda"):
        raise UsageError(f"--device {name!r}: give auto, cpu, cuda or cuda:N")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UsageError(
            f"--device {name}: this machine has {torch.cuda.device_count()} CUDA devices"
        )
    return device


def autocast_type(precision: str, device: torch.device) -> torch.dtype | None:
    """The dtype for autocast; None for fp32 without autocast."""
    bf16 = precision == "bf16" or (precision == "auto" and device.type == "cuda")
    return torch.bfloat16 if bf16 else None
