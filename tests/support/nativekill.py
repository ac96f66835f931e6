"""Kills a program at a chosen write, fsync or rename of any library, by strace.

`tests.support.kill` sees what Python does; Arrow and safetensors write by themselves, and only the
kernel sees that. The first thread is watched: it is the one that writes.
"""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

CALLS = "write,writev,fsync,rename"
Point = tuple[str, int]
"""A system call and its number among those of its name, as strace counts."""


def native_points(
    command: Sequence[str], folder: Path, *, scratch: Path, env: Mapping[str, str]
) -> list[Point]:
    """The calls about files below `folder`, of a run to the good end."""
    if shutil.which("strace") is None:
        pytest.skip("there is no strace here")
    log = scratch / "calls.txt"
    words = ["strace", "-y", "-s", "9", "-o", str(log), "-e", f"trace={CALLS}", *command]
    done = subprocess.run(words, env=dict(env), capture_output=True, text=True, check=False)
    if "ptrace" in done.stderr.lower():
        pytest.skip(f"no process can be traced here: {done.stderr[:200]}")
    assert done.returncode == 0, done.stderr
    inside = re.compile(r'[<"]' + re.escape(str(folder)) + "/")
    counts, found = Counter[str](), list[Point]()
    for line in log.read_text(errors="replace").splitlines():
        name, bracket, _ = line.partition("(")
        if bracket:
            counts[name] += 1
            if inside.search(line):
                found.append((name, counts[name]))
    return found


def kill_natively(command: Sequence[str], at: Point, env: Mapping[str, str]) -> None:
    """Run again and kill the process at a point."""
    inject = f"inject={at[0]}:signal=SIGKILL:when={at[1]}"
    words = ["strace", "-qq", "-o", "/dev/null", "-e", f"trace={CALLS}", "-e", inject, *command]
    done = subprocess.run(words, env=dict(env), capture_output=True, text=True, check=False)
    assert done.returncode in (-signal.SIGKILL, 128 + signal.SIGKILL), (at, done.stderr)
