"""Which way of attention is fastest here, for rows like those of the run: by a short trial on the
GPU. In: sizes of the model and lengths of samples. Out: seconds of each way, or why it cannot be
used. What is chosen is recorded by `ocrtrain.run.attention_choice`.
"""

from __future__ import annotations

import statistics
import time
from typing import NamedTuple

import torch

from ocrdata.errors import UsageError, first_line
from ocrtrain.model.attention import WAYS, Lengths, PackedRows, starts_of
from ocrtrain.settings.model_config import ModelConfig

ROUNDS = 5
"""Rounds of a trial, after one that compiles."""


class Trial(NamedTuple):
    """Median seconds of a forward and backward pass of one layer by each way that can be used, and
    why the others cannot."""

    seconds: dict[str, float]
    unusable: dict[str, str]

    @property
    def fastest(self) -> str:
        """The way with the least time."""
        return min(self.seconds, key=lambda way: self.seconds[way])


def check_way(way: str, device: torch.device, dtype: torch.dtype | None) -> None:
    """Raises UsageError where a way of --attention cannot train on a device in autocast's type,
    None for fp32."""
    if way in ("flex", "varlen") and device.type != "cuda":
        raise UsageError(
            f"--attention {way} needs a GPU, and the device is {device.type}: torch has no "
            "backward pass of it there; give auto or sdpa"
        )
    if way == "varlen" and dtype is None:
        raise UsageError(
            "--attention varlen needs --precision bf16: flash attention has no fp32; give flex, "
            "sdpa or auto"
        )


def try_ways(
    config: ModelConfig, lengths: Lengths, *, device: torch.device, dtype: torch.dtype | None
) -> Trial:
    """Time every way on packed rows of samples of `lengths`."""
    seconds: dict[str, float] = {}
    unusable: dict[str, str] = {}
    for way in WAYS:
        try:
            check_way(way, device, dtype)
            seconds[way] = _seconds_of(way, config, lengths, device, dtype)
        except Exception as exc:  # whatever this version of torch or this GPU lacks
            unusable[way] = first_line(exc)
    return Trial(seconds, unusable)


def _seconds_of(
    way: str, config: ModelConfig, lengths: Lengths, device: torch.device, dtype: torch.dtype | None
) -> float:
    heads, rows, positions = config.gpt_heads, len(lengths), sum(lengths[0])
    width = config.gpt_width // heads
    draw = torch.Generator().manual_seed(0)
    query, key, value = (
        torch.randn(rows, heads, positions, width, generator=draw)
        .to(device, dtype or torch.float32)
        .requires_grad_()
        for _ in range(3)
    )
    times = []
    for _ in range(ROUNDS + 1):
        _wait_for(device)
        began = time.perf_counter()
        packed = PackedRows(way, lengths, starts_of(lengths).to(device))
        output = packed.attend(query, key, value, width**-0.5, packed)
        torch.autograd.grad(output.sum(), (query, key, value))
        _wait_for(device)
        times.append(time.perf_counter() - began)
    return statistics.median(times[1:])


def _wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
