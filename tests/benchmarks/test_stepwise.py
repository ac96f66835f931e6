"""The product's training, as many steps as are wanted."""

from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.stepwise import train_while
from ocrtrain.run import loop, run_log
from ocrtrain.run.job import Job
from tests.support.small import CONFIG, squares


def test_the_wanted_steps_are_trained_and_nothing_is_saved(tmp_path: Path) -> None:
    spec, step, seen = squares(tmp_path).spec, loop.train_step, []
    config = replace(
        CONFIG, shards=(f"{spec}[:9]",), val=(f"{spec}[9:]",), tokenizer="bytes", steps=5,
        out=str(tmp_path / "run"), eval_every=0,
    )  # fmt: skip

    def wanted(job: Job) -> bool:
        seen.append(job.state.step)
        return job.state.step < 2

    train_while(config, wanted)
    assert seen == [0, 1, 2]
    lines = run_log.read(tmp_path / "run")
    assert [line["step"] for line in lines if "train/loss" in line] == [0, 1]
    assert not any("val/loss" in line for line in lines)
    assert not list((tmp_path / "run").rglob("*.safetensors"))
    assert loop.train_step is step
    with pytest.raises(ValueError, match="after 1 steps"):
        train_while(replace(config, steps=1, out=str(tmp_path / "other")), lambda _: True)
