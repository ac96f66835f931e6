"""The config of each stage: a size (--preset) and a recipe (--recipe), in that order.

A stage's function begins with the original experiment's settings for the full model, sets what
depends on the size, and then what the recipe says (`recipes.py`). Flags come last (`flags.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import NamedTuple

from ocrdata.errors import UsageError
from ocrtrain.settings.config import Config
from ocrtrain.settings.model_config import ModelConfig
from ocrtrain.settings.recipes import RECIPE_HELP, RECIPES
from ocrtrain.settings.rules import INIT_WORDS, RECIPE_OF


def stage1(preset: str = "full", recipe: str = "") -> Config:
    """All parts are trained, on images. Raises UsageError for an unknown preset or recipe, or two
    that do not go together; without `recipe` it is the preset's own."""
    return _complete(Config(name="stage1"), _STEPS_1, preset, recipe)


def stage2(preset: str = "full", recipe: str = "") -> Config:
    """SAM is frozen, the encoder comes from stage 1, the GPT starts fresh, and text is mixed in.

    Raises UsageError as `stage1` does. In "full", steps are fewer than `step_every`: after the
    warm-up the learning rate of the original experiment stays at its peak.
    """
    original = Config(
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
    return _complete(original, _STEPS_2, preset, recipe)


_STEPS_1 = {"tiny": 400, "small": 2000, "base": 4000, "full": 1000}
_STEPS_2 = {"tiny": 500, "small": 2000, "base": 4000, "full": 1500}

STAGES = {"stage1": stage1, "stage2": stage2}
"""The function of each stage, by its name."""


def init_word(config: Config) -> str:
    """`--init` as a word, `pretrained` or `random`: that of preset and recipe, where it is a path.
    It says how parts start that are not taken from there."""
    if config.init in INIT_WORDS:
        return config.init
    return stage1(config.preset, config.recipe).init


def _complete(original: Config, steps: Mapping[str, int], preset: str, recipe: str) -> Config:
    """The config of a stage, from the original experiment's."""
    if preset not in SIZES:
        raise UsageError(f"--preset {preset!r}: choose from {', '.join(SIZES)}")
    recipe = recipe or RECIPE_OF[preset]
    if recipe not in RECIPES:
        raise UsageError(f"--recipe {recipe!r}: choose from {', '.join(RECIPES)}")
    named = replace(original, preset=preset, recipe=recipe, steps=steps[preset])
    return RECIPES[recipe](SIZES[preset](named))


def _tiny(config: Config) -> Config:
    return replace(
        config,
        model=TINY,
        init="random",
        image_size=256,
        batch=16,
        seq_len=512,
        eval_every=100,
        save_every=200,
        val_batch=20,
    )


def _small(config: Config) -> Config:
    return replace(
        config,
        model=SMALL,
        init="random",
        image_size=512,
        batch=16,
        seq_len=1024,
        eval_every=200,
        save_every=500,
        val_batch=16,
    )


def _base(config: Config) -> Config:
    """Two rows a pass fill a GPU of 24 GB without recomputing activations. No GPT of this size is
    on the hub: it starts fresh."""
    return replace(
        config,
        model=BASE,
        fresh_gpt=True,
        batch=16,
        micro_batch=2,
        seq_len=2048,
        eval_every=200,
        save_every=500,
        val_batch=4,
    )


def _full(config: Config) -> Config:
    return config


SIZES: dict[str, Callable[[Config], Config]] = {
    "tiny": _tiny, "small": _small, "base": _base, "full": _full,
}  # fmt: skip
"""What each --preset sets: sizes of the model, its images and its steps."""

TINY = ModelConfig(
    sam_width=64, sam_layers=4, sam_heads=4, sam_mlp=256, sam_window=4, sam_global_layers=(1, 3),
    sam_neck=64, sam_mid=128, sam_out=128, sam_grid=16,
    clip_width=128, clip_layers=1, clip_heads=4, clip_mlp=512, clip_grid=4,
    gpt_width=192, gpt_layers=2, gpt_heads=3, gpt_mlp=768, vocab_size=0,
)  # fmt: skip
"""1.9 M parameters with a vocabulary of 512."""

SMALL = ModelConfig(
    sam_width=256, sam_layers=6, sam_heads=4, sam_mlp=1024, sam_window=8, sam_global_layers=(2, 5),
    sam_neck=128, sam_mid=256, sam_out=384, sam_grid=32,
    clip_width=384, clip_layers=4, clip_heads=6, clip_mlp=1536, clip_grid=8,
    gpt_width=384, gpt_layers=6, gpt_heads=3, gpt_mlp=1536, vocab_size=0,
)  # fmt: skip
"""Heads of 64 in the encoder and of 128 in the decoder, as in the full model; 512 px are whole
windows of SAM and its grids, so that nothing is padded or interpolated."""

BASE = ModelConfig(gpt_width=768, gpt_layers=12, gpt_heads=6, gpt_mlp=3072)
"""The full encoder, for which there are weights, and a decoder of nanochat's depth 12."""


class Figures(NamedTuple):
    """What a preset takes with its own recipe, where each row is an image and 128 tokens of text:
    parameters, trained or not; tokens a step; forecast memory of a step, on a GPU and on a CPU.

    `tests/ocrtrain/cost/test_presets_cost.py` computes them: settings know no costs."""

    parameters: str
    tokens: int
    gpu: str
    cpu: str


PURPOSES = {
    "tiny": "a trial on two CPU cores, in minutes",
    "small": "a GPU of 8 to 12 GB, or a patient laptop",
    "base": "a GPU of 24 GB; SAM and CLIP from the hub",
    "full": "a GPU of 80 GB; the original experiment's",
}
"""What each preset is for."""

FIGURES = {
    "stage1": {
        "tiny": Figures("1.77 M", 2384, "1.7 GB", "0.9 GB"),
        "small": Figures("24.8 M", 3216, "3.9 GB", "5.2 GB"),
        "base": Figures("585 M", 6416, "19 GB", "29 GB"),
        "full": Figures("962 M", 4010, "57 GB", "116 GB"),
    },
    "stage2": {
        "tiny": Figures("1.77 M", 2384, "1.6 GB", "0.7 GB"),
        "small": Figures("24.8 M", 3216, "2.5 GB", "2.2 GB"),
        "base": Figures("585 M", 6416, "12 GB", "13 GB"),
        "full": Figures("962 M", 802, "20 GB", "20 GB"),
    },
}


def describe_choices(stage: str) -> str:
    """The presets and recipes of a stage, for `--help`."""
    head = ("preset", "for", "recipe", "parameters", "tokens", "GPU", "CPU")
    lines = [head] + [
        (name, PURPOSES[name], RECIPE_OF[name], one.parameters, f"{one.tokens:,}", one.gpu, one.cpu)
        for name, one in FIGURES[stage].items()
    ]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    table = [
        "  ".join(
            cell.ljust(width) if number < 3 else cell.rjust(width)
            for number, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        for line in lines
    ]
    return "\n".join(
        [
            "tokens and memory: of a step whose rows have an image and 128 tokens of text",
            "",
            *table,
            "",
            *(f"recipe {name + ':':<9}{text}" for name, text in RECIPE_HELP.items()),
        ]
    )
