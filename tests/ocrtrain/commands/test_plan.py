"""`tools/plan.py`: the figures of the run that follows, without a GPU."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from ocrdata.errors import UsageError
from ocrtrain.commands import plan
from ocrtrain.cost import forecast
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
    out, file = tmp_path / "run", tmp_path / "plans" / "mine.json"
    assert plan.main([*command(inputs, out), "--write", str(file)]) == 0
    printed = capsys.readouterr().out
    assert not out.exists()
    config = plan.read(command(inputs, out)).config
    promised = read_sealed(file)
    assert train(config) == 0
    assert read_sealed(out / "plan.json") == promised
    tokens = sum(line.get("train/tokens", 0) for line in run_log.read(out))
    assert tokens == promised["figures"]["tokens"]
    assert "--deepencoder" not in printed, "nothing is missing"
    assert f"{tokens:,} tokens" in printed and f"{tokens:,} tokens" in capsys.readouterr().out
    assert plan.main(command(inputs, out)) == 0, "a plan needs no free run folder"
    assert read_sealed(out / "plan.json") == promised


def test_nothing_is_written_but_token_counts_and_the_cache(
    inputs: dict[str, str], tmp_path: Path
) -> None:
    before = sorted(path for path in tmp_path.parent.rglob("*"))
    assert plan.main(command(inputs, tmp_path / "run")) == 0
    new = {path.name for path in set(tmp_path.parent.rglob("*")) - set(before)}
    # Index blocks are in the cache, unless a test before this one has read the shards.
    assert [name for name in new if ".tokens-" not in name and not name.endswith(".blocks")] == []


def test_the_document_has_the_figures_of_the_plan(
    inputs: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "plan.json"
    words = [*command(inputs, tmp_path / "run", warmup=99), "--mfu", "0.5"]
    assert plan.main([*words, "--json", "--write", str(file)]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["figures"] == read_sealed(file)["figures"]
    assert set(document["rows"]) == {"packed", "one_sample_per_row"}
    assert document["rows"]["one_sample_per_row"]["tokens"] == document["figures"]["tokens"]
    assert document["mfu"] == 0.5 and document["gpus"][0]["hours"] > 0
    assert plan.main(words) == 0
    printed = capsys.readouterr().out
    assert "--warmup 99 is shortened to 11" in printed
    squares, sums = document["orders"]
    assert (squares["source"], squares["shuffle"], squares["block"]) == ("squares", "blocks", 16)
    assert (squares["drawn"], squares["window"], squares["fetch"]) == (48, 48, None)
    for order in (squares, sums):
        (line,) = (line for line in printed.splitlines() if f"order of {order['source']}:" in line)
        assert f" {order['block']} samples" in line and f" {order['window']}," in line


def test_no_other_file_is_replaced(inputs: dict[str, str], tmp_path: Path) -> None:
    other, file, run = tmp_path / "other.json", tmp_path / "plan.json", tmp_path / "run"
    other.write_text("{}")
    run.mkdir()
    (run / "config.json").write_text("{}")
    for path in (other, run / "plan.json"):
        before = sorted(tmp_path.rglob("*"))
        with pytest.raises(UsageError, match=f"^--write {path}"):
            plan.main([*command(inputs, run), "--write", str(path)])
        assert sorted(tmp_path.rglob("*")) == before
    for steps in (12, 13):
        assert plan.main([*command(inputs, run, steps=steps), "--write", str(file)]) == 0
        assert read_sealed(file)["figures"]["steps"] == steps


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
        (["--mfu", "2"], "--mfu: 2 "),
        (["--stage", "stage3"], "invalid choice: 'stage3'"),
        (["--nonsense"], "unrecognized arguments: --nonsense"),
        ([], "--shards is missing"),
        (["--resume"], "--resume, --extend: "),
        (["--steps", "0"], "--steps "),
    ],
)
def test_mistakes_are_told_together(words: list[str], message: str) -> None:
    """Each of these lacks --shards as well."""
    with pytest.raises(UsageError) as caught:
        plan.main(words)
    told = caught.value.messages
    assert any(message in line for line in told)
    assert len(told) == 1 + any("--shards" not in line for line in told)


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
    out, original = tmp_path / "run", forecast.describe_gpus

    def begins(*words: Any) -> str:
        out.mkdir()
        (out / "config.json").write_text("{}")
        return original(*words)

    monkeypatch.setattr(forecast, "describe_gpus", begins)
    with pytest.raises(UsageError, match=rf"--write {out}/plan\.json: .* run"):
        plan.main([*command(inputs, out), "--write", str(out / "plan.json")])
    assert {path.name for path in out.iterdir()} <= {"config.json", ".plan.json.lock"}
