"""The configuration of a run: frozen dataclasses that check their own values.

Every field is a command-line flag (`flags.py`). A flag overrides the preset, and the preset the
field's default. The resolved config is printed, and saved as `config.json` in the run folder. If a
source ends a run before `steps`, the plan holds the actual number of steps.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, NamedTuple

from ocrdata.errors import Problems, UsageError
from ocrdata.planning.choices import AT_END, MIXES, SHUFFLES, TOO_LONG, WEIGHTS, Weight
from ocrdata.reading.slices import parse_slice, url_with_secret
from ocrdata.runtime.cache_flags import CACHE_HELP, LIMIT_HELP, cache_faults
from ocrdata.runtime.units import parse_bytes
from ocrtrain.settings.named_sources import NamedSource, parse_sources, parse_specs

VERSION = 1

MOST = {"steps": 10**9, "batch": 10**6, "val_batch": 10**6, "seq_len": 10**7, "row_images": 10**6}
"""Maximum of settings that arrays are sized by. A plan stores two bytes a step."""

LARGEST_MODEL = 10**7
"""Maximum of every number of a model: far above any model, and small enough to compute with."""

BYTES = "bytes"
"""The name of the built-in tokenizer (`ocrdata/tokens/tokenizer.py`)."""

PROJECT = "nano-deepseek-ocr"
"""The default of --wandb-project."""

PARTS = ("sam", "clip", "projector", "gpt")
"""Parts of the model, in the order in which data passes through them."""

INIT_WORDS = ("pretrained", "random")
"""Values of --init that are no path."""

TEXT_RATIO = Fraction(10, 28)
"""The original experiment drew from 18,000 charts and 10,000 chats."""

SHORT_FORM = ("shards", "text", "text_ratio", "text_ratio_at", "val", "val_text", "train_slice",
              "val_slice", "text_train_slice", "text_val_slice", "join_sets")  # fmt: skip
"""Fields that describe one source of images and one of text, instead of --source."""


def _flag(
    default: Any,
    text: str,
    *,
    runtime: bool = False,
    change: bool = False,
    repeat: bool = False,
    older: Any = None,
) -> Any:
    """A field with its default and the help text of its flag.

    `runtime` fields may change on resume because no batch depends on them. The paths of shards are
    runtime fields too: the plan stores the shards' digests. `change` fields may change on resume as
    well, and each change is recorded with the step from which it applies (`changes.json`). The
    values of a `repeat` field add up if its flag is given several times. `older` is the value of a
    run that was saved before the field was introduced; None for the fields that every saved config
    has.
    """
    metadata = {
        "help": text, "runtime": runtime, "change": change, "repeat": repeat, "older": older
    }  # fmt: skip
    return field(default=default, metadata=metadata)


@dataclass(frozen=True)
class ModelConfig:
    """Sizes of the model. The defaults are the full model: SAM ViT-B, CLIP-L, nanochat d20.

    `clip_width` equals `sam_out`, because CLIP takes SAM's feature map as its patches. Raises
    UsageError naming the flag where a size is out of range or two sizes do not fit together.
    """

    sam_width: int = _flag(768, "SAM: hidden width")
    sam_layers: int = _flag(12, "SAM: number of layers")
    sam_heads: int = _flag(12, "SAM: attention heads; must divide --sam-width")
    sam_mlp: int = _flag(3072, "SAM: hidden width of the MLP")
    sam_window: int = _flag(14, "SAM: side of an attention window, in patches of 16 px")
    sam_global_layers: tuple[int, ...] = _flag(
        (2, 5, 8, 11), "SAM: layers with global attention, numbered from 0"
    )
    sam_neck: int = _flag(256, "SAM: channels of the neck")
    sam_mid: int = _flag(512, "SAM: output channels of the first of two stride-2 convolutions")
    sam_out: int = _flag(1024, "SAM: output channels of the second stride-2 convolution")
    sam_grid: int = _flag(64, "SAM: side of the position grid, in patches of 16 px")
    clip_width: int = _flag(1024, "CLIP: hidden width; must equal --sam-out")
    clip_layers: int = _flag(24, "CLIP: number of layers")
    clip_heads: int = _flag(16, "CLIP: attention heads; must divide --clip-width")
    clip_mlp: int = _flag(4096, "CLIP: hidden width of the MLP")
    clip_grid: int = _flag(16, "CLIP: side of the position grid, in features of 64 px")
    gpt_width: int = _flag(1280, "GPT: hidden width")
    gpt_layers: int = _flag(20, "GPT: number of layers")
    gpt_heads: int = _flag(10, "GPT: attention heads; must divide --gpt-width")
    gpt_mlp: int = _flag(5120, "GPT: hidden width of the MLP")
    vocab_size: int = _flag(
        65537, "GPT: vocabulary size, the image token included (0: the tokenizer's)"
    )
    rope_theta: float = _flag(10000.0, "GPT: base of the rotary position embedding")

    def __post_init__(self) -> None:
        _raise_all(self._faults())

    def _faults(self) -> Iterator[str]:
        """What is wrong, a message each."""
        if self.clip_width != self.sam_out:
            yield f"--clip-width ({self.clip_width}) must equal --sam-out ({self.sam_out})"
        for width, heads in (
            ("sam_width", "sam_heads"),
            ("clip_width", "clip_heads"),
            ("gpt_width", "gpt_heads"),
        ):
            if getattr(self, heads) < 1 or getattr(self, width) % getattr(self, heads):
                yield (
                    f"{flag_name(width)} ({getattr(self, width)}) must be a multiple of "
                    f"{flag_name(heads)} ({getattr(self, heads)})"
                )
        for item in dataclasses.fields(self):
            value, least = getattr(self, item.name), 0 if item.name == "vocab_size" else 1
            if isinstance(value, int | float) and not least <= value <= LARGEST_MODEL:
                most = f"{LARGEST_MODEL:,}"
                yield f"{flag_name(item.name)} must be from {least} to {most}, not {value}"
        if not all(0 <= layer < self.sam_layers for layer in self.sam_global_layers):
            yield (
                f"--sam-global-layers {' '.join(map(str, self.sam_global_layers))}: "
                f"layer numbers must be 0 to {self.sam_layers - 1}"
            )


@dataclass(frozen=True)
class Config:
    """The settings of one run. Checks that need no file are made here.

    Raises UsageError that names the flag and the rule, UsageErrors if several are wrong.
    """

    name: str = _flag("stage1", "name of the run at Weights & Biases and of its default folder")
    preset: str = _flag("full", "preset that sets the default of every other flag")
    init: str = _flag(
        "pretrained",
        "initial weights: pretrained (SAM, CLIP and nanochat from the hub), random, or a path or "
        "hub repository of weights: a run or checkpoint, a file, nanochat, a released encoder such "
        "as deepseek-ai/DeepSeek-OCR; ./random is a path",
    )
    init_parts: tuple[str, ...] = _flag(
        (),
        "parts to take from the path of --init: sam, clip, projector, gpt (default: all that are "
        "there); the others start as without it",
        older=(),
    )
    out: str = _flag("", "run folder (default: runs/NAME-PRESET)")
    seed: int = _flag(0, "seed of random initial weights and of the sample order")

    shards: tuple[str, ...] = _flag(
        (),
        "image shards to train on: one or more specs, each a path with an optional slice, as in "
        "shards/chartqa.json[:18000]",
        runtime=True,
    )
    text: tuple[str, ...] = _flag(
        (), "text-only shards to mix in: one or more specs, as for --shards", runtime=True
    )
    text_ratio: Fraction = _flag(
        TEXT_RATIO,
        "fraction of the training data that is text, counted as --weigh-by says; with 1, text "
        "alone, --shards is not needed",
        change=True,
    )
    text_ratio_at: tuple[str, ...] = _flag(
        (),
        "changes of --text-ratio during the run: STEP:RATIO, as in 1000:1/10",
        change=True,
    )
    source: tuple[str, ...] = _flag(
        (),
        "a source to train on, of images or of text, as NAME=SPEC:WEIGHT; once for each source, "
        "in place of --shards and --text",
        runtime=True,
        repeat=True,
        older=(),
    )
    source_at: tuple[str, ...] = _flag(
        (),
        "changes of weights during the run: STEP:NAME=WEIGHT,NAME=WEIGHT, as in 1000:charts=1",
        repeat=True,
        older=(),
        change=True,
    )
    val_source: tuple[str, ...] = _flag(
        (),
        "what to validate a --source on, as NAME=SPEC (default: its last 1 %, not trained on)",
        runtime=True,
        repeat=True,
        older=(),
    )
    join_sets: bool = _flag(
        False,
        "all sets that one --shards, --text or --val names are one source with one slice, named "
        "after the first, instead of a source each",
        older=True,
        change=True,
    )
    shuffle: str = _flag(
        "blocks",
        "order of the samples within an epoch: blocks of neighbours, each read once and shuffled "
        "with others (blocks); a permutation of all samples, a request for each if the shards are "
        "remote (full); or not shuffled (none)",
        older="full",
    )
    allow_leak: bool = _flag(
        False, "train although validation samples are also trained on", runtime=True, older=True
    )
    mix: str = _flag(
        "batch",
        "unit of mixing: a batch is all image or all text samples (batch), or each row is chosen "
        "separately (sample)",
        change=True,
    )
    weigh_by: str = _flag("rows", "what --text-ratio is a fraction of", change=True)
    at_end: str = _flag(
        "repeat",
        "when a source runs out: repeat it, stop the run, or move its fraction to the other source",
        change=True,
    )
    val: tuple[str, ...] = _flag(
        (), "image shards to validate on (default: --val-slice of --shards)", runtime=True
    )
    val_text: tuple[str, ...] = _flag(
        (), "text-only shards to validate on (default: --text-val-slice of --text)", runtime=True
    )
    train_slice: str = _flag(
        "[:18000]",
        "samples of --shards to train on, if its spec has no slice",
        change=True,
    )
    val_slice: str = _flag(
        "[18000:18100]",
        "samples of --shards to validate on, without --val; if it has none there, its last 1 %, "
        "which are not trained on",
        change=True,
    )
    text_train_slice: str = _flag(
        "[:10000]",
        "samples of --text to train on, if its spec has no slice",
        change=True,
    )
    text_val_slice: str = _flag(
        "[10000:10100]",
        "samples of --text to validate on, without --val-text; if it has none there, its last 1 %, "
        "which are not trained on",
        change=True,
    )
    tokenizer: str = _flag(
        "",
        "tokenizer file from tools/train_tokenizer.py, or the word bytes: 256 bytes and the "
        "special tokens (default: nanochat's, from --gpt-repo; bytes with --init random)",
    )

    cache: str = _flag("", CACHE_HELP, runtime=True, older="")
    cache_limit: str = _flag("", LIMIT_HELP, runtime=True, older="")

    steps: int = _flag(1000, "optimizer steps", change=True)
    batch: int = _flag(10, "rows per optimizer step; unpacked, a row is one sample", change=True)
    micro_batch: int = _flag(
        0,
        "maximum rows per forward pass; fewer need less memory (0: the whole --batch)",
        change=True,
    )
    seq_len: int = _flag(4096, "maximum length of a row, in tokens")
    too_long: str = _flag(
        "truncate",
        "samples longer than --seq-len: truncate them at a turn, drop them, or stop with an error",
    )
    pack: bool = _flag(False, "pack several samples into each row of up to --seq-len tokens")
    pack_window: int = _flag(
        4096, "samples per packing window; only samples of one window share a row"
    )
    row_images: int = _flag(32, "maximum images in a packed row")
    bad_samples: str = _flag(
        "raise",
        "if a sample cannot be used: raise an error, or skip it and mask its place in the row",
        runtime=True,
    )
    max_bad: int = _flag(100, "stop after skipping more samples than this", runtime=True)
    image_size: int = _flag(
        1024, "side of the square that every image is letterboxed to, in px; a multiple of 64"
    )
    schedule_from: int = _flag(
        0,
        "step at which the schedule begins, warm-up first; --extend begins it at the step it goes "
        "on from, 0 stretches it over the whole run",
        change=True,
        older=0,
    )
    lr: float = _flag(5e-5, "peak learning rate", change=True)
    sam_lr_scale: float = _flag(1.0, "learning rate of SAM, as a multiple of --lr", change=True)
    clip_lr_scale: float = _flag(1.0, "learning rate of CLIP, as a multiple of --lr", change=True)
    schedule: str = _flag(
        "cosine",
        "learning rate after the warm-up: cosine (to 0), step (see --step-every) or constant",
        change=True,
    )
    warmup: int = _flag(
        10, "steps of linear warm-up, shortened if the run has no more steps", change=True
    )
    step_every: int = _flag(
        2000, "with --schedule step: steps between reductions of the rate", change=True
    )
    step_factor: float = _flag(0.1, "with --schedule step: factor of each reduction", change=True)
    weight_decay: float = _flag(0.0, "AdamW weight decay, applied to matrices only", change=True)
    beta1: float = _flag(0.9, "AdamW beta 1", change=True)
    beta2: float = _flag(0.999, "AdamW beta 2", change=True)
    grad_clip: float = _flag(
        1.0,
        "maximum norm of the gradient; larger gradients are scaled down (0 or inf: never)",
        change=True,
    )
    freeze: tuple[str, ...] = _flag(
        (), "parts of the model not to train: sam, clip, projector, gpt"
    )
    deepencoder: str = _flag(
        "",
        "initial weights of the encoder (SAM, CLIP, projector): deepencoder_*.safetensors or .pt, "
        "or a folder or run that holds one",
    )
    fresh_gpt: bool = _flag(False, "start the GPT from random weights, whatever --init says")
    checkpointing: bool = _flag(
        False,
        "recompute activations in the backward pass: less memory, a third slower",
        change=True,
    )
    precision: str = _flag(
        "auto",
        "fp32, bf16 (autocast), or auto: bf16 on CUDA and fp32 elsewhere",
        change=True,
    )

    eval_every: int = _flag(50, "steps between validations (0: only at the end)", runtime=True)
    val_batch: int = _flag(10, "samples per forward pass in validation", change=True)
    save_every: int = _flag(100, "steps between checkpoints (0: only at the end)", runtime=True)
    keep: int = _flag(2, "number of newest checkpoints to keep (0: all)", runtime=True)
    stop_at: int = _flag(
        0, "save and stop after this step, to continue with --resume (0: do not stop)", runtime=True
    )
    log_every: int = _flag(
        10, "steps per line on the console; every step is in metrics.jsonl", runtime=True,
        older=10,
    )  # fmt: skip
    log_samples: bool = _flag(False, "log the samples of every step in batches.jsonl", runtime=True)
    profile: str = _flag(
        "",
        "trace steps with torch's profiler: a number of steps, or A:B for steps A to B - 1",
        runtime=True,
        older="",
    )
    workers: int = _flag(2, "threads that prefetch batches (0: none)", runtime=True)
    device: str = _flag("auto", "auto (CUDA if available), cpu, cuda or cuda:N", runtime=True)
    parallel: str = _flag(
        "ddp",
        "with torchrun: every rank has all weights (ddp), or a part of them, for models that do "
        "not fit one GPU (fsdp)",
        runtime=True,
        older="ddp",
    )
    wandb: str = _flag(
        "auto",
        "Weights & Biases: online, offline, off, or auto (online with an API key, else offline)",
        runtime=True,
    )
    wandb_project: str = _flag(
        "",
        "project at Weights & Biases and trackio (default: WANDB_PROJECT, or nano-deepseek-ocr)",
        runtime=True,
    )
    log_to: tuple[str, ...] = _flag(
        ("wandb",),
        "where numbers go beside metrics.jsonl: wandb, tensorboard, trackio",
        runtime=True,
        older=("wandb",),
    )

    sam_repo: str = _flag("facebook/sam-vit-base", "SAM weights: hub repository or folder")
    clip_repo: str = _flag(
        "openai/clip-vit-large-patch14", "CLIP weights: hub repository or folder"
    )
    gpt_repo: str = _flag(
        "nanochat-students/base-d20", "nanochat weights and tokenizer: hub repository or folder"
    )

    model: ModelConfig = field(default_factory=ModelConfig)

    def __post_init__(self) -> None:
        # "sam,clip" and "sam clip" are the same.
        parts = tuple(part for word in self.init_parts for part in word.split(",") if part)
        object.__setattr__(self, "init_parts", parts)
        if self.grad_clip == math.inf:  # the same as 0, which JSON has
            object.__setattr__(self, "grad_clip", 0.0)
        _raise_all(self._faults())

    def _faults(self) -> Iterator[str]:
        """What is wrong, a message each."""
        for name, choices in CHOICES.items():
            value = getattr(self, name)
            for one in value if isinstance(value, tuple) else (value,):
                if one not in choices:
                    yield f"{flag_name(name)} {one!r}: choose from {', '.join(choices)}"
        yield from self._wrong_numbers()
        yield from self._wrong_init()
        if set(self.freeze) == set(CHOICES["freeze"]):
            yield "--freeze leaves nothing to train; freeze fewer than all four parts"
        for name in ("train_slice", "val_slice", "text_train_slice", "text_val_slice"):
            yield from _wrong_slice(flag_name(name), getattr(self, name))
        if self.image_size % 64:
            yield f"--image-size {self.image_size} must be a multiple of 64"
        if 0 < self.micro_batch < self.batch and self.batch % self.micro_batch:
            yield f"--batch {self.batch} must be a multiple of --micro-batch {self.micro_batch}"
        try:
            for _, ratio in self.text_ratios:
                if not 0 <= ratio <= 1:
                    yield f"--text-ratio {ratio} must be from 0 (no text) to 1 (text alone)"
        except UsageError as exc:
            yield str(exc)
        yield from self._wrong_sources()
        for name in ("shards", "text", "source", "val", "val_text", "val_source"):
            for shown in filter(None, map(url_with_secret, getattr(self, name))):
                yield (
                    f"{flag_name(name)} {shown}: a URL with a password or a query, which may be a "
                    "signature, is not written into a run; use a public https:// URL, or s3:// or "
                    "hf:// with credentials from the environment"
                )
        yield from cache_faults(self.cache, self.cache_limit)

    def _wrong_init(self) -> Iterator[str]:
        """What is wrong with the flags of initial weights."""
        if not self.init:
            yield f"--init is empty: give {' or '.join(INIT_WORDS)}, or a path of weights"
        if not self.init_parts:
            return
        if self.init in INIT_WORDS:
            yield f"--init-parts needs --init PATH: {self.init} is no path to take parts from"
        if "gpt" in self.init_parts and self.fresh_gpt:
            yield (
                "--init-parts gpt contradicts --fresh-gpt, which stage 2 sets: add --no-fresh-gpt, "
                "or leave gpt out"
            )
        twice = sorted({"sam", "clip", "projector"} & set(self.init_parts))
        if twice and self.deepencoder:
            yield (
                f"--init-parts {' '.join(twice)} contradicts --deepencoder, which gives these "
                "parts: leave one of the two out"
            )

    def _wrong_sources(self) -> Iterator[str]:
        """What is wrong with the flags of named sources, or with mixing in the short form."""
        if not self.source:
            for name in ("source_at", "val_source"):
                if getattr(self, name):
                    yield f"{flag_name(name)} needs --source: it names one"
            return
        for item in dataclasses.fields(self):
            if item.name in SHORT_FORM and getattr(self, item.name) != item.default:
                yield (
                    f"{flag_name(item.name)} cannot be combined with --source: name every source "
                    "with --source, its slice in its spec, and its validation with --val-source"
                )
        try:
            parse_specs("--val-source", self.val_source, self.named_sources)
        except UsageError as exc:
            yield str(exc)

    def _wrong_numbers(self) -> Iterator[str]:
        """The numbers that are out of range."""
        for name in ("steps", "batch", "seq_len", "image_size", "lr", "val_batch",
                     "pack_window", "row_images", "sam_lr_scale", "clip_lr_scale", "step_every",
                     "step_factor", "log_every"):  # fmt: skip
            if not 0 < (value := getattr(self, name)) < math.inf:
                yield f"{flag_name(name)} must be above 0 and finite, not {value}"
        for name, most in MOST.items():
            if (value := getattr(self, name)) > most:
                yield f"{flag_name(name)} {value} must be at most {most:,}"
        for name in ("seed", "micro_batch", "warmup", "eval_every", "save_every", "keep",
                     "stop_at", "workers", "weight_decay", "max_bad",
                     "schedule_from"):  # fmt: skip
            if not 0 <= (value := getattr(self, name)) < math.inf:
                yield f"{flag_name(name)} must be finite and not negative, not {value}"
        if not self.grad_clip >= 0:
            yield f"--grad-clip must be at least 0 (0 and inf: no clipping), not {self.grad_clip}"
        if self.seed >= 1 << 63:
            yield f"--seed {self.seed} must be below 2^63, torch's limit"
        if self.schedule_from >= self.steps > 0:
            yield f"--schedule-from {self.schedule_from} must be below --steps {self.steps}"
        if self.seq_len == 1:
            yield "--seq-len 1 must be at least 2: a token and the one to predict"
        for name in ("beta1", "beta2"):
            if not 0 <= getattr(self, name) < 1:
                yield f"{flag_name(name)} must be at least 0 and below 1"

    @property
    def run_folder(self) -> str:
        """Path of the run folder."""
        return self.out or f"runs/{self.name}-{self.preset}"

    @property
    def cache_bytes(self) -> int:
        """--cache-limit in bytes; 0 without a cache."""
        return parse_bytes(self.cache_limit) if self.cache else 0

    def without_cache(self) -> Config:
        """The same without --cache, whose folder belongs to the machine that trains."""
        return dataclasses.replace(self, cache="", cache_limit="")

    @property
    def named_sources(self) -> tuple[NamedSource, ...]:
        """The sources of --source with their weights. Raises UsageError."""
        return parse_sources(self.source, self.source_at)

    @property
    def text_ratios(self) -> tuple[tuple[int, Fraction], ...]:
        """Fractions of text as (first step, fraction), from step 0 on. Raises UsageError."""
        ratios = [(0, self.text_ratio)]
        try:
            for text in self.text_ratio_at:
                step, ratio = text.split(":")
                ratios.append((int(step), Fraction(ratio)))
                if ratios[-1][0] <= ratios[-2][0]:
                    raise ValueError("steps must increase")
        except (ValueError, ZeroDivisionError) as exc:
            raise UsageError(
                f"--text-ratio-at {' '.join(self.text_ratio_at)}: write STEP:RATIO with increasing "
                "steps from 1 on, as in 500:3/10 1000:1/10"
            ) from exc
        return tuple(ratios)

    def share(self, *, text: bool) -> Weight:
        """Weight of the text source in a plan, or of the image source: (first step, fraction)."""
        return tuple((start, ratio if text else 1 - ratio) for start, ratio in self.text_ratios)

    @property
    def rows_per_pass(self) -> int:
        """Rows of one forward pass: a --micro-batch larger than the batch is the whole batch."""
        return min(self.micro_batch or self.batch, self.batch)

    @property
    def warmup_steps(self) -> int:
        """Steps of warm-up: --warmup, but fewer than the schedule has, so that the peak is
        reached."""
        return min(self.warmup, self.steps - self.schedule_from - 1)

    @property
    def tokenizer_name(self) -> str:
        """The tokenizer to load: --tokenizer, or `bytes` for random weights; "" is the one beside
        the weights, or nanochat's."""
        return self.tokenizer or (BYTES if self.init == "random" else "")


