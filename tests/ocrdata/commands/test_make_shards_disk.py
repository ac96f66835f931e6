"""Full disks, missing permissions and size limits: a one-line error, and no incomplete files."""

from __future__ import annotations

import io
import os
import random
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from PIL import Image

from tests.support.hub import Hub
from tests.support.hubdata import FINEVISION, finevision_repository, made_up_rows
from tests.support.shardcommand import TOOL, environment, made, make_shards


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "rows.jsonl"
    line = '{"prompt": "q", "answer": "' + "a" * 2_000 + '"}\n'
    path.write_text(line * 300)
    return path


@contextmanager
def mounted(folder: Path, *options: str) -> Iterator[Path]:
    """A small file system of its own; skips where none can be mounted."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", ",".join(options), "none", str(folder)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip("the command `mount` is missing")
    if done.returncode:
        pytest.skip(f"no file system can be mounted here: {done.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def run(file: Path, out: Path, *more: object) -> subprocess.CompletedProcess[str]:
    words = ["jsonl", "--path", file, "--out", out, "--shard-samples", 100, *more]
    return make_shards(*words, env=environment(file.parent))


def error(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 1, done.stderr
    lines = [line for line in done.stderr.splitlines() if not line.endswith("B/s)")]
    assert len(lines) == 1, done.stderr
    return lines[0]


def test_a_full_disk_is_detected_before_the_start(file: Path, tmp_path: Path) -> None:
    with mounted(tmp_path / "small", "size=600k") as out:
        message = error(run(file, out))
        assert "needed" in message and "--out" in message and "--limit" in message
        assert not list(out.glob("*.tar"))


def noise(seed: int) -> bytes:
    """A PNG of 120 KB, which does not compress further."""
    buffer = io.BytesIO()
    Image.frombytes("RGB", (200, 200), random.Random(seed).randbytes(120_000)).save(buffer, "PNG")
    return buffer.getvalue()


def test_a_disk_that_fills_up_during_the_conversion(tmp_path: Path) -> None:
    rows = [
        {**row, "images": [{"bytes": noise(number), "path": None}]}
        for number, row in enumerate(made_up_rows(60))
    ]
    repository = finevision_repository({"chartqa": rows}, group=5)
    with mounted(tmp_path / "small", "size=16m") as out:

        def fill(number: int) -> None:
            if number == 15:
                disk = os.statvfs(out)
                (out / "ballast").write_bytes(bytes(disk.f_bavail * disk.f_frsize))

        with Hub({FINEVISION: repository}, on_range=fill) as hub:
            words = ["chartqa", "--out", out, "--shard-samples", 10, "--workers", 1]
            env = environment(tmp_path, hub.url)
            assert "no space left" in error(make_shards(*words, env=env))
            assert not [name for name in made(out) if name.endswith(".tmp")]
            (out / "ballast").unlink()
            assert make_shards(*words, env=env).returncode == 0
        assert not [name for name in made(out) if name.startswith(".")]


def test_a_read_only_disk(file: Path, tmp_path: Path) -> None:
    with mounted(tmp_path / "small", "ro") as out:
        for folder in (out, out / "deeper"):
            message = error(run(file, folder))
            assert str(folder) in message and "read-only" in message


def test_a_folder_without_permission(file: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir(mode=0o500)
    if os.access(out, os.W_OK):
        pytest.skip("this user may write anywhere")
    assert "permission" in error(run(file, out))


def test_a_limit_on_file_sizes(file: Path, tmp_path: Path) -> None:
    script = f"ulimit -f 40; exec {sys.executable} {TOOL} jsonl --path {file} --out {tmp_path}/out"
    done = subprocess.run(
        ["bash", "-c", script],
        env=environment(tmp_path),
        capture_output=True,
        text=True,
        check=False,
    )
    assert re.search(r"rows-000\.tar: .*size limit", error(done))
    assert made(tmp_path / "out") == {}
    assert run(file, tmp_path / "out", "--shard-samples", 1024).returncode == 0
    assert sorted(made(tmp_path / "out")) == ["rows-000.index.parquet", "rows-000.tar", "rows.json"]


@pytest.mark.parametrize("deeper", ["", "deeper"])
def test_a_file_where_a_folder_should_be(file: Path, tmp_path: Path, deeper: str) -> None:
    (tmp_path / "out").write_text("")
    message = error(run(file, tmp_path / "out" / deeper))
    assert str(tmp_path / "out") in message and "file" in message and "folder" in message
