"""Kills a program at a chosen write, fsync or rename of a native library, with strace.

`tests.support.kill` sees only the operations of Python, not those of Arrow and safetensors. Only
the main thread is traced: it does all the writing.
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
"""The name of a system call and its number among the calls of that name, as strace counts."""


def native_points(
    command: Sequence[str], folder: Path, *, scratch: Path, env: Mapping[str, str]
) -> list[Point]:
    """The calls on files below `folder` when the command runs to its end."""
    if shutil.which("strace") is None:
        pytest.skip("the command strace is missing")
    log = scratch / "calls.txt"
    words = ["strace", "-y", "-s", "9", "-o", str(log), "-e", f"trace={CALLS}", *command]
    done = subprocess.run(words, env=dict(env), capture_output=True, text=True, check=False)
    if "ptrace" in done.stderr.lower():
        pytest.skip(f"processes cannot be traced here: {done.stderr[:200]}")
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
    """Run the command and kill it at a point."""
    inject = f"inject={at[0]}:signal=SIGKILL:when={at[1]}"
    words = ["strace", "-qq", "-o", "/dev/null", "-e", f"trace={CALLS}", "-e", inject, *command]
    done = subprocess.run(words, env=dict(env), capture_output=True, text=True, check=False)
    assert done.returncode in (-signal.SIGKILL, 128 + signal.SIGKILL), (at, done.stderr)
