"""Sizes that no model can have are refused."""

from __future__ import annotations

from typing import Any

import pytest

from ocrdata.errors import UsageError
from ocrtrain.settings.model_config import ModelConfig


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"clip_width": 512}, "--clip-width .512. .*--sam-out .1024."),
        ({"gpt_heads": 7}, "--gpt-width .1280. .*multiple of --gpt-heads .7."),
        ({"gpt_width": 33, "gpt_heads": 3}, "--gpt-width .33. over --gpt-heads .3. .*even"),
        ({"sam_heads": 0}, "--sam-width .768. .*multiple of --sam-heads .0."),
        ({"gpt_layers": 10**15}, "--gpt-layers .*from 1 to 10,000,000, not 10{15}"),
        ({"rope_theta": float("inf")}, "--rope-theta .*from 1 to 10,000,000, not inf"),
    ],
)
def test_impossible_model_sizes_are_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        ModelConfig(**values)
