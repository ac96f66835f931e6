"""A recipe changes a complete config: of every stage and size, or it is refused in one line."""

from __future__ import annotations

from dataclasses import fields, replace
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from ocrdata.errors import UsageError
from ocrtrain.settings import presets
from ocrtrain.settings.checks import check_weights
from ocrtrain.settings.config import Config
from ocrtrain.settings.flags import ParsedFlags, parse
from ocrtrain.settings.model_config import ModelConfig
from ocrtrain.settings.recipes import RECIPE_HELP, RECIPES
from ocrtrain.settings.rules import CHOICES, RECIPE_OF
from ocrtrain.settings.saved_config import from_json, to_json

REFUSED = {("tiny", "seed"), ("small", "seed")}
"""Without weights on the hub there is no seed to start from."""


def changed(one: Config, other: Config) -> dict[str, Any]:
    return {
        item.name: getattr(other, item.name)
        for item in fields(Config)
        if getattr(one, item.name) != getattr(other, item.name)
    }


@pytest.mark.parametrize("stage", presets.STAGES)
@pytest.mark.parametrize(("preset", "recipe"), list(product(RECIPE_OF, RECIPES)))
def test_every_pair_is_a_config_or_refused(stage: str, preset: str, recipe: str) -> None:
    make = presets.STAGES[stage]
    if (preset, recipe) in REFUSED:
        with pytest.raises(UsageError) as caught:
            make(preset, recipe)
        (line,) = caught.value.messages
        assert f"--recipe {recipe}" in line and f"--preset {preset}" in line
        return
    config = make(preset, recipe)
    assert (config.name, config.preset, config.recipe) == (stage, preset, recipe)
    own = make(preset)
    assert config.model == own.model, "a recipe has no sizes"
    assert (config.image_size, config.seq_len, config.batch) == (
        own.image_size,
        own.seq_len,
        own.batch,
    )
    assert from_json(to_json(config)) == config
    assert 0 < config.warmup < config.steps / 4


def test_all_names_have_what_belongs_to_them() -> None:
    assert list(RECIPES) == list(RECIPE_HELP) == list(CHOICES["recipe"])
    assert list(presets.SIZES) == list(presets.PURPOSES) == list(CHOICES["preset"])
    assert {RECIPE_OF[name] for name in presets.SIZES} <= set(RECIPES)
    for make in presets.STAGES.values():
        assert {name: make(name).recipe for name in presets.SIZES} == RECIPE_OF
        with pytest.raises(UsageError, match="--recipe 'x': choose from seed, safe, encoder"):
            make("full", "x")


def test_what_a_preset_without_a_recipe_was_it_is() -> None:
    """The settings of tiny before there were recipes, and the full ones: the original's."""
    for make in presets.STAGES.values():
        tiny = make("tiny")
        assert changed(make("full", "seed"), tiny) == {
            "preset": "tiny", "recipe": "safe", "init": "random", "model": presets.TINY,
            "image_size": 256, "batch": 16, "seq_len": 512, "lr": 1e-3, "sam_lr_scale": 0.01,
            "clip_lr_scale": 0.02, "beta2": 0.95, "warmup": 20, "save_every": 200,
            "val_batch": 20,
        } | ({"steps": 400, "eval_every": 100} if tiny.name == "stage1" else
             {"steps": 500, "schedule": "cosine"})  # fmt: skip
    assert presets.stage1("full", "seed") == Config()


def test_safe_slows_the_encoder_down_and_knows_a_fresh_decoder() -> None:
    rates = {name: presets.stage1(name, "safe").lr for name in RECIPE_OF}
    assert rates == {"tiny": 1e-3, "small": 5e-4, "base": 2.5e-4, "full": 5e-5}
    assert presets.stage2("full", "safe").lr == pytest.approx(1.5e-4)
    for make, name in product(presets.STAGES.values(), RECIPE_OF):
        config = make(name, "safe")
        assert (config.sam_lr_scale, config.clip_lr_scale) == (0.01, 0.02)
        assert config.freeze == make(name).freeze


