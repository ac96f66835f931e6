"""Conversions that are killed and repeated."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.support.kill import points, run_killed
from tests.support.shardcommand import TOOL, environment, made, make_shards

ZSTD = ("--compress", "zstd")


def command(file: Path, out: Path, workers: int = 1, more: Sequence[str] = ()) -> list[str]:
    return [
        sys.executable, str(TOOL), "jsonl", "--path", str(file), "--out", str(out),
        "--shard-samples", "16", "--workers", str(workers), "--max-reject-fraction", "0.1", *more,
    ]  # fmt: skip


def write_rows(file: Path, count: int = 40) -> None:
    """Write rows, two of which are rejected."""
    rows = [
        {"prompt": f"question {n}", "answer": "" if n in (7, 30) else f"answer {n} " * 50}
        for n in range(count)
    ]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))


def check_names(files: dict[str, bytes], whole: dict[str, bytes]) -> None:
    """Every file with a final name is the same as in an uninterrupted conversion."""
    for name, data in files.items():
        if not name.startswith("."):
            assert data == whole[name], name


@pytest.fixture
def whole(tmp_path: Path) -> tuple[dict[str, bytes], int]:
    """The files of an uninterrupted conversion, and the number of points where it can be killed."""
    return uninterrupted(tmp_path)


def uninterrupted(folder: Path, more: Sequence[str] = ()) -> tuple[dict[str, bytes], int]:
    """See `whole`; `more` is added to the command line."""
    write_rows(folder / "rows.jsonl")
    out = folder / "out"
    words = command(folder / "rows.jsonl", out, more=more)
    found = points(words, out, scratch=folder / "hook", env=environment(folder))
    files = made(out)
    assert len(files) == 8 and not [name for name in files if name.startswith(".")]
    shutil.rmtree(out)
    return files, len(found)


def kill_and_go_on(
    files: dict[str, bytes], at: int, folder: Path, workers: int = 1, more: Sequence[str] = ()
) -> None:
    out = folder / "out"
    words = command(folder / "rows.jsonl", out, workers, more)
    run_killed(
        words,
        out,
        at=at,
        scratch=folder / "hook",
        env=environment(folder),
        group=workers > 1,
    )
    go_on(files, words, out, environment(folder))


def go_on(files: dict[str, bytes], words: Sequence[str], out: Path, env: dict[str, str]) -> None:
    """A stopped conversion has no incomplete files; repeated, it gives the uninterrupted files."""
    check_names(made(out) if out.exists() else {}, files)
    done = make_shards(*words[2:], env=env)
    assert done.returncode == 0, done.stderr
    assert made(out) == files
    shutil.rmtree(out)
