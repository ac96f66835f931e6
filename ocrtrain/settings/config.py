"""The configuration of a run: frozen, self-checking, and the only thing stages differ in.

Owner of every setting. Command-line flags are generated from the fields; precedence is default <
preset < flag. The resolved config is printed, and saved as `config.json` in the run folder. Where
a source ends a run before its `steps`, the plan says after how many.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

from ocrdata.errors import UsageError
from ocrdata.planning.lengths import TOO_LONG
from ocrdata.planning.mixture import AT_END
from ocrdata.planning.plan import MIXES, WEIGHTS, Weight
from ocrdata.reading.slices import parse_slice

VERSION = 1

LONGEST_RUN = 10**9
"""Steps; a plan holds two bytes for each."""

PARTS = ("sam", "clip", "projector", "gpt")
"""Of the model, in the order in which data passes through them."""

TEXT_RATIO = Fraction(10, 28)
"""The experiment drew from 18,000 charts and 10,000 chats."""


def _flag(default: Any, text: str, *, runtime: bool = False) -> Any:
    """A field with its help. `runtime` fields may change at a resume: no batch depends on them. (Of
    where shards lie none does either: their digests stand in the plan.)"""
    return field(default=default, metadata={"help": text, "runtime": runtime})


@dataclass(frozen=True)
class ModelConfig:
    """Sizes of the model; the defaults are the full one (SAM ViT-B, CLIP-L, nanochat d20).

    `clip_width` equals `sam_out`: CLIP takes the SAM map as its patches.
    """

    sam_width: int = _flag(768, "SAM: width")
    sam_layers: int = _flag(12, "SAM: layers")
    sam_heads: int = _flag(12, "SAM: attention heads")
    sam_mlp: int = _flag(3072, "SAM: width of the MLP")
    sam_window: int = _flag(14, "SAM: side of an attention window, in patches of 16 px")
    sam_global_layers: tuple[int, ...] = _flag((2, 5, 8, 11), "SAM: layers that attend globally")
    sam_neck: int = _flag(256, "SAM: channels of the neck")
    sam_mid: int = _flag(512, "SAM: channels between the two stride-2 convolutions")
    sam_out: int = _flag(1024, "SAM: channels after them")
    sam_grid: int = _flag(64, "SAM: side of the position grid, in patches")
    clip_width: int = _flag(1024, "CLIP: width; equals --sam-out")
    clip_layers: int = _flag(24, "CLIP: layers")
    clip_heads: int = _flag(16, "CLIP: attention heads")
    clip_mlp: int = _flag(4096, "CLIP: width of the MLP")
    clip_grid: int = _flag(16, "CLIP: side of the position grid, in features")
    gpt_width: int = _flag(1280, "GPT: width")
    gpt_layers: int = _flag(20, "GPT: layers")
    gpt_heads: int = _flag(10, "GPT: attention heads")
    gpt_mlp: int = _flag(5120, "GPT: width of the MLP")
    vocab_size: int = _flag(65537, "GPT: vocabulary with the image token; 0: the tokenizer's")
    rope_theta: float = _flag(10000.0, "GPT: base of the rotary positions")

    def __post_init__(self) -> None:
        if self.clip_width != self.sam_out:
            raise UsageError(
                f"--clip-width ({self.clip_width}) must equal --sam-out ({self.sam_out})"
            )
        for width, heads in (
            ("sam_width", "sam_heads"),
            ("clip_width", "clip_heads"),
            ("gpt_width", "gpt_heads"),
        ):
            if getattr(self, heads) < 1 or getattr(self, width) % getattr(self, heads):
                raise UsageError(
                    f"{flag_name(width)} ({getattr(self, width)}) is no multiple of "
                    f"{flag_name(heads)} ({getattr(self, heads)})"
                )
        for item in dataclasses.fields(self):
            value, least = getattr(self, item.name), 0 if item.name == "vocab_size" else 1
            if isinstance(value, int | float) and not least <= value < math.inf:
                raise UsageError(f"{flag_name(item.name)} must be at least {least}, not {value}")
        if not all(0 <= layer < self.sam_layers for layer in self.sam_global_layers):
            raise UsageError(
                f"--sam-global-layers {' '.join(map(str, self.sam_global_layers))}: "
                f"the layers are 0 to {self.sam_layers - 1}"
            )


@dataclass(frozen=True)
class Config:
    """One run. Every check that needs no file is made here; UsageError says what to change."""

    name: str = _flag("stage1", "name of the run at Weights & Biases and of its default folder")
    preset: str = _flag("full", "starting point of all values: full or tiny")
    init: str = _flag("pretrained", "weights to start from: pretrained (from the hub) or random")
    out: str = _flag("", "run folder (default: runs/NAME-PRESET)")
    seed: int = _flag(0, "seed of initial weights, order and exchanged images")

    shards: tuple[str, ...] = _flag(
        (), "image shards to train on: a spec with its slice, or several sets", runtime=True
    )
    text: tuple[str, ...] = _flag(
        (),
        "text-only shards to mix in: a spec with its slice, or several sets",
        runtime=True,
    )
    text_ratio: Fraction = _flag(TEXT_RATIO, "share of steps (or rows) that are text")
    text_ratio_at: tuple[str, ...] = _flag(
        (), "other ratios from named steps on: STEP:RATIO, as in 1000:1/10"
    )
    mix: str = _flag("batch", "what the mix gives out: whole batches, or every row (sample)")
    weigh_by: str = _flag("rows", "what --text-ratio counts: rows, samples or tokens")
    at_end: str = _flag("repeat", "at a source's end: repeat it, stop, or move its share to others")
    val: tuple[str, ...] = _flag(
        (), "image shards to validate on: a shard spec, with a slice", runtime=True
    )
    val_text: tuple[str, ...] = _flag((), "text-only shards to validate on", runtime=True)
    train_slice: str = _flag("[:18000]", "slice of --shards where its spec has none")
    val_slice: str = _flag("[18000:18100]", "slice of --shards to validate on without --val")
    text_train_slice: str = _flag("[:10000]", "slice of --text where its spec has none")
    text_val_slice: str = _flag(
        "[10000:10100]", "slice of --text to validate on, where there is no --val-text"
    )
    tokenizer: str = _flag("", "tokenizer file (tools/train_tokenizer.py); default: nanochat's")

    steps: int = _flag(1000, "optimiser steps")
    batch: int = _flag(10, "samples per optimiser step")
    micro_batch: int = _flag(0, "samples per forward pass; sets memory (0: the whole batch)")
    seq_len: int = _flag(4096, "longest row in tokens")
    too_long: str = _flag("truncate", "samples above --seq-len: truncate (at a turn), drop, error")
    pack: bool = _flag(False, "pack several samples into each row of --seq-len")
    pack_window: int = _flag(4096, "samples that are packed together, in the order's windows")
    row_images: int = _flag(32, "images that a packed row may hold")
    bad_samples: str = _flag("raise", "samples that cannot be used: raise, or skip", runtime=True)
    max_bad: int = _flag(100, "stop where more samples than this were skipped", runtime=True)
    image_size: int = _flag(1024, "side of the square every image is letterboxed to, px")
    lr: float = _flag(5e-5, "peak learning rate")
    sam_lr_scale: float = _flag(1.0, "factor of --lr for SAM")
    clip_lr_scale: float = _flag(1.0, "factor of --lr for CLIP")
    schedule: str = _flag("cosine", "learning rate after the warm-up: cosine, step or constant")
    warmup: int = _flag(10, "warm-up steps")
    step_every: int = _flag(2000, "schedule step: steps between two cuts")
    step_factor: float = _flag(0.1, "schedule step: factor of each cut")
    weight_decay: float = _flag(0.0, "AdamW weight decay, on matrices only")
    beta1: float = _flag(0.9, "AdamW beta 1")
    beta2: float = _flag(0.999, "AdamW beta 2")
    grad_clip: float = _flag(1.0, "clip the gradient norm to this")
    freeze: tuple[str, ...] = _flag((), "parts not trained: sam, clip, projector, gpt")
    deepencoder: str = _flag("", "encoder weights to start from: deepencoder_*.safetensors or .pt")
    fresh_gpt: bool = _flag(False, "start the GPT from random weights whatever --init says")
    checkpointing: bool = _flag(False, "recompute block activations: less memory, a third slower")
    precision: str = _flag("auto", "auto (bf16 autocast on CUDA, else fp32), fp32 or bf16")

    eval_every: int = _flag(50, "steps between validations (0: only at the end)", runtime=True)
    val_batch: int = _flag(10, "samples per forward pass of the validation")
    save_every: int = _flag(100, "steps between checkpoints (0: only at the end)", runtime=True)
    keep: int = _flag(2, "checkpoints kept, newest first (0: all)", runtime=True)
    stop_at: int = _flag(0, "save and stop at this step, to go on later", runtime=True)
    log_samples: bool = _flag(False, "record the samples of every step", runtime=True)
    workers: int = _flag(2, "threads that make batches ahead", runtime=True)
    device: str = _flag("auto", "auto, cpu, cuda or cuda:N", runtime=True)
    wandb: str = _flag("auto", "auto (online with a key, else offline), online, offline or off",
                       runtime=True)  # fmt: skip
    wandb_project: str = _flag("nano-deepseek-ocr", "Weights & Biases project", runtime=True)

    sam_repo: str = _flag("facebook/sam-vit-base", "hub repository or folder with SAM's weights")
    clip_repo: str = _flag("openai/clip-vit-large-patch14", "the same for CLIP's")
    gpt_repo: str = _flag("nanochat-students/base-d20", "the same for nanochat's and its tokenizer")

    model: ModelConfig = field(default_factory=ModelConfig)

    def __post_init__(self) -> None:
        for name, choices in CHOICES.items():
            value = getattr(self, name)
            for one in value if isinstance(value, tuple) else (value,):
                if one not in choices:
                    raise UsageError(f"{flag_name(name)} {one!r} is none of {', '.join(choices)}")
        self._check_ranges()
        if set(self.freeze) == set(CHOICES["freeze"]):
            raise UsageError("--freeze leaves nothing to train; name fewer of its four parts")
        for name in ("train_slice", "val_slice", "text_train_slice", "text_val_slice"):
            _check_slice(flag_name(name), getattr(self, name))
        if self.image_size % 64:
            raise UsageError(f"--image-size {self.image_size} is no multiple of 64")
        if self.micro_batch and self.batch % self.micro_batch:
            raise UsageError(
                f"--batch {self.batch} is no multiple of --micro-batch {self.micro_batch}"
            )
        for _, ratio in self.text_ratios:
            if not 0 <= ratio < 1:
                raise UsageError(f"--text-ratio {ratio} must be at least 0 and below 1")
        if self.warmup >= self.steps:
            raise UsageError(f"--warmup {self.warmup} must be below --steps {self.steps}")

    def _check_ranges(self) -> None:
        """Each number by itself."""
        for name in ("steps", "batch", "seq_len", "image_size", "lr", "grad_clip", "val_batch",
                     "pack_window", "row_images", "sam_lr_scale", "clip_lr_scale", "step_every",
                     "step_factor"):  # fmt: skip
            if not 0 < getattr(self, name) < math.inf:
                raise UsageError(f"{flag_name(name)} must be above 0, not {getattr(self, name)}")
        if self.steps > LONGEST_RUN:
            raise UsageError(f"--steps {self.steps}: a run has at most {LONGEST_RUN:,}")
        for name in ("seed", "micro_batch", "warmup", "eval_every", "save_every", "keep",
                     "stop_at", "workers", "weight_decay", "max_bad"):  # fmt: skip
            if not 0 <= getattr(self, name) < math.inf:
                raise UsageError(f"{flag_name(name)} must not be negative")
        if self.seed >= 1 << 63:
            raise UsageError(f"--seed {self.seed} must be below 2^63, the most torch takes")
        if self.seq_len < 2:
            raise UsageError(f"--seq-len {self.seq_len} has no room for a token and the next one")
        for name in ("beta1", "beta2"):
            if not 0 <= getattr(self, name) < 1:
                raise UsageError(f"{flag_name(name)} must be at least 0 and below 1")

    @property
    def run_folder(self) -> str:
        """Where the run is written."""
        return self.out or f"runs/{self.name}-{self.preset}"

    @property
    def text_ratios(self) -> tuple[tuple[int, Fraction], ...]:
        """The share of text, with the steps from which on it holds. Raises UsageError."""
        found = [(0, self.text_ratio)]
        for text in self.text_ratio_at:
            start, colon, ratio = text.partition(":")
            try:
                found.append((int(start), Fraction(ratio)))
            except (ValueError, ZeroDivisionError):
                found.append((0, Fraction(0)))
            if not colon or found[-1][0] <= found[-2][0]:
                raise UsageError(
                    f"--text-ratio-at {' '.join(self.text_ratio_at)}: write STEP:RATIO with steps "
                    "that rise from 1 on, as in 500:3/10 1000:1/10"
                )
        return tuple(found)

    def share(self, *, text: bool) -> Weight:
        """The share of text, or of all else, as a plan takes it."""
        return tuple((start, ratio if text else 1 - ratio) for start, ratio in self.text_ratios)

    @property
    def rows_per_pass(self) -> int:
        """Samples of one forward pass."""
        return self.micro_batch or self.batch


CHOICES = {
    "preset": ("full", "tiny"),
    "init": ("pretrained", "random"),
    "mix": MIXES,
    "weigh_by": WEIGHTS,
    "at_end": AT_END,
    "too_long": TOO_LONG,
    "bad_samples": ("raise", "skip"),
    "schedule": ("cosine", "step", "constant"),
    "precision": ("auto", "fp32", "bf16"),
    "freeze": PARTS,
    "wandb": ("auto", "online", "offline", "off"),
}


def _check_slice(flag: str, text: str) -> None:
    if not (text.startswith("[") and ":" in text and text.endswith("]")):
        raise UsageError(f"{flag} {text!r} is not a slice such as [:18000]")
    parse_slice(flag, text[1:-1])


def flag_name(name: str) -> str:
    """`seq_len` -> `--seq-len`."""
    return "--" + name.replace("_", "-")


def to_json(config: Config) -> dict[str, Any]:
    """The config as JSON values."""
    value = dataclasses.asdict(config)
    value["text_ratio"] = str(config.text_ratio)
    return {"version": VERSION, **value}


def from_json(value: dict[str, Any]) -> Config:
    """The config `to_json` wrote. Raises UsageError for another version or unknown names."""
    value = dict(value)
    version = value.pop("version", None)
    if version != VERSION:
        raise UsageError(f"config version {version} is not {VERSION}: written by another release")
    try:
        model = ModelConfig(**_as_fields(ModelConfig, value.pop("model")))
        return Config(model=model, **_as_fields(Config, value))
    except (TypeError, KeyError, ValueError, AttributeError) as exc:
        raise UsageError(f"the saved config cannot be read: {exc}") from exc


def _as_fields(kind: type, value: dict[str, Any]) -> dict[str, Any]:
    """JSON values as the fields' types: lists become tuples, the ratio a fraction."""
    result: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in value.items()}
    if kind is Config:
        result["text_ratio"] = Fraction(value["text_ratio"])
    return result


def differences(old: Config, new: Config) -> list[str]:
    """Settings that a resumed run may not change, as '--lr: 5e-05 in the run, 0.0001 asked'."""
    lines = []
    pairs: list[tuple[dataclasses.Field[Any], Any, Any]] = [
        (item, old, new) for item in dataclasses.fields(Config) if item.name != "model"
    ]
    pairs += [(item, old.model, new.model) for item in dataclasses.fields(ModelConfig)]
    for item, before, after in pairs:
        was, asked = getattr(before, item.name), getattr(after, item.name)
        if was != asked and not item.metadata["runtime"] and item.name != "out":
            lines.append(f"{flag_name(item.name)}: {was} in the run, {asked} asked")
    return lines
