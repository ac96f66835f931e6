"""The config of an exported model."""

from __future__ import annotations

import json

import pytest

from ocrdata.errors import UsageError
from ocrtrain.export.configuration import OcrConfig
from tests.support import small
from tests.support.exported import exported


def test_a_config_gives_the_sizes_back() -> None:
    found = OcrConfig.from_pretrained(exported())
    assert found.sizes == small.MODEL
    assert (found.image_sizes, found.image_token) == ([64], small.tokenizer().image)
    again = OcrConfig(**json.loads(found.to_json_string(use_diff=False)))
    assert again.sizes == small.MODEL and again.processor == found.processor != {}
    assert found.num_hidden_layers == small.MODEL.gpt_layers


def test_sizes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(UsageError, match=r"--gpt-width \(65\).*--gpt-heads"):
        OcrConfig(gpt_width=65, gpt_heads=2)
