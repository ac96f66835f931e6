"""Peak FLOP/s of GPUs, FLOPs of a batch, and a one-line summary of a model's size.

The formulae are in `ocrtrain.cost.flops`.
"""

from __future__ import annotations

import re
from collections import Counter

import torch

from ocrtrain.cost.flops import parameters, step_flops
from ocrtrain.data.batch import Batch
from ocrtrain.data.batch_rows import BatchSummary
from ocrtrain.settings.config import Config


def batch_flops(config: Config, batch: Batch | BatchSummary) -> float:
    """FLOPs to train on a batch; padding is not counted."""
    return step_flops(
        config.model,
        images=images_by_size(config, batch),
        row_lengths=[segment.length for segment in batch.segments],
        supervised=batch.supervised,
        frozen=config.freeze,
    )


def images_by_size(config: Config, batch: Batch | BatchSummary) -> Counter[int]:
    """Numbers of the images of a batch by the side of their view in px."""
    found: Counter[int] = Counter()
    for segment in batch.segments:
        if segment.images:
            found[config.image_mode(segment.source).size] += segment.images
    return found


# Dense bf16 with fp32 accumulation, in TFLOP/s, from NVIDIA's data sheets (half of the figure for
# structured sparsity). The first match counts. GPUs without bf16 units (V100, T4) are left out.
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
    """Dense bf16 FLOP/s of the GPU that torch calls `name`; None if unknown.

    MIG slices are unknown: their names do not tell their share of the GPU.
    """
    if "MIG" in name or "Laptop" in name:
        return None
    found = (peak for pattern, peak in _PEAKS if re.search(pattern, name))
    peak = next(found, None)
    return peak * 1e12 if peak else None


def peak_flops(device: torch.device) -> float | None:
    """Dense bf16 FLOP/s of a torch device; None for a CPU or an unknown GPU."""
    return peak_of(torch.cuda.get_device_name(device)) if device.type == "cuda" else None


def model_summary(config: Config) -> str:
    """One line: parameters, and training FLOPs per image of each size and per supervised token."""
    model = config.model
    counts = parameters(model)
    trained = sum(count for part, count in counts.items() if part not in config.freeze)
    images = []
    for mode in config.image_modes:
        cost = step_flops(model, images={mode.size: 1}, row_lengths=[], frozen=config.freeze)
        images.append(f"{cost / 1e12:.3g} TFLOP per image of {mode.size} px")
    token = step_flops(model, images={}, row_lengths=[1], frozen=config.freeze)
    return (
        f"{sum(counts.values()) / 1e6:,.1f} M parameters, {trained / 1e6:,.1f} M trained; "
        f"training takes {', '.join(images)} and {token / 1e9:.3g} GFLOP per supervised token"
    )
