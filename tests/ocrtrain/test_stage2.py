"""Stage 2 as a command, in this process, on the DeepEncoder of a stage 1."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from ocrdata.errors import UsageError, UsageErrors
from ocrtrain import stage1
from ocrtrain.model.ocr_model import part_of
from ocrtrain.run import run_log
from ocrtrain.run.trained import load_for_inference
from ocrtrain.settings import presets
from ocrtrain.settings.config import Config
from ocrtrain.settings.model_config import PARTS
from ocrtrain.settings.saved_config import from_json
from ocrtrain.stage2 import main
from ocrtrain.state.run_files import read_sealed
from tests.support.data import SMALL_MODEL, flags, make_inputs, small_config

STEPS = 14


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Shards, a tokenizer, and the folder of a run of stage 1."""
    folder = tmp_path_factory.mktemp("inputs")
    found = make_inputs(folder)
    first = folder / "first"
    short = small_config(found, first, steps=3, eval_every=0, save_every=0)
    assert stage1.main(flags(short)) == 0
    return {**found, "first": str(first)}


def words(inputs: dict[str, str], run: Path) -> list[str]:
    """The flags of a fast run; what makes it stage 2 is left to the preset."""
    sizes = [f"--{name.replace('_', '-')}={value}" for name, value in vars(SMALL_MODEL).items()
             if isinstance(value, int)]  # fmt: skip
    return [
        "--preset", "tiny", "--init", "random", "--tokenizer", inputs["tokenizer"], *sizes,
        "--sam-global-layers", "1", "--image-size", "64", "--seq-len", "128", "--wandb", "off",
        "--deepencoder", str(Path(inputs["first"]) / "deepencoder_000003.safetensors"),
        "--shards", inputs["shards"] + "[:48]", "--val", inputs["shards"] + "[48:]",
        "--text", inputs["text"] + "[:30]", "--val-text", inputs["text"] + "[30:]",
        "--steps", str(STEPS), "--batch", "4", "--warmup", "2", "--workers", "0",
        "--seed", "1", "--device", "cpu", "--out", str(run),
    ]  # fmt: skip


def test_stage_2_trains_all_parts_but_sam(inputs: dict[str, str], tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert main(words(inputs, run)) == 0
    config = from_json(read_sealed(run / "config.json"))
    preset = presets.stage2("tiny")
    for name in ("name", "freeze", "fresh_gpt", "schedule", "text_ratio", "lr"):
        assert getattr(config, name) == getattr(preset, name)
    text = [line["mix/sums_share"] for line in run_log.read(run) if "mix/sums_share" in line]
    assert set(text) == {0.0, 1.0} and sum(text) == 5  # 10/28 of 14 steps, whole batches
    last = [line for line in run_log.read(run) if "val/loss" in line][-1]
    assert {"val/squares_loss", "val/sums_loss"} <= set(last)
    before = load_for_inference(Path(inputs["first"]), torch.device("cpu")).model
    after = load_for_inference(run, torch.device("cpu")).model
    moved = {
        part_of(name)
        for name, value in before.named_parameters()
        if not torch.equal(value, after.get_parameter(name))
    }
    assert moved == set(PARTS) - {"sam"}
    assert (run / f"deepencoder_{STEPS:06d}.safetensors").is_file()


def test_stage_2_needs_the_encoder_of_stage_1(inputs: dict[str, str], tmp_path: Path) -> None:
    asked = words(inputs, tmp_path / "run")
    at = asked.index("--deepencoder")
    with pytest.raises(UsageError, match="--freeze sam needs --deepencoder"):
        main(asked[:at] + asked[at + 2 :])
    assert not (tmp_path / "run").exists()


def test_the_full_preset_is_the_default(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UsageError, match="--shards is missing"):
        main(["--out", str(tmp_path / "run")])
    assert Config().batch != presets.stage2().batch  # so that the next line can tell
    with pytest.raises(SystemExit, match="0"):
        main(["--help"])
    shown = " ".join(capsys.readouterr().out.split())
    assert f"a row is one sample (default: {presets.stage2().batch})" in shown
    with pytest.raises(UsageErrors) as caught:
        main(["--text-ratio", "some"])
    told = caught.value.messages
    assert [word for word in ("--text-ratio", "--shards", "--deepencoder") if not any(
        word in line for line in told)] == []  # fmt: skip
