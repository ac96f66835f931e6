"""The presets: the experiment's recipe, and the same small enough for two cores."""

from __future__ import annotations

from fractions import Fraction

import pytest

from ocrdata.errors import UsageError
from ocrtrain import presets
from ocrtrain.config import ModelConfig


def test_the_full_presets_are_the_experiments_recipe() -> None:
    one, two = presets.stage1(), presets.stage2()
    assert (one.steps, one.batch, one.seq_len, one.lr, one.warmup) == (1000, 10, 4096, 5e-5, 10)
    assert (one.schedule, one.weight_decay, one.clip, one.eval_every) == ("cosine", 0.0, 1.0, 50)
    assert (one.train_slice, one.val_slice) == ("[:18000]", "[18000:18100]")
    assert (two.steps, two.batch, two.seq_len, two.lr, two.warmup) == (1500, 2, 8192, 3e-5, 100)
    assert (two.schedule, two.step_every, two.step_factor) == ("step", 2000, 0.1)
    assert (two.freeze, two.fresh_gpt, two.text_ratio) == (("sam",), True, Fraction(5, 14))
    assert one.model == two.model == ModelConfig()


@pytest.mark.parametrize("preset", ["full", "tiny"])
def test_stages_differ_in_values_of_few_fields(preset: str) -> None:
    one, two = presets.stage1(preset), presets.stage2(preset)
    assert one.model == two.model
    assert one.image_size == two.image_size


def test_an_unknown_preset() -> None:
    with pytest.raises(UsageError, match="'huge' is none of full, tiny"):
        presets.stage1("huge")