CHOICES = {
    "preset": ("full", "tiny"),
    "mix": MIXES,
    "weigh_by": WEIGHTS,
    "at_end": AT_END,
    "too_long": TOO_LONG,
    "shuffle": SHUFFLES,
    "bad_samples": ("raise", "skip"),
    "schedule": ("cosine", "step", "constant"),
    "precision": ("auto", "fp32", "bf16"),
    "freeze": PARTS,
    "init_parts": PARTS,
    "wandb": ("auto", "online", "offline", "off"),
    "log_to": ("wandb", "tensorboard", "trackio"),
    "parallel": ("ddp", "fsdp"),
}


def _wrong_slice(flag: str, text: str) -> Iterator[str]:
    if not (text.startswith("[") and ":" in text and text.endswith("]")):
        yield f"{flag} {text!r} is not a slice; write one such as [:18000]"
        return
    try:
        parse_slice(flag, text[1:-1])
    except UsageError as exc:
        yield str(exc)


def _raise_all(faults: Iterator[str]) -> None:
    """Raise UsageError for a fault, UsageErrors for several."""
    problems = Problems()
    for fault in faults:
        problems.add(fault)
    problems.raise_all()


def flag_name(name: str) -> str:
    """`seq_len` -> `--seq-len`."""
    return "--" + name.replace("_", "-")


