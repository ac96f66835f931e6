"""Stage 1 as a command, in this process."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from ocrdata.errors import UsageError, UsageErrors
from ocrtrain.model.ocr_model import part_of
from ocrtrain.run import launch, run_log
from ocrtrain.run.trained import load_for_inference
from ocrtrain.settings import presets
from ocrtrain.settings.flags import ParsedFlags, typed
from ocrtrain.settings.saved_config import from_json
from ocrtrain.stage1 import main
from ocrtrain.state.run_files import read_sealed
from tests.support.data import flags, make_inputs, small_config


def test_stage_1_trains_a_tiny_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    inputs = make_inputs(tmp_path)
    run = tmp_path / "run"
    words = flags(small_config(inputs, run, steps=3, eval_every=0, save_every=0))
    assert main(words) == 0
    assert f"done: 3 steps in {run}" in capsys.readouterr().out
    assert (run / "deepencoder_000003.safetensors").is_file()
    config = from_json(read_sealed(run / "config.json"))
    assert (config.name, config.freeze, config.fresh_gpt) == ("stage1", (), False)
    trained = [line for line in run_log.read(run) if "train/loss" in line]
    assert [line["step"] for line in trained] == [0, 1, 2]
    model = load_for_inference(run, torch.device("cpu")).model
    assert all(torch.isfinite(parameter).all() for parameter in model.parameters())
    with pytest.raises(UsageError, match=rf"{run} already .*--resume"):
        main(words)
    assert main([*words, "--resume"]) == 0  # there is nothing left to do


def test_the_recipe_encoder_keeps_a_trained_encoder_and_trains_the_rest(tmp_path: Path) -> None:
    inputs = make_inputs(tmp_path)
    first, second = tmp_path / "first", tmp_path / "second"
    config = small_config(inputs, first, steps=2, eval_every=0, save_every=0)
    words = ["--preset", "tiny", *typed(config, presets.stage1("tiny"))]
    assert main(words) == 0
    recipe = ["--recipe", "encoder", "--init", str(first), "--out", str(second)]
    assert main([*words, *recipe]) == 0
    saved = from_json(read_sealed(second / "config.json"))
    assert (saved.recipe, saved.freeze) == ("encoder", ("sam", "clip"))
    before, after = (load_for_inference(run, torch.device("cpu")).model for run in (first, second))
    kept = {
        part_of(name)
        for (name, one), other in zip(before.named_parameters(), after.parameters(), strict=True)
        if torch.equal(one, other)
    }
    assert kept == {"sam", "clip"}
    assert main(["--out", str(second), "--resume"]) == 0, "what the run saved is enough"


def test_its_presets_are_those_of_stage_1(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[ParsedFlags] = []
    monkeypatch.setattr(launch, "start", lambda flags: started.append(flags) or 0)
    assert main(["--preset", "tiny"]) == 0
    assert started[0].config == presets.stage1("tiny")
    assert started[0].config.name == "stage1" and started[0].config.steps == 400
    with pytest.raises(UsageError, match=r"--preset.*'huge'"):
        main(["--preset", "huge"])


def test_help_and_wrong_flags(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["--help"])
    assert caught.value.code == 0
    shown = capsys.readouterr().out
    assert "train SAM, CLIP, projector and GPT on images." in shown
    assert "python -m ocrtrain.stage1 --preset tiny --shards" in shown, "an example"
    with pytest.raises(UsageError, match="--shard x"):
        main(["--shard", "x"])


def test_what_is_missing_is_told_with_what_is_wrong(tmp_path: Path) -> None:
    gone = [str(tmp_path / name) for name in ("a.json", "b.json", "t.json")]
    with pytest.raises(UsageErrors) as caught:
        main(["--steps", "0", "--stepz", "1", "--shards", gone[0], "--val", gone[1], "--tokenizer",
              gone[2]])  # fmt: skip
    told = caught.value.messages
    assert len(told) == 5
    assert len([line for line in told if line.startswith("--steps ")]) == 1
    for name in ("--stepz 1", *gone):
        assert len([line for line in told if name in line]) == 1, name
