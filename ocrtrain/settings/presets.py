"""Presets: one function per stage, each of which returns a complete config.

"full" is the recipe of the original experiment (README, "The real job"); "tiny" is the same run,
small enough for two CPU cores.
"""

from __future__ import annotations

from dataclasses import replace

from ocrdata.errors import UsageError
from ocrtrain.settings.config import Config
from ocrtrain.settings.model_config import ModelConfig
from ocrtrain.settings.rules import INIT_WORDS


def stage1(preset: str = "full") -> Config:
    """All parts are trained, on images. Raises UsageError for an unknown preset."""
    full = Config(name="stage1")
    return full if preset == "full" else _tiny(full, preset)


def stage2(preset: str = "full") -> Config:
    """SAM is frozen, the encoder comes from stage 1, the GPT starts fresh, and text is mixed in.

    Raises UsageError for an unknown preset. In "full", steps are fewer than `step_every`: after the
    warm-up the learning rate stays at its peak, as in the original experiment. "tiny" has a cosine.
    """
    full = Config(
        name="stage2",
        steps=1500,
        batch=2,
        seq_len=8192,
        lr=3e-5,
        schedule="step",
        warmup=100,
        freeze=("sam",),
        fresh_gpt=True,
        eval_every=100,
        val_batch=2,
    )
    return full if preset == "full" else replace(_tiny(full, preset), steps=500)


STAGES = {"stage1": stage1, "stage2": stage2}
"""The presets of each stage, by its name."""


def init_word(config: Config) -> str:
    """`--init` as a word, `pretrained` or `random`: the preset's, where it is a path. It says how
    parts start that are not taken from there."""
    return config.init if config.init in INIT_WORDS else stage1(config.preset).init


def _tiny(full: Config, preset: str) -> Config:
    """`full`, made small enough for two CPU cores.

    The encoder's learning rates are scaled down: at the decoder's rate a random encoder collapses
    and the model never learns to read (NOTES.md).
    """
    if preset != "tiny":
        raise UsageError(f"--preset {preset!r}: choose from full, tiny")
    return replace(
        full,
        preset="tiny",
        model=TINY,
        init="random",
        image_size=256,
        steps=400,
        batch=16,
        seq_len=512,
        lr=1e-3,
        sam_lr_scale=0.01,
        clip_lr_scale=0.02,
        beta2=0.95,
        schedule="cosine",
        warmup=20,
        eval_every=100,
        save_every=200,
        val_batch=20,
    )


TINY = ModelConfig(
    sam_width=64, sam_layers=4, sam_heads=4, sam_mlp=256, sam_window=4, sam_global_layers=(1, 3),
    sam_neck=64, sam_mid=128, sam_out=128, sam_grid=16,
    clip_width=128, clip_layers=1, clip_heads=4, clip_mlp=512, clip_grid=4,
    gpt_width=192, gpt_layers=2, gpt_heads=3, gpt_mlp=768, vocab_size=0,
)  # fmt: skip
"""1.9 M parameters with a vocabulary of 512."""
