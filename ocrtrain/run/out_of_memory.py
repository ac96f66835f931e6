"""Running out of memory: which errors say so, and what helps."""

from __future__ import annotations

import torch

from ocrdata.errors import TrainError
from ocrtrain.settings.config import Config

_ALLOCATORS = ("DefaultCPUAllocator: can't allocate memory", "DefaultCPUAllocator: not enough")
"""What torch's RuntimeError says where the CPU's memory is used up."""


def is_out_of_memory(exc: BaseException) -> bool:
    """Whether an error means that a device, or this machine, has no memory left."""
    if isinstance(exc, (torch.OutOfMemoryError, MemoryError)):
        return True
    return isinstance(exc, RuntimeError) and any(text in str(exc) for text in _ALLOCATORS)


def out_of_memory(what: str, reason: str, remedies: list[str]) -> TrainError:
    """The error of a run whose `what` ("step 12") ran out of memory."""
    return TrainError(
        f"{what}: out of memory ({reason.rstrip('.')}); resume with {' or '.join(remedies)}"
    )


def step_remedies(config: Config, *, is_fp32: bool) -> list[str]:
    """What makes a training step need less memory than it does with this config."""
    rows, found = config.rows_per_pass, []
    if rows > 1:
        fewer = max(n for n in range(1, rows // 2 + 1) if config.batch % n == 0)
        found.append(f"--micro-batch {fewer}")
    if not config.checkpointing:
        found.append("--checkpointing")
    if is_fp32:
        found.append("--precision bf16")
    return found or ["a device with more memory (a new run: a smaller --seq-len or --image-size)"]


def validation_remedies(config: Config, *, is_fp32: bool) -> list[str]:
    """What makes a validation need less memory than it does with this config."""
    found = [f"--val-batch {config.val_batch // 2}"] if config.val_batch > 1 else []
    if is_fp32:
        found.append("--precision bf16")
    return found or ["a device with more memory"]
