"""The W&B sink, with W&B's own process, offline."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ocrdata.errors import TrainError, UsageError
from ocrtrain.run import wandb_sink
from ocrtrain.run.wandb_sink import WandbSink, is_reachable, wandb_mode
from ocrtrain.settings.config import Config
from tests.support.wandbfile import run_of

DEAD = "http://127.0.0.1:9"  # the port of "discard": nobody listens


@pytest.fixture(autouse=True)
def clean(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No key and no variable of W&B's."""
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))


@pytest.mark.parametrize("failed", [False, True])
def test_the_record_has_the_numbers_and_says_whether_the_run_failed(
    failed: bool, tmp_path: Path
) -> None:
    sink = WandbSink(tmp_path, Config(name="mine", wandb_project="here"), mode="offline")
    sink.write(0, {"train/loss": 2.5})
    sink.write(1, {"train/loss": 1.5})
    sink.close(failed=failed)
    run, history, code = run_of(tmp_path / "wandb")
    assert code == int(failed)
    assert [(line["_step"], line["train/loss"]) for line in history] == [(0, 2.5), (1, 1.5)]
    assert (run.run_id, run.project, run.display_name) == (sink.id, "here", "mine")


def test_variables_count_where_no_flag_is_typed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"PROJECT": "theirs", "NAME": "named", "DIR": str(tmp_path / "dir")}.items():
        monkeypatch.setenv(f"WANDB_{name}", value)
    (tmp_path / "dir").mkdir()
    WandbSink(tmp_path / "run", Config(), mode="offline").close(failed=False)
    run, _, _ = run_of(tmp_path / "dir")
    assert (run.project, run.display_name) == ("theirs", "named")
    assert not (tmp_path / "run").exists()


def test_the_mode_is_the_flags_then_the_variables_then_that_of_the_key(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def mode(flag: str, variable: str = "", key: str = "") -> str:
        for name, value in (("WANDB_MODE", variable), ("WANDB_API_KEY", key)):
            monkeypatch.setenv(name, value)
        return wandb_mode(Config(wandb=flag))

    monkeypatch.setattr(wandb_sink, "is_reachable", lambda url: True)
    assert mode("auto") == "offline"
    assert mode("auto", key="k") == mode("online", "offline", key="k") == "online"
    assert mode("auto", "offline", key="k") == mode("auto", "dryrun", key="k") == "offline"
    assert mode("auto", "disabled", key="k") == mode("off", "online") == "disabled"
    assert mode("offline", "disabled") == "offline"
    with pytest.raises(UsageError, match=r"--wandb online.*WANDB_API_KEY"):
        mode("online")
    with pytest.raises(UsageError, match=r"WANDB_MODE=online.*WANDB_API_KEY"):
        mode("auto", "online")
    with pytest.raises(UsageError, match=r"WANDB_MODE=offlin:.*offline"):
        mode("auto", "offlin")


def test_without_a_network_a_run_begins_within_seconds_offline(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "k" * 40)
    monkeypatch.setenv("WANDB_BASE_URL", DEAD)
    assert wandb_mode(Config()) == "offline"
    assert DEAD in capsys.readouterr().out
    with pytest.raises(TrainError, match=r"--wandb online.*--wandb offline"):
        wandb_mode(Config(wandb="online"))


def test_a_server_that_never_answers_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wandb_sink, "REACH_S", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        began = time.perf_counter()
        assert not is_reachable(f"http://127.0.0.1:{silent.getsockname()[1]}")
        assert time.perf_counter() - began < 3


DIES = """
import os, signal, subprocess, sys
from pathlib import Path
from ocrtrain.run.run_log import RunLog
from ocrtrain.settings.config import Config

log = RunLog(Path(sys.argv[1]), Config(wandb="offline"))
log.write(0, {"train/loss": 3.0})
listed = ["ps", "-o", "pid=", "--ppid", str(os.getpid())]
children = subprocess.run(listed, capture_output=True, text=True).stdout.split()
for child in map(int, children):
    try:
        os.kill(child, int(sys.argv[2]))
        os.waitpid(child, 0)
    except (ProcessLookupError, ChildProcessError):
        pass
log.write(1, {"train/loss": 2.0})
log.write(2, {"train/loss": 1.0})
log.close()
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_wandb_that_dies_costs_a_warning(number: int, tmp_path: Path) -> None:
    arguments = [sys.executable, "-c", DIES, str(tmp_path), str(int(number))]
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.count("WARNING: --log-to wandb") == 1
    assert "Traceback" not in done.stdout + done.stderr
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 3