def test_encoder_trains_projector_and_decoder_and_needs_an_encoder() -> None:
    for make, name in product(presets.STAGES.values(), RECIPE_OF):
        config = make(name, "encoder")
        assert config.freeze == ("sam", "clip")
        with pytest.raises(UsageError, match=r"--freeze sam .*--deepencoder FILE, or --init"):
            check_weights(config)
        check_weights(replace(config, init="owner/name"))
    # What is not in the released encoder starts as the preset says.
    assert presets.init_word(replace(presets.stage1("base", "encoder"), init="a/b")) == "pretrained"
    assert presets.init_word(replace(presets.stage1("tiny", "encoder"), init="a/b")) == "random"
    assert presets.init_word(replace(presets.stage1("full", "reads"), init="a/b")) == "random"


def test_encoders_of_base_and_full_are_one() -> None:
    """So that a released encoder, or one trained with base, fits both."""
    base, full = presets.BASE, ModelConfig()
    assert replace(base, gpt_width=1280, gpt_layers=20, gpt_heads=10, gpt_mlp=5120) == full


def typed(*words: str) -> ParsedFlags:
    return parse(words, presets.stage1, prog="stage1", description="")


@pytest.mark.parametrize("preset", list(RECIPE_OF))
def test_reads_is_muon_at_one_rate_for_all_parts_from_random_weights(preset: str) -> None:
    for make in presets.STAGES.values():
        config = make(preset, "reads")
        assert (config.init, config.optimizer, config.schedule) == ("random", "muon", "linear")
        assert config.sam_lr_scale == config.clip_lr_scale == 1 and not config.weight_decay
        assert config.patch_scale == 4


def test_flags_override_the_recipe_and_the_recipe_the_preset() -> None:
    parsed = typed("--lr", "2e-3", "--recipe", "encoder", "--preset", "tiny")
    assert parsed.config == replace(presets.stage1("tiny", "encoder"), lr=2e-3)
    assert parsed.config.freeze == ("sam", "clip")
    assert typed("--preset", "tiny").config.recipe == "safe"


def test_a_refused_pair_is_told_with_all_else_that_is_wrong() -> None:
    with pytest.raises(UsageError) as caught:
        typed("--preset", "tiny", "--recipe", "seed", "--steps", "0")
    told = caught.value.messages
    assert [line.split()[0] for line in told] == ["--recipe", "--steps"]
    with pytest.raises(UsageError, match=r"argument --recipe: invalid choice: 'reed'"):
        typed("--recipe", "reed")


def test_help_has_the_defaults_of_the_recipe(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        typed("--preset", "tiny", "--recipe", "encoder", "--help")
    text = " ".join(capsys.readouterr().out.split())
    assert "(default: sam clip)" in text and "(default: encoder)" in text
    for name, one in presets.FIGURES["stage1"].items():
        row = (name, presets.PURPOSES[name], RECIPE_OF[name], one.parameters, f"{one.tokens:,}",
               one.gpu, one.cpu)  # fmt: skip
        assert " ".join(row) in text
    assert all(line in text for line in RECIPE_HELP.values())


@pytest.mark.parametrize("preset", ["tiny", "full"])
def test_runs_from_before_there_were_recipes_have_that_of_their_preset(preset: str) -> None:
    config = presets.stage2(preset)
    value = to_json(config)
    del value["recipe"]
    assert from_json(value) == config


def test_the_table_of_the_docs_has_the_values_of_the_presets() -> None:
    """docs/training.md, "Size and recipe"."""
    page = (Path(__file__).parents[3] / "docs" / "training.md").read_text()
    rows = {
        cells[1].strip("` ").split("`")[0]: line
        for line in page.splitlines()
        if line.startswith("| `") and (cells := line.split("|"))
    }
    for name in presets.SIZES:
        one, two = (make(name) for make in presets.STAGES.values())
        facts = {f"{one.image_size:,} px", f"{one.seq_len:,}", f"{two.seq_len:,}", str(one.batch),
                 f"{one.steps:,}, {two.steps:,}"}  # fmt: skip
        assert not [fact for fact in facts if fact not in rows[name]], name
        assert float(rows[name].split(" M |")[0].split("|")[-1]) == pytest.approx(
            float(presets.FIGURES["stage1"][name].parameters.removesuffix(" M")), rel=0.02
        )
    for name in RECIPES:
        owners = [preset for preset, recipe in RECIPE_OF.items() if recipe == name]
        assert [word.strip(" `") for word in rows[name].split("|")[2].split(",")] == (
            owners or ["-"]
        )
