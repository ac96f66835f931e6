"""Kills a training run at one of its file operations, and resumes it."""

from __future__ import annotations

import os
import subprocess
import sys
from functools import cached_property
from pathlib import Path
from typing import Any

from ocrtrain.run import run_log
from ocrtrain.state import checkpoint
from tests.support.data import flags, make_inputs, small_config
from tests.support.kill import points, run_killed

TIMES = {"train/dt", "train/wait", "train/tok_per_sec"}
TIMED = ("train/time_", "time/")


class Trainer:
    """One command, run whole, killed, and resumed, each in a process of its own."""

    def __init__(self, folder: Path, *, whole: bool = True) -> None:
        self.folder = folder
        self.inputs = make_inputs(folder)
        self.env = {**os.environ, "OMP_NUM_THREADS": "1"}
        self.whole = self.run("whole")
        if whole:
            assert self.resume(self.whole, first=True).returncode == 0

    def run(self, name: str) -> Path:
        """The folder of the run of this name."""
        return self.folder / "runs" / name

    def command(self, run: Path, *more: str) -> list[str]:
        """The command line of a run."""
        config = small_config(self.inputs, run, keep=2)
        return [sys.executable, "-m", "ocrtrain.stage1", *flags(config), *more]

    def resume(self, run: Path, *, first: bool = False) -> subprocess.CompletedProcess[str]:
        """Run to the end, from the start (`first`) or resumed."""
        command = self.command(run, *([] if first else ["--resume"]))
        return subprocess.run(command, env=self.env, capture_output=True, text=True, check=False)

    @cached_property
    def points(self) -> list[str]:
        """The file operations of an unbroken run in its folder, in order."""
        run = self.run("points")
        return points(self.command(run), run, scratch=self.folder / "hook", env=self.env)

    def killed_and_resumed(self, at: int) -> None:
        """Kill a run at a point, resume it, and compare it with the unbroken one."""
        run = self.run(f"killed-{at}")
        run_killed(self.command(run), run, at=at, scratch=self.folder / "hook", env=self.env)
        self.resumed_is_the_same(run)

    def resumed_is_the_same(self, run: Path) -> None:
        """A killed run has no half-written checkpoint, and ends like the unbroken run."""
        for folder in checkpoint.complete_checkpoints(run):
            # No half-written checkpoint ever has a final name.
            found = checkpoint.Checkpoint.open(folder)
            for name in found.files:
                found.read(name)
        done = self.resume(run)
        assert done.returncode == 0, done.stderr
        assert logged(run) == logged(self.whole)
        assert contents(run) == contents(self.whole)


def logged(run: Path) -> list[dict[str, Any]]:
    """The log without times, and without the lines of saving, which hold nothing else: a process
    that is killed after it saved does not write them."""
    lines = [
        {k: v for k, v in line.items() if k not in TIMES and not k.startswith(TIMED)}
        for line in run_log.read(run)
    ]
    return [line for line in lines if line.keys() != {"step"}]


def contents(run: Path) -> dict[str, bytes]:
    """The contents that must be the same after any kill; files that hold times are only listed."""
    differing = {"metrics.jsonl", "config.json", "state.json", "complete"}
    return {
        str(path.relative_to(run)): b"" if path.name in differing else path.read_bytes()
        for path in sorted(run.rglob("*"))
        if path.is_file()
    }
