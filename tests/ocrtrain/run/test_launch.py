"""Starting a run: mistakes are found before anything is written, and the overview is printed."""

from __future__ import annotations

import shlex
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import torch

from ocrdata.errors import TrainError, UsageError, UsageErrors
from ocrdata.reading.view import open_shards
from ocrtrain.run import sinks
from ocrtrain.run.launch import settings, train
from ocrtrain.settings.config import Config
from ocrtrain.settings.flags import override, parse
from ocrtrain.settings.presets import stage1
from ocrtrain.settings.saved_config import from_json
from ocrtrain.state import checkpoint
from ocrtrain.state.run_files import read_sealed
from tests.support.data import losses, small_config

pytestmark = pytest.mark.usefixtures("one_thread")


def saved_config(run: Path) -> Config:
    return from_json(read_sealed(run / "config.json"))


@pytest.fixture(scope="module")
def unbroken(inputs: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("unbroken") / "run"
    torch.set_num_threads(1)
    assert train(small_config(inputs, run)) == 0
    return run


def test_a_run_is_not_overwritten_nor_resumed_on_other_shards(
    inputs: dict[str, str], tmp_path: Path
) -> None:
    run = tmp_path / "run"
    config = small_config(inputs, run, stop_at=2)
    assert train(config) == 0
    with pytest.raises(UsageError, match=rf"{run} already .*--resume.*--out"):
        train(config)
    moved = replace(config, shards=(inputs["shards"] + "[:40]",), stop_at=0)
    with pytest.raises(TrainError, match=r"plan\.json: the shards .*\(squares: "):
        train(moved, resume=True)


@pytest.mark.parametrize("shard", ["charts-000.tar", "charts-000.tar.zst"])
def test_a_folder_of_shards_is_no_run_folder(
    inputs: dict[str, str], tmp_path: Path, shard: str
) -> None:
    (tmp_path / shard).write_bytes(b"")
    with pytest.raises(UsageError, match=rf"{tmp_path} .*\({shard}\).*--out") as caught:
        train(small_config(inputs, tmp_path))
    assert "\n" not in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == [shard]


def test_a_damaged_checkpoint_is_refused(inputs: dict[str, str], tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert train(small_config(inputs, run, stop_at=4)) == 0
    path = checkpoint.complete_checkpoints(run)[-1] / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(TrainError, match=r"step_000004/model\.safetensors: "):
        train(small_config(inputs, run), resume=True)


class FakeSink:
    """Records what a run tells it when it ends."""

    def __init__(self) -> None:
        self.ended: list[bool] = []

    def write(self, step: int, values: dict[str, float]) -> None:
        pass

    def close(self, *, failed: bool) -> None:
        self.ended.append(failed)


@pytest.mark.parametrize("failed", [False, True])
def test_a_sink_is_told_whether_the_run_failed(
    inputs: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, failed: bool
) -> None:
    fake = FakeSink()
    monkeypatch.setattr(sinks, "TensorBoardSink", lambda *_, **__: fake)
    config = small_config(inputs, tmp_path / "run", stop_at=2, warmup=0, log_to=("tensorboard",))
    if failed:
        with pytest.raises(TrainError, match="not finite"):
            train(replace(config, lr=1e30, grad_clip=1e30))
    else:
        assert train(config) == 0
    assert fake.ended == [failed]


def test_resume_without_a_checkpoint_starts_at_step_0(
    inputs: dict[str, str], unbroken: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    assert train(small_config(inputs, run, save_every=0), resume=True) == 0
    assert f"{run}: no complete checkpoint yet" in capsys.readouterr().out
    assert losses(run) == losses(unbroken)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"shards": ()}, "--shards is missing"),
        ({"freeze": ("sam",)}, "--freeze sam needs --deepencoder"),
        ({"deepencoder": "nowhere.safetensors"}, "--deepencoder nowhere.safetensors: "),
        ({"tokenizer": "nowhere.json"}, "--tokenizer nowhere.json: "),
        ({"device": "cuda:9"}, "0 CUDA devices"),
        ({"device": "abacus"}, "'abacus'"),
        ({"model": None}, r"\b300\b.*--vocab-size.*\b65537\b"),
    ],
)
def test_mistakes_stop_before_anything_is_written(
    values: dict[str, Any], message: str, inputs: dict[str, str], tmp_path: Path
) -> None:
    config = small_config(inputs, tmp_path / "run")
    if "model" in values:
        values = {"model": replace(config.model, vocab_size=65537)}
    with pytest.raises(UsageError, match=message):
        train(replace(config, **values))
    assert not (tmp_path / "run" / "config.json").exists()


