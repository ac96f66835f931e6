"""A config survives JSON; an older one is read, another is refused; what differs is named."""

from __future__ import annotations

import dataclasses

import pytest

from ocrdata.errors import UsageError
from ocrtrain.settings import presets
from ocrtrain.settings.config import Config
from ocrtrain.settings.model_config import ModelConfig
from ocrtrain.settings.saved_config import differences, from_json, to_json


@pytest.mark.parametrize("config", [presets.stage1("tiny"), presets.stage2()])
def test_json_round_trip(config: Config) -> None:
    assert from_json(to_json(config)) == config


def test_json_of_another_version_or_with_other_keys_is_refused() -> None:
    value = to_json(Config())
    with pytest.raises(UsageError, match=r"version 2\b.* 1$"):
        from_json(value | {"version": 2})
    with pytest.raises(UsageError, match="nonsense"):
        from_json(value | {"nonsense": 1})
    with pytest.raises(UsageError, match="model"):
        from_json({"version": 1})


def test_json_without_a_key_is_refused() -> None:
    """A default would silently replace the setting of the run."""
    value = to_json(Config())
    with pytest.raises(UsageError, match=r"missing.* seed, lr$"):
        from_json({k: v for k, v in value.items() if k not in ("lr", "seed")})
    model = {k: v for k, v in value["model"].items() if k != "gpt_layers"}
    with pytest.raises(UsageError, match=r"missing.* gpt_layers$"):
        from_json(value | {"model": model})
    with pytest.raises(UsageError, match="cannot be read"):
        from_json(value | {"model": 5})


def test_differences_leave_out_settings_that_may_change() -> None:
    old = Config()
    new = dataclasses.replace(
        old, lr=1e-4, seed=3, workers=7, out="elsewhere", model=ModelConfig(gpt_layers=3)
    )
    assert differences(old, new) == [
        "--seed: 0 in the run, 3 given",
        "--gpt-layers: 20 in the run, 3 given",
    ]


def test_configs_saved_before_a_field_was_added_are_read() -> None:
    value = to_json(Config())
    older = {item.name: item.metadata["older"] for item in dataclasses.fields(Config)
             if item.metadata and item.metadata["older"] is not None}  # fmt: skip
    assert "log_every" in older
    found = from_json({k: v for k, v in value.items() if k not in older})
    assert found == dataclasses.replace(Config(), **older)
