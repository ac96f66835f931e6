"""`make_shards.py --tokenizer` that is killed and repeated."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from tests.support.kill import points, run_killed, spread
from tests.support.shardcommand import TOOL, environment, made, make_shards

ROWS = 100


def words(out: Path, *more: object, rows: int = ROWS) -> list[str]:
    fixed = ["sums", "--out", out, "--limit", rows, "--shard-samples", 40, "--workers", 1]
    return [*map(str, fixed), *map(str, more)]


def killed_and_run_again(home: Path, tokenizer: Path, wanted: int) -> None:
    """Kill the command at `wanted` points of the counting; repeated, it gives the same files."""
    out, env = home / "out", environment(home)
    command = [sys.executable, str(TOOL), *words(out, "--tokenizer", tokenizer, rows=70)]
    steps = points(command, out, scratch=home / "hook", env=env)
    whole = made(out)
    assert len(whole) == 7
    counting = [at for at, step in enumerate(steps, 1) if ".tokens-" in step]
    first, last = counting[0], counting[-1]
    assert len(counting) >= 8 and not any("sums.json" in step for step in steps[: last - 1])
    for at in spread(last - first + 1, wanted):
        shutil.rmtree(out)
        run_killed(command, out, at=first - 1 + at, scratch=home / "hook", env=env)
        for name, data in made(out).items():
            assert name.startswith(".") or data == whole[name], (at, name)
        assert "sums.json" not in made(out)
        done = make_shards(*command[2:], env=env)
        assert done.returncode == 0, (at, done.stderr)
        assert made(out) == whole, at
