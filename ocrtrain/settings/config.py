"""The configuration of a run: a frozen dataclass that checks its own values (`rules.py`).

Every field is a command-line flag (`flags.py`). A flag overrides the recipe, the recipe the
preset, and the preset the field's default. The resolved config is printed, and saved as
`config.json` in the run folder (`saved_config.py`). If a source ends a run before `steps`, the plan
holds the actual number of steps.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cached_property

from ocrdata.errors import UsageError
from ocrdata.images.modes import ImageMode
from ocrdata.planning.choices import Weight
from ocrdata.runtime.cache_flags import CACHE_HELP, LIMIT_HELP
from ocrdata.runtime.units import parse_bytes
from ocrtrain.settings.fields import raise_all, setting
from ocrtrain.settings.model_config import ModelConfig
from ocrtrain.settings.named_sources import NamedSource, parse_modes, parse_sources
from ocrtrain.settings.rules import RECIPE_OF, faults

BYTES = "bytes"
"""The name of the built-in tokenizer (`ocrdata/tokens/tokenizer.py`)."""

PROJECT = "nano-deepseek-ocr"
"""The default of --wandb-project."""

TEXT_RATIO = Fraction(10, 28)
"""The original experiment drew from 18,000 charts and 10,000 chats."""


@dataclass(frozen=True)
class Config:
    """The settings of one run. Checks that need no file are made here.

    Raises UsageError that names the flag and the rule, UsageErrors if several are wrong.
    """

    name: str = setting("stage1", "name of the run at Weights & Biases and of its default folder")
    preset: str = setting("full", "size of the model and its steps; sets defaults of other flags")
    recipe: str = setting(
        "",
        "how the model learns; sets defaults of other flags, after the preset",
        older="",
    )
    init: str = setting(
        "pretrained",
        "initial weights: pretrained (SAM, CLIP and nanochat from the hub), random, or a path or "
        "hub repository of weights: a run or checkpoint, a file, nanochat, a released encoder such "
        "as deepseek-ai/DeepSeek-OCR; ./random is a path",
    )
    patch_scale: float = setting(
        1.0,
        "factor of SAM's random embedding of patches: what is on a patch against where it is",
        older=1.0,
    )
    init_parts: tuple[str, ...] = setting(
        (),
        "parts to take from the path of --init: sam, clip, projector, gpt (default: all that are "
        "there); the others start as without it",
        older=(),
    )
    out: str = setting("", "run folder (default: runs/NAME-PRESET)")
    seed: int = setting(0, "seed of random initial weights and of the sample order")

    shards: tuple[str, ...] = setting(
        (),
        "image shards to train on: one or more specs, each a path with an optional slice, as in "
        "shards/chartqa.json[:18000]",
        runtime=True,
    )
    text: tuple[str, ...] = setting(
        (), "text-only shards to mix in: one or more specs, as for --shards", runtime=True
    )
    text_ratio: Fraction = setting(
        TEXT_RATIO,
        "fraction of the training data that is text, counted as --weigh-by says; with 1, text "
        "alone, --shards is not needed",
        change=True,
    )
    text_ratio_at: tuple[str, ...] = setting(
        (),
        "changes of --text-ratio during the run: STEP:RATIO, as in 1000:1/10",
        change=True,
    )
    source: tuple[str, ...] = setting(
        (),
        "a source to train on, of images or of text, as NAME=SPEC:WEIGHT; once for each source, "
        "in place of --shards and --text",
        runtime=True,
        repeat=True,
        older=(),
    )
    source_at: tuple[str, ...] = setting(
        (),
        "changes of weights during the run: STEP:NAME=WEIGHT,NAME=WEIGHT, as in 1000:charts=1",
        repeat=True,
        older=(),
        change=True,
    )
    val_source: tuple[str, ...] = setting(
        (),
        "what to validate a --source on, as NAME=SPEC (default: its last 1 %, not trained on)",
        runtime=True,
        repeat=True,
        older=(),
    )
    join_sets: bool = setting(
        False,
        "all sets that one --shards, --text or --val names are one source with one slice, named "
        "after the first, instead of a source each",
        older=True,
        change=True,
    )
    shuffle: str = setting(
        "blocks",
        "order of the samples within an epoch: blocks of neighbours, each read once and shuffled "
        "with others (blocks); a permutation of all samples, a request for each if the shards are "
        "remote (full); or not shuffled (none)",
        older="full",
    )
    allow_leak: bool = setting(
        False, "train although validation samples are also trained on", runtime=True, older=True
    )
    mix: str = setting(
        "batch",
        "unit of mixing: a batch is all image or all text samples (batch), or each row is chosen "
        "separately (sample)",
        change=True,
    )
    weigh_by: str = setting("rows", "what --text-ratio is a fraction of", change=True)
    at_end: str = setting(
        "repeat",
        "when a source runs out: repeat it, stop the run, or move its fraction to the other source",
        change=True,
    )
    val: tuple[str, ...] = setting(
        (), "image shards to validate on (default: --val-slice of --shards)", runtime=True
    )
    val_text: tuple[str, ...] = setting(
        (), "text-only shards to validate on (default: --text-val-slice of --text)", runtime=True
    )
    train_slice: str = setting(
        "[:18000]",
        "samples of --shards to train on, if its spec has no slice",
        change=True,
    )
    val_slice: str = setting(
        "[18000:18100]",
        "samples of --shards to validate on, without --val; if it has none there, its last 1 %, "
        "which are not trained on",
        change=True,
    )
    text_train_slice: str = setting(
        "[:10000]",
        "samples of --text to train on, if its spec has no slice",
        change=True,
    )
    text_val_slice: str = setting(
        "[10000:10100]",
        "samples of --text to validate on, without --val-text; if it has none there, its last 1 %, "
        "which are not trained on",
        change=True,
    )
    tokenizer: str = setting(
        "",
        "tokenizer file from tools/train_tokenizer.py, or the word bytes: 256 bytes and the "
        "special tokens (default: nanochat's, from --gpt-repo; bytes with --init random)",
    )

    cache: str = setting("", CACHE_HELP, runtime=True, older="")
    cache_limit: str = setting("", LIMIT_HELP, runtime=True, older="")

    steps: int = setting(1000, "optimizer steps", change=True)
    batch: int = setting(10, "rows per optimizer step; unpacked, a row is one sample", change=True)
    micro_batch: int = setting(
        0,
        "maximum rows per forward pass; fewer need less memory (0: the whole --batch)",
        change=True,
    )
    seq_len: int = setting(4096, "maximum length of a row, in tokens")
    too_long: str = setting(
        "truncate",
        "samples longer than --seq-len: truncate them at a turn, drop them, or stop with an error",
    )
    pack: bool = setting(False, "pack several samples into each row of up to --seq-len tokens")
    pack_window: int = setting(
        4096, "samples per packing window; only samples of one window share a row"
    )
    row_images: int = setting(32, "maximum images in a packed row")
    bad_samples: str = setting(
        "raise",
        "if a sample cannot be used: raise an error, or skip it and mask its place in the row",
        runtime=True,
    )
    max_bad: int = setting(100, "stop after skipping more samples than this", runtime=True)
    image_size: int = setting(
        1024, "side of the square that every image is letterboxed to, in px; a multiple of 64"
    )
    image_size_of: tuple[str, ...] = setting(
        (),
        "another --image-size for the images of a --source, as NAME=SIZE, such as charts=256",
        repeat=True,
        older=(),
        change=True,
    )
    schedule_from: int = setting(
        0,
        "step at which the schedule begins, warm-up first; --extend begins it at the step it goes "
        "on from, 0 stretches it over the whole run",
        change=True,
        older=0,
    )
    optimizer: str = setting(
        "adamw",
        "adamw for all parameters, or muon for matrices and convolution kernels, with adamw for "
        "embeddings, head, positions and vectors",
        older="adamw",
    )
    lr: float = setting(5e-5, "peak learning rate", change=True)
    lr_adamw: float = setting(
        0.0,
        "peak learning rate of what AdamW updates: beside Muon, or everything (0: --lr)",
        change=True,
        older=0.0,
    )
    sam_lr_scale: float = setting(1.0, "learning rate of SAM, as a multiple of --lr", change=True)
    clip_lr_scale: float = setting(1.0, "learning rate of CLIP, as a multiple of --lr", change=True)
    schedule: str = setting(
        "cosine",
        "learning rate after the warm-up: cosine (to 0), linear (to 0, see --decay-part), step "
        "(see --step-every) or constant",
        change=True,
    )
    warmup: int = setting(
        10, "steps of linear warm-up, shortened if the run has no more steps", change=True
    )
    step_every: int = setting(
        2000, "with --schedule step: steps between reductions of the rate", change=True
    )
    step_factor: float = setting(0.1, "with --schedule step: factor of each reduction", change=True)
    decay_part: float = setting(
        0.3,
        "with --schedule linear: last part of the schedule, in which the rate falls to 0; before "
        "it the rate is flat",
        change=True,
        older=0.3,
    )
    momentum: float = setting(
        0.95, "with --optimizer muon: momentum of its matrices", change=True, older=0.95
    )
    weight_decay: float = setting(
        0.0, "weight decay, decoupled as in AdamW, applied to matrices only", change=True
    )
    beta1: float = setting(0.9, "AdamW beta 1", change=True)
    beta2: float = setting(0.999, "AdamW beta 2", change=True)
    grad_clip: float = setting(
        1.0,
        "maximum norm of the gradient; larger gradients are scaled down (0 or inf: never)",
        change=True,
    )
    freeze: tuple[str, ...] = setting(
        (), "parts of the model not to train: sam, clip, projector, gpt"
    )
    deepencoder: str = setting(
        "",
        "initial weights of the encoder (SAM, CLIP, projector): deepencoder_*.safetensors or .pt, "
        "or a folder or run that holds one",
    )
    fresh_gpt: bool = setting(False, "start the GPT from random weights, whatever --init says")
    checkpointing: bool = setting(
        False,
        "recompute activations in the backward pass: less memory, a third slower",
        change=True,
    )
    precision: str = setting(
        "auto",
        "fp32, bf16 (autocast), or auto: bf16 on CUDA and fp32 elsewhere",
        change=True,
    )
    attention: str = setting(
        "auto",
        "attention in packed rows: sample by sample (sdpa), on a GPU by flex_attention (flex) or "
        "by flash attention of any length (varlen), or the fastest, timed when the run begins "
        "(auto; on a CPU sdpa)",
        change=True,
        older="sdpa",
    )

    eval_every: int = setting(50, "steps between validations (0: only at the end)", runtime=True)
    val_batch: int = setting(10, "samples per forward pass in validation", change=True)
    val_answers: int = setting(
        0,
        "questions answered in each validation, for val/accuracy, val/ned, val/loops (0: none)",
        runtime=True, older=0,
    )  # fmt: skip
    save_every: int = setting(100, "steps between checkpoints (0: only at the end)", runtime=True)
    keep: int = setting(2, "number of newest checkpoints to keep (0: all)", runtime=True)
    stop_at: int = setting(
        0, "save and stop after this step, to continue with --resume (0: do not stop)", runtime=True
    )
    log_every: int = setting(
        10, "steps per line on the console; every step is in metrics.jsonl", runtime=True,
        older=10,
    )  # fmt: skip
    log_samples: bool = setting(
        False, "log the samples of every step in batches.jsonl", runtime=True
    )
    profile: str = setting(
        "",
        "trace steps with torch's profiler: a number of steps, or A:B for steps A to B - 1",
        runtime=True,
        older="",
    )
    workers: int = setting(2, "threads that prefetch batches (0: none)", runtime=True)
    device: str = setting("auto", "auto (CUDA if available), cpu, cuda or cuda:N", runtime=True)
    parallel: str = setting(
        "ddp",
        "with torchrun: every rank has all weights (ddp), or a part of them, for models that do "
        "not fit one GPU (fsdp)",
        runtime=True,
        older="ddp",
    )
    wandb: str = setting(
        "auto",
        "Weights & Biases: online, offline, off, or auto (online with an API key, else offline)",
        runtime=True,
    )
    wandb_project: str = setting(
        "",
        "project at Weights & Biases and trackio (default: WANDB_PROJECT, or nano-deepseek-ocr)",
        runtime=True,
    )
    log_to: tuple[str, ...] = setting(
        ("wandb",),
        "where numbers go beside metrics.jsonl: wandb, tensorboard, trackio",
        runtime=True,
        older=("wandb",),
    )

    sam_repo: str = setting("facebook/sam-vit-base", "SAM weights: hub repository or folder")
    clip_repo: str = setting(
        "openai/clip-vit-large-patch14", "CLIP weights: hub repository or folder"
    )
    gpt_repo: str = setting(
        "nanochat-students/base-d20", "nanochat weights and tokenizer: hub repository or folder"
    )

    model: ModelConfig = field(default_factory=ModelConfig)

    def __post_init__(self) -> None:
        # "sam,clip" and "sam clip" are the same.
        parts = tuple(part for word in self.init_parts for part in word.split(",") if part)
        object.__setattr__(self, "init_parts", parts)
        if not self.recipe:
            object.__setattr__(self, "recipe", RECIPE_OF.get(self.preset, ""))
        if self.grad_clip == math.inf:  # the same as 0, which JSON has
            object.__setattr__(self, "grad_clip", 0.0)
        raise_all(faults(self))

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

    def image_mode(self, source: str) -> ImageMode:
        """How the images of a source are shown: as --image-size-of says, else at --image-size. The
        parts of a named source, NAME/image and NAME/text, have the mode of NAME."""
        own = self._own_modes.get(source.split("/", maxsplit=1)[0])
        return own or ImageMode(self.image_size)

    @property
    def image_modes(self) -> tuple[ImageMode, ...]:
        """All ways in which the sources of the run may show images: that of --image-size first, if
        any source has it."""
        own = self._own_modes
        default = [ImageMode(self.image_size)] * (len(own) < max(1, len(self.named_sources)))
        return tuple(dict.fromkeys([*default, *own.values()]))

    @cached_property
    def _own_modes(self) -> dict[str, ImageMode]:
        """What --image-size-of says; asked for every sample of a step."""
        return parse_modes(self.image_size_of, self.named_sources) if self.source else {}

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
