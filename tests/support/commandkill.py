"""`make_shards.py --tokenizer` that is killed and repeated."""

from __future__ import annotations

import re
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
    """Kill the command at `wanted` points of the counting, and once or more while it writes the
    list of counts; repeated, it gives the same files."""
    out, env = home / "out", environment(home)
    command = [sys.executable, str(TOOL), *words(out, "--tokenizer", tokenizer, rows=70)]
    steps = points(command, out, scratch=home / "hook", env=env)
    whole = made(out)
    assert len(whole) == 8
    counting = [at for at, step in enumerate(steps, 1) if re.search(r"sums-00.\.tokens-", step)]
    listing = [
        at for at in range(counting[-1] + 1, len(steps) + 1) if "sums.tokens-" in steps[at - 1]
    ]
    first, last = counting[0], counting[-1]
    assert len(counting) >= 8 and not any("sums.json" in step for step in steps[: last - 1])
    assert len(listing) >= 5
    listing = listing if wanted > len(listing) else listing[2:3]
    for at in [*(first - 1 + at for at in spread(last - first + 1, wanted)), *listing]:
        shutil.rmtree(out)
        run_killed(command, out, at=at, scratch=home / "hook", env=env)
        for name, data in made(out).items():
            assert name.startswith(".") or data == whole[name], (at, name)
        assert ("sums.json" in made(out)) is (at in listing)
        done = make_shards(*command[2:], env=env)
        assert done.returncode == 0, (at, done.stderr)
        assert made(out) == whole, at
