import dataclasses
from fractions import Fraction
from typing import Any

import pytest

from ocrdata.errors import UsageError, UsageErrors
from ocrtrain.settings import presets
from ocrtrain.settings.config import Config, ModelConfig, differences, flag_name, from_json, to_json


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


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"steps": 0}, "--steps .*above 0"),
        ({"lr": float("nan")}, "--lr .*above 0 and finite, not nan"),
        ({"workers": -1}, "--workers .*negative, not -1"),
        ({"weight_decay": float("inf")}, "--weight-decay .*finite.*, not inf"),
        ({"seed": 2**63}, r"--seed 9223372036854775808 .*2\^63"),
        ({"freeze": ("gpt", "sam", "clip", "projector")}, "--freeze .*nothing to train"),
        ({"image_size": 1000}, "--image-size 1000 .*multiple of 64"),
        ({"batch": 10, "micro_batch": 4}, "--batch 10 .*multiple of --micro-batch 4"),
        ({"text_ratio": Fraction(6, 5)}, "--text-ratio 6/5 .*0 .*to 1"),
        ({"text_ratio_at": ("9:-1/5",)}, "--text-ratio -1/5 .*0 .*to 1"),
        ({"text_ratio_at": ("1000",)}, "--text-ratio-at 1000: .*STEP:RATIO"),
        ({"text_ratio_at": ("10:1/0",)}, "--text-ratio-at 10:1/0: .*STEP:RATIO"),
        ({"text_ratio_at": ("9:1/2", "9:1/3")}, "--text-ratio-at 9:1/2 9:1/3: .*STEP:RATIO"),
        ({"steps": 10**9 + 1}, "--steps 1000000001 .*at most 1,000,000,000"),
        ({"batch": 10**18}, "--batch 10{18} .*at most 1,000,000"),
        ({"seq_len": 10**20}, "--seq-len 10{20} .*at most 10,000,000"),
        ({"init": ""}, "--init is empty: .*pretrained or random"),
        ({"init_parts": ("sam",)}, "--init-parts needs --init PATH: pretrained"),
        ({"init": "x", "init_parts": ("eyes",)}, "--init-parts 'eyes'.* sam, clip, projector, gpt"),
        ({"init": "x", "init_parts": ("gpt",), "fresh_gpt": True}, "gpt .*--no-fresh-gpt"),
        ({"init": "x", "init_parts": ("sam,gpt",), "deepencoder": "y"}, "sam .*--deepencoder"),
        ({"freeze": ("sam", "eyes")}, "--freeze 'eyes'.* sam, clip, projector, gpt"),
        ({"train_slice": "100"}, "--train-slice '100' "),
        ({"val_slice": "[5]"}, r"--val-slice '\[5\]' "),
        ({"text_train_slice": ":5"}, "--text-train-slice ':5' "),
        ({"text_val_slice": "[a:b]"}, r"--text-val-slice: \[a:b\] "),
        ({"val_slice": "[::0]"}, "--val-slice: .*step.* 0"),
        ({"cache": "d"}, "--cache .*--cache-limit"),
        ({"shards": ("https://host/x.json?k=s",)}, r"--shards https://host/x\.json: "),
        ({"val_text": ("https://u:p@host/x.json[:9]",)}, r"--val-text https://host/x\.json: "),
        ({"cache": "d", "cache_limit": "9 GHz"}, "--cache-limit: .*'9 GHz'.*20GB"),
    ],
)
def test_errors_name_the_flag_and_the_rule(values: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        dataclasses.replace(Config(), **values)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"clip_width": 512}, "--clip-width .512. .*--sam-out .1024."),
        ({"gpt_heads": 7}, "--gpt-width .1280. .*multiple of --gpt-heads .7."),
        ({"sam_heads": 0}, "--sam-width .768. .*multiple of --sam-heads .0."),
        ({"gpt_layers": 10**15}, "--gpt-layers .*from 1 to 10,000,000, not 10{15}"),
        ({"rope_theta": float("inf")}, "--rope-theta .*from 1 to 10,000,000, not inf"),
    ],
)
def test_impossible_model_sizes_are_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        ModelConfig(**values)


def test_differences_leave_out_settings_that_may_change() -> None:
    old = Config()
    new = dataclasses.replace(
        old, lr=1e-4, seed=3, workers=7, out="elsewhere", model=ModelConfig(gpt_layers=3)
    )
    assert differences(old, new) == [
        "--seed: 0 in the run, 3 given",
        "--gpt-layers: 20 in the run, 3 given",
    ]


def test_all_that_is_wrong_is_told_at_once() -> None:
    with pytest.raises(UsageErrors) as caught:
        Config(steps=0, lr=-1.0, image_size=10, freeze=("eyes",), val_slice="5", seq_len=0)
    flags = ("--freeze", "--steps", "--seq-len", "--lr", "--val-slice", "--image-size")
    assert len(caught.value.messages) == len(flags)
    assert all(any(line.startswith(flag) for line in caught.value.messages) for flag in flags)
    with pytest.raises(UsageErrors) as caught:
        ModelConfig(clip_width=512, gpt_heads=7)
    assert len(caught.value.messages) == 2


@pytest.mark.parametrize(("warmup", "steps", "used"), [(9, 10, 9), (10, 10, 9), (500, 2, 1),
                                                       (5, 1, 0)])  # fmt: skip
def test_a_warm_up_longer_than_the_run_is_shortened(warmup: int, steps: int, used: int) -> None:
    config = Config(warmup=warmup, steps=steps)
    assert (config.warmup_steps, config.warmup) == (used, warmup)


def test_a_micro_batch_larger_than_the_batch_is_the_whole_batch() -> None:
    assert Config(batch=3, micro_batch=4).rows_per_pass == 3
    assert Config(batch=4, micro_batch=2).rows_per_pass == 2


def test_configs_saved_before_a_field_was_added_are_read() -> None:
    value = to_json(Config())
    older = {item.name: item.metadata["older"] for item in dataclasses.fields(Config)
             if item.metadata and item.metadata["older"] is not None}  # fmt: skip
    assert "log_every" in older
    found = from_json({k: v for k, v in value.items() if k not in older})
    assert found == dataclasses.replace(Config(), **older)


def test_the_limit_of_the_cache_is_in_bytes() -> None:
    assert Config().cache_bytes == 0
    assert Config(cache="d", cache_limit="1.5GiB").cache_bytes == 3 << 29


def test_flag_names_are_unique() -> None:
    names = [item.name for kind in (Config, ModelConfig) for item in dataclasses.fields(kind)]
    assert len(set(names)) == len(names)
    assert flag_name("seq_len") == "--seq-len"


def test_a_row_has_at_least_two_tokens() -> None:
    with pytest.raises(UsageError, match=r"--seq-len 1 .*at least 2"):
        Config(seq_len=1)
