"""Every rule names the flag, the value and what holds."""

from __future__ import annotations

import dataclasses
from fractions import Fraction
from typing import Any

import pytest

from ocrdata.errors import UsageError, UsageErrors
from ocrtrain.settings.config import Config
from ocrtrain.settings.model_config import ModelConfig


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"steps": 0}, "--steps 0 .*at least 1"),
        ({"lr": float("nan")}, "--lr nan .*above 0 and finite"),
        ({"workers": -1}, "--workers -1 .*at least 0"),
        ({"weight_decay": float("inf")}, "--weight-decay inf .*finite"),
        ({"beta2": 1.0}, "--beta2 1.0 .*at least 0 and below 1"),
        ({"seed": 2**63}, r"--seed 9223372036854775808 .*2\^63"),
        ({"freeze": ("gpt", "sam", "clip", "projector")}, "--freeze .*nothing to train"),
        ({"image_size": 1000}, "--image-size 1000 .*multiple of 64"),
        ({"batch": 10, "micro_batch": 4}, "--batch 10 .*multiple of --micro-batch 4"),
        ({"text_ratio": Fraction(6, 5)}, "--text-ratio 1.2 .*0 .*to 1"),
        ({"text_ratio": Fraction(4, 3)}, "--text-ratio 4/3 "),
        ({"text_ratio_at": ("9:-1/5",)}, "--text-ratio-at 9:-0.2: .*0 .*to 1"),
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
        ({"val_answers": -1}, "--val-answers -1 must be at least 0"),
        ({"val_answers": 9, "parallel": "fsdp"}, "--val-answers .*--parallel fsdp"),
        ({"shards": ("https://host/x.json?k=s",)}, r"--shards https://host/x\.json: "),
        ({"val_text": ("https://u:p@host/x.json[:9]",)}, r"--val-text https://host/x\.json: "),
        ({"cache": "d", "cache_limit": "9 GHz"}, "--cache-limit: .*'9 GHz'.*20GB"),
    ],
)
def test_errors_name_the_flag_and_the_rule(values: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        dataclasses.replace(Config(), **values)


def test_all_that_is_wrong_is_told_at_once() -> None:
    with pytest.raises(UsageErrors) as caught:
        Config(steps=0, lr=-1.0, image_size=10, freeze=("eyes",), val_slice="5", seq_len=0)
    flags = ("--freeze", "--steps", "--seq-len", "--lr", "--val-slice", "--image-size")
    assert len(caught.value.messages) == len(flags)
    assert all(any(line.startswith(flag) for line in caught.value.messages) for flag in flags)
    with pytest.raises(UsageErrors) as caught:
        ModelConfig(clip_width=512, gpt_heads=7)
    assert len(caught.value.messages) == 2


def test_a_row_has_at_least_two_tokens() -> None:
    with pytest.raises(UsageError, match=r"--seq-len 1 .*at least 2"):
        Config(seq_len=1)
