"""What must hold of the values of a `Config`, each by itself and with one another. No file is
opened and no device touched: what needs those is checked in `checks.py` and later.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from typing import TYPE_CHECKING

from ocrdata.errors import UsageError
from ocrdata.planning.choices import AT_END, MIXES, SHUFFLES, TOO_LONG, WEIGHTS
from ocrdata.reading.slices import parse_slice, url_with_secret
from ocrdata.runtime.cache_flags import cache_faults
from ocrtrain.settings.fields import flag_name
from ocrtrain.settings.model_config import PARTS
from ocrtrain.settings.named_sources import parse_modes, parse_specs

if TYPE_CHECKING:
    from ocrtrain.settings.config import Config

INIT_WORDS = ("pretrained", "random")
"""Values of --init that are no path."""

RECIPE_OF = {"tiny": "safe", "small": "safe", "base": "safe", "full": "seed"}
"""The presets, and the recipe that each has without --recipe."""

CHOICES = {
    "preset": tuple(RECIPE_OF),
    "recipe": ("seed", "safe", "encoder", "reads"),
    "mix": MIXES,
    "weigh_by": WEIGHTS,
    "at_end": AT_END,
    "too_long": TOO_LONG,
    "shuffle": SHUFFLES,
    "bad_samples": ("raise", "skip"),
    "optimizer": ("adamw", "muon"),
    "schedule": ("cosine", "linear", "step", "constant"),
    "precision": ("auto", "fp32", "bf16"),
    "attention": ("auto", "sdpa", "flex", "varlen"),
    "freeze": PARTS,
    "init_parts": PARTS,
    "wandb": ("auto", "online", "offline", "off"),
    "log_to": ("wandb", "tensorboard", "trackio"),
    "parallel": ("ddp", "fsdp"),
}
"""Fields of words -> the words they may be."""

MOST = {"steps": 10**9, "batch": 10**6, "val_batch": 10**6, "seq_len": 10**7, "row_images": 10**6}
"""Maximum of settings that arrays are sized by. A plan stores two bytes a step."""

SHORT_FORM = ("shards", "text", "text_ratio", "text_ratio_at", "val", "val_text", "train_slice",
              "val_slice", "text_train_slice", "text_val_slice", "join_sets")  # fmt: skip
"""Fields that describe one source of images and one of text, instead of --source."""


def faults(config: Config) -> Iterator[str]:
    """What is wrong with a config, a message each."""
    for name, choices in CHOICES.items():
        value = getattr(config, name)
        for one in value if isinstance(value, tuple) else (value,):
            if one not in choices:
                yield f"{flag_name(name)} {one!r}: choose from {', '.join(choices)}"
    yield from _wrong_numbers(config)
    yield from _wrong_optimizer(config)
    yield from _wrong_init(config)
    yield from _wrong_answers(config)
    if set(config.freeze) == set(CHOICES["freeze"]):
        yield "--freeze leaves nothing to train; freeze fewer than all four parts"
    for name in ("train_slice", "val_slice", "text_train_slice", "text_val_slice"):
        yield from _wrong_slice(flag_name(name), getattr(config, name))
    if config.image_size % 64:
        yield f"--image-size {config.image_size} must be a multiple of 64"
    if 0 < config.micro_batch < config.batch and config.batch % config.micro_batch:
        yield f"--batch {config.batch} must be a multiple of --micro-batch {config.micro_batch}"
    yield from _wrong_ratios(config)
    yield from _wrong_sources(config)
    for name in ("shards", "text", "source", "val", "val_text", "val_source"):
        for shown in filter(None, map(url_with_secret, getattr(config, name))):
            yield (
                f"{flag_name(name)} {shown}: a URL with a password or a query, which may be a "
                "signature, is not written into a run; use a public https:// URL, or s3:// or "
                "hf:// with credentials from the environment"
            )
    yield from cache_faults(config.cache, config.cache_limit)


def _wrong_ratios(config: Config) -> Iterator[str]:
    """Fractions of text that are none."""
    try:
        (_, first), *changes = config.text_ratios
    except UsageError as exc:
        yield str(exc)
        return
    rule = "must be from 0 (no text) to 1 (text alone)"
    if not 0 <= first <= 1:
        yield f"--text-ratio {_decimal(first)} {rule}"
    for step, ratio in changes:
        if not 0 <= ratio <= 1:
            yield f"--text-ratio-at {step}:{_decimal(ratio)}: the ratio {rule}"


def _decimal(ratio: Fraction) -> str:
    """'1.2' for 6/5, '4/3' for what has no short decimal: as it was probably typed."""
    text = f"{float(ratio):g}"
    return text if Fraction(text) == ratio else str(ratio)


def _wrong_answers(config: Config) -> Iterator[str]:
    if config.val_answers and config.parallel == "fsdp":
        yield (
            "--val-answers cannot be combined with --parallel fsdp: a model in parts does not "
            "generate; evaluate its checkpoints instead"
        )


def _wrong_init(config: Config) -> Iterator[str]:
    """What is wrong with the flags of initial weights."""
    if not config.init:
        yield f"--init is empty: give {' or '.join(INIT_WORDS)}, or a path of weights"
    if not config.init_parts:
        return
    if config.init in INIT_WORDS:
        yield f"--init-parts needs --init PATH: {config.init} is no path to take parts from"
    if "gpt" in config.init_parts and config.fresh_gpt:
        yield (
            "--init-parts gpt contradicts --fresh-gpt, which stage 2 sets: add --no-fresh-gpt, "
            "or leave gpt out"
        )
    twice = sorted({"sam", "clip", "projector"} & set(config.init_parts))
    if twice and config.deepencoder:
        yield (
            f"--init-parts {' '.join(twice)} contradicts --deepencoder, which gives these "
            "parts: leave one of the two out"
        )


def _wrong_sources(config: Config) -> Iterator[str]:
    """What is wrong with the flags of named sources, or with mixing in the short form."""
    if not config.source:
        for name in ("source_at", "val_source", "image_size_of"):
            if getattr(config, name):
                yield f"{flag_name(name)} needs --source: it names one"
        return
    for item in dataclasses.fields(config):
        if item.name in SHORT_FORM and getattr(config, item.name) != item.default:
            yield (
                f"{flag_name(item.name)} cannot be combined with --source: name every source "
                "with --source, its slice in its spec, and its validation with --val-source"
            )
    try:
        parse_specs("--val-source", config.val_source, config.named_sources)
        parse_modes(config.image_size_of, config.named_sources)
    except UsageError as exc:
        yield str(exc)


_AT_LEAST_1 = ("steps", "batch", "seq_len", "image_size", "val_batch", "pack_window", "row_images",
               "step_every", "log_every")  # fmt: skip
_ABOVE_0 = ("lr", "sam_lr_scale", "clip_lr_scale", "step_factor", "patch_scale")
_NOT_NEGATIVE = ("seed", "micro_batch", "warmup", "eval_every", "save_every", "keep", "stop_at",
                 "workers", "max_bad", "schedule_from", "val_answers")  # fmt: skip
_FROM_0 = ("weight_decay", "lr_adamw")
_BELOW_1 = ("beta1", "beta2", "momentum")


def _wrong_numbers(config: Config) -> Iterator[str]:
    """The numbers that are out of range."""

    def those(names: Sequence[str], fits: Callable[[float], bool], rule: str) -> Iterator[str]:
        for name in names:
            if not fits(value := getattr(config, name)):
                yield f"{flag_name(name)} {value} must be {rule}"

    yield from those(_AT_LEAST_1, lambda value: value >= 1, "at least 1")
    yield from those(_ABOVE_0, lambda value: 0 < value < math.inf, "above 0 and finite")
    yield from those(_NOT_NEGATIVE, lambda value: value >= 0, "at least 0")
    yield from those(_FROM_0, lambda value: 0 <= value < math.inf, "at least 0 and finite")
    yield from those(_BELOW_1, lambda value: 0 <= value < 1, "at least 0 and below 1")
    for name, most in MOST.items():
        if (value := getattr(config, name)) > most:
            yield f"{flag_name(name)} {value} must be at most {most:,}"
    if not config.grad_clip >= 0:
        yield f"--grad-clip {config.grad_clip} must be at least 0 (0 and inf: no clipping)"
    if config.seed >= 1 << 63:
        yield f"--seed {config.seed} must be below 2^63, torch's limit"
    if config.schedule_from >= config.steps > 0:
        yield f"--schedule-from {config.schedule_from} must be below --steps {config.steps}"
    if config.seq_len == 1:
        yield "--seq-len 1 must be at least 2: a token and the one to predict"


def _wrong_optimizer(config: Config) -> Iterator[str]:
    """What is wrong with the flags of the optimizer and its schedule."""
    if not 0 < config.decay_part <= 1:
        yield f"--decay-part {config.decay_part} must be above 0 and at most 1"


def _wrong_slice(flag: str, text: str) -> Iterator[str]:
    if not (text.startswith("[") and ":" in text and text.endswith("]")):
        yield f"{flag} {text!r} is not a slice; write one such as [:18000]"
        return
    try:
        parse_slice(flag, text[1:-1])
    except UsageError as exc:
        yield str(exc)
