"""The full presets are the original experiment's; the others are the same run, smaller."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace
from fractions import Fraction

import pytest

from ocrdata.errors import UsageError
from ocrtrain.cost.flops import parameters
from ocrtrain.run.optimizer import learning_rate
from ocrtrain.settings import presets
from ocrtrain.settings.config import Config
from ocrtrain.settings.image_slots import image_slots
from ocrtrain.settings.model_config import ModelConfig


def test_full_presets_are_the_recipe_of_the_experiment() -> None:
    one, two = presets.stage1(), presets.stage2()
    assert (one.steps, one.batch, one.seq_len, one.lr, one.warmup) == (1000, 10, 4096, 5e-5, 10)
    assert (one.schedule, one.weight_decay, one.grad_clip) == ("cosine", 0.0, 1.0)
    assert one.eval_every == 50
    assert (one.train_slice, one.val_slice) == ("[:18000]", "[18000:18100]")
    assert (two.steps, two.batch, two.seq_len, two.lr, two.warmup) == (1500, 2, 8192, 3e-5, 100)
    assert (two.schedule, two.step_every, two.step_factor) == ("step", 2000, 0.1)
    assert (two.freeze, two.fresh_gpt, two.text_ratio) == (("sam",), True, Fraction(5, 14))
    assert one.model == two.model == ModelConfig()


@pytest.mark.parametrize("preset", presets.SIZES)
def test_stages_have_the_same_model_and_image_size(preset: str) -> None:
    one, two = presets.stage1(preset), presets.stage2(preset)
    assert one.model == two.model
    assert one.image_size == two.image_size


def test_an_unknown_preset_is_refused() -> None:
    for preset in (presets.stage1, presets.stage2):
        with pytest.raises(UsageError, match=r"--preset 'huge'.* tiny, small, base, full"):
            preset("huge")


def differing(one: Config, other: Config) -> set[str]:
    return {f.name for f in fields(Config) if getattr(one, f.name) != getattr(other, f.name)}


@pytest.mark.parametrize("stage", [presets.stage1, presets.stage2])
def test_a_preset_sets_its_name_and_run_folder(stage: Callable[[str], Config]) -> None:
    for name in presets.SIZES:
        config = stage(name)
        assert config.preset == name
        assert config.run_folder == f"runs/{stage.__name__}-{name}"
        assert (config.shards, config.tokenizer, config.out) == (
            (),
            "",
            "",
        )  # always given by flags


def test_tiny_stages_differ_in_four_fields_only() -> None:
    one, two = presets.stage1("tiny"), presets.stage2("tiny")
    assert differing(one, two) == {"name", "steps", "freeze", "fresh_gpt"}
    assert (two.freeze, two.fresh_gpt) == (("sam",), True)


def test_tiny_is_the_full_preset_made_smaller() -> None:
    for stage in (presets.stage1, presets.stage2):
        tiny, full = stage("tiny"), stage("full")
        for name in ("name", "freeze", "fresh_gpt", "text_ratio", "mix", "weight_decay",
                     "grad_clip"):  # fmt: skip
            assert getattr(tiny, name) == getattr(full, name)
        assert tiny.image_size < full.image_size and tiny.seq_len < full.seq_len
        assert tiny.seq_len > image_slots(tiny.image_size)


@pytest.mark.parametrize("preset", presets.SIZES)
def test_an_image_leaves_room_for_text_in_a_row(preset: str) -> None:
    for stage in presets.STAGES.values():
        config = stage(preset)
        assert config.seq_len >= 3 * image_slots(config.image_size)


def test_the_tiny_model_has_1_9_million_parameters() -> None:
    counted = sum(parameters(replace(presets.TINY, vocab_size=512)).values())
    assert round(counted / 1e6, 1) == 1.9


def test_stage_2_stays_at_its_peak_learning_rate() -> None:
    config = presets.stage2()
    rates = [learning_rate(config, step) for step in range(config.steps)]
    assert rates[config.warmup :] == [config.lr] * (config.steps - config.warmup)
    assert rates[: config.warmup] == sorted(rates[: config.warmup])
    assert 0 < rates[0] < config.lr
