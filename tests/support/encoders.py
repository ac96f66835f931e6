"""Sizes of small models, random weights and random pixels."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from ocrtrain.settings.model_config import ModelConfig

SMALL = ModelConfig(
    sam_width=48,
    sam_layers=4,
    sam_heads=4,
    sam_mlp=96,
    sam_window=5,
    sam_global_layers=(1, 3),
    sam_neck=16,
    sam_mid=24,
    sam_out=32,
    sam_grid=8,
    clip_width=32,
    clip_layers=3,
    clip_heads=4,
    clip_mlp=64,
    clip_grid=4,
    gpt_width=40,
    gpt_layers=2,
    gpt_heads=4,
    gpt_mlp=160,
    vocab_size=300,
)


# Attention windows, position grids and head width of the full model, but narrow and shallow.
REAL_HEADS = replace(
    SMALL,
    sam_width=128,
    sam_layers=2,
    sam_heads=2,
    sam_mlp=64,
    sam_window=14,
    sam_global_layers=(1,),
    sam_grid=64,
    sam_out=128,
    clip_width=128,
    clip_layers=1,
    clip_heads=2,
    clip_grid=16,
)


def randomise(module: nn.Module, seed: int = 0) -> None:
    """Fill all parameters with random values, norms and position embeddings included."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            fan = parameter[0].numel() if parameter.dim() > 1 else 4
            values = torch.randn(parameter.shape, generator=generator)
            if "pos" in name or "class_embedding" in name or parameter.dim() == 1:
                parameter.copy_(0.3 * values + ("norm" in name and name.endswith("weight")))
            else:
                parameter.copy_(values / fan**0.5)


def pixels(size: int, count: int = 2) -> Tensor:
    """Random pixels in [-1, 1], float32 [count, 3, size, size]."""
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(size)) * 2 - 1
