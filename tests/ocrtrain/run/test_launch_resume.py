"""Resuming a run: what may change, what is refused, and what is cleaned up."""

from __future__ import annotations

import json
import shutil
from dataclasses import fields, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from ocrdata.errors import TrainError, UsageError
from ocrdata.storage.locks import Lock
from ocrtrain.model.factory import bare_model
from ocrtrain.run import run_log
from ocrtrain.run.launch import start, train
from ocrtrain.run.optimizer import build_optimizer
from ocrtrain.settings.config import Config
from ocrtrain.settings.fields import flag_name
from ocrtrain.settings.flags import ParsedFlags, parse
from ocrtrain.settings.presets import stage1, stage2
from ocrtrain.settings.rules import CHOICES
from ocrtrain.settings.saved_config import from_json
from ocrtrain.state import checkpoint
from ocrtrain.state.run_files import read_sealed, write_sealed
from tests.support.data import flags, losses, small_config
from tests.support.rows import flip

pytestmark = pytest.mark.usefixtures("one_thread")


def saved_config(run: Path) -> Config:
    return from_json(read_sealed(run / "config.json"))


def contents(run: Path) -> dict[str, bytes]:
    return {str(p.relative_to(run)): p.read_bytes() for p in run.rglob("*") if p.is_file()}


