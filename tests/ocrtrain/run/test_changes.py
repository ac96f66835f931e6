"""A run goes on with other settings: from the right step, recorded, and nothing else changes."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch

from ocrdata.errors import TrainError, UsageError
from ocrtrain.data.plan_file import read_parts
from ocrtrain.inspection.rebuild import RebuildRequest, rebuild
from ocrtrain.run import run_log
from ocrtrain.run.changes import FILE, Change, find_changes, read_changes
from ocrtrain.run.launch import start, train
from ocrtrain.run.optimizer import learning_rate
from ocrtrain.settings.config import Config
from ocrtrain.settings.flags import parse
from ocrtrain.settings.presets import stage1
from ocrtrain.settings.saved_config import from_json
from ocrtrain.state import checkpoint
from ocrtrain.state.checkpoint import Checkpoint
from ocrtrain.state.run_files import read_lines, read_sealed, write_sealed
from tests.support.data import losses, make_inputs, small_config

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def ended(inputs: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of six steps that has ended; tests work on copies."""
    run = tmp_path_factory.mktemp("ended") / "run"
    torch.set_num_threads(1)
    assert train(small_config(inputs, run, steps=6, save_every=3, log_samples=True)) == 0
    return run


@pytest.fixture
def run(ended: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(ended, tmp_path / "run"))


def go_on(run: Path, *words: str) -> int:
    """What `python -m ocrtrain.stage1 --out RUN WORDS` does."""
    typed = ["--preset", "tiny", "--out", str(run), "--log-samples", *words]
    return start(parse(typed, stage1, prog="stage1", description=""))


def saved_config(run: Path) -> Config:
    return from_json(read_sealed(run / "config.json"))


def recorded(run: Path) -> list[dict[str, Any]]:
    return list(read_lines(run / "batches.jsonl"))


def rates(run: Path) -> list[float]:
    return [line["train/lr"] for line in run_log.read(run) if "train/loss" in line]


def keys(run: Path, steps: range, source: str = "squares") -> list[str]:
    """The samples of a source in some steps, in order."""
    return [
        f"{shard}:{key}"
        for line in recorded(run)[steps.start : steps.stop]
        for row in line["rows"]
        for name, shard, key in row
        if name == source
    ]


def check_rebuilt(run: Path) -> None:
    for line in recorded(run):
        rebuilt = rebuild(RebuildRequest(run, line["step"]))
        assert rebuilt.recorded == line["identity"] == rebuilt.identity


