"""Recipes: how a model learns, where a preset says how large it is.

A recipe is a function that changes a complete config: of one stage, with the sizes of one preset,
and the original experiment's learning settings. It raises UsageError where it cannot be followed.
To add one, write its function, put it into `RECIPES` with its line of `--help`, and name it in
`rules.RECIPE_OF` if a preset is to have it as its own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from ocrdata.errors import UsageError
from ocrtrain.settings.config import Config


def seed(config: Config) -> Config:
    """The original experiment's: one rate for all parts, from the hub's weights."""
    if config.init == "random":
        raise UsageError(
            f"--recipe seed starts from weights of the hub, of which none have the sizes of "
            f"--preset {config.preset}: choose --preset base or full, or --recipe safe"
        )
    return config


def safe(config: Config) -> Config:
    """What was found against collapse (NOTES.md, "The model that does not look"): the encoder
    learns at a small fraction of the decoder's rate, which keeps the features of different images
    apart while the decoder learns to use them."""
    return replace(_fresh_decoder(config), sam_lr_scale=0.01, clip_lr_scale=0.02)


def encoder(config: Config) -> Config:
    """A trained encoder, kept as it is: only projector and decoder are trained, which costs a
    fraction, and features cannot collapse. The encoder is that of --init PATH or --deepencoder."""
    return replace(_fresh_decoder(config), freeze=("sam", "clip"))


def reads(config: Config) -> Config:
    """What learns to read from random weights (NOTES.md, "A recipe that reads"): Muon at one rate
    for the matrices of all parts, the encoder included, flat and then falling to 0. Its data matter
    as much: short strings before charts, by --source-at (docs/training.md)."""
    return replace(
        config,
        init="random",
        patch_scale=4.0,
        optimizer="muon",
        lr=0.007,
        lr_adamw=0.003,
        beta2=0.95,
        schedule="linear",
        warmup=max(20, config.steps // 40),
    )


def _fresh_decoder(config: Config) -> Config:
    """Settings for a decoder that starts from random values; a pretrained one keeps its rate.

    1e-3 was the best rate at a width of 192; Adam's best rate falls with the width (Yang et al.
    2022, "Tensor Programs V").
    """
    fresh = config.fresh_gpt or config.init == "random"
    return replace(
        config,
        lr=1e-3 * (192 / config.model.gpt_width) if fresh else config.lr,
        beta2=0.95,
        schedule="cosine",
        warmup=max(20, config.steps // 40),
    )


RECIPES: dict[str, Callable[[Config], Config]] = {
    "seed": seed, "safe": safe, "encoder": encoder, "reads": reads,
}  # fmt: skip
"""Recipes by their names."""

RECIPE_HELP = {
    "seed": "the original experiment's settings: one rate for all parts, from the hub's weights",
    "safe": "SAM and CLIP learn at 0.01 and 0.02 of the rate, so that features do not collapse",
    "encoder": "SAM and CLIP of --init PATH or --deepencoder, frozen: the cheapest to train",
    "reads": "Muon for all parts, from random weights; short strings first, by --source-at",
}
"""What each recipe does, a line each."""