def test_validation_samples_in_the_training_data_are_reported(
    inputs: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = small_config(
        inputs, tmp_path / "run", val=(inputs["shards"] + "[40:50]",), stop_at=1, save_every=0,
        allow_leak=True,
    )  # fmt: skip
    assert train(config) == 0
    assert "WARNING: 8 of the 10 validation samples of squares " in capsys.readouterr().out


def test_an_overview_is_printed_before_training(
    inputs: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = small_config(
        inputs, tmp_path / "run", text=(inputs["text"] + "[:30]",), stop_at=1, save_every=0,
        val_text=(inputs["text"] + "[30:]",),
    )  # fmt: skip
    assert train(config) == 0
    printed = capsys.readouterr().out
    for fact in (
        "an epoch of squares is 18.0 steps", "an epoch of sums is 22.5 steps",
        "12 samples of squares", "10 samples of sums", f"run folder: {tmp_path / 'run'}",
        "step 1 of 12, saved", f"--out {tmp_path / 'run'} --resume",
    ):  # fmt: skip
        assert fact in printed
    assert f"--recipe safe --shards '{inputs['shards']}[:48]'" in " ".join(printed.split())
    assert "M parameters" in printed
    table = {line.split()[0]: line.split() for line in printed.splitlines() if line}
    assert table["squares"][1:4] == ["48", "32", "0.67"]
    assert table["sums"][1:4] == ["30", "16", "0.53"]
    assert table["sums"][7:9] == ["35.7%", "33.3%"]
    warned = "validation samples are also in the training data" in printed
    assert warned == bool(shared(inputs["shards"]))


def shared(spec: str) -> set[bytes]:
    """Images of [48:] that are also in [:48]."""
    every = [sample.images[0] for sample in open_shards(spec)]
    return set(every[:48]) & set(every[48:])


def test_the_settings_that_differ_from_the_preset_are_printed() -> None:
    base = stage1("tiny")
    changes: dict[str, Any] = {"shards": ("a b.tar", "c" * 200), "freeze": ("sam", "clip"),
                               "text_ratio": Fraction(1, 3), "pack": True}  # fmt: skip
    text = settings(override(base, {**changes, "gpt_layers": 9}), base)
    assert all(len(line) <= 100 or " " not in line.strip() for line in text.split("\n"))
    title, words = " ".join(line.strip() for line in text.split("\n")).split(" with ")
    assert "tiny" in title
    typed = parse(["--preset", "tiny", *shlex.split(words)], stage1, prog="", description="")
    assert typed.config == override(base, {**changes, "gpt_layers": 9})
    assert set(typed.given) == {"preset", "gpt_layers", *changes}
    assert "--" not in settings(base, base)


def test_all_that_is_missing_is_told_at_once(inputs: dict[str, str], tmp_path: Path) -> None:
    gone = {name: str(tmp_path / name) for name in ("d.pt", "t.json", "s.json", "v.json")}
    config = small_config(
        inputs, tmp_path / "run", deepencoder=gone["d.pt"], tokenizer=gone["t.json"],
        shards=(gone["s.json"],), val=(gone["v.json"],), device="warp",
    )  # fmt: skip
    with pytest.raises(UsageErrors) as caught:
        train(config)
    assert len(caught.value.messages) == 5
    for fact in (*gone.values(), "'warp'"):
        assert len([line for line in caught.value.messages if fact in line]) == 1
    assert not (tmp_path / "run").exists()
