"""The optimizer and the learning rate: torch's AdamW, alone or beside Muon for the matrices, and a
rate that is a function of the step."""

from __future__ import annotations

import math
from collections import defaultdict
from typing import Any

import torch
from torch import nn

from ocrtrain.model.ocr_model import part_of
from ocrtrain.run.muon import Muon, Shards
from ocrtrain.settings.config import Config


def peak_rate(config: Config) -> float:
    """The peak learning rate: --lr, or --lr-adamw where it is given and AdamW updates all."""
    own = config.lr_adamw if config.optimizer == "adamw" else 0.0
    return own or config.lr


def learning_rate(config: Config, step: int) -> float:
    """The learning rate of step `step` (from 0), with Muon that of its matrices: linear warm-up,
    then the schedule, both counted from `--schedule-from`. A step before that, of a run that went
    back to an older checkpoint than the one it was extended from, has the rate that the schedule
    begins with.

    The warm-up reaches the peak at its last step; cosine and linear reach 0 after the last step.
    """
    warmup, step = config.warmup_steps, max(0, step - config.schedule_from)
    peak, steps = peak_rate(config), config.steps - config.schedule_from
    if step < warmup:
        return peak * (step + 1) / warmup
    if config.schedule == "cosine":
        return peak * 0.5 * (1 + math.cos(math.pi * (step - warmup) / (steps - warmup)))
    if config.schedule == "linear":
        falling = min(config.decay_part * steps, steps - warmup)
        return peak * min(1.0, (steps - step) / falling)
    if config.schedule == "step":
        return peak * config.step_factor ** (step // config.step_every)
    return peak


def build_optimizer(
    model: nn.Module, config: Config, shards: Shards | None = None
) -> torch.optim.Optimizer:
    """The optimizer of `--optimizer` over the trainable parameters, in groups that hold their
    learning-rate factor as `scale`. `shards`: each rank holds parts of them.

    AdamW's weight decay applies to tensors of two dimensions or more, not to gains, biases and
    other vectors; Muon's to its matrices. Trained from random weights at the decoder's rate by
    AdamW, an encoder collapses: while the decoder learns which answers are common, images are only
    noise to it, and the encoder learns to give all of them the same features (NOTES.md).
    """
    matrices = muon_matrices(model) if config.optimizer == "muon" else set()
    # The rate of AdamW beside Muon is a factor too: both follow the same schedule.
    own = (config.lr_adamw or config.lr) / peak_rate(config)
    muon: dict[float, list[nn.Parameter]] = defaultdict(list)
    adamw: dict[tuple[float, float], list[nn.Parameter]] = defaultdict(list)
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        scale = rate_scale(name, config)
        if name in matrices:
            muon[scale].append(parameter)
        else:
            decay = config.weight_decay if parameter.ndim >= 2 else 0.0
            adamw[scale * own, decay].append(parameter)
    rest = torch.optim.AdamW(
        [
            {"params": members, "weight_decay": decay, "scale": scale}
            for (scale, decay), members in adamw.items()
        ],
        lr=peak_rate(config),
        betas=(config.beta1, config.beta2),
        fused=True,  # on a CPU 4 to 7 times as fast as torch's default, a loop over parameters
    )
    if not muon:
        return rest
    groups: list[dict[str, Any]] = [
        {
            "params": members,
            "lr": config.lr,
            "momentum": config.momentum,
            "weight_decay": config.weight_decay,
            "scale": scale,
        }
        for scale, members in muon.items()
    ]
    return Muon(groups, rest, shards=shards)


def muon_matrices(model: nn.Module) -> set[str]:
    """Names of the parameters that Muon updates: the weights of linear and convolutional layers.

    The output head is not among them: its rows are those of tokens, like an embedding's.
    """
    return {
        f"{name}.weight"
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear | nn.Conv2d) and not name.endswith("lm_head")
    }


def rate_scale(name: str, config: Config) -> float:
    """The learning-rate factor of a parameter, by its name in the model."""
    scales = {"sam": config.sam_lr_scale, "clip": config.clip_lr_scale}
    return scales.get(part_of(name), 1.0)


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Set the learning rate of every group for this step."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group["scale"]
