"""`tools/plan.py`: the figures of the run that follows, without a GPU."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from ocrdata.errors import UsageError
from ocrtrain.commands import plan
from ocrtrain.run import run_log
from ocrtrain.run.launch import train
from ocrtrain.state.run_files import read_sealed
from tests.support.data import flags, small_config
from tests.support.shardcommand import ROOT


def command(inputs: dict[str, str], out: Path, **values: Any) -> list[str]:
    text = {"text": (inputs["text"] + "[:30]",), "val_text": (inputs["text"] + "[30:]",)}
    return ["--stage", "stage1", *flags(small_config(inputs, out, **{**text, **values}))]


def test_the_run_writes_and_logs_what_was_planned(
    inputs: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.set_num_threads(1)
    out = tmp_path / "run"
    assert plan.main(command(inputs, out)) == 0
    printed = capsys.readouterr().out
    config = plan.read(command(inputs, out))[0].config
    promised = read_sealed(out / "plan.json")
    assert train(config) == 0
    assert read_sealed(out / "plan.json") == promised
    tokens = sum(line.get("train/tokens", 0) for line in run_log.read(out))
    assert tokens == promised["figures"]["tokens"]
    assert "--deepencoder" not in printed, "nothing is missing"
    assert f"{tokens:,} tokens" in printed and f"{tokens:,} tokens" in capsys.readouterr().out
    with pytest.raises(UsageError, match=rf"{out} already contains a run.*--out"):
        plan.main(command(inputs, out))


def test_a_missing_encoder_is_reported(
    inputs: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Stage 2 can be planned before stage 1 has written its encoder file."""
    assert plan.main(command(inputs, tmp_path / "run", freeze=("sam",))) == 0
    assert "will need --deepencoder" in capsys.readouterr().out
    with pytest.raises(UsageError, match="--freeze sam needs --deepencoder"):
        train(small_config(inputs, tmp_path / "other", freeze=("sam",)))


def test_it_needs_neither_weights_nor_a_gpu_and_reads_no_image(
    inputs: dict[str, str], tmp_path: Path
) -> None:
    words = [*command(inputs, tmp_path / "run", init="pretrained", freeze=("sam",)), "--mfu", "0.5"]
    done = subprocess.run(
        [sys.executable, "-W", "error", str(ROOT / "tools" / "plan.py"), *words],
        env={**os.environ, "PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    for text in ("source", "one sample per row", "packed (--pack)", "NVIDIA H100", "at 50% MFU"):
        assert text in done.stdout


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--mfu", "2"], "--mfu 2.0 "),
        (["--stage", "stage3"], "invalid choice: 'stage3'"),
        (["--nonsense"], "unrecognized arguments: --nonsense"),
        ([], "--shards is missing"),
        (["--resume"], "--resume: "),
    ],
)
def test_mistakes_are_one_line(tmp_path: Path, words: list[str], message: str) -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "tools" / "plan.py"), *words],
        env={**os.environ, "PYTHONPATH": str(ROOT)}, cwd=tmp_path,
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert message in done.stderr and len(done.stderr.splitlines()) == 1


def test_packing_may_be_impossible_where_single_rows_are_not(
    inputs: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Three packed rows do not fill a batch of four; unpacked rows do."""
    words = command(inputs, tmp_path / "run", at_end="stop", seq_len=2000, steps=100)
    assert plan.main(words) == 0
    printed = capsys.readouterr().out
    assert "one sample per row" in printed
    assert "packed (--pack): source " in printed and "ends before the first batch" in printed


def test_a_run_that_starts_meanwhile_keeps_its_plan(
    inputs: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, original = tmp_path / "run", plan.describe_gpus

    def begins(*words: Any) -> str:
        out.mkdir()
        (out / "config.json").write_text("{}")
        return original(*words)

    monkeypatch.setattr(plan, "describe_gpus", begins)
    with pytest.raises(UsageError, match=rf"{out} already contains a run.*--out"):
        plan.main(command(inputs, out))
    assert [path.name for path in out.iterdir()] == ["config.json"]
