import dataclasses
from fractions import Fraction
from typing import Any

import pytest

from ocrdata.errors import UsageError
from ocrtrain.settings import presets
from ocrtrain.settings.config import Config, ModelConfig, differences, flag_name, from_json, to_json


@pytest.mark.parametrize("config", [presets.stage1("tiny"), presets.stage2()])
def test_json_round_trip(config: Config) -> None:
    assert from_json(to_json(config)) == config


def test_json_of_another_version_or_with_unknown_names() -> None:
    value = to_json(Config())
    with pytest.raises(UsageError, match="config version 2 is not 1"):
        from_json(value | {"version": 2})
    with pytest.raises(UsageError, match="cannot be read"):
        from_json(value | {"nonsense": 1})
    with pytest.raises(UsageError, match="cannot be read"):
        from_json({"version": 1})


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"steps": 0}, "--steps must be above 0"),
        ({"lr": float("nan")}, "--lr must be above 0"),
        ({"workers": -1}, "--workers must not be negative"),
        ({"seed": 2**63}, r"--seed 9223372036854775808 must be below 2\^63"),
        ({"freeze": ("gpt", "sam", "clip", "projector")}, "--freeze leaves nothing to train"),
        ({"image_size": 1000}, "--image-size 1000 is no multiple of 64"),
        ({"batch": 10, "micro_batch": 4}, "--batch 10 is no multiple of --micro-batch 4"),
        ({"text_ratio": Fraction(1)}, "--text-ratio 1 must be at least 0 and below 1"),
        ({"steps": 5, "warmup": 5}, "--warmup 5 must be below --steps 5"),
        ({"init": "zero"}, "--init 'zero' is none of pretrained, random"),
        ({"freeze": ("sam", "eyes")}, "--freeze 'eyes' is none of sam, clip, projector, gpt"),
        ({"train_slice": "100"}, "--train-slice '100' is not a slice such as"),
        ({"val_slice": "[5]"}, r"--val-slice '\[5\]' is not a slice such as"),
        ({"text_train_slice": ":5"}, "--text-train-slice ':5' is not a slice such as"),
        ({"text_val_slice": "[a:b]"}, r"--text-val-slice: \[a:b\] is not a slice; write"),
        ({"val_slice": "[::0]"}, "--val-slice: the step of a slice cannot be 0"),
    ],
)
def test_mistakes_name_the_flag_and_the_rule(values: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        dataclasses.replace(Config(), **values)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"clip_width": 512}, "--clip-width .512. must equal --sam-out .1024."),
        ({"gpt_heads": 7}, "--gpt-width .1280. is no multiple of --gpt-heads .7."),
        ({"sam_heads": 0}, "--sam-width .768. is no multiple of --sam-heads .0."),
    ],
)
def test_impossible_models(values: dict[str, int], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        ModelConfig(**values)  # type: ignore[arg-type]


def test_differences_leave_out_what_may_change() -> None:
    old = Config()
    new = dataclasses.replace(
        old, lr=1e-4, workers=7, out="elsewhere", model=ModelConfig(gpt_layers=3)
    )
    assert differences(old, new) == [
        "--lr: 5e-05 in the run, 0.0001 asked",
        "--gpt-layers: 20 in the run, 3 asked",
    ]


def test_flags_are_unique() -> None:
    names = [item.name for kind in (Config, ModelConfig) for item in dataclasses.fields(kind)]
    assert len(set(names)) == len(names)
    assert flag_name("seq_len") == "--seq-len"


def test_a_row_holds_a_token_and_what_follows_it() -> None:
    with pytest.raises(UsageError, match="--seq-len 1 has no room for a token and the next one"):
        Config(seq_len=1)
