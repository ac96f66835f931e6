"""Ways of attention are timed, and those that cannot be used are told apart."""

from __future__ import annotations

import pytest
import torch

from ocrdata.errors import UsageError
from ocrtrain.model import attention_trial
from ocrtrain.model.attention import WAYS
from ocrtrain.model.attention_trial import Trial, check_way, try_ways
from ocrtrain.settings.model_config import ModelConfig

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
SMALL = ModelConfig(gpt_width=32, gpt_heads=2)


def test_what_needs_a_gpu_is_refused_elsewhere() -> None:
    for way in ("flex", "varlen"):
        with pytest.raises(UsageError, match=f"--attention {way} needs a GPU.* cpu"):
            check_way(way, CPU, None)
    with pytest.raises(UsageError, match="--attention varlen needs --precision bf16"):
        check_way("varlen", CUDA, None)
    for way in ("auto", "sdpa", "flex"):
        check_way(way, CUDA, None)
        check_way(way, CUDA, torch.bfloat16)
    check_way("varlen", CUDA, torch.bfloat16)
    for way in ("auto", "sdpa"):
        check_way(way, CPU, None)


def test_a_trial_times_what_works_and_says_why_the_rest_does_not() -> None:
    trial = try_ways(SMALL, ((5, 3), (6, 2)), device=CPU, dtype=None)
    assert trial.seconds.keys() | trial.unusable.keys() == set(WAYS)
    assert trial.fastest == "sdpa" and trial.seconds["sdpa"] > 0
    assert all("needs a GPU" in why for why in trial.unusable.values())


def test_a_way_that_fails_in_its_kernel_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> float:
        raise RuntimeError("no kernel image\nis available")

    monkeypatch.setattr(attention_trial, "check_way", lambda *_: None)
    monkeypatch.setitem(WAYS, "varlen", broken)
    monkeypatch.setitem(WAYS, "flex", broken)
    trial = try_ways(SMALL, ((5, 3),), device=CPU, dtype=None)
    assert trial.unusable == {"varlen": "no kernel image", "flex": "no kernel image"}
    assert trial.seconds.keys() == {"sdpa"}


def test_the_fastest_has_the_least_time() -> None:
    assert Trial({"sdpa": 3.0, "flex": 1.0, "varlen": 2.0}, {}).fastest == "flex"