def to_json(config: Config) -> dict[str, Any]:
    """The config as JSON values, with the version of the format."""
    value = dataclasses.asdict(config)
    value["text_ratio"] = str(config.text_ratio)
    return {"version": VERSION, **value}


def from_json(value: dict[str, Any]) -> Config:
    """The inverse of `to_json`. Raises UsageError for another version, unknown or missing keys."""
    value = dict(value)
    version = value.pop("version", None)
    if version != VERSION:
        raise UsageError(
            f"config version {version} was written by another release; this one reads {VERSION}"
        )
    for item in dataclasses.fields(Config):
        if item.metadata.get("older") is not None:
            value.setdefault(item.name, item.metadata["older"])
    try:
        _check_complete(Config, value)
        _check_complete(ModelConfig, value["model"])
        model = ModelConfig(**_as_fields(ModelConfig, value.pop("model")))
        return Config(model=model, **_as_fields(Config, value))
    except (TypeError, KeyError, ValueError, AttributeError) as exc:
        raise UsageError(f"the saved config cannot be read: {exc}") from exc


def _check_complete(kind: type[Config | ModelConfig], value: dict[str, Any]) -> None:
    """Check that no field is missing: its default may not be what the run was started with."""
    missing = [item.name for item in dataclasses.fields(kind) if item.name not in value]
    if missing:
        raise ValueError(f"missing keys: {', '.join(missing)}")


