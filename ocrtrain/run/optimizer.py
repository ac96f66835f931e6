"""The optimizer and the learning rate: torch's AdamW, and a rate that is a function of the step."""

from __future__ import annotations

import math

import torch
from torch import nn

from ocrtrain.model.ocr_model import part_of
from ocrtrain.settings.config import Config


def learning_rate(config: Config, step: int) -> float:
    """The learning rate of step `step` (from 0): linear warm-up, then the schedule, both counted
    from `--schedule-from`.

    The warm-up reaches the peak at its last step; the cosine reaches 0 after the last step.
    """
    warmup, step = config.warmup_steps, step - config.schedule_from
    if step < warmup:
        return config.lr * (step + 1) / warmup
    if config.schedule == "cosine":
        progress = (step - warmup) / (config.steps - config.schedule_from - warmup)
        return config.lr * 0.5 * (1 + math.cos(math.pi * progress))
    if config.schedule == "step":
        return config.lr * config.step_factor ** (step // config.step_every)
    return config.lr


def build_optimizer(model: nn.Module, config: Config) -> torch.optim.AdamW:
    """AdamW over the trainable parameters, in groups that hold their learning-rate factor as
    `scale`.

    Weight decay applies to matrices only, not to gains, biases and other vectors. Trained from
    random weights at the decoder's rate, an encoder collapses: while the decoder learns which
    answers are common, images are only noise to it, and the encoder learns to give all of them the
    same features (NOTES.md).
    """
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            decay = config.weight_decay if parameter.ndim >= 2 else 0.0
            groups.setdefault((rate_scale(name, config), decay), []).append(parameter)
    return torch.optim.AdamW(
        [
            {"params": members, "weight_decay": decay, "scale": scale}
            for (scale, decay), members in groups.items()
        ],
        lr=config.lr,
        betas=(config.beta1, config.beta2),
        fused=True,  # on a CPU 4 to 7 times as fast as torch's default, a loop over parameters
    )


def rate_scale(name: str, config: Config) -> float:
    """The learning-rate factor of a parameter, by its name in the model."""
    scales = {"sam": config.sam_lr_scale, "clip": config.clip_lr_scale}
    return scales.get(part_of(name), 1.0)


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Set the learning rate of every group for this step."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group["scale"]
