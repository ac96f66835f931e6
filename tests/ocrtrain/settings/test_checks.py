"""The checks that data and weights are named and exist."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from ocrdata.errors import UsageError
from ocrtrain.settings.checks import check_data, check_weights
from tests.support.data import small_config


@pytest.mark.parametrize(
    ("values", "flag"),
    [
        ({"shards": ()}, "--shards is missing: .*--text-ratio 1"),
        ({"shards": (), "text": ("x.tar",)}, "--shards is missing: .*--text-ratio 1"),
        ({"shards": (), "text": ("x.tar",), "text_ratio": Fraction(1)}, "--val needs --shards"),
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


def test_text_alone_needs_no_images(inputs: dict[str, str]) -> None:
    config = small_config(
        inputs, Path("unused"), shards=(), val=(), text=("x.tar",), text_ratio=Fraction(1)
    )
    check_data(config)
    with pytest.raises(UsageError, match="--shards is missing"):
        check_data(replace(config, text_ratio_at=("5:1/2",)))


def test_the_folder_of_a_run_is_no_encoder(inputs: dict[str, str], tmp_path: Path) -> None:
    config = replace(small_config(inputs, Path("unused")), deepencoder=str(tmp_path))
    with pytest.raises(UsageError, match=rf"^--deepencoder {tmp_path}: a folder"):
        check_weights(config)
