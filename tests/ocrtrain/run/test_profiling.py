"""Traces of steps."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from ocrdata.errors import UsageError
from ocrtrain.run.launch import train
from ocrtrain.run.profiling import profiled_steps
from tests.support.data import losses, small_config

pytestmark = pytest.mark.usefixtures("one_thread")


def test_which_steps_are_profiled() -> None:
    assert profiled_steps("10:13", 4) == range(10, 13)
    assert profiled_steps("3", 4) == range(4, 7)
    assert not profiled_steps("", 4)


@pytest.mark.parametrize("text", ["x", "3:3", "5:2", "1:2:3", "0", "-1", "1:"])
def test_a_range_without_steps_is_an_error(text: str) -> None:
    with pytest.raises(UsageError, match=f"--profile {text}: "):
        profiled_steps(text, 0)


def test_a_profiled_run_has_a_trace_and_the_same_losses(
    inputs: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    values = {"steps": 4, "eval_every": 0, "save_every": 0}
    assert train(small_config(inputs, tmp_path / "plain", **values)) == 0
    assert train(small_config(inputs, tmp_path / "run", profile="1:3", **values)) == 0
    assert losses(tmp_path / "run") == losses(tmp_path / "plain")
    (path,) = (tmp_path / "run").glob("profile*")
    assert str(path) in capsys.readouterr().out
    events = json.loads(gzip.decompress(path.read_bytes()))["traceEvents"]
    updates = [e for e in events if str(e.get("name")).startswith("Optimizer.step#AdamW")]
    assert len(updates) == 2
