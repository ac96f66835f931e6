"""What a model costs: parameters, FLOPs, and the peaks of devices.

Owner of the numbers a run shows: FLOPs of a batch, peaks for MFU, the line before the start. The
arithmetic is in `ocrtrain.cost.flops`; memory, and whether this machine can do a run, in
`ocrtrain.cost.memory`. Nothing is built or loaded.
"""

from __future__ import annotations

import re

import torch

from ocrtrain.cost.flops import parameters, step_flops
from ocrtrain.data.batch import Batch
from ocrtrain.settings.config import Config


def batch_flops(config: Config, batch: Batch) -> float:
    """FLOPs of training on a batch: real tokens and images only, not the padding."""
    return step_flops(
        config.model,
        images=len(batch.images),
        image_size=config.image_size,
        row_lengths=[segment.length for segment in batch.segments],
        supervised=batch.supervised,
        frozen=config.freeze,
    )


# Dense bf16 with fp32 accumulation, TFLOP/s, from NVIDIA's data sheets (half of what they print
# for structured sparsity). First match wins. Cards without bf16 units (V100, T4) are not here.
_PEAKS = (
    (r"\bGB?200\b|\bB200\b", 2250.0),
    (r"\bH200 NVL\b", 835.0),
    (r"\bG?H200\b", 989.0),
    (r"\bH[18]00 PCIe\b", 756.0),
    (r"\bH100 NVL\b", 835.0),
    (r"\bH100\b|\bH800\b", 989.0),
    (r"\bA100\b|\bA800\b", 312.0),
    (r"\bRTX 6000 Ada\b", 364.0),
    (r"\bL40S\b", 362.0),
    (r"\bL40\b", 181.0),
    (r"\bL4\b", 121.0),
    (r"\bA40\b", 149.7),
    (r"\bA30\b", 165.0),
    (r"\bA10G\b", 70.0),
    (r"\bA10\b", 125.0),
    (r"\bRTX A6000\b", 154.8),
    (r"\bRTX 5090\b", 209.5),
    (r"\bRTX 4090\b(?! D)", 165.2),
    (r"\bRTX 4080\b(?! SUPER)", 97.5),
    (r"\bRTX 3090 Ti\b", 80.0),
    (r"\bRTX 3090\b", 71.0),
)


def peak_of(name: str) -> float | None:
    """Dense bf16 FLOP/s of a device by the name torch gives it; None where it is not known.

    Slices of a GPU (MIG) are not known: their names do not say what they can do.
    """
    if "MIG" in name or "Laptop" in name:
        return None
    found = (peak for pattern, peak in _PEAKS if re.search(pattern, name))
    peak = next(found, None)
    return peak * 1e12 if peak else None


def peak_flops(device: torch.device) -> float | None:
    """The same of a torch device. CPUs have no such number."""
    return peak_of(torch.cuda.get_device_name(device)) if device.type == "cuda" else None


def describe(config: Config) -> str:
    """One line before a run: parameters and FLOPs. (Memory is forecast from the plan.)"""
    model = config.model
    counts = parameters(model)
    trained = sum(count for part, count in counts.items() if part not in config.freeze)
    image = step_flops(
        model, images=1, image_size=config.image_size, row_lengths=[], frozen=config.freeze
    )
    token = step_flops(
        model, images=0, image_size=config.image_size, row_lengths=[1], frozen=config.freeze
    )
    return (
        f"{sum(counts.values()) / 1e6:,.1f} M parameters, {trained / 1e6:,.1f} M trained; "
        f"training costs {image / 1e12:.3g} TFLOP an image of {config.image_size} px and "
        f"{token / 1e9:.3g} GFLOP a supervised token"
    )
