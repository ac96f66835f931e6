"""What happens to a sink never ends a run."""

from __future__ import annotations

import importlib.util
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ocrdata.errors import UsageError, UsageErrors
from ocrtrain.run import sinks as module
from ocrtrain.run.sinks import Sinks, check_sinks, chosen_sinks
from ocrtrain.settings.config import Config


class Recorder:
    """A sink that fails from a step on."""

    def __init__(self, breaks_at: int = 100) -> None:
        self.breaks_at, self.steps, self.failed = breaks_at, [], None  # type: ignore[var-annotated]

    def write(self, step: int, values: Any) -> None:
        if step >= self.breaks_at:
            raise BrokenPipeError("gone")
        self.steps.append(step)

    def close(self, *, failed: bool) -> None:
        self.failed = failed


def test_a_sink_that_breaks_is_warned_of_once_and_the_others_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    broken, whole = Recorder(breaks_at=2), Recorder()
    monkeypatch.setattr(module, "TensorBoardSink", lambda *_, **__: broken)
    monkeypatch.setattr(module, "TrackioSink", lambda *_, **__: whole)
    sinks = Sinks(tmp_path, Config(log_to=("tensorboard", "trackio")), step=0)
    for step in range(4):
        sinks.write(step, {"train/loss": 1.0})
    sinks.close(failed=True)
    printed = capsys.readouterr().out
    assert printed.count("WARNING") == 1 and "tensorboard" in printed and "gone" in printed
    assert (broken.steps, broken.failed) == ([0, 1], None)
    assert (whole.steps, whole.failed) == ([0, 1, 2, 3], True)


def test_a_missing_package_is_told_with_the_command_that_installs_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"--log-to trackio: .*pip install trackio"):
        check_sinks(["trackio"])
    with pytest.raises(UsageErrors) as caught:
        check_sinks(["tensorboard", "trackio"])
    assert len(caught.value.messages) == 2
    check_sinks([])


def test_wandb_is_not_chosen_where_it_is_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """By its flag or its variable: then its package need not be there."""
    config = Config(wandb="off", log_to=("wandb", "tensorboard", "wandb"))
    assert chosen_sinks(config) == ["tensorboard"]
    assert chosen_sinks(replace(config, wandb="offline")) == ["wandb", "tensorboard"]
    monkeypatch.setenv("WANDB_MODE", "disabled")
    assert chosen_sinks(replace(config, wandb="auto")) == ["tensorboard"]
    assert chosen_sinks(replace(config, wandb="offline")) == ["wandb", "tensorboard"]
    monkeypatch.setenv("WANDB_MODE", "nonsense")
    with pytest.raises(UsageError, match="WANDB_MODE=nonsense"):
        chosen_sinks(replace(config, wandb="auto"))
    assert chosen_sinks(config) == ["tensorboard"]


def test_a_sink_that_does_not_start_closes_those_that_did(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = Recorder()
    monkeypatch.setattr(module, "TensorBoardSink", lambda *_, **__: opened)
    monkeypatch.setenv("WANDB_MODE", "online")
    monkeypatch.setenv("WANDB_API_KEY", "")
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))
    with pytest.raises(UsageError, match="WANDB_MODE=online"):
        Sinks(tmp_path, Config(log_to=("tensorboard", "wandb")), step=0)
    assert opened.failed is True
