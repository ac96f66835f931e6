"""Fills the disk, removes the permission to write, or limits file sizes at chosen points of a
program. The program must end with a clear one-line error, keep earlier data, and complete when
repeated after the cause is removed."""

from __future__ import annotations

import shutil
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.kill import run_refused, undo_refusal

REASONS = {
    "fill": ("no space left", "needed, "),
    "forbid": ("permission",),
    "limit": ("size limit",),
}
"""What the error must contain, by action. The converter compares needed and free space first."""
TITLES = {"fill": "full disk", "forbid": "no permission", "limit": "limit on file sizes"}


@contextmanager
def small_disk(folder: Path, size: str = "24m") -> Iterator[Path]:
    """A file system of its own; skips where none can be mounted."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "none", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"no file system can be mounted here: {done.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def refused_at(
    points: Sequence[int],
    action: str,
    command: Sequence[str],
    *,
    out: Path,
    env: Mapping[str, str],
    go_on: Callable[[], None],
) -> Counter[str]:
    """Run the command once for each point, with the action applied there; count how it ended.

    `go_on` checks that earlier data is intact, repeats the command, compares with an uninterrupted
    one, and removes the output. A command may complete if the action comes near its end.
    """
    if action == "forbid" and shutil.which("setpriv") is None:
        pytest.skip("the command setpriv is missing")
    ends: Counter[str] = Counter()
    for at in points:
        scratch = out.parent.parent / "hook"
        done = run_refused(command, out, action, at=at, scratch=scratch, env=env)
        undo_refusal(out)
        if done.returncode:
            check_error(done, action, at)
        ends["clear error" if done.returncode else "completed"] += 1
        go_on()
    return ends


def check_error(done: subprocess.CompletedProcess[str], action: str, at: int) -> None:
    """Exit status 1 and a one-line error with the reason."""
    assert done.returncode == 1, (action, at, done.returncode, done.stderr)
    lines = [line for line in done.stderr.splitlines() if not line.endswith("B/s)")]
    assert len(lines) == 1, (action, at, done.stderr)
    assert lines[0].startswith("error: ") or " error: " in lines[0], (action, at, lines[0])
    assert any(reason in lines[0] for reason in REASONS[action]), (action, at, lines[0])
