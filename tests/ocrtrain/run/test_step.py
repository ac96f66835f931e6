"""One optimizer step, in runs of a small model."""

import json
import math
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from ocrdata.errors import TrainError, UsageError
from ocrdata.sample import from_turns
from ocrdata.tokens.tokenizer import load_tokenizer
from ocrtrain.data.run_plan import plan_run
from ocrtrain.data.sources import open_sources
from ocrtrain.data.stream import Stream
from ocrtrain.model.factory import bare_model, with_vocabulary
from ocrtrain.run import run_log
from ocrtrain.run.launch import train
from ocrtrain.run.optimizer import learning_rate
from ocrtrain.run.timer import PARTS
from ocrtrain.settings.config import Config
from ocrtrain.state import checkpoint
from ocrtrain.state.checkpoint import Checkpoint
from tests.support.data import losses, small_config, square, write_set
from tests.support.losses import token_losses

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


def packed_and_mixed(inputs: dict[str, str], run: Path, **values: Any) -> Config:
    """Packed rows of squares and of sums, mixed within batches, in several passes a step."""
    defaults = {
        "text": (inputs["text"] + "[:30]",), "val_text": (inputs["text"] + "[30:]",),
        "text_ratio": Fraction(1, 2), "mix": "sample", "pack": True, "pack_window": 16, "steps": 5,
        "batch": 4, "micro_batch": 2, "eval_every": 0, "save_every": 1, "seq_len": 96,
    }  # fmt: skip
    return small_config(inputs, run, **{**defaults, **values})


def test_the_numbers_of_the_log_are_those_of_the_plan(
    inputs: dict[str, str], tmp_path: Path
) -> None:
    run = tmp_path / "run"
    config = packed_and_mixed(inputs, run)
    assert train(replace(config, stop_at=2)) == 0
    assert train(config, resume=True) == 0
    lines = [line for line in run_log.read(run) if "train/loss" in line]
    tokenizer, sources = load_tokenizer(config.tokenizer), open_sources(config)
    planned = plan_run(config, sources, tokenizer)
    sums = planned.totals.sums

    def logged(name: str) -> float:
        return sum(line[f"train/{name}"] for line in lines)

    assert logged("tokens") == sums.tokens == lines[-1]["train/total_tokens"]
    assert logged("images") == sums.images
    assert logged("supervised") == sums.supervised
    stream = Stream(planned.plan, sources, config, tokenizer=tokenizer)
    for line in lines:
        batch = stream.batch(line["step"])
        assert any(len(row.segments) > 1 for row in batch.rows)
        parts = batch.split(config.rows_per_pass)
        positions = sum(part.input_ids.numel() for part in parts)
        assert line["train/positions"] == positions
        assert line["train/padding"] == 1 - batch.tokens / positions
        assert line["train/lr"] == learning_rate(config, line["step"])
        for name in sources.train:
            rows = [row for row in batch.rows if row.source == name]
            assert line[f"train/{name}_tokens"] == sum(row.length for row in rows)
            assert line[f"mix/{name}_share"] == len(rows) / len(batch.rows)
    last = Checkpoint.open(checkpoint.complete_checkpoints(run)[-1]).state
    for name in sources.train:
        assert logged(f"{name}_tokens") == lines[-1][f"train/{name}_total_tokens"] > 0
        assert last.source_tokens[name] == logged(f"{name}_tokens")
        assert last.source_supervised[name] == logged(f"{name}_supervised")
    assert sum(last.source_tokens.values()) == sums.tokens


def test_the_loss_of_a_source_is_that_of_its_supervised_tokens(
    inputs: dict[str, str], tmp_path: Path
) -> None:
    run = tmp_path / "run"
    config = packed_and_mixed(inputs, run)
    assert train(config) == 0
    tokenizer, sources = load_tokenizer(config.tokenizer), open_sources(config)
    stream = Stream(plan_run(config, sources, tokenizer).plan, sources, config, tokenizer=tokenizer)
    both = 0
    for line in run_log.read(run):
        if "train/loss" not in line or not line["step"]:
            continue
        saved = Checkpoint.open(checkpoint.step_folder(run, line["step"]))
        model = bare_model(with_vocabulary(config, tokenizer), tokenizer)
        saved.load_weights(model)
        batch = stream.batch(line["step"])
        losses, rows = token_losses(model, batch)
        total = 0.0
        for name in sources.train:
            mine = torch.tensor([row.source == name for row in batch.rows])[rows]
            count = int(mine.sum())
            assert line[f"train/{name}_supervised"] == count
            total += line[f"train/{name}_loss"] * count
            wanted = float(losses[mine].double().mean())
            assert line[f"train/{name}_loss"] == pytest.approx(wanted, rel=1e-5)
            both += 1
        assert total / line["train/supervised"] == pytest.approx(line["train/loss"], rel=1e-6)
    assert both == 8


def test_the_parts_of_a_step_add_up_to_its_time(inputs: dict[str, str], tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert train(small_config(inputs, run, micro_batch=2, steps=6)) == 0
    lines = [line for line in run_log.read(run) if "train/loss" in line]
    for line in lines:
        parts = {name: line[f"train/time_{name}"] for name in (*PARTS, "other")}
        assert min(parts.values()) >= 0
        assert sum(parts.values()) == pytest.approx(line["train/dt"], rel=1e-9)
        assert all(parts[name] > 0 for name in ("data", "forward", "backward", "optimizer"))
        # What is no part: the loss is read, and the batch's line written.
        assert parts["other"] < 0.05 + 0.1 * line["train/dt"]
    timed = {name: sum(name in line for line in run_log.read(run)) for name in
             ("time/validation", "time/saving")}  # fmt: skip
    assert timed == {"time/validation": 2, "time/saving": 2}


def test_a_checkpoint_of_an_older_version_counts_from_its_resume(
    inputs: dict[str, str], tmp_path: Path
) -> None:
    run = tmp_path / "run"
    config = packed_and_mixed(inputs, run)
    assert train(replace(config, stop_at=3)) == 0
    (path,) = run.glob("checkpoints/step_000003/state.json")
    document = json.loads(path.read_text())
    for name in ("source_tokens", "source_supervised"):
        del document["state"][name]
    path.write_text(json.dumps(document))
    (path.parent / checkpoint.COMPLETE).unlink()
    checkpoint.write_completion_marker(path.parent)
    assert train(config, resume=True) == 0
    lines = [line for line in run_log.read(run) if "train/loss" in line]
    state = Checkpoint.open(checkpoint.complete_checkpoints(run)[-1]).state
    assert sum(state.source_tokens.values()) == sum(m["train/tokens"] for m in lines[3:])
    assert state.total_tokens == sum(m["train/tokens"] for m in lines)


@pytest.mark.parametrize("off", [0.0, math.inf])
def test_no_clipping_is_clipping_at_a_norm_that_none_has(
    off: float, inputs: dict[str, str], tmp_path: Path
) -> None:
    assert train(small_config(inputs, tmp_path / "off", grad_clip=off, stop_at=5)) == 0
    assert train(small_config(inputs, tmp_path / "off", grad_clip=off), resume=True) == 0
    assert train(small_config(inputs, tmp_path / "high", grad_clip=1e9)) == 0
    assert losses(tmp_path / "off") == losses(tmp_path / "high")
    with pytest.raises(UsageError, match=r"--grad-clip -1.* 0 "):
        small_config(inputs, tmp_path, grad_clip=-1.0)
