"""Resharding that is killed with two workers, at points of the whole job, and repeated."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

from tests.support.kill import points, run_killed, spread
from tests.support.results import record
from tests.support.sets import varied, write_samples
from tests.support.shardcommand import ROOT, environment, made, run_tool

pytestmark = pytest.mark.torture

POINTS = 30


@pytest.mark.parametrize("more", [[], ["--compress", "zstd"]], ids=["plain", "zstd"])
def test_killed_at_thirty_points(tmp_path: Path, more: list[str]) -> None:
    specs = [
        write_samples(tmp_path / "in", "one", [varied(number) for number in range(60)]),
        write_samples(
            tmp_path / "in", "two", [varied(number) for number in range(60, 90)], ending=".tar.zst"
        ),
    ]
    out, env = tmp_path / "out", environment(tmp_path)
    flags = ["--name", "new", "--where", "turns > 1 or meta.rating > 1", "--dedupe", "images",
             "--split", "a=0.7,b=0.3", "--shard-samples", "5", *more]  # fmt: skip
    words = [sys.executable, str(ROOT / "tools" / "reshard.py"), *specs, "--out", str(out), *flags]
    steps = points([*words, "--workers", "1"], out, scratch=tmp_path / "hook", env=env)
    whole = made(out)
    assert "new-a.left-out.jsonl" in whole and "new-b.json" in whole
    for workers, count in (("1", len(steps)), ("2", len(steps) // 6)):
        for at in spread(count, POINTS):
            shutil.rmtree(out)
            command = [*words, "--workers", workers]
            run_killed(command, out, at=at, scratch=tmp_path / "hook", env=env, group=True)
            for name, data in made(out).items():
                assert name.startswith(".") or data == whole[name], (workers, at, name)
            done = run_tool("reshard", *command[2:], env=env)
            assert done.returncode == 0, done.stderr
            assert made(out) == whole, (workers, at)
    record("reshard", f"{2 * POINTS} kills {' '.join(more)}: the files of an undisturbed run")
