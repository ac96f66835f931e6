"""The checks that data and weights are named and exist."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ocrdata.errors import UsageError
from ocrtrain.settings.checks import check_data, check_weights
from tests.support.data import small_config


@pytest.mark.parametrize(
    ("values", "flag"),
    [
        ({"shards": ()}, "--shards"),
        ({"freeze": ("clip", "sam")}, "--freeze sam .*--deepencoder FILE"),
        ({"deepencoder": "nowhere"}, "--deepencoder nowhere: "),
        ({"tokenizer": "nowhere"}, "--tokenizer nowhere: "),
    ],
)
def test_missing_inputs_are_refused(
    inputs: dict[str, str], values: dict[str, Any], flag: str
) -> None:
    config = small_config(inputs, Path("unused"))
    for changed in (config, replace(config, deepencoder=inputs["tokenizer"], freeze=("sam",))):
        check_data(changed)
        check_weights(changed)
    with pytest.raises(UsageError, match=f"^{flag}"):
        for check in (check_data, check_weights):
            check(replace(config, **values))
