"""What a config must name before anything is opened."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ocrdata.errors import UsageError
from ocrtrain.settings.checks import check_data, check_weights
from tests.support.data import small_config


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"shards": ()}, "--shards is missing"),
        ({"freeze": ("clip", "sam")}, "--freeze sam needs --deepencoder FILE"),
        ({"deepencoder": "nowhere"}, "--deepencoder nowhere: there is no such file"),
        ({"tokenizer": "nowhere"}, "--tokenizer nowhere: there is no such file"),
    ],
)
def test_what_must_be_given(inputs: dict[str, str], values: dict[str, Any], message: str) -> None:
    config = small_config(inputs, Path("unused"))
    for changed in (config, replace(config, deepencoder=inputs["tokenizer"], freeze=("sam",))):
        check_data(changed)
        check_weights(changed)
    with pytest.raises(UsageError, match=message):
        for check in (check_data, check_weights):
            check(replace(config, **values))
