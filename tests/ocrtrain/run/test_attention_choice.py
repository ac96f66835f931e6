"""The choice of `--attention auto` is made once on a GPU, recorded, and kept."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
import torch

from ocrdata.errors import TrainError, UsageError
from ocrdata.planning.plan import Plan
from ocrdata.planning.totals import PlanTotals, SampleSums, SourceTotals
from ocrtrain.data.run_plan import RunPlan
from ocrtrain.model.attention_trial import Trial
from ocrtrain.run import attention_choice
from ocrtrain.run.attention_choice import FILE, choose_attention, read_choice, typical_rows
from ocrtrain.run.launch import train
from ocrtrain.settings.config import Config
from tests.support.data import small_config

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
PACKED = Config(pack=True, batch=2)


def planned(tokens: int = 100, samples: int = 20, longest: int = 13) -> RunPlan:
    """Of a plan whose rows do not matter: its totals."""
    sums = SampleSums(samples=samples, tokens=tokens)
    source = SourceTotals("charts", samples, 0, 4, sums, 1.0, 1.0)
    totals = PlanTotals((source,), 2, 2, 26, longest, 3, (3,))
    return RunPlan(cast(Plan, None), totals, [], ())


def test_the_rows_of_the_trial_are_those_of_the_plan() -> None:
    assert typical_rows(PACKED, planned()) == ((5, 5, 3), (5, 5, 3))
    assert typical_rows(PACKED, planned(longest=15)) == ((5, 5, 5),) * 2
    assert typical_rows(replace(PACKED, micro_batch=1), planned(tokens=0)) == ((1,) * 13,)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What trials were made of, on a GPU that there is not."""
    found: list[Any] = []

    def trial(_: Any, lengths: Any, *, device: torch.device, dtype: torch.dtype | None) -> Trial:
        found.append((lengths, device.type, dtype))
        return Trial({"sdpa": 0.003, "flex": 0.001}, {"varlen": "no such kernel"})

    monkeypatch.setattr(attention_choice, "try_ways", trial)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "NVIDIA H200")
    return found


def test_a_cpu_and_rows_of_one_sample_need_no_trial(tmp_path: Path, asked: list[Any]) -> None:
    for config, device in ((PACKED, CPU), (replace(PACKED, pack=False), CUDA)):
        assert choose_attention(config, planned(), tmp_path, device, resumed=False) == ("sdpa", "")
    named = replace(PACKED, attention="flex")
    assert choose_attention(named, planned(), tmp_path, CUDA, resumed=False) == ("flex", "")
    assert not asked and not list(tmp_path.iterdir())


def test_the_fastest_on_a_gpu_is_recorded_and_kept(tmp_path: Path, asked: list[Any]) -> None:
    way, why = choose_attention(PACKED, planned(), tmp_path, CUDA, resumed=False)
    assert way == "flex"
    assert "sdpa 3 ms" in why and "flex 1 ms" in why and "varlen" in why and "no such kernel" in why
    assert asked == [(((5, 5, 3), (5, 5, 3)), "cuda", torch.bfloat16)]
    found = read_choice(tmp_path)
    assert found["seconds"] == {"sdpa": 0.003, "flex": 0.001}
    assert (found["device"], found["torch"]) == ("NVIDIA H200", torch.__version__)
    way, why = choose_attention(PACKED, planned(), tmp_path, CUDA, resumed=True)
    assert way == "flex" and "NVIDIA H200" in why
    assert len(asked) == 1  # a run that goes on keeps it,
    choose_attention(PACKED, planned(), tmp_path, CUDA, resumed=False)
    assert len(asked) == 2  # and what another run left in the folder does not count
    assert choose_attention(PACKED, planned(), tmp_path, CPU, resumed=True) == ("sdpa", "")


def test_a_record_that_is_not_intact_is_refused(tmp_path: Path, asked: list[Any]) -> None:
    choose_attention(PACKED, planned(), tmp_path, CUDA, resumed=False)
    text = (tmp_path / FILE).read_text()
    (tmp_path / FILE).write_text(text.replace('"flex"', '"sdpa"'))
    with pytest.raises(TrainError, match=FILE):
        read_choice(tmp_path)
    attention_choice.write_choice(tmp_path, {"chosen": "magic"})
    with pytest.raises(TrainError, match="magic"):
        choose_attention(PACKED, planned(), tmp_path, CUDA, resumed=True)


def test_a_way_of_gpus_is_refused_before_anything_is_written(
    inputs: dict[str, str], tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match="--attention varlen needs a GPU"):
        train(small_config(inputs, tmp_path / "run", pack=True, attention="varlen"))
    assert not (tmp_path / "run").exists()
