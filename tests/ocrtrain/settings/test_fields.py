"""Every field has a flag of its own."""

from __future__ import annotations

import dataclasses

from ocrtrain.settings.config import Config
from ocrtrain.settings.fields import flag_name
from ocrtrain.settings.model_config import ModelConfig


def test_flag_names_are_unique() -> None:
    names = [item.name for kind in (Config, ModelConfig) for item in dataclasses.fields(kind)]
    assert len(set(names)) == len(names)
    assert flag_name("seq_len") == "--seq-len"