@pytest.fixture(scope="module")
def unbroken(inputs: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("unbroken") / "run"
    torch.set_num_threads(1)
    assert train(small_config(inputs, run)) == 0
    return run


@pytest.fixture(scope="module")
def stopped(inputs: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run stopped at step 2; tests work on copies."""
    run = tmp_path_factory.mktemp("stopped") / "run"
    torch.set_num_threads(1)
    assert train(small_config(inputs, run, stop_at=2)) == 0
    return run


@pytest.fixture
def run(stopped: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(stopped, tmp_path / "run"))


def resume(run: Path, *words: str) -> int:
    """What `python -m ocrtrain.stage1 --out RUN --resume WORDS` does."""
    typed = ["--preset", "tiny", "--out", str(run), "--resume", *words]
    return start(parse(typed, stage1, prog="stage1", description=""))


def test_resume_without_a_run_starts_what_was_typed(
    inputs: dict[str, str], unbroken: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    typed = [*flags(small_config(inputs, run)), "--resume"]
    assert start(parse(typed, stage1, prog="stage1", description="")) == 0
    assert losses(run) == losses(unbroken)


def test_resume_needs_only_the_run_folder(
    run: Path, unbroken: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert resume(run) == 0
    printed = capsys.readouterr().out
    assert f"resuming at step 2 from {run / 'checkpoints' / 'step_000002'}" in printed
    assert f"done: 12 steps in {run}" in printed
    assert "last bits" not in printed
    assert losses(run) == losses(unbroken)
    assert saved_config(run) == replace(saved_config(unbroken), out=str(run))


def test_a_run_with_muon_resumes_with_the_same_bits(inputs: dict[str, str], tmp_path: Path) -> None:
    settings: dict[str, Any] = {
        "optimizer": "muon", "lr": 0.01, "lr_adamw": 0.001, "schedule": "linear", "steps": 6,
        "weight_decay": 0.1, "text": (inputs["text"],), "eval_every": 0,
    }  # fmt: skip
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert train(small_config(inputs, whole, **settings)) == 0
    assert train(small_config(inputs, parts, **settings, stop_at=3)) == 0
    assert resume(parts) == 0
    assert losses(parts) == losses(whole)
    tensors = [load_file(run / "checkpoints" / "step_000006" / "optimizer.safetensors")
               for run in (whole, parts)]  # fmt: skip
    assert tensors[0].keys() == tensors[1].keys()
    assert all(torch.equal(tensor, tensors[1][name]) for name, tensor in tensors[0].items())
    kinds = {name.split("/")[0] for name in tensors[0]}
    assert kinds == {"momentum", "exp_avg", "exp_avg_sq", "step"}


def test_typing_all_settings_again_changes_nothing(
    inputs: dict[str, str], run: Path, unbroken: Path
) -> None:
    typed = [*flags(small_config(inputs, run)), "--resume"]
    assert "--vocab-size 0 " in " ".join(typed) + " "  # the tokenizer's, which is 300
    assert start(parse(typed, stage1, prog="stage1", description="")) == 0
    assert losses(run) == losses(unbroken)
    assert saved_config(run).model.vocab_size == 300


def test_only_the_vocabulary_size_of_the_run_may_be_typed(run: Path) -> None:
    with pytest.raises(UsageError, match=r"--vocab-size: 300 .*\b301\b"):
        resume(run, "--vocab-size", "301")
    assert resume(run, "--vocab-size", "300") == 0


def test_settings_that_no_batch_depends_on_may_change(
    run: Path, unbroken: Path, tmp_path: Path
) -> None:
    words = ["--workers", "0", "--eval-every", "5", "--save-every", "3", "--keep", "1", "--device",
             "auto", "--wandb-project", "other", "--stop-at", "7",
             "--cache", str(tmp_path / "cache"), "--cache-limit", "1GB"]  # fmt: skip
    assert resume(run, *words) == 0
    config = saved_config(run)
    assert (config.workers, config.eval_every, config.save_every, config.keep) == (0, 5, 3, 1)
    assert (config.device, config.wandb_project, config.stop_at) == ("auto", "other", 7)
    assert (config.cache, config.cache_bytes) == (str(tmp_path / "cache"), 10**9)
    assert [folder.name for folder in checkpoint.complete_checkpoints(run)] == ["step_000007"]
    assert losses(run) == losses(unbroken)[:7]
    assert [m["step"] for m in run_log.read(run) if "val/loss" in m] == [0, 5]
    assert resume(run) == 0  # the saved --stop-at no longer counts
    assert losses(run) == losses(unbroken)


CHANGE = {item.name for item in fields(Config) if item.metadata.get("change")}
RUNTIME = {item.name for item in fields(Config) if item.metadata.get("runtime")}
FIXED = [
    item.name
    for item in fields(Config)
    # The last two need a --source and a path of --init.
    if item.name not in RUNTIME | CHANGE | {"model", "out", "name", "tokenizer", "init_parts"}
]


def another(config: Config, name: str) -> Any:
    """Another valid value for a setting."""
    value = getattr(config, name)
    if name in CHOICES and name != "freeze":
        return next(choice for choice in CHOICES[name] if choice != value)
    if name.endswith("slice"):
        return "[:7]"
    if name == "text_ratio_at":
        return ("5:1/10",)
    steps = {"image_size": 64, "micro_batch": 4}
    others: dict[type, Any] = {
        bool: lambda: not value,
        Fraction: lambda: value / 2,
        tuple: lambda: ("sam",) if name == "freeze" else (*value, "more.tar"),
        str: lambda: value + "x",
        float: lambda: value / 2 or 0.5,
        int: lambda: value + steps.get(name, 1),
    }
    return others[type(value)]()


def test_exactly_these_settings_may_change() -> None:
    assert {
        "eval_every", "save_every", "keep", "stop_at", "workers", "device", "wandb",
        "wandb_project", "log_to", "profile", "shards", "text", "val", "val_text", "log_samples",
        "bad_samples", "max_bad", "source", "val_source", "allow_leak", "log_every", "cache",
        "cache_limit", "parallel", "val_answers",
    } == RUNTIME  # fmt: skip
    assert {
        "lr", "sam_lr_scale", "clip_lr_scale", "schedule", "schedule_from", "warmup", "step_every",
        "step_factor", "decay_part", "lr_adamw", "momentum", "weight_decay", "beta1", "beta2",
        "grad_clip",  # the optimizer
        "micro_batch", "checkpointing", "precision", "val_batch", "attention",  # memory
        "batch", "text_ratio", "text_ratio_at", "source_at", "mix", "weigh_by", "at_end",
        "image_size_of", "train_slice", "val_slice", "text_train_slice", "text_val_slice",
        "join_sets",  # data
        "steps",  # by --extend
    } == CHANGE  # fmt: skip


@pytest.mark.parametrize("name", FIXED)
def test_every_other_setting_is_refused_by_name(stopped: Path, name: str) -> None:
    before = contents(stopped)
    config = saved_config(stopped)
    asked = replace(config, **{name: another(config, name)})
    with pytest.raises(UsageError) as caught:
        typed = {name: getattr(asked, name), "out": asked.out}
        start(ParsedFlags(asked, typed, True, stage1, "stage1", {}))
    (line,) = str(caught.value).splitlines()
    was, wanted = getattr(config, name), getattr(asked, name)
    assert line.startswith(f"{stopped} ") and "--out" in line
    assert f"{flag_name(name)}: {was} in the run, {wanted} given" in line
    assert contents(stopped) == before


def test_a_run_of_the_other_stage_is_refused(run: Path) -> None:
    typed = ["--out", str(run), "--resume"]
    with pytest.raises(UsageError, match=rf"{run} .*\bstage1\b.*\bstage2\b.*--out"):
        start(parse(typed, stage2, prog="stage2", description=""))


def test_a_run_with_a_name_of_its_own_resumes_without_it(
    inputs: dict[str, str], tmp_path: Path
) -> None:
    run = tmp_path / "run"
    assert train(small_config(inputs, run, steps=2, stop_at=1, eval_every=0, name="mine")) == 0
    with pytest.raises(UsageError, match="--name: mine in the run, stage1 given"):
        resume(run, "--name", "stage1")
    assert resume(run) == 0
    assert saved_config(run).name == "mine" and len(losses(run)) == 2


def test_shards_may_move_to_another_disk(
    inputs: dict[str, str], run: Path, unbroken: Path, tmp_path: Path
) -> None:
    moved = tmp_path / "moved"
    moved.mkdir()
    for path in Path(inputs["shards"]).parent.glob("squares-*"):
        (moved / path.name).write_bytes(path.read_bytes())
    spec = str(moved / "squares-*.tar")
    assert resume(run, "--shards", spec + "[:48]", "--val", spec + "[48:]") == 0
    assert losses(run) == losses(unbroken)


def test_other_validation_samples_are_refused(inputs: dict[str, str], run: Path) -> None:
    with pytest.raises(TrainError, match=r"plan\.json: the shards .*\(squares: "):
        resume(run, "--val", inputs["shards"] + "[49:]")


def test_a_ratio_without_text_is_refused(inputs: dict[str, str], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--text-ratio needs --text"):
        train(small_config(inputs, tmp_path / "run", text_ratio=Fraction(1, 2)))


def test_all_differences_are_named_at_once(run: Path) -> None:
    with pytest.raises(UsageError) as caught:
        resume(run, "--seed", "9", "--gpt-layers", "3", "--workers", "0", "--batch", "4")
    assert "(--seed: 0 in the run, 9 given; --gpt-layers: 2 in the run, 3 given)" in str(
        caught.value
    )


def test_a_run_may_be_moved(run: Path, unbroken: Path, tmp_path: Path) -> None:
    moved = tmp_path / "moved"
    run.rename(moved)
    assert resume(moved) == 0
    assert saved_config(moved).out == str(moved)
    assert losses(moved) == losses(unbroken)
    assert not run.exists()


@pytest.mark.parametrize("text", ["", "{", "[]", "\x00"])
@pytest.mark.parametrize("name", ["config.json", "plan.json"])
def test_a_damaged_file_of_the_run_is_an_error(run: Path, name: str, text: str) -> None:
    (run / name).write_text(text)
    with pytest.raises(TrainError, match=rf"{name}: "):
        resume(run)


def test_a_missing_plan_is_an_error(run: Path) -> None:
    (run / "plan.json").unlink()
    with pytest.raises(TrainError, match=r"plan\.json: .*missing"):
        resume(run)


def test_a_config_of_another_version_is_an_error(run: Path) -> None:
    path = run / "config.json"
    write_sealed(path, json.loads(path.read_text()) | {"version": 99})
    with pytest.raises(UsageError, match=r"version 99\b"):
        resume(run)


def test_a_run_resumes_with_another_thread_count_and_says_so(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.set_num_threads(2)
    assert resume(run, "--stop-at", "3") == 0
    (warned,) = [line for line in capsys.readouterr().out.splitlines() if "last bits" in line]
    assert "threads: 1 then, 2 now" in warned


def test_a_run_folder_in_use_is_refused(inputs: dict[str, str], run: Path, tmp_path: Path) -> None:
    fresh = tmp_path / "fresh"
    fresh.mkdir()
    for folder in (run, fresh):
        before = contents(folder)
        with (
            Lock(folder / ".lock", "a test"),
            pytest.raises(UsageError, match=rf"the run {folder} .*another"),
        ):
            train(small_config(inputs, folder), resume=folder == run)
        assert contents(folder) == before


def test_lines_and_checkpoints_of_a_killed_run_are_removed(run: Path, unbroken: Path) -> None:
    """They are left if a run is killed between a log line and its next checkpoint."""
    with open(run / "metrics.jsonl", "a") as file:
        file.write('{"step": 2, "train/loss": 99.0}\n{"step": 3, "train/lo')
    half = run / "checkpoints" / ".step_000004.tmp"
    half.mkdir()
    (half / "model.safetensors").write_bytes(b"half")
    assert resume(run) == 0
    assert losses(run) == losses(unbroken)
    assert not half.exists()


def test_torchs_random_state_is_restored_from_the_checkpoint(run: Path) -> None:
    """Training itself draws no random numbers, so the state stays as it was restored."""
    found = checkpoint.Checkpoint.open(checkpoint.complete_checkpoints(run)[-1])
    model = bare_model(found.config, found.tokenizer())
    optimizer = build_optimizer(model, found.config)
    found.load_weights(model)
    found.load_optimizer(model, optimizer)
    with torch.random.fork_rng(devices=[]):
        torch.rand(7)
        drawn = torch.get_rng_state()
        checkpoint.save(
            run, found.state, config=found.config, tensors=checkpoint.collect(model, optimizer),
            tokenizer=found.tokenizer(),
        )  # fmt: skip
    assert resume(run, "--stop-at", "4") == 0
    assert torch.equal(torch.get_rng_state(), drawn)
    saved = [
        load_file(folder / "random.safetensors")["cpu"]
        for folder in checkpoint.complete_checkpoints(run)
    ]
    assert len(saved) == 2 and all(torch.equal(state, drawn) for state in saved)


@pytest.mark.parametrize("name", ["model", "optimizer", "random"])
def test_no_checkpoint_is_removed_before_the_newest_is_verified(run: Path, name: str) -> None:
    """A corrupted newest one must not cost the older one, the only one left to resume from."""
    assert resume(run, "--stop-at", "4") == 0
    path = run / "checkpoints" / "step_000004" / f"{name}.safetensors"
    flip(path, path.stat().st_size - 1)
    with pytest.raises(TrainError, match=rf"{path}: checksum .*remove this folder"):
        resume(run, "--keep", "1")
    folders = checkpoint.complete_checkpoints(run)
    assert [folder.name for folder in folders] == ["step_000002", "step_000004"]
    shutil.rmtree(path.parent)
    assert resume(run, "--keep", "1", "--stop-at", "3") == 0


def test_a_surplus_checkpoint_is_removed_when_the_run_is_resumed(
    unbroken: Path, tmp_path: Path
) -> None:
    """It is left if a run is killed between a save and the removal of the oldest checkpoint. Here
    nothing else is saved, since the run has ended."""
    run = Path(shutil.copytree(unbroken, tmp_path / "run"))
    assert [folder.name[-2:] for folder in checkpoint.complete_checkpoints(run)] == [
        "04",
        "08",
        "12",
    ]
    kept = contents(run)
    assert resume(run, "--keep", "2") == 0
    gone = {name for name in kept if name.startswith("checkpoints/step_000004/")}
    assert contents(run).keys() == kept.keys() - gone and gone
    assert [folder.name[-2:] for folder in checkpoint.complete_checkpoints(run)] == ["08", "12"]