def _as_fields(kind: type, value: dict[str, Any]) -> dict[str, Any]:
    """Convert JSON values to the fields' types: lists to tuples, `text_ratio` to a fraction."""
    result: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in value.items()}
    if kind is Config:
        result["text_ratio"] = Fraction(value["text_ratio"])
    return result


class Difference(NamedTuple):
    """A setting that differs between two configs: its field, and both values."""

    field: dataclasses.Field[Any]
    old: Any
    new: Any

    @property
    def name(self) -> str:
        """Name of the field."""
        return self.field.name


def compare(old: Config, new: Config) -> list[Difference]:
    """All settings that differ, but for the folder, which is where a run is."""
    pairs: list[tuple[dataclasses.Field[Any], Any, Any]] = [
        (item, old, new) for item in dataclasses.fields(Config) if item.name not in ("model", "out")
    ]
    pairs += [(item, old.model, new.model) for item in dataclasses.fields(ModelConfig)]
    found = [Difference(f, getattr(a, f.name), getattr(b, f.name)) for f, a, b in pairs]
    return [one for one in found if one.old != one.new]


def differences(old: Config, new: Config) -> list[str]:
    """Differing settings that may not change on resume: '--seq-len: 512 in the run, 64 given'."""
    return [
        f"{flag_name(one.name)}: {one.old} in the run, {one.new} given"
        for one in compare(old, new)
        if not (one.field.metadata["runtime"] or one.field.metadata["change"])
    ]