def test_an_ended_run_is_extended(
    inputs: dict[str, str], run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its batches are those of a run that was planned as long; the old ones stay."""
    before, old_losses = recorded(run), losses(run)
    assert go_on(run, "--extend", "4", "--warmup", "1") == 0
    printed = capsys.readouterr().out
    long = tmp_path / "long"
    assert train(small_config(inputs, long, steps=10, log_samples=True)) == 0
    assert recorded(run) == recorded(long) and recorded(run)[:6] == before
    assert losses(run)[:6] == old_losses and len(losses(run)) == 10
    changed = [(one.step, one.field, one.old, one.new) for one in read_changes(run)]
    assert changed == [
        (6, "steps", 6, 10), (6, "schedule_from", 0, 6), (6, "warmup", 2, 1)
    ]  # fmt: skip
    assert "at step 6: --steps 6 -> 10" in printed
    assert printed.count("at step 6: --steps 6 -> 10") == 2  # when it goes on, and when it ends
    assert (
        rates(run)[6] == saved_config(run).lr == rates(run)[7] > rates(run)[8] > rates(run)[9] > 0
    )
    assert (run / "deepencoder_000010.safetensors").exists()
    assert len(read_parts(run / "plan.json")) == 1
    check_rebuilt(run)


def test_the_optimizer_goes_on_with_its_moments(run: Path) -> None:
    assert go_on(run, "--extend", "3") == 0
    [*_, last] = checkpoint.complete_checkpoints(run)
    moments = Checkpoint.open(last)._tensors("optimizer.safetensors")
    assert {int(value) for name, value in moments.items() if name.startswith("step/")} == {9}


def test_an_extension_typed_again_is_the_one_under_way(run: Path) -> None:
    for stop, steps in ((8, 10), (9, 10), (0, 10), (0, 14)):
        words = ["--stop-at", str(stop)] if stop else []
        assert go_on(run, "--extend", "4", *words) == 0
        assert (len(recorded(run)), saved_config(run).steps) == (stop or steps, steps)
    assert [(c.old, c.new) for c in read_changes(run) if c.field == "steps"] == [(6, 10), (10, 14)]
    assert go_on(run, "--resume", "--steps", "6") == 0  # as it was started
    with pytest.raises(UsageError, match=r"--steps 7: .*\b14 steps.*--extend"):
        go_on(run, "--resume", "--steps", "7")


def test_an_extension_needs_a_run_and_steps(run: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"--extend 3: .*none contains no run.*--out"):
        go_on(tmp_path / "none", "--extend", "3")
    for wrong in ("0", "-1", "2.5"):
        with pytest.raises(UsageError, match=rf"--extend.* {wrong} "):
            go_on(run, "--extend", wrong)
    assert not (run / FILE).exists()


def test_an_extension_whose_source_is_exhausted_is_refused(
    inputs: dict[str, str], tmp_path: Path
) -> None:
    run = tmp_path / "run"
    values: dict[str, Any] = {"shards": (inputs["shards"] + "[:12]",), "at_end": "stop"}
    assert train(small_config(inputs, run, steps=9, log_samples=True, **values)) == 0
    assert len(losses(run)) == 3
    with pytest.raises(UsageError, match=r"squares is exhausted at step 3\b.*--at-end.*--new-data"):
        go_on(run, "--extend", "2")
    assert len(losses(run)) == 3 and read_changes(run) == []
    assert go_on(run, "--extend", "2", "--at-end", "repeat") == 0
    assert len(losses(run)) == 5
    assert sorted(keys(run, range(3))) == sorted({*keys(run, range(3))})
    check_rebuilt(run)


@pytest.mark.parametrize("schedule", ["cosine", "step", "constant"])
def test_a_schedule_begins_anew_where_it_is_told(schedule: str) -> None:
    """From --schedule-from on, rates are those of a run of as many steps; before, of none."""
    whole = Config(steps=30, warmup=4, schedule=schedule, step_every=9)
    later = Config(steps=50, warmup=4, schedule=schedule, step_every=9, schedule_from=20)
    assert [learning_rate(later, 20 + n) for n in range(30)] == [
        learning_rate(whole, n) for n in range(30)
    ]


def test_a_schedule_may_be_stretched_over_the_whole_run(run: Path) -> None:
    assert go_on(run, "--extend", "6", "--schedule-from", "0") == 0
    config = saved_config(run)
    assert rates(run)[6:] == [learning_rate(config, step) for step in range(6, 12)]
    assert rates(run)[6] > rates(run)[5] > 0


def test_memory_settings_may_change(
    inputs: dict[str, str], tmp_path: Path, ended: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    assert train(small_config(inputs, run, steps=6, stop_at=3, log_samples=True)) == 0
    capsys.readouterr()
    words = ["--micro-batch", "1", "--checkpointing", "--val-batch", "3", "--precision", "fp32"]
    assert go_on(run, "--resume", *words) == 0
    printed = capsys.readouterr().out
    assert "last bits from here on: --micro-batch, --checkpointing, --precision" in printed
    assert {(one.step, one.field) for one in read_changes(run)} == {
        (3, "micro_batch"), (3, "checkpointing"), (3, "precision"), (3, "val_batch")
    }  # fmt: skip
    assert recorded(run) == recorded(ended)
    pairs = zip(losses(run), losses(ended), strict=True)
    assert all(abs(one - other) < 1e-4 for (_, one), (_, other) in pairs)
    assert losses(run)[:3] == losses(ended)[:3]


def test_a_micro_batch_need_only_fit_the_run(run: Path) -> None:
    """--batch of the run is 4, that of the preset 16."""
    assert go_on(run, "--resume", "--micro-batch", "3", "--batch", "6", "--extend", "1") == 0
    with pytest.raises(UsageError, match=r"--batch 6 .*--micro-batch 4"):
        go_on(run, "--resume", "--micro-batch", "4")


def test_another_batch_size_goes_on_with_the_next_samples(
    inputs: dict[str, str], run: Path, tmp_path: Path
) -> None:
    """No sample is left out, none drawn twice before its epoch is over."""
    before = recorded(run)
    assert go_on(run, "--extend", "4", "--batch", "6") == 0
    assert recorded(run)[:6] == before
    assert [len(line["rows"]) for line in recorded(run)] == [4] * 6 + [6] * 4
    whole = tmp_path / "whole"
    assert train(small_config(inputs, whole, steps=12, log_samples=True)) == 0
    assert keys(run, range(10)) == keys(whole, range(12))
    assert {*Counter(keys(run, range(10))).values()} == {1}  # 48 samples, an epoch
    assert [part.start for part in read_parts(run / "plan.json")] == [0, 6]
    check_rebuilt(run)
    assert go_on(run, "--extend", "2", "--batch", "3") == 0
    assert [part.start for part in read_parts(run / "plan.json")] == [0, 6, 10]
    assert {*Counter(keys(run, range(10, 12))).values()} == {1}
    check_rebuilt(run)


def test_other_data_are_asked_for(inputs: dict[str, str], run: Path, tmp_path: Path) -> None:
    """A source that goes on does so with its next sample; a new one begins; all is recorded."""
    other = make_inputs(tmp_path)["shards"]
    for path in tmp_path.glob("squares-*"):
        path.rename(path.with_name(path.name.replace("squares", "others")))
    other = other.replace("squares", "others")
    words = ["--extend", "6", "--shards", inputs["shards"] + "[:48]", other + "[:20]"]
    with pytest.raises(TrainError, match=r"plan\.json: .*others: none then, 20 .*--new-data"):
        go_on(run, *words)
    assert not (run / FILE).exists() and len(recorded(run)) == 6
    assert go_on(run, *words, "--new-data", "--val", other + "[50:]") == 0
    data = [one for one in read_changes(run) if "/" in one.field]
    assert [(one.step, one.field) for one in data] == [
        (6, "train/others"), (6, "val/squares"), (6, "val/others")
    ]  # fmt: skip
    assert data[0].old is None and data[0].new["size"] == 20
    assert data[1].describe() == (
        f"at step 6: squares validated on: 12 samples of {data[1].old['spec']} -> nothing"
    )
    shared = keys(run, range(12))
    assert {*Counter(shared).values()} == {1} and len(shared) > 24
    assert keys(run, range(6, 12), "others") and not keys(run, range(6), "others")
    check_rebuilt(run)


def test_changes_after_the_checkpoint_apply_from_it_on(run: Path) -> None:
    """What no checkpoint has trained with is found again."""
    assert go_on(run, "--extend", "6", "--batch", "6", "--lr", "0.01", "--save-every", "0") == 0
    shutil.rmtree(checkpoint.complete_checkpoints(run)[-1])
    shutil.rmtree(checkpoint.complete_checkpoints(run)[-1])
    assert [f.name for f in checkpoint.complete_checkpoints(run)] == ["step_000003"]
    assert go_on(run, "--resume") == 0
    assert {one.step for one in read_changes(run)} == {3}
    assert ("batch", 4, 6) in [(one.field, one.old, one.new) for one in read_changes(run)]
    assert [len(line["rows"]) for line in recorded(run)] == [4] * 3 + [6] * 9
    assert [part.start for part in read_parts(run / "plan.json")] == [0, 3]
    check_rebuilt(run)


def test_a_change_that_was_not_completed_is_made_again(run: Path) -> None:
    """A process killed after plan.json, or after changes.json, leaves nothing to repair."""
    config = (run / "config.json").read_bytes()
    assert go_on(run, "--extend", "2", "--batch", "6", "--stop-at", "6") == 0
    assert len(recorded(run)) == 6
    (run / "config.json").write_bytes(config)
    assert go_on(run, "--resume") == 0  # without the change: as if it had not been asked for
    assert (len(recorded(run)), read_changes(run)) == (6, [])
    assert len(read_parts(run / "plan.json")) == 1
    assert go_on(run, "--extend", "2", "--batch", "6") == 0
    assert [len(line["rows"]) for line in recorded(run)] == [4] * 6 + [6] * 2


def test_a_run_resumed_without_changes_has_no_record_of_any(run: Path) -> None:
    assert go_on(run, "--resume") == 0
    before = {path: path.read_bytes() for path in run.glob("*.json*")}
    assert go_on(run, "--resume") == 0
    assert {path: path.read_bytes() for path in run.glob("*.json*")} == before
    assert not (run / FILE).exists()


def test_the_same_tokenizer_may_lie_elsewhere(
    inputs: dict[str, str], run: Path, tmp_path: Path
) -> None:
    moved = shutil.copy(inputs["tokenizer"], tmp_path / "moved.json")
    assert go_on(run, "--resume", "--tokenizer", str(moved)) == 0
    with pytest.raises(UsageError, match=r"--tokenizer: .*tokenizer\.json in the run, bytes given"):
        go_on(run, "--resume", "--tokenizer", "bytes")
    with pytest.raises(UsageError, match=r"--tokenizer: .* in the run, .*none\.json given"):
        go_on(run, "--resume", "--tokenizer", str(tmp_path / "none.json"))


def test_a_record_that_is_not_intact_is_refused(run: Path) -> None:
    write_sealed(run / FILE, {"version": 2, "changes": []})
    with pytest.raises(TrainError, match=r"changes\.json: .*version 2"):
        read_changes(run)
    write_sealed(run / FILE, {"version": 1, "changes": [{"step": 3}]})
    with pytest.raises(TrainError, match=r"changes\.json: "):
        go_on(run, "--resume")


def test_only_changes_of_the_past_are_kept() -> None:
    earlier = [Change(3, "lr", 1.0, 2.0), Change(6, "lr", 2.0, 3.0), Change(8, "lr", 3.0, 4.0)]
    kept, made = find_changes(earlier, 6, Config(lr=2.0), Config(lr=5.0, workers=0))
    assert made == [Change(6, "lr", 2.0, 5.0)] and kept == [earlier[0], *made]
