"""One optimizer step, in runs of a small model."""

import math
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from ocrdata.errors import TrainError, UsageError
from ocrdata.sample import from_turns
from ocrdata.tokens.tokenizer import load_tokenizer
from ocrtrain.run import run_log
from ocrtrain.run.launch import train
from ocrtrain.settings.config import Config
from tests.support.data import losses, small_config, square, write_set

pytestmark = pytest.mark.usefixtures("one_thread")


def test_a_loss_that_is_not_finite_names_the_samples(
    inputs: dict[str, str], tmp_path: Path
) -> None:
    wanted = r"(?s)step \d+: loss .*gradient norm .*squares-00.*--lr"
    with pytest.raises(TrainError, match=wanted) as caught:
        train(small_config(inputs, tmp_path / "run", lr=1e30, grad_clip=1e30, warmup=0))
    assert str(caught.value).count("squares-00") == 4


def frozen_gpt(inputs: dict[str, str], run: Path, **values: Any) -> Config:
    """A run of squares and sums that trains the encoder alone."""
    return small_config(
        inputs, run, text=(inputs["text"] + "[:30]",), val_text=(inputs["text"] + "[30:]",),
        text_ratio=Fraction(1, 2), freeze=("gpt",), steps=6, warmup=0, eval_every=0, **values,
    )  # fmt: skip


def weights(run: Path, step: int) -> dict[str, torch.Tensor]:
    return load_file(run / "checkpoints" / f"step_{step:06d}" / "model.safetensors")


def test_text_with_a_frozen_gpt_has_a_loss_and_changes_nothing(
    inputs: dict[str, str], tmp_path: Path
) -> None:
    run = tmp_path / "run"
    assert train(frozen_gpt(inputs, run, save_every=1, weight_decay=0.1)) == 0
    steps = [line for line in run_log.read(run) if "train/loss" in line]
    assert [line["train/images"] > 0 for line in steps].count(False) == 3
    assert all(math.isfinite(line["train/loss"]) for line in steps)
    for line in steps[1:]:
        before, after = weights(run, line["step"]), weights(run, line["step"] + 1)
        same = {name for name in before if torch.equal(before[name], after[name])}
        frozen = {name for name in before if name.startswith("gpt.")}
        assert frozen < before.keys()
        assert same == (frozen if line["train/images"] else before.keys()), line["step"]
        assert (line["train/grad_norm"] > 0) == (line["train/images"] > 0)


def test_a_pass_of_text_with_a_frozen_gpt_adds_no_gradient(
    inputs: dict[str, str], tmp_path: Path
) -> None:
    for name, micro_batch in (("whole", 0), ("single", 1)):
        config = frozen_gpt(
            inputs, tmp_path / name, mix="sample", micro_batch=micro_batch, save_every=0
        )
        assert train(config) == 0
    whole, single = losses(tmp_path / "whole"), losses(tmp_path / "single")
    assert single == [(step, pytest.approx(loss, rel=2e-5)) for step, loss in whole]
    one, other = weights(tmp_path / "whole", 6), weights(tmp_path / "single", 6)
    for name, tensor in one.items():
        torch.testing.assert_close(other[name], tensor, rtol=1e-3, atol=1e-5)


def test_a_batch_without_a_token_to_predict_is_no_error(
    inputs: dict[str, str], tmp_path: Path
) -> None:
    questions = ["What colour?", "word " * 300, "What colour?"]
    samples = [
        from_turns([(question, "red")], [square("red")], source="", meta={})
        for question in questions
    ]
    spec = write_set(tmp_path, "long", samples)
    config = small_config(
        inputs, tmp_path / "run", shards=(spec,), freeze=("gpt",), batch=1, steps=3, shuffle="none",
    )  # fmt: skip
    assert train(config) == 0
    steps = [line for line in run_log.read(tmp_path / "run") if "train/loss" in line]
    red = len(load_tokenizer(inputs["tokenizer"]).encode("red")) + 1
    assert [line["train/supervised"] for line in steps] == [red, 0, red]
    assert [line["train/loss"] is None for line in steps] == [False, True, False]
    assert steps[1]["train/grad_norm"] == 0


def test_a_run_that_would_train_nothing_is_refused(inputs: dict[str, str], tmp_path: Path) -> None:
    values = {"shards": (), "val": (), "source": (f"sums={inputs['text']}:1",)}
    with pytest.raises(UsageError, match=r"--freeze gpt: .*image"):
        train(small_config(inputs, tmp_path / "run", freeze=("gpt",), **values))
