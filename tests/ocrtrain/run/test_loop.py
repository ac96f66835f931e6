"""Whole runs of a small model, in this process."""

import itertools
import json
import math
import signal
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import torch

from ocrdata.errors import DiskError, TrainError
from ocrtrain.data.run_plan import plan_run
from ocrtrain.data.sources import open_sources
from ocrtrain.data.stream import Stream
from ocrtrain.evaluation import validation
from ocrtrain.evaluation.sampled_answers import AnswerOptions, answer_numbers
from ocrtrain.model.factory import find_tokenizer
from ocrtrain.model.ocr_model import OcrModel
from ocrtrain.run import alarm, batch_log, loop, run_log
from ocrtrain.run.launch import train
from ocrtrain.run.trained import load_for_inference
from ocrtrain.settings.config import Config
from ocrtrain.state import checkpoint
from ocrtrain.state.checkpoint import Checkpoint
from tests.support.data import losses, small_config

pytestmark = pytest.mark.usefixtures("one_thread")


def validations(run: Path) -> list[dict[str, Any]]:
    """The validations of a run, without how long they took."""
    lines = [m for m in run_log.read(run) if "val/loss" in m]
    assert all(m.pop("time/validation") > 0 for m in lines)
    return lines


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


def test_questions_are_answered_in_validation(inputs: dict[str, str], tmp_path: Path) -> None:
    config = small_config(
        inputs, tmp_path / "run", steps=1, eval_every=0, save_every=0, val_answers=2
    )
    assert train(config) == 0
    (line,) = validations(tmp_path / "run")
    answers = {name: line[name] for name in ("val/accuracy", "val/ned", "val/loops")}
    assert all(0 <= value <= 1 for value in answers.values())
    loaded = load_for_inference(tmp_path / "run", torch.device("cpu"))
    again = answer_numbers(
        loaded.model, open_sources(config).validation, loaded.tokenizer, AnswerOptions(2)
    )
    assert again == {name: line[name] for name in again} and again.keys() >= answers.keys()


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


def fail_at(step: int, error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    """The loss of a step raises."""
    original = OcrModel.head_loss
    made = itertools.count()

    def failing(*arguments: Any) -> Any:
        if next(made) == step:
            raise error
        return original(*arguments)

    monkeypatch.setattr(OcrModel, "head_loss", failing)


CPU_FULL = RuntimeError("[enforce fail at alloc_cpu.cpp:127] data. DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes.")  # noqa: E501  # fmt: skip


@pytest.mark.parametrize(
    ("error", "raised", "told"),
    [
        (CPU_FULL, TrainError, r"step 5: out of memory .*--micro-batch 2.*--checkpointing"),
        (torch.OutOfMemoryError("CUDA out of memory."), TrainError, r"step 5: out of memory"),
        (ZeroDivisionError("a bug"), ZeroDivisionError, "a bug"),
    ],
)
def test_a_step_that_fails_leaves_the_state_before_it(
    error: Exception, raised: type[Exception], told: str, inputs: dict[str, str], unbroken: Path,
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    run = tmp_path / "run"
    config = small_config(inputs, run, save_every=2, keep=1)
    fail_at(5, error, monkeypatch)
    with pytest.raises(raised, match=told) as caught:
        train(config)
    if raised is TrainError:
        assert "\n" not in str(caught.value)
        assert caught.value.__context__ is None, "the error would keep the tensors of the step"
    found = [folder.name for folder in checkpoint.complete_checkpoints(run)]
    assert found == ["step_000004", "step_000005"]
    monkeypatch.undo()
    assert train(config, resume=True) == 0
    assert losses(run) == losses(unbroken)


def test_a_validation_that_runs_out_of_memory_says_so_and_loses_nothing(
    inputs: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = OcrModel.token_losses
    made = itertools.count()

    def failing(*arguments: Any) -> Any:
        if next(made) == 3:  # the validation of step 0 has two passes and one with swapped images
            raise CPU_FULL
        return original(*arguments)

    monkeypatch.setattr(OcrModel, "token_losses", failing)
    run = tmp_path / "run"
    with pytest.raises(TrainError, match=r"validation at 6: out of memory .*--val-batch 3"):
        train(small_config(inputs, run, save_every=0))
    assert [folder.name for folder in checkpoint.complete_checkpoints(run)] == ["step_000006"]


def test_a_loss_that_is_not_finite_leaves_the_state_before_it(
    inputs: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    original, made = OcrModel.head_loss, itertools.count()

    def infinite(*arguments: Any) -> Any:
        found = original(*arguments)
        return found._replace(loss_sum=found.loss_sum * (math.inf if next(made) == 5 else 1))

    monkeypatch.setattr(OcrModel, "head_loss", infinite)
    run = tmp_path / "run"
    with pytest.raises(TrainError, match=r"step 5: loss inf"):
        train(small_config(inputs, run, save_every=0))
    state = Checkpoint.open(checkpoint.complete_checkpoints(run)[-1]).state
    assert state.step == 5 and state.identity == batch_log.identity_at(run, 4)


def test_weights_that_are_not_finite_are_not_saved(
    inputs: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    original, made = OcrModel.head_loss, itertools.count()

    def spoiled(self: OcrModel, *arguments: Any) -> Any:
        if next(made) == 3:
            self.gpt.lm_head.weight.data[0, 0] = math.inf
        return original(self, *arguments)

    monkeypatch.setattr(OcrModel, "head_loss", spoiled)
    with pytest.raises(TrainError, match=r"step 3: loss"):
        train(small_config(inputs, tmp_path / "run", save_every=2))
    found = [one.name for one in checkpoint.complete_checkpoints(tmp_path / "run")]
    assert found == ["step_000002"]
    assert "not finite: not saved" in capsys.readouterr().out


def test_a_state_that_cannot_be_saved_does_not_hide_why_the_run_ended(
    inputs: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    def full(*_: Any, **__: Any) -> Any:
        raise DiskError("no space left")

    monkeypatch.setattr(checkpoint, "save", full)
    fail_at(2, ZeroDivisionError("a bug"), monkeypatch)
    with pytest.raises(ZeroDivisionError):
        train(small_config(inputs, tmp_path / "run", save_every=0))
    assert "WARNING: state 2 could not be saved: no space left" in capsys.readouterr().out


def test_the_last_checkpoint_has_the_state_of_the_run(unbroken: Path) -> None:
    found = Checkpoint.open(checkpoint.complete_checkpoints(unbroken)[-1])
    assert found.state.step == 12
    assert found.state.total_tokens > 0
    assert found.changed_versions() == []


def test_a_model_is_called_blind_only_once_its_loss_has_levelled_off(
    inputs: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(validation, "BLIND_GAIN", 99)  # no model looks that well
    assert train(small_config(inputs, tmp_path / "short")) == 0
    assert "ignores the images" not in capsys.readouterr().out
    monkeypatch.setattr(alarm, "ENOUGH_ANSWERS", 10)
    monkeypatch.setattr(alarm, "HALF", 2)
    monkeypatch.setattr(alarm, "LEAST_FALL", 9)
    assert train(small_config(inputs, tmp_path / "long")) == 0
    warnings = [line for line in capsys.readouterr().out.splitlines() if "ignores" in line]
    assert warnings and all("levelled off" in line for line in warnings)
    assert [line for line in warnings if line.startswith("WARNING at step 12:")]
