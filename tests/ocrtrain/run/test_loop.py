"""Whole runs of a small model, in this process."""

import json
import signal
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import torch

from ocrtrain.data.run_plan import plan_run
from ocrtrain.data.sources import open_sources
from ocrtrain.data.stream import Stream
from ocrtrain.model.factory import find_tokenizer
from ocrtrain.run import loop, run_log
from ocrtrain.run.launch import train
from ocrtrain.run.trained import load_for_inference
from ocrtrain.settings.config import Config
from ocrtrain.state import checkpoint
from ocrtrain.state.checkpoint import Checkpoint
from tests.support.data import losses, small_config

pytestmark = pytest.mark.usefixtures("one_thread")


def validations(run: Path) -> list[dict[str, Any]]:
    return [m for m in run_log.read(run) if "val/loss" in m]


@pytest.fixture(scope="module")
def unbroken(inputs: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("unbroken") / "run"
    torch.set_num_threads(1)
    assert train(small_config(inputs, run)) == 0
    return run


def test_a_finished_run_folder_has_exactly_these_files(unbroken: Path) -> None:
    names = {path.name for path in unbroken.iterdir()}
    assert names == {
        "config.json", "plan.json", "tokenizer.json", "metrics.jsonl", "batches.jsonl",
        "checkpoints", "deepencoder_000012.safetensors",
    }  # fmt: skip
    assert [folder.name for folder in checkpoint.complete_checkpoints(unbroken)] == [
        "step_000004", "step_000008", "step_000012",
    ]  # fmt: skip
    recipe = json.loads((unbroken / "plan.json").read_text())
    assert recipe["sources"][0]["size"] == 48
    assert recipe["sources"][0]["digest"]


def test_every_metric_is_logged_at_its_steps(unbroken: Path) -> None:
    lines = run_log.read(unbroken)
    trained = [line for line in lines if "train/loss" in line]
    assert [line["step"] for line in trained] == list(range(12))
    for line in trained:
        assert set(line) >= {
            "train/loss", "train/lr", "train/dt", "train/wait", "train/tok_per_sec",
            "train/total_flops", "train/grad_norm", "train/padding", "mix/squares_share",
        }  # fmt: skip
        assert 0 <= line["train/wait"] <= line["train/dt"]
        assert line["train/tok_per_sec"] == pytest.approx(line["train/tokens"] / line["train/dt"])
        assert "train/mfu" not in line  # the peak of a CPU is not known
    assert [line["step"] for line in validations(unbroken)] == [0, 6, 12]
    for line in validations(unbroken):
        assert set(line) >= {
            "val/loss", "val/squares_loss", "val/image_gain", "val/image_gain_head",
            "val/image_similarity", "val/feature_std",
        }  # fmt: skip
    assert validations(unbroken)[-1]["val/loss"] < validations(unbroken)[0]["val/loss"]


def test_logged_tokens_are_the_real_tokens_of_the_batches(
    inputs: dict[str, str], unbroken: Path
) -> None:
    config = small_config(inputs, unbroken)
    stream = make_stream(config)
    logged = [m["train/tokens"] for m in run_log.read(unbroken) if "train/tokens" in m]
    assert logged == [stream.batch(step).tokens for step in range(12)]


def make_stream(config: Config) -> Stream:
    tokenizer = find_tokenizer(config)
    sources = open_sources(config)
    plan = plan_run(config, sources, tokenizer).plan
    return Stream(plan, sources, config, tokenizer=tokenizer)


@pytest.mark.parametrize("stop", [1, 4, 7])
def test_a_stopped_and_resumed_run_is_bit_identical(
    stop: int, inputs: dict[str, str], unbroken: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    assert train(small_config(inputs, run, stop_at=stop)) == 0
    assert [step for step, _ in losses(run)] == list(range(stop))
    assert train(small_config(inputs, run, workers=3), resume=True) == 0
    assert losses(run) == losses(unbroken)
    assert validations(run) == validations(unbroken)
    last = "checkpoints/step_000012/model.safetensors"
    assert (run / last).read_bytes() == (unbroken / last).read_bytes()


@pytest.mark.parametrize("workers", [0, 2, 3])
def test_the_number_of_workers_changes_nothing(
    workers: int, inputs: dict[str, str], unbroken: Path, tmp_path: Path
) -> None:
    assert train(small_config(inputs, tmp_path / "run", workers=workers)) == 0
    assert losses(tmp_path / "run") == losses(unbroken)


def test_micro_batches_change_only_the_last_bits(
    inputs: dict[str, str], unbroken: Path, tmp_path: Path
) -> None:
    assert train(small_config(inputs, tmp_path / "run", micro_batch=1)) == 0
    for (_, one), (_, other) in zip(losses(tmp_path / "run"), losses(unbroken), strict=True):
        assert one == pytest.approx(other, rel=2e-5)


def test_stage_2_trains_on_the_encoder_of_stage_1(
    inputs: dict[str, str], unbroken: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    config = small_config(
        inputs, run, name="stage2", text=(inputs["text"] + "[:30]",),
        val_text=(inputs["text"] + "[30:]",), freeze=("sam",), fresh_gpt=True, schedule="step",
        deepencoder=str(unbroken / "deepencoder_000012.safetensors"), steps=14, seed=1,
    )  # fmt: skip
    assert train(config) == 0
    shares = [m["mix/sums_share"] for m in run_log.read(run) if "mix/sums_share" in m]
    assert sum(shares) == 5  # 10/28 of 14 steps
    assert {"val/squares_loss", "val/sums_loss"} <= set(validations(run)[-1])
    first = load_for_inference(unbroken, torch.device("cpu")).model.encoder
    second = load_for_inference(run, torch.device("cpu")).model.encoder
    sam = {k: torch.equal(v, second.sam.state_dict()[k]) for k, v in first.sam.state_dict().items()}
    assert all(sam.values())
    assert not torch.equal(first.projector.weight, second.projector.weight)


def test_sources_can_be_mixed_within_batches(inputs: dict[str, str], tmp_path: Path) -> None:
    config = small_config(
        inputs, tmp_path / "run", text=(inputs["text"] + "[:30]",), mix="sample", batch=7,
        val_text=(inputs["text"] + "[30:]",), steps=4, save_every=0,
    )  # fmt: skip
    assert train(config) == 0
    shares = [m["mix/sums_share"] for m in run_log.read(tmp_path / "run") if "mix/sums_share" in m]
    assert sum(shares) * 7 == pytest.approx(10)
    assert all(0 < share < 1 for share in shares)


def test_text_alone_trains_the_decoder(inputs: dict[str, str], tmp_path: Path) -> None:
    config = small_config(
        inputs, tmp_path / "run", shards=(), val=(), text=(inputs["text"] + "[:30]",),
        val_text=(inputs["text"] + "[30:]",), text_ratio=Fraction(1),
    )  # fmt: skip
    assert train(config) == 0
    steps = [m for m in run_log.read(tmp_path / "run") if "train/loss" in m]
    assert {m["mix/sums_share"] for m in steps} == {1} and {m["train/images"] for m in steps} == {0}
    first, *_, last = validations(tmp_path / "run")
    assert (
        set(last) == {"step", "val/loss", "val/sums_loss"} and last["val/loss"] < first["val/loss"]
    )


def test_ctrl_c_saves_and_says_how_to_resume(
    inputs: dict[str, str], unbroken: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    original = Stream.assembly

    def interrupting(self: Stream, step: int) -> Any:
        if step == 5:
            signal.raise_signal(signal.SIGINT)
        return original(self, step)

    monkeypatch.setattr(Stream, "assembly", interrupting)
    run = tmp_path / "run"
    assert train(small_config(inputs, run, workers=0)) == 130
    printed = capsys.readouterr().out
    assert "stopped at step 6 of 12, saved" in printed
    assert f"python -m ocrtrain.stage1 --out {run} --resume" in printed
    monkeypatch.undo()
    assert train(small_config(inputs, run), resume=True) == 0
    assert losses(run) == losses(unbroken)


@pytest.mark.parametrize("step", [0, 6, 12])
def test_a_validation_that_is_broken_off_is_saved_before_and_repeated_when_resumed(
    step: int, inputs: dict[str, str], unbroken: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    run, original, begun = tmp_path / "run", loop.validate, []

    def stopped(*arguments: Any) -> Any:
        begun.append(arguments)
        if len(begun) == 1 + step // 6:
            signal.raise_signal(signal.SIGTERM)
        return original(*arguments)

    monkeypatch.setattr(loop, "validate", stopped)
    config = small_config(inputs, run, save_every=0)
    assert train(config) == 130
    assert [line["step"] for line in validations(run)] == list(range(0, step, 6))
    assert [at for at, _ in losses(run)] == list(range(step))
    saved = [Checkpoint.open(folder).state for folder in checkpoint.complete_checkpoints(run)]
    assert [state.step for state in saved] == ([step] if step else [])
    assert f"stopped at step {step} of 12" in capsys.readouterr().out
    monkeypatch.undo()
    assert train(config, resume=True) == 0
    assert losses(run) == losses(unbroken)
    assert validations(run) == validations(unbroken)


def test_the_last_checkpoint_has_the_state_of_the_run(unbroken: Path) -> None:
    found = Checkpoint.open(checkpoint.complete_checkpoints(unbroken)[-1])
    assert found.state.step == 12
    assert found.state.total_tokens > 0
    assert found.changed_versions() == []
