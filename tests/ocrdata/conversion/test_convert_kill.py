"""Conversions that are killed with SIGKILL, repeated, and compared with an uninterrupted one."""

from __future__ import annotations

from pathlib import Path

from tests.support.convertkill import (
    ZSTD,
    check_names,
    command,
    kill_and_go_on,
    uninterrupted,
    whole,
)
from tests.support.kill import run_killed, spread
from tests.support.shardcommand import environment, made, make_shards

__all__ = ["whole"]  # the fixture

POINTS = 8


def test_killed_at_eight_points(whole: tuple[dict[str, bytes], int], tmp_path: Path) -> None:
    files, count = whole
    for at in spread(count, POINTS):
        kill_and_go_on(files, at, tmp_path)


def test_a_compressed_conversion_killed_at_four_points(tmp_path: Path) -> None:
    files, count = uninterrupted(tmp_path, ZSTD)
    assert [name for name in files if name.endswith(".tar.zst")]
    for at in spread(count, 4):
        kill_and_go_on(files, at, tmp_path, more=ZSTD)


def test_killed_twice(whole: tuple[dict[str, bytes], int], tmp_path: Path) -> None:
    files, count = whole
    out = tmp_path / "out"
    words = command(tmp_path / "rows.jsonl", out)
    for at in (count * 2 // 3, 12):
        run_killed(words, out, at=at, scratch=tmp_path / "hook", env=environment(tmp_path))
        check_names(made(out), files)
    assert make_shards(*words[2:], env=environment(tmp_path)).returncode == 0
    assert made(out) == files
