"""The checks that data and weights are named and exist."""

from __future__ import annotations

import re
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


@pytest.mark.parametrize("init", ["owner/name", "owner/name@v1.0", "pretrained", "random", "."])
def test_words_paths_and_repositories_may_be_the_start(init: str, inputs: dict[str, str]) -> None:
    check_weights(small_config(inputs, Path("unused"), init=init))


@pytest.mark.parametrize(
    ("init", "hint"),
    [
        ("randon", "did you mean random"),
        ("pretraned", "did you mean pretrained"),
        ("./random", "owner/name"),
        ("runs/a/step_5.pt", "no such file"),
        ("a/b/c", "no such file"),
        ("https://host/x.pt", "owner/name"),
    ],
)
def test_what_cannot_be_the_start_is_refused(init: str, hint: str, inputs: dict[str, str]) -> None:
    with pytest.raises(UsageError, match=rf"^--init {re.escape(init)}: .*{hint}"):
        check_weights(small_config(inputs, Path("unused"), init=init))


def test_a_frozen_encoder_may_come_from_the_path_of_init(inputs: dict[str, str]) -> None:
    config = small_config(inputs, Path("unused"), freeze=("sam",), init="owner/name")
    check_weights(config)
    with pytest.raises(UsageError, match=r"^--freeze sam .*--init"):
        check_weights(replace(config, init_parts=("gpt",)))
